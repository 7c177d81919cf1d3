"""The data sets found in a directory, and their provenance."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from proteinlm.data.data_sources import find_datasets
from tape.errors import DataError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_datasets_and_splits_are_found_by_file_name(tmp_path: Path) -> None:
    touch(
        tmp_path,
        "fluorescence_train.csv",
        "fluorescence_test.jsonl.gz",
        "stability/stability_valid.fasta.zst",
        "corpus_one.fasta",
        "corpus_valid.jsonl.xz",
        "corpus/more.txt",
        "corpus/README.md",
        "notes.txt",
        ".corpus_hidden.fasta",
    )
    found = find_datasets(tmp_path)
    assert list(found) == ["fluorescence", "stability", "corpus"]
    assert {split: files.paths[0].name for split, files in found["fluorescence"].splits.items()} == {
        "train": "fluorescence_train.csv",
        "test": "fluorescence_test.jsonl.gz",
    }
    names = {split: [path.name for path in files.paths] for split, files in found["corpus"].splits.items()}
    assert names == {"train": ["corpus_one.fasta", "more.txt"], "valid": ["corpus_valid.jsonl.xz"]}
    assert found["fluorescence"].provenance.name == f"{tmp_path.name}: fluorescence"
    assert found["fluorescence"].provenance.source == "the user's own files"


def test_chain_files_provide_contacts_and_secondary_structure(tmp_path: Path) -> None:
    touch(tmp_path, "structures/mine_train.tsv.xz", "structures/mine_train.ca.i2.xz")
    found = find_datasets(tmp_path)
    assert list(found) == ["secondary_structure", "proteinnet"]
    assert [path.name for path in found["proteinnet"].splits["train"].all_paths] == [
        "mine_train.tsv.xz",
        "mine_train.ca.i2.xz",
    ]
    assert found["proteinnet"].provenance.name == f"{tmp_path.name}: proteinnet"  # not labeled as the known PDB set
    touch(tmp_path, "secondary_structure_train.csv")
    assert not find_datasets(tmp_path)["secondary_structure"].splits["train"].chains
    assert find_datasets(tmp_path, structures_as_labels=True)["secondary_structure"].splits["train"].chains


def test_provenance_is_read_from_the_source(tmp_path: Path) -> None:
    touch(tmp_path, "stability_train.csv", "seqs/a.fasta")
    stated = {
        "datasets": {"stability": {"name": "our assay", "licence": "CC-BY-4.0", "simulated": True}},
        "corpus_files": {"train": ["seqs/a.fasta"]},
    }
    (tmp_path / "provenance.json").write_text(json.dumps(stated))
    found = find_datasets(tmp_path)
    assert found["stability"].describe({"train": 3}) == {
        "name": "our assay",
        "source": "not stated",
        "licence": "CC-BY-4.0",
        "simulated": True,
        "splits": {"train": 3},
    }
    assert found["corpus"].splits["train"].paths == (tmp_path / "seqs" / "a.fasta",)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        "[]",
        '{"datasets": {"stability": {"title": "x"}}}',
        '{"datasets": {"stability": {}}}',
        '{"datasets": {"stability": {"name": 3}}}',
        '{"datasets": {"stability": {"name": "x", "simulated": "no"}}}',
    ],
)
def test_malformed_provenance_is_refused(tmp_path: Path, text: str) -> None:
    touch(tmp_path, "stability_train.csv")
    (tmp_path / "provenance.json").write_text(text)
    with pytest.raises(DataError, match=r"provenance\.json"):
        find_datasets(tmp_path)


def test_a_split_in_a_format_without_labels_is_refused(tmp_path: Path) -> None:
    touch(tmp_path, "fluorescence_train.csv", "fluorescence_train.csv.sha256", "fluorescence_notes.txt")
    assert list(find_datasets(tmp_path)["fluorescence"].splits) == ["train"]
    touch(tmp_path, "fluorescence_test.txt")
    with pytest.raises(DataError, match=r"fluorescence_test\.txt: labels can't be read from this format; .*\.csv"):
        find_datasets(tmp_path)


def test_unknown_and_duplicate_splits_are_refused(tmp_path: Path) -> None:
    touch(tmp_path, "fluorescence_validation.csv")
    with pytest.raises(DataError, match="unknown split 'validation'; fluorescence has train, valid, test"):
        find_datasets(tmp_path)
    (tmp_path / "fluorescence_validation.csv").unlink()
    touch(tmp_path, "fluorescence_train.csv", "tape/fluorescence_train.jsonl")
    with pytest.raises(DataError, match="both fluorescence's train split"):
        find_datasets(tmp_path)
    with pytest.raises(DataError, match="no such file or directory"):
        find_datasets(tmp_path / "absent")


def test_datasets_of_the_real_data_are_found(shared_data: Path) -> None:
    found = find_datasets(shared_data)
    assert len(found) == 6
    assert found["proteinnet"].provenance.name == "PDB chains (not ProteinNet)"
    assert list(found["secondary_structure"].splits) == ["train", "valid", "cb513"]
    assert found["corpus"].provenance.name == "Swiss-Prot 2014_01"
