"""``tape_eval.py ... --predict FILE``."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tape import TAPETokenizer
from tape.errors import CheckpointError, ConfigError, DataError
from tape.main import run_eval, run_train
from tape.registry import registry

SEQUENCES = {"sp|P1|a b": "ACDEFGHIKLMNPQRSTVWY", "second": "MNPQ", "third": "WYACDEFGHI"}


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("fasta") / "some.fasta"
    path.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in SEQUENCES.items()))
    return path


@pytest.fixture
def finetuned(tmp_path: Path, small_config: Path) -> Callable[[str], Path]:
    """A directory with a task's model."""

    def make(task: str) -> Path:
        torch.manual_seed(5)
        registry.get_task_model("transformer", task, small_config, **_labels(task)).save_pretrained(tmp_path / task)
        return tmp_path / task

    return make


def _labels(task: str) -> dict[str, int]:
    return {"num_labels": registry.get_task_spec(task).num_labels}


def predict(task: str, model: Path, fasta: Path, *options: object) -> dict[str, float]:
    words = ["transformer", task, str(model), "--predict", str(fasta), "--log_level", "40", *map(str, options)]
    return run_eval(words)


def alone(task: str, model: Path, sequence: str) -> torch.Tensor:
    """The output of the model for a single protein."""
    loaded = registry.get_task_spec(task).get_model("transformer").from_pretrained(model)
    with torch.no_grad():
        output: torch.Tensor = loaded(torch.from_numpy(TAPETokenizer().encode(sequence))[None])[0][0]
    return output


def test_values_are_predicted_in_the_order_of_the_file(finetuned: Callable[[str], Path], fasta: Path) -> None:
    model = finetuned("stability")
    assert predict("stability", model, fasta, "--batch_size", 2) == {"proteins": 3.0}
    rows = list(csv.DictReader((model / "predictions_some.csv").read_text().splitlines()))
    assert [row["length"] for row in rows] == ["20", "4", "10"]  # in the order of the file, independent of the batches
    for row, sequence in zip(rows, SEQUENCES.values(), strict=True):
        assert float(row["prediction"]) == pytest.approx(alone("stability", model, sequence).item(), rel=1e-4)


def test_the_table_of_the_proteins_is_not_replaced(finetuned: Callable[[str], Path], tmp_path: Path) -> None:
    (tmp_path / "my.csv").write_text("id,sequence,Tm\na,MKV,57.5\n")
    with pytest.raises(ConfigError, match=r"--predict_out .*my\.csv: is also the input"):
        predict("stability", finetuned("stability"), tmp_path / "my.csv", "--predict_out", tmp_path / "my.csv")
    assert "57.5" in (tmp_path / "my.csv").read_text()


