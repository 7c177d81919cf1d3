"""One file as the source of prepare_data.py: its task, its split, and what is refused."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from proteinlm.data.prepare_data import Options, prepare
from tape.errors import ConfigError, DataError
from tape.io.lmdb_store import LMDBReader, write_lmdb
from tests.support.structure_files import new_structure, write_structure

PRIMARY = "MKVLAG"
LABELS = {  # folder -> a record's labels
    "secondary_structure": {"ss3": "CHHHEC"},
    "proteinnet": {"tertiary": [[float(i), 0.0, 0.0] for i in range(6)]},
    "remote_homology": {"fold_label": 7},
    "fluorescence": {"log_fluorescence": 3.5},
    "stability": {"stability_score": 0.25},
}


def written(source: Path, target: Path, *tasks: str) -> list[tuple[str, str, int]]:
    done = prepare(source, target, Options(tasks=tasks or None))
    return [(split.folder, split.split, split.records) for split in done]


@pytest.mark.parametrize("folder", LABELS)
@pytest.mark.parametrize("suffix", [".json", ".jsonl.gz", ".lmdb"])
def test_the_labels_of_a_file_tell_its_task(
    folder: str, suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    record = {"id": "a", "primary": PRIMARY, **LABELS[folder]}
    file = tmp_path / f"mine_valid{suffix}"
    if suffix == ".lmdb":
        write_lmdb(file, [record])
    elif suffix == ".json":
        file.write_text(json.dumps([record]))
    else:
        file.write_bytes(gzip.compress(json.dumps(record).encode()))
    assert written(file, tmp_path / "data") == [(folder, "valid", 1)]
    assert LMDBReader(tmp_path / "data" / folder / f"{folder}_valid.lmdb")[0]["primary"] == PRIMARY
    assert f"{file}: task " in capfd.readouterr().err


@pytest.mark.parametrize("folder", [*LABELS, "corpus"])
def test_a_relative_path(folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.jsonl").write_text(json.dumps({"primary": PRIMARY, **LABELS.get(folder, {})}))
    tasks = ("corpus",) if folder == "corpus" else ()
    assert written(Path("mine.jsonl"), Path("data"), *tasks) == [(folder, "train", 1)]


@pytest.mark.parametrize("name", ["stability_test_set", "remote_homology_test", "mine_test", "remote_homology_holdout"])
def test_a_name_with_a_split_that_the_task_does_not_have_is_refused(name: str, tmp_path: Path) -> None:
    folder = "stability" if name.startswith("stability") else "remote_homology"
    file = tmp_path / f"{name}.jsonl"
    file.write_text(json.dumps({"primary": PRIMARY, **LABELS[folder]}))
    with pytest.raises(DataError, match=f"{name}.jsonl: unknown split '.*'; {folder} has train, valid, "):
        written(file, tmp_path / "data")


def test_a_split_is_not_replaced_by_one_of_another_file(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b", "b_validation"):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"primary": PRIMARY, "stability_score": 1.0}))
    target = tmp_path / "data"
    assert written(tmp_path / "a.jsonl", target, "stability") == [("stability", "train", 1)]
    assert "a.jsonl: task stability, split train\n" in capfd.readouterr().err
    with pytest.raises(ConfigError, match=r"train was made from a\.jsonl, which b\.jsonl would replace; end the"):
        written(tmp_path / "b.jsonl", target, "stability")
    assert written(tmp_path / "b_validation.jsonl", target) == [("stability", "valid", 1)]
    (tmp_path / "a.jsonl").write_text(json.dumps([{"primary": PRIMARY, "stability_score": 2.0}])[1:-1])
    assert written(tmp_path / "a.jsonl", target) == [("stability", "train", 1)]
    assert LMDBReader(target / "stability" / "stability_train.lmdb")[0]["stability_score"] == [2.0]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stability_val.jsonl", ("stability", "valid")),
        ("stability_test.jsonl", ("stability", "test")),
        ("remote_homology_test_fold_holdout.jsonl", ("remote_homology", "test_fold_holdout")),
        ("contact_prediction.jsonl", ("proteinnet", "train")),
    ],
)
def test_the_name_of_a_file_tells_task_and_split(name: str, expected: tuple[str, str], tmp_path: Path) -> None:
    file = tmp_path / name
    file.write_text(json.dumps({"primary": PRIMARY, **LABELS[expected[0]]}))
    assert written(file, tmp_path / "data") == [(*expected, 1)]


def test_files_of_several_splits_are_prepared_one_after_the_other(tmp_path: Path) -> None:
    for split in ("train", "valid"):
        file = tmp_path / f"mine_{split}.jsonl"
        file.write_text(json.dumps({"primary": PRIMARY, "stability_score": 1}))
        written(file, tmp_path / "data")
    assert json.loads((tmp_path / "data/stability/dataset.json").read_text())["splits"] == {"train": 1, "valid": 1}


def test_sequences_are_a_corpus_and_with_the_option_records_of_pfam(tmp_path: Path) -> None:
    file = tmp_path / "proteins.fasta"
    file.write_text(">a\nMKVL\n>b\nMKVA\n")
    assert written(file, tmp_path / "data") == [("corpus", "train", 2)]
    assert written(file, tmp_path / "data", "masked_language_modeling") == [("pfam", "train", 2)]


def test_the_option_decides_between_the_labels_of_two_tasks(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text(json.dumps({"primary": PRIMARY, **LABELS["stability"], **LABELS["fluorescence"]}))
    with pytest.raises(DataError, match=r"mine.jsonl.*several tasks \(fluorescence, stability\).*--tasks"):
        prepare(file, tmp_path / "data")
    assert written(file, tmp_path / "data", "stability") == [("stability", "train", 1)]


def test_the_origin_of_the_directory_is_that_of_its_files(tmp_path: Path) -> None:
    origin = {"name": "made up", "simulated": True}
    (tmp_path / "provenance.json").write_text(json.dumps({"datasets": {"stability": origin}}))
    (tmp_path / "tape").mkdir()
    file = tmp_path / "tape/stability_train.jsonl"
    file.write_text(json.dumps({"primary": PRIMARY, "stability_score": 1}))
    written(file, tmp_path / "data")
    described = json.loads((tmp_path / "data/stability/dataset.json").read_text())
    assert (described["name"], described["simulated"]) == ("made up", True)


@pytest.mark.parametrize("suffix", [".pdb", ".cif.gz", ".bcif"])
def test_a_structure_file_is_one_split_of_contacts(suffix: str, tmp_path: Path) -> None:
    plain = suffix.removesuffix(".gz")
    file = write_structure(tmp_path / f"1abc_test{plain}", new_structure({"A": "MKVLAGHE"}))
    if suffix != plain:
        packed = tmp_path / f"1abc_test{suffix}"
        packed.write_bytes(gzip.compress(file.read_bytes()))
        file = packed
    assert written(file, tmp_path / "data", "contact_prediction") == [("proteinnet", "test", 1)]
    record = LMDBReader(tmp_path / "data/proteinnet/proteinnet_test.lmdb")[0]
    assert record["primary"] == "MKVLAGHE"
    assert record["tertiary"].shape == (8, 3)
    with pytest.raises(DataError, match=r"1abc_test.*contact_prediction and secondary_structure, not for stability"):
        prepare(file, tmp_path / "other", Options(tasks=("stability",)))


def test_secondary_structure_of_a_structure_file_needs_dssp(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    file = write_structure(tmp_path / "1abc.pdb", new_structure({"A": "MKVLAGHE"}))
    assert written(file, tmp_path / "data") == [("proteinnet", "train", 1)]
    assert "needs DSSP 4" in capfd.readouterr().err
    with pytest.raises(DataError, match="needs DSSP 4"):
        prepare(file, tmp_path / "other", Options(tasks=("secondary_structure",)))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("mine.csv", "primary,Tm\nMKV,1\n", r"mine.csv: .*tape-train transformer --data .*mine.csv --target"),
        ("fluorescence_train.tsv.gz", "", r"tape-train transformer --data"),
        ("mine.jsonl", '{"primary": "MKV", "Tm": 1}', r"mine.jsonl.*no task; its other columns are Tm.*--tasks"),
        ("mine.jsonl", "", r"mine.jsonl.*no records"),
        ("mine.docx", "", r"mine.docx: can't be read as proteins.*\.fasta.*\.pdb"),
        ("missing", None, r"missing: no such file or directory"),
    ],
)
def test_files_for_no_task_are_refused(name: str, text: str | None, message: str, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        prepare(tmp_path / name, tmp_path / "data")
    assert not (tmp_path / "data").exists()
