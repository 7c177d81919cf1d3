"""The command tape-leakage, from its options to the table."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path

import pytest

from tape.cli.leakage import run_leakage
from tape.errors import ConfigError, DataError
from tape.io.lmdb_store import write_lmdb
from tape.leakage import measure
from tape.leakage.proteins import sequence_digest
from tape.leakage.table import read_table
from tests.support.fake_mmseqs import VERSION
from tests.support.known_identities import QUERY, mutated, random_sequence

OTHER = random_sequence(150, 5)


@pytest.fixture
def files(tmp_path: Path) -> Sequence[str]:
    """The words of a command: test proteins against two files."""
    (tmp_path / "test.fasta").write_text(f">q\n{QUERY}\n>o\n{OTHER}\n>again\n{QUERY}\n")
    (tmp_path / "train.csv").write_text(f"id,primary\nnear,{mutated(QUERY, 10)}\nfar,{mutated(QUERY, 4)}\n")
    (tmp_path / "corpus.fasta").write_text(f">c\n{OTHER}\n")
    against = ["--against", str(tmp_path / "train.csv"), "--corpus", str(tmp_path / "corpus.fasta")]
    return [str(tmp_path / "test.fasta"), *against, "--output", str(tmp_path / "out.tsv")]


def rows(path: Path) -> list[list[str]]:
    """id, reference, hit, identity and coverage of each line."""
    lines = [line.split("\t") for line in path.read_text().splitlines()[2:]]
    return [[cells[0], *cells[3:]] for cells in lines]


def test_each_protein_has_its_best_hit_in_each_file(
    files: Sequence[str], fake_mmseqs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = run_leakage([*files, "--threads", "3"])
    assert path == tmp_path / "out.tsv"
    assert rows(path) == [
        ["q", "train.csv", "near", "90.0000", "100.0"],
        ["o", "train.csv", "", "", ""],
        ["again", "train.csv", "near", "90.0000", "100.0"],
        ["q", "corpus.fasta", "", "", ""],
        ["o", "corpus.fasta", "c", "100.0000", "100.0"],
        ["again", "corpus.fasta", "", "", ""],
    ]
    head = read_table(path).head
    assert [file.proteins for file in head.references] == [2, 1]
    assert head.references[0].sha256 == hashlib.sha256((tmp_path / "train.csv").read_bytes()).hexdigest()
    assert (head.test["proteins"], head.search["tool_version"]) == (3, VERSION)
    assert "-s 7.5 -e 0.001 -c 0.5" in head.search["options"]
    expected = "identity to train.csv: < 20 %: 1, 20 to 30 %: 0, 30 to 50 %: 0, >= 50 %: 2 (1 without a hit)"
    assert expected in caplog.text
    assert f"3 proteins of {tmp_path}/test.fasta against {tmp_path}/train.csv with MMseqs2 {VERSION}" in caplog.text
    arguments = (fake_mmseqs.parent / "arguments").read_text().splitlines()
    assert arguments[arguments.index("--threads") + 1] == "3"


def test_without_mmseqs2_alignments_are_exact(
    files: Sequence[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("Bio")
    monkeypatch.setenv("PATH", str(tmp_path))
    path = run_leakage(files)
    assert path is not None
    assert read_table(path).head.search["tool"] == "Biopython"
    assert rows(path)[0] == ["q", "train.csv", "near", "90.0000", "100.0"]
    with pytest.raises(ConfigError, match="MMseqs2 is not installed: apt install mmseqs2"):
        run_leakage([*files, "--method", "mmseqs2"])


def test_both_methods_agree(files: Sequence[str], tmp_path: Path) -> None:
    pytest.importorskip("Bio")
    if measure.find_mmseqs() is None:
        pytest.skip("needs MMseqs2: apt install mmseqs2")
    found = []
    for method in ("mmseqs2", "exact"):
        path = run_leakage([*files, "--method", method])
        assert path is not None
        found.append(rows(path))
    assert found[0] == found[1]


def test_a_split_of_a_task_is_compared_with_its_training_split(fake_mmseqs: Path, tmp_path: Path) -> None:
    folder = tmp_path / "stability"
    write_lmdb(folder / "stability_test.lmdb", [{"id": "a", "primary": QUERY, "stability_score": [1.0]}])
    write_lmdb(folder / "stability_train.lmdb", [{"id": "b", "primary": mutated(QUERY, 5), "stability_score": [1.0]}])
    path = run_leakage(["--task", "stability", "--data_dir", str(tmp_path)])
    assert path == folder / "leakage_test.tsv"
    assert rows(path) == [["a", "stability_train.lmdb", "b", "80.0000", "100.0"]]
    assert read_table(path).identities_of("stability_train.lmdb", [sequence_digest(QUERY)]).tolist() == [80.0]
    assert run_leakage(["--task", "stability", "--data_dir", str(tmp_path)]) == path  # replaces its own table
    with pytest.raises(DataError, match="no split 'holdout'"):
        run_leakage(["--task", "stability", "--split", "holdout", "--data_dir", str(tmp_path)])


def test_the_test_file_itself_is_announced(fake_mmseqs: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "a.fasta"
    file.write_text(">x\nACDC\n")
    run_leakage([str(file), "--against", str(file), "--output", str(tmp_path / "o.tsv")])
    assert "is the file of the test proteins itself" in caplog.text


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "give a file of test proteins, or --task and --split"),
        (["a.fasta"], "--against FILE is missing"),
        (["a.fasta", "--against", "b.fasta"], "--output FILE is missing"),
        (["a.fasta", "--task", "stability"], "give TEST or --task, not both"),
        (["a.fasta", "--against", "gone.fasta", "--output", "o.tsv"], "gone.fasta: no such file"),
        (["a.fasta", "--against", "b.fasta", "--output", "b.fasta"], "exists and is not a table of tape-leakage"),
        (
            ["a.fasta", "--against", "b.fasta", "--against", "c/b.fasta", "--output", "o.tsv"],
            "are named b.fasta",
        ),
        (
            ["a.fasta", "--split", "test", "--data_dir", "x"],
            "--split and --data_dir: only with --task, which is missing",
        ),
        (["--task", "embed"], "task embed has no folder of data"),
    ],
)
def test_options_that_can_not_be_used_are_refused_before_the_search(
    words: Sequence[str], message: str, fake_mmseqs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "c").mkdir()
    for name in ("a.fasta", "b.fasta", "c/b.fasta"):
        (tmp_path / name).write_text(">x\nACDC\n")
    with pytest.raises(ConfigError, match=message):
        run_leakage(words)
    assert not (tmp_path / "o.tsv").exists()


def test_only_the_first_process_of_a_launcher_searches(
    files: Sequence[str], fake_mmseqs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29500"}.items():
        monkeypatch.setenv(name, value)
    assert run_leakage(files) is None
    assert not (tmp_path / "out.tsv").exists()