def test_repeated_ids_are_announced(
    finetuned: Callable[[str], Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "twice.fasta").write_text(">a\nMKV\n>b\nMKVL\n>a\nMK\n")
    model = finetuned("stability")
    predict("stability", model, tmp_path / "twice.fasta")
    assert "twice.fasta: 1 ids occur more than once, such as 'a'; predictions are in the order" in caplog.text
    rows = list(csv.DictReader((model / "predictions_twice.csv").read_text().splitlines()))
    assert [(row["id"], row["length"]) for row in rows] == [("a", "3"), ("b", "4"), ("a", "2")]


def test_an_untrained_model_causes_a_warning(
    fasta: Path, small_config: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = ["--model_config_file", str(small_config), "--log_level", "40"]
    saved = run_train(["transformer", "stability", *options, "--force_save", str(tmp_path / "random")])
    predict("stability", saved, fasta, "--log_level", "30")
    assert "random/0: saved by --force_save before any training on stability: its head has random" in caplog.text
    words = ["transformer", "stability", "--from_pretrained", str(saved), "--log_level", "40"]
    predict("stability", run_train([*words, "--force_save", str(tmp_path / "again")]), fasta, "--log_level", "30")
    assert f"again/0: saved by --force_save before any training on stability: a head that {saved} lacks" in caplog.text


def test_protein_classes_are_predicted_with_probabilities(
    finetuned: Callable[[str], Path], fasta: Path, tmp_path: Path
) -> None:
    model, out = finetuned("remote_homology"), tmp_path / "rh.json"
    predict("remote_homology", model, fasta, "--predict_out", out)
    written = json.loads(out.read_text())
    assert (written["schema"], written["version"], written["task"]) == ("proteinlm-predictions", 1, "remote_homology")
    for row, sequence in zip(written["predictions"], SEQUENCES.values(), strict=True):
        chances = alone("remote_homology", model, sequence).softmax(-1)
        assert row["prediction"] == int(chances.argmax())
        assert row["probability"] == pytest.approx(chances.max().item(), abs=1e-4)
        assert len(row["probabilities"]) == 1195


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_residue_classes_are_one_letter_per_residue(
    suffix: str, finetuned: Callable[[str], Path], fasta: Path, tmp_path: Path
) -> None:
    model, out = finetuned("secondary_structure"), tmp_path / f"ss{suffix}"
    predict("secondary_structure", model, fasta, "--predict_out", out)
    if suffix == ".json":
        rows = json.loads(out.read_text())["predictions"]
        strands = [[chances[1] for chances in row["probabilities"]] for row in rows]
    else:
        rows = list(csv.DictReader(out.read_text().splitlines()))
        assert list(rows[0]) == ["id", "length", "prediction", "probability_H", "probability_E", "probability_C"]
        strands = [[float(number) for number in row["probability_E"].split()] for row in rows]
    for row, strand, (name, sequence) in zip(rows, strands, SEQUENCES.items(), strict=True):
        assert row["id"] == name.split()[0]
        chances = alone("secondary_structure", model, sequence)[1:-1].softmax(-1)
        assert row["prediction"] == "".join("HEC"[number] for number in chances.argmax(-1))
        assert strand == pytest.approx(chances[:, 1].tolist(), abs=1e-4)


def test_a_stop_at_the_end_is_removed(finetuned: Callable[[str], Path], tmp_path: Path) -> None:
    model, file = finetuned("secondary_structure"), tmp_path / "stop.fasta"
    file.write_text(">a\nMKVLA*\n")
    predict("secondary_structure", model, file)
    (row,) = csv.DictReader((model / "predictions_stop.csv").read_text().splitlines())
    chances = alone("secondary_structure", model, "MKVLA")[1:-1].softmax(-1)
    assert (row["length"], row["prediction"]) == ("5", "".join("HEC"[number] for number in chances.argmax(-1)))
    file.write_text(">a\nMK-LA*\n")
    with pytest.raises(DataError, match=r"stop\.fasta, record 1 \(a\): unknown residue '-' at position 3") as refused:
        predict("secondary_structure", model, file)
    assert "labeled" not in str(refused.value)


def test_contact_maps_are_written_as_arrays_and_images(
    finetuned: Callable[[str], Path], fasta: Path, tmp_path: Path
) -> None:
    model, out = finetuned("contact_prediction"), tmp_path / "cc.csv"
    predict("contact_prediction", model, fasta, "--predict_out", out)
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert rows[0]["map"] == "cc_maps/000000_sp_P1_a.npz"  # no path outside the folder
    for row, sequence in zip(rows, SEQUENCES.values(), strict=True):
        with np.load(tmp_path / row["map"]) as arrays:
            assert str(arrays["sequence"]) == sequence
            found = arrays["probabilities"]
        expected = alone("contact_prediction", model, sequence).softmax(-1)[..., 1].numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert int(row["contacts"]) == int((np.triu(expected, 6) > 0.5).sum())
        assert (tmp_path / row["map"]).with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_long_proteins_are_refused_cropped_or_predicted_in_windows(
    finetuned: Callable[[str], Path], tmp_path: Path
) -> None:
    (tmp_path / "long.fasta").write_text(">long\n" + "ACDEFGHIKL" * 9 + "\n")
    model, out = finetuned("secondary_structure"), tmp_path / "o.csv"
    with pytest.raises(DataError, match=r"long\.fasta, record 1 \(long\): 90 residues, .* --length crop"):
        predict("secondary_structure", model, tmp_path / "long.fasta")
    for policy, length in (("crop", 62), ("window", 90)):
        predict("secondary_structure", model, tmp_path / "long.fasta", "--length", policy, "--predict_out", out)
        row = next(csv.DictReader(out.read_text().splitlines()))
        assert (int(row["length"]), len(row["prediction"])) == (length, length)


def test_tasks_and_models_without_predictions_are_refused(
    finetuned: Callable[[str], Path], fasta: Path, tmp_path: Path
) -> None:
    model = finetuned("masked_language_modeling")
    with pytest.raises(ConfigError, match="masked_language_modeling does not"):
        predict("masked_language_modeling", model, fasta)
    with pytest.raises(CheckpointError, match="no trained weights of the stability model"):
        predict("stability", model, fasta)
    with pytest.raises(ConfigError, match=r"ends in \.csv or \.json"):
        predict("stability", model, fasta, "--predict_out", tmp_path / "x.txt")
    with pytest.raises(
        ConfigError, match=r"--predict_out .*x\.csv: .* is a file"
    ):  # raised before anything is computed
        predict("stability", model, fasta, "--predict_out", fasta / "x.csv")


def test_contact_maps_without_matplotlib_have_no_pictures_with_a_notice(
    finetuned: Callable[[str], Path], fasta: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    model = finetuned("contact_prediction")
    predict("contact_prediction", model, fasta, "--log_level", "30")
    assert {path.suffix for path in (model / "predictions_some_maps").iterdir()} == {".npz"}
    assert "without pictures, which need matplotlib: pip install 'proteinlm[plots]'" in caplog.text
