"""``tape-embed``."""

from __future__ import annotations

import fcntl
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tape import ProteinBertModel, TAPETokenizer
from tape.commands import embed_command
from tape.errors import CheckpointError, ConfigError, DataError
from tape.inference.embed import _embeddings
from tape.inference.embedding_files import check_identifiers, embeddings_file
from tape.inference.embedding_hdf5 import sequence_hash
from tape.inference.embedding_journal import EmbeddingJournal
from tape.main import run_embed
from tape.registry import registry
from tape.runtime.run_lock import lock_beside
from tests.support.run_locks import locked_by_another

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


def test_a_changed_model_is_loaded_only_without_verification(
    model_directory: Path, fasta: Path, tmp_path: Path
) -> None:
    file = model_directory / "provenance.json"
    file.write_text("{}")
    lines = (model_directory / "SHA256SUMS").read_text()
    (model_directory / "SHA256SUMS").write_text(lines + f"{'0' * 64}  provenance.json\n")
    words = ["transformer", str(fasta), str(tmp_path / "out"), str(model_directory)]
    with pytest.raises(CheckpointError, match=r"provenance\.json: damaged, or changed .* --no-verify"):
        run_embed(words)
    assert run_embed([*words, "--no-verify"]).is_file()


def test_mean_over_residues_and_state_of_cls(model_directory: Path, fasta: Path, tmp_path: Path) -> None:
    path = run_embed(["transformer", str(fasta), str(tmp_path / "out"), str(model_directory), "--batch_size", "2"])
    assert path == tmp_path / "out.npz"
    with np.load(path, allow_pickle=True) as arrays:
        assert arrays.files == list(SEQUENCES)
        for name, sequence in SEQUENCES.items():
            found = arrays[name].item()
            states, pooled = states_of(model_directory, sequence)
            assert set(found) == {"pooled", "avg"}
            # bug 22 in docs/compatibility.md: the mean excludes <cls> and <sep>, and the states are normalized
            np.testing.assert_allclose(found["avg"], states[1:-1].mean(0), rtol=1e-4, atol=1e-5)
            np.testing.assert_allclose(found["pooled"], pooled, rtol=1e-4, atol=1e-5)
            assert found["pooled"].std() == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_protein_has_the_same_digits_alone_and_in_a_batch(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    states, pooled, tokens = torch.randn(3, 40, 24).to(dtype), torch.randn(3, 16).to(dtype), [40, 31, 3]
    for full_sequence in (True, False):
        found = _embeddings(states, pooled, tokens, full_sequence)
        for row, (kept, vector) in enumerate(found):
            own = states[row, : tokens[row]].float()
            expected = own if full_sequence else own[1:-1].mean(0, keepdim=True)
            assert kept.dtype == vector.dtype == np.float32
            np.testing.assert_array_equal(kept, expected.numpy(), strict=True)
            np.testing.assert_array_equal(vector, pooled[row].float().numpy(), strict=True)


def test_full_sequence_embeddings_are_the_states_of_all_tokens(
    model_directory: Path, fasta: Path, tmp_path: Path
) -> None:
    path = run_embed(
        ["transformer", str(fasta), str(tmp_path / "o.npz"), str(model_directory), "--full_sequence_embed"]
    )
    with np.load(path, allow_pickle=True) as arrays:
        found = arrays["second"].item()
    states, pooled = states_of(model_directory, "MNP")
    assert list(found) == ["pooled", "seq"]
    np.testing.assert_allclose(found["seq"], states, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["pooled"], pooled, rtol=1e-4, atol=1e-5)


def test_a_stop_at_the_end_is_removed(model_directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    files = {}
    for name, ends in (("with", ("*", "**")), ("without", ("", ""))):
        (tmp_path / f"{name}.fasta").write_text(f">a\nMKVLA{ends[0]}\n>b\nACD{ends[1]}\n")
        words = ["transformer", str(tmp_path / f"{name}.fasta"), str(tmp_path / name), str(model_directory)]
        with np.load(run_embed([*words, "--full_sequence_embed"]), allow_pickle=True) as arrays:
            files[name] = {key: arrays[key].item()["seq"] for key in arrays.files}
    assert [len(states) for states in files["with"].values()] == [7, 5]
    for key, states in files["without"].items():
        np.testing.assert_array_equal(files["with"][key], states)
    warnings = [record.getMessage() for record in caplog.records if "characters replaced" in record.getMessage()]
    assert len(warnings) == 1
    assert warnings[0].endswith("with.fasta: stop_removed 3")


def test_the_output_path_is_checked_before_computing(
    model_directory: Path, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_late(*_: object) -> None:
        raise AssertionError("computed first")

    monkeypatch.setattr("tape.inference.embed.embed", too_late)
    (tmp_path / "taken.npz").mkdir()
    for name, message in (
        ("gone/o", "gone: no such directory to write o.npz"),
        ("taken.npz", "taken.npz: is a directory"),
    ):
        with pytest.raises(ConfigError, match=message):
            run_embed(["transformer", str(fasta), str(tmp_path / name), str(model_directory)])


@pytest.mark.parametrize("name", ["o.csv", "o.pt", "o.PKL", "o.npy", "o.avro", "o.xlsx", "o.zst", "o.H5"])
def test_an_output_name_with_an_unknown_suffix_is_refused(
    name: str, model_directory: Path, fasta: Path, tmp_path: Path
) -> None:
    before = set(tmp_path.iterdir())
    refused = (
        rf"{name}: can't write embeddings as \.{name[2:]}; give a name that ends in \.npz .*, \.h5, \.hdf5 or \.parquet"
    )
    with pytest.raises(ConfigError, match=refused):
        run_embed(["transformer", str(fasta), str(tmp_path / name), str(model_directory)])
    assert set(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("name", "written"), [("o", "o.npz"), ("run.v2", "run.v2.npz"), ("o.npz", "o.npz"), ("pfam-32.0", "pfam-32.0.npz")]
)
def test_npz_is_appended_to_other_names_as_in_tape(name: str, written: str, tmp_path: Path) -> None:
    assert embeddings_file(tmp_path / name) == tmp_path / written


def test_two_commands_do_not_write_the_same_file(model_directory: Path, fasta: Path, tmp_path: Path) -> None:
    words = ["transformer", str(fasta), str(tmp_path / "o.npz"), str(model_directory)]
    before = set(tmp_path.iterdir())
    with locked_by_another(lock_beside(tmp_path / "o.npz")) as owner:
        with pytest.raises(ConfigError, match=rf"o\.npz: in use by process {owner} .*choose another output file"):
            run_embed(words)
    assert sorted(set(tmp_path.iterdir()) - before) == [lock_beside(tmp_path / "o.npz")]


def test_a_duplicate_id_is_refused(model_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "b.fasta").write_text(">x\nAC\n>x\nAD\n")
    with pytest.raises(DataError, match=r"b\.fasta: two proteins have the id 'x'"):
        run_embed(["transformer", str(tmp_path / "b.fasta"), str(tmp_path / "o"), str(model_directory)])


def test_ids_that_npz_does_not_distinguish_are_refused(tmp_path: Path) -> None:
    check_identifiers(tmp_path / "x.npz", ["a", "b.npy"], "x.fasta")
    check_identifiers(tmp_path / "x.h5", ["a", "a.npy"], "x.fasta")
    with pytest.raises(DataError, match=r"x\.fasta: has the ids 'a' and 'a\.npy', which an \.npz file can't hold both"):
        check_identifiers(tmp_path / "x.npz", ["a.npy", "a"], "x.fasta")


def test_proteins_without_id_do_not_collide_with_numbers(model_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"id": "1", "text": "MK"}\n{"text": "LLA"}\n{"text": "GG"}\n')
    out = run_embed(["transformer", str(tmp_path / "x.jsonl"), str(tmp_path / "out"), str(model_directory)])
    with np.load(out, allow_pickle=True) as arrays:
        assert sorted(arrays.files) == ["1", "2", "unnamed_1"]
        np.testing.assert_allclose(arrays["1"][()]["pooled"], states_of(model_directory, "MK")[1], atol=1e-5)


@pytest.mark.parametrize(
    ("options", "ids"),
    [(("--sequence_column", "sequence"), ["p1"]), (("--sequence-column", "sequence", "--id-column", "acc"), ["Q1"])],
)
def test_columns_are_named(model_directory: Path, tmp_path: Path, options: tuple[str, ...], ids: list[str]) -> None:
    (tmp_path / "x.csv").write_text("id,acc,text,sequence\np1,Q1,of a protein,MK\n")
    words = ["transformer", str(tmp_path / "x.csv"), str(tmp_path / "out"), str(model_directory)]
    with pytest.raises(DataError, match="'text' and 'sequence' may both be the sequence"):
        run_embed(words)
    with np.load(run_embed([*words, *options]), allow_pickle=True) as arrays:
        assert arrays.files == ids


def test_a_pipe_is_embedded(model_directory: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    writer = threading.Thread(target=(tmp_path / "pipe").write_bytes, args=(b"sequence,id\nMK,a\n",))
    writer.start()
    words = ["transformer", str(tmp_path / "pipe"), str(tmp_path / "out"), str(model_directory), "--format", "csv"]
    with np.load(run_embed(words), allow_pickle=True) as arrays:
        assert arrays.files == ["a"]
    writer.join()


def test_too_long_proteins_and_missing_models_are_refused(model_directory: Path, tmp_path: Path) -> None:
    (tmp_path / "b.fasta").write_text(">x\nAC\n>long\n" + "A" * 63 + "\n")
    words = ["transformer", str(tmp_path / "b.fasta"), str(tmp_path / "o")]
    with pytest.raises(
        DataError, match=r"b\.fasta, record 2 \(long\): 63 residues, but the model has positions for 62"
    ):
        run_embed([*words, str(model_directory)])
    with pytest.raises(CheckpointError, match="no such model directory"):
        run_embed([*words, str(tmp_path / "gone")])


@pytest.mark.parametrize("full", [False, True])
def test_hdf5_has_a_data_set_per_protein(full: bool, model_directory: Path, fasta: Path, tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    options = ["--full_sequence_embed"] if full else []
    path = run_embed(["transformer", str(fasta), str(tmp_path / "o.h5"), str(model_directory), *options])
    with h5py.File(path) as file:
        assert [file[name].attrs["original_id"] for name in file] == list(SEQUENCES)
        for sequence in SEQUENCES.values():
            states = states_of(model_directory, sequence)[0][1:-1]
            expected = states if full else states.mean(0)
            np.testing.assert_allclose(file[sequence_hash(sequence)][:], expected, rtol=1e-4, atol=1e-5)


def test_the_hash_is_that_of_the_sequence_as_the_file_has_it(model_directory: Path, tmp_path: Path) -> None:
    """Biotrainer hashes what it reads, which is neither in upper case nor without a stop."""
    h5py = pytest.importorskip("h5py")
    (tmp_path / "x.fasta").write_text(">a\nmkV*\n")
    words = ["transformer", str(tmp_path / "x.fasta"), str(tmp_path / "o.h5"), str(model_directory)]
    with h5py.File(run_embed(words)) as file:
        assert list(file) == [sequence_hash("mkV*")]


def test_without_h5py_the_extra_to_install_is_named(
    model_directory: Path, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(ConfigError, match=r"pip install 'proteinlm\[hdf5\]'"):
        run_embed(["transformer", str(fasta), str(tmp_path / "o.h5"), str(model_directory)])


def test_a_pooled_vector_may_be_wider_than_the_states(fasta: Path, tmp_path: Path) -> None:
    """UniRep's pooled output is the hidden and cell state of the last residue."""
    torch.manual_seed(0)
    model = registry.get_task_model("unirep", "embed", hidden_size=12)
    model.save_pretrained(tmp_path / "unirep")
    for name in ("vocabulary.json", "SHA256SUMS"):  # TAPE's own directories have none
        (tmp_path / "unirep" / name).unlink()
    path = run_embed(["unirep", str(fasta), str(tmp_path / "o"), str(tmp_path / "unirep"), "--tokenizer", "unirep"])
    with np.load(path, allow_pickle=True) as arrays:
        found = arrays["second"].item()
    with torch.no_grad():
        states, pooled, *_ = model.eval()(torch.from_numpy(TAPETokenizer("unirep").encode("MNP"))[None])
    assert found["avg"].shape == (12,)
    np.testing.assert_allclose(found["avg"], states[0, 1:-1].mean(0), atol=1e-5)
    np.testing.assert_allclose(found["pooled"], pooled[0], atol=1e-5)


# --- resuming an interrupted run ------------------------------------------------------------------------------------


@pytest.fixture
def many(tmp_path: Path) -> Path:
    """40 proteins of 2 to 41 residues."""
    path = tmp_path / "many.fasta"
    path.write_text("".join(f">p{n}\n{('ACDEFGHIKLMNPQRSTVWY' * 3)[: n + 2]}\n" for n in range(40)))
    return path


def break_after(batches: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make the run fail after this number of batches."""
    kept: list[int] = []
    append = EmbeddingJournal.append

    def failing(self: EmbeddingJournal, batch: Any) -> None:
        if len(kept) == batches:
            raise KeyboardInterrupt
        kept.append(1)
        append(self, batch)

    monkeypatch.setattr(EmbeddingJournal, "append", failing)


def test_an_interrupted_command_resumes_with_identical_embeddings(
    model_directory: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["transformer", str(many), str(tmp_path / "o.npz"), str(model_directory), "--batch_size", "4"]
    whole = run_embed([*words[:2], str(tmp_path / "whole"), *words[3:]])
    with monkeypatch.context() as patch:
        break_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            run_embed(words)
    journal = tmp_path / "o.npz.partial"
    assert not (tmp_path / "o.npz").exists()
    with journal.open("ab") as stream:
        stream.write(b"torn record of a killed process")
    # another batch size does not change the embeddings
    path = run_embed([*words[:-1], "3"])
    assert "resuming after 12 of 40 proteins" in caplog.text
    assert not journal.exists()
    with np.load(path, allow_pickle=True) as found, np.load(whole, allow_pickle=True) as expected:
        assert found.files == expected.files
        for name in found.files:
            for key in ("pooled", "avg"):
                np.testing.assert_allclose(found[name].item()[key], expected[name].item()[key], rtol=1e-4, atol=1e-5)


def test_a_damaged_record_is_computed_again(
    model_directory: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["transformer", str(many), str(tmp_path / "o.npz"), str(model_directory), "--batch_size", "4"]
    with monkeypatch.context() as patch:
        break_after(3, patch)
        with pytest.raises(KeyboardInterrupt):
            run_embed(words)
    journal = tmp_path / "o.npz.partial"
    damaged = bytearray(journal.read_bytes())
    damaged[-3] ^= 0xFF
    journal.write_bytes(bytes(damaged))
    with np.load(run_embed(words), allow_pickle=True) as arrays:
        assert len(arrays.files) == 40
        assert all(np.isfinite(arrays[name].item()["avg"]).all() for name in arrays.files)
        # the longest come first; the twelfth was the damaged one
        found = arrays["p28"].item()
    np.testing.assert_allclose(
        found["pooled"], states_of(model_directory, ("ACDEFGHIKLMNPQRSTVWY" * 2)[:30])[1], atol=1e-5
    )


def test_unfinished_embeddings_of_another_run_are_refused(
    model_directory: Path, many: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["transformer", str(many), str(tmp_path / "o.npz"), str(model_directory), "--batch_size", "4"]
    with monkeypatch.context() as patch:
        break_after(1, patch)
        with pytest.raises(KeyboardInterrupt):
            run_embed(words)
    with pytest.raises(ConfigError, match=r"partial: unfinished embeddings of another run \(full_sequence differ"):
        run_embed([*words, "--full_sequence_embed"])
    with many.open("a") as stream:
        stream.write(">more\nACD\n")
    with pytest.raises(ConfigError, match=r"data_sha256, proteins, proteins_sha256 differ"):
        run_embed(words)
    journal = tmp_path / "o.npz.partial"
    with journal.open("ab") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        many.write_text(many.read_text().removesuffix(">more\nACD\n"))
        with pytest.raises(ConfigError, match="another process is writing"):
            run_embed(words)
    journal.write_bytes(b"something else entirely")
    with pytest.raises(DataError, match="not a journal of embeddings"):
        run_embed(words)


@pytest.mark.slow
def test_a_killed_process_loses_at_most_one_batch(
    model_directory: Path, tmp_path: Path, repository_root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """SIGKILL during the computation, then the same command again."""
    proteins = tmp_path / "lots.fasta"
    proteins.write_text("".join(f">p{n}\n{'ACDEFGHIKLMNPQRSTVWY'[n % 13 :] * 2}\n" for n in range(3000)))
    words = ["transformer", str(proteins), str(tmp_path / "o.npz"), str(model_directory), "--batch_size", "2"]
    code = "from tape.main import run_embed; import sys; run_embed(sys.argv[1:])"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words, "--num_workers", "0"], cwd=repository_root, stderr=subprocess.DEVNULL
    )
    journal = tmp_path / "o.npz.partial"
    while process.poll() is None and not (journal.is_file() and journal.stat().st_size > 20000):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "o.npz").exists()
    record = 24 + 4 * 2 * 16  # a record header, and two vectors of 16 numbers
    whole = (journal.stat().st_size - 500) // record  # the file's header has less than 500 bytes
    with caplog.at_level(logging.INFO), np.load(run_embed([*words[:-1], "512"]), allow_pickle=True) as arrays:
        assert len(arrays.files) == 3000
    (before,) = re.findall(r"resuming after (\d+) of 3000", caplog.text)
    assert int(before) >= whole - 2
    assert not journal.exists()


@pytest.mark.parametrize("name", ["o.npz", "o.h5", "o.parquet"])
def test_sigterm_leaves_the_journal_alone(
    model_directory: Path, fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """A preempted command resumes from its journal; its temporary file and its lock are removed."""
    (tmp_path / "out").mkdir()
    words = ["tape-embed", "transformer", str(fasta), str(tmp_path / "out" / name), str(model_directory), "--no_cuda"]
    with monkeypatch.context() as patch:
        patch.setattr("sys.argv", words)
        patch.setattr("os.replace", lambda *_: signal.raise_signal(signal.SIGTERM))
        assert embed_command() == 143
    assert [path.name for path in (tmp_path / "out").iterdir()] == [f"{name}.partial"]
    assert run_embed(words[1:]) == tmp_path / "out" / name
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]
