"""The command tape-groups: from proteins to the table of their groups, over which an evaluation has its intervals."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.cli.groups import run_groups
from tape.errors import ConfigError, DataError
from tape.evaluation.groups import read_groups
from tape.io.lmdb_store import write_lmdb
from tape.main import run_eval, run_train
from tape.similarity import clusters
from tests.support.known_identities import random_sequence, variants


def protein(seed: int, length: int = 60) -> str:
    return random_sequence(length, seed)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A split of stability: 12 variants of one protein, 15 of another one, and a protein alone."""
    proteins = [*variants(protein(1), 12), *variants(protein(2), 15), protein(3)]
    rows = [{"id": f"p{n}", "primary": own, "stability_score": [0.1 * n]} for n, own in enumerate(proteins)]
    (tmp_path / "data" / "stability").mkdir(parents=True)
    write_lmdb(tmp_path / "data" / "stability" / "stability_test.lmdb", rows)
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def without_mmseqs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "find_mmseqs", lambda: None)


def groups_in(file: Path) -> list[str]:
    return list(read_groups(file).of.values())


EXPECTED = [*["2"] * 12, *["1"] * 15, "3"]  # the largest is the first


@pytest.mark.parametrize("method", ["variants", "clusters"])
def test_the_groups_of_a_split_are_beside_it_and_used_by_its_evaluation(
    data: Path, tmp_path: Path, method: str, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["--task", "stability", "--data_dir", str(data), "--method", method]
    file = run_groups(words)
    assert file == data / "stability" / "groups_test.tsv"
    assert groups_in(file) == EXPECTED
    assert "stability test: 28 proteins in 3 groups of 1 to 15 (" in caplog.text
    assert run_groups(words) == file  # replaces its own table
    rest = ["--data_dir", str(data), "--no_cuda"]
    model = run_train(
        ["onehot", "stability", *rest, "--output_dir", str(tmp_path), "--force_save", str(tmp_path / "m")]
    )
    run_eval(["onehot", "stability", str(model), *rest])
    assert "intervals over 3 groups of groups_test.tsv" in caplog.text


def test_the_groups_of_a_file_are_those_of_its_ids(tmp_path: Path) -> None:
    proteins = [*variants(protein(1), 10), *variants(protein(2), 11)]
    fasta = tmp_path / "proteins.fasta"
    fasta.write_text("".join(f">v{n} a variant\n{own}\n" for n, own in enumerate(proteins)))
    out = tmp_path / "groups.tsv"
    assert run_groups([str(fasta), "--output", str(out), "--method", "variants"]) == out
    assert read_groups(out).of == {f"v{n}": "2" if n < 10 else "1" for n in range(21)}


def test_variants_with_deletions_have_the_group_of_their_protein(tmp_path: Path) -> None:
    wild_types = protein(1, 100), protein(2, 100)
    whole = [own for wild_type in wild_types for own in variants(wild_type, 12)]
    shorter = [own[:40] + own[41:] for own in (whole[0], whole[20])]
    fasta = tmp_path / "proteins.fasta"
    fasta.write_text("".join(f">v{n}\n{own}\n" for n, own in enumerate([*whole, *shorter])))
    out = tmp_path / "groups.tsv"
    run_groups([str(fasta), "--output", str(out), "--method", "variants"])
    groups = read_groups(out).of
    assert (groups["v24"], groups["v25"]) == (groups["v0"], groups["v20"])
    assert len(set(groups.values())) == 2


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "give a file of test proteins, or --task and --split, and not both"),
        (("x.fasta", "--task", "stability"), "and not both"),
        (("x.fasta",), "--output FILE is missing"),
        (("x.fasta", "--split", "valid", "--output", "o.tsv"), "--split: only with --task, which is missing"),
        (("--task", "stability", "--method", "variants", "--identity", "0.5"), "--identity is that of clusters"),
        (("x.fasta", "--output", "o.txt"), "the table is tab-separated; give a name that ends in .tsv"),
        (("x.fasta", "--output", "other.tsv"), "other.tsv: exists and is not a table of tape-groups"),
        (("--task", "embed"), "task embed has no folder of data"),
    ],
)
def test_options_that_make_no_table_are_refused(
    tmp_path: Path, words: tuple[str, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.fasta").write_text(">a\nACDEFGHIKL\n>b\nMNPQRSTVWY\n")
    (tmp_path / "other.tsv").write_text("id\tscore\n")
    with pytest.raises(ConfigError, match=message):
        run_groups(list(words))
    assert (tmp_path / "other.tsv").read_text() == "id\tscore\n"


def test_a_single_group_is_refused(tmp_path: Path) -> None:
    fasta, out = tmp_path / "proteins.fasta", tmp_path / "groups.tsv"
    fasta.write_text("".join(f">v{n}\n{own}\n" for n, own in enumerate(variants(protein(1), 12))))
    for method, advice in (
        ("variants", "evaluate without"),
        ("clusters", "give a higher --identity, or evaluate without"),
    ):
        with pytest.raises(DataError, match=rf"proteins\.fasta: all proteins \(12\) are in one group.*; {advice}"):
            run_groups([str(fasta), "--output", str(out), "--method", method])
    assert not out.exists()


def test_an_id_of_proteins_of_several_groups_is_refused(tmp_path: Path) -> None:
    rows = [{"id": f"p{n % 5}", "primary": protein(n), "stability_score": [0.0]} for n in range(6)]
    (tmp_path / "stability").mkdir()
    write_lmdb(tmp_path / "stability" / "stability_test.lmdb", rows)
    with pytest.raises(DataError, match="stability test: the id 'p0' is that of several proteins"):
        run_groups(["--task", "stability", "--data_dir", str(tmp_path)])
    rows = [{"id": f"p{n % 5}", "primary": protein(n % 5), "stability_score": [0.0]} for n in range(6)]
    write_lmdb(tmp_path / "stability" / "stability_test.lmdb", rows, overwrite=True)
    assert groups_in(run_groups(["--task", "stability", "--data_dir", str(tmp_path)])) == list("12345")  # type: ignore[arg-type]


def test_only_the_first_process_writes(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "1"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert run_groups(["--task", "stability", "--data_dir", str(data)]) is None
    assert not (data / "stability" / "groups_test.tsv").exists()
