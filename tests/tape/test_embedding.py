"""``tape-embed``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tape import ProteinBertModel, TAPETokenizer
from tape.errors import CheckpointError, ConfigError, DataError
from tape.main import run_embed
from tape.registry import registry

SEQUENCES = {"first": "ACDEFGHIKL", "second": "MNP", "file": "QRSTVWYAC"}  # `file` is an argument's name in numpy


@pytest.fixture
def model_directory(tmp_path: Path, small_config: Path) -> Path:
    torch.manual_seed(3)
    registry.get_task_model("transformer", "embed", small_config).save_pretrained(tmp_path / "model")
    return tmp_path / "model"


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "a.fasta"
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in SEQUENCES.items()))
    return path


def states_of(model_directory: Path, sequence: str) -> tuple[np.ndarray, np.ndarray]:
    model = ProteinBertModel.from_pretrained(model_directory)
    with torch.no_grad():
        states, pooled, *_ = model(torch.from_numpy(TAPETokenizer().encode(sequence))[None])
    return states[0].numpy(), pooled[0].numpy()


def test_mean_over_residues_and_state_of_cls(model_directory: Path, fasta: Path, tmp_path: Path) -> None:
    path = run_embed(["transformer", str(fasta), str(tmp_path / "out"), str(model_directory), "--batch_size", "2"])
    assert path == tmp_path / "out.npz"
    with np.load(path, allow_pickle=True) as arrays:
        assert arrays.files == list(SEQUENCES)
        for name, sequence in SEQUENCES.items():
            found = arrays[name].item()
            states, pooled = states_of(model_directory, sequence)
            assert set(found) == {"pooled", "avg"}
            # defect 22: <cls> and <sep> are no part of the mean, and the states are normalised
            np.testing.assert_allclose(found["avg"], states[1:-1].mean(0), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found["pooled"], pooled, rtol=1e-4, atol=1e-5)
            assert found["pooled"].std() == pytest.approx(1.0, abs=0.05)


def test_all_states(model_directory: Path, fasta: Path, tmp_path: Path) -> None:
    path = run_embed(
        ["transformer", str(fasta), str(tmp_path / "o.npz"), str(model_directory), "--full_sequence_embed"]
    )
    with np.load(path, allow_pickle=True) as arrays:
        found = arrays["second"].item()
    np.testing.assert_allclose(found["seq"], states_of(model_directory, "MNP")[0], rtol=1e-4, atol=1e-5)


def test_the_folder_is_looked_at_before_anything_is_computed(
    model_directory: Path, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: object) -> None:
        raise AssertionError("computed first")

    monkeypatch.setattr("tape.embedding.embed", too_late)
    (tmp_path / "taken.npz").mkdir()
    for name, message in (("gone/o", "gone: no such directory to write o.npz"), ("taken.npz", "can't be written")):
        with pytest.raises(ConfigError, match=message):
            run_embed(["transformer", str(fasta), str(tmp_path / name), str(model_directory)])


def test_one_id_twice_is_refused(model_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "b.fasta").write_text(">x\nAC\n>x\nAD\n")
    with pytest.raises(DataError, match=r"b\.fasta: two proteins have the id 'x'"):
        run_embed(["transformer", str(tmp_path / "b.fasta"), str(tmp_path / "o"), str(model_directory)])


def test_too_long_and_missing(model_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "b.fasta").write_text(">x\nAC\n>long\n" + "A" * 63 + "\n")
    words = ["transformer", str(tmp_path / "b.fasta"), str(tmp_path / "o")]
    with pytest.raises(
        DataError, match=r"b\.fasta, record 2 \(long\): 63 residues, but the model has positions for 62"
    ):
        run_embed([*words, str(model_directory)])
    with pytest.raises(CheckpointError, match="no such model directory"):
        run_embed([*words, str(tmp_path / "gone")])
