"""Files of records: LMDB, FASTA, JSON, npz, and padding."""

from __future__ import annotations

import gzip
import json
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from tape.datasets import (
    FastaDataset,
    JSONDataset,
    LMDBDataset,
    NPZDataset,
    SecondaryStructureDataset,
    StabilityDataset,
    dataset_factory,
    pad_sequences,
)
from tape.errors import DataError
from tape.io.lmdb_store import COUNT_KEY, LMDBReader, write_lmdb


def test_padding_fills_the_far_ends_of_any_rank() -> None:
    padded = pad_sequences([np.array([1, 2]), np.array([3])], -1)
    assert padded.tolist() == [[1, 2], [3, -1]]
    maps = pad_sequences([np.ones((2, 2)), np.ones((1, 3))], 0, dtype=np.int8)
    assert maps.shape == (2, 2, 3)
    assert maps.dtype == np.int8
    assert maps[1].tolist() == [[1, 1, 1], [0, 0, 0]]


@pytest.mark.parametrize("in_memory", [False, True])
def test_lmdb_records(tmp_path: Path, in_memory: bool) -> None:
    write_lmdb(tmp_path / "a.lmdb", [{"primary": "ACD"}, {"primary": "EF", "id": b"named"}])
    dataset = LMDBDataset(tmp_path / "a.lmdb", in_memory)
    assert len(dataset) == 2
    assert [dataset[i]["id"] for i in range(2)] == ["0", "named"]
    assert dataset[np.int64(0)]["primary"] == "ACD"
    assert dataset.where(1, dataset[1]).endswith("a.lmdb, record 1 (named)")


@pytest.mark.parametrize("in_memory", [False, True])
def test_lmdb_records_are_read_when_asked_for(tmp_path: Path, in_memory: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    # bug 35 in docs/compatibility.md: the constructor read every record
    write_lmdb(tmp_path / "a.lmdb", [{"primary": "ACD"}, {"primary": "EF"}, {"primary": "G"}])
    read: list[bytes] = []
    get = LMDBReader._get

    def noted(reader: LMDBReader, key: bytes, where: str) -> bytes:
        read.append(key)
        return get(reader, key, where)

    monkeypatch.setattr(LMDBReader, "_get", noted)
    dataset = LMDBDataset(tmp_path / "a.lmdb", in_memory)
    assert (len(dataset), read) == (3, [COUNT_KEY])
    assert [dataset[index]["primary"] for index in (1, 1)] == ["EF", "EF"]
    assert read == [COUNT_KEY, *[b"1"] * (1 if in_memory else 2)]


def test_an_lmdb_data_set_travels_to_workers(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "a.lmdb", [{"primary": "ACD"}])
    dataset = pickle.loads(pickle.dumps(LMDBDataset(tmp_path / "a.lmdb")))
    assert dataset[0]["primary"] == "ACD"


def test_fasta_and_json_and_npz(tmp_path: Path) -> None:
    (tmp_path / "a.fasta").write_text(">x some words\nACD\nEF\n>y\nGH\n", encoding="utf-8")
    (tmp_path / "b.json").write_text(json.dumps([{"primary": "AC", "label": 1}, {"primary": "D", "id": 7}]), "utf-8")
    (tmp_path / "n").mkdir()
    np.savez(tmp_path / "n" / "q.npz", primary="ACD", values=np.arange(3))
    np.savez(tmp_path / "n" / "p.npz", primary="E")
    fasta, records, arrays = (dataset_factory(tmp_path / name) for name in ("a.fasta", "b.json", "n"))
    assert isinstance(fasta, FastaDataset)
    assert fasta[0] == {"id": "x", "primary": "ACDEF", "protein_length": 5}
    assert isinstance(records, JSONDataset)
    assert [(records[i]["id"], records[i]["primary"]) for i in range(2)] == [("0", "AC"), ("7", "D")]
    assert isinstance(arrays, NPZDataset)
    assert [arrays[i]["id"] for i in range(len(arrays))] == ["p", "q"]
    assert arrays[1]["primary"] == "ACD"
    assert len(NPZDataset(tmp_path / "n", split_files=["q"])) == 1


def test_the_factory_takes_lmdb_and_refuses_the_rest(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "a.lmdb", [{"primary": "ACD"}])
    assert isinstance(dataset_factory(tmp_path / "a.lmdb", in_memory=True), LMDBDataset)
    (tmp_path / "a.pdf").write_text("x")
    for name, message in (("a.pdf", "unknown suffix"), ("gone.fasta", "no such file")):
        with pytest.raises(DataError, match=message):
            dataset_factory(tmp_path / name)


def test_empty_and_pickled_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text("[]")
    with pytest.raises(DataError, match=r"e\.json: contains no record"):
        JSONDataset(tmp_path / "e.json")
    (tmp_path / "n").mkdir()
    with pytest.raises(DataError, match=r"no \.npz file"):
        NPZDataset(tmp_path / "n")
    np.savez(tmp_path / "n" / "p.npz", primary=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="without pickled objects"):
        NPZDataset(tmp_path / "n")[0]


def values_of(directory: Path) -> list[tuple[str, list[int]]]:
    dataset = SecondaryStructureDataset(directory, "valid")
    names = dataset.build_index().identifiers
    return [(names[i], dataset[i][2].tolist()) for i in range(len(dataset))]


def test_labeled_splits_come_in_any_format(tmp_path: Path) -> None:
    records = [{"id": "a", "primary": "MKV", "ss3": [0, 2, 1]}, {"id": "b", "primary": "AC", "ss3": [1, 1]}]
    folder = tmp_path / "secondary_structure"
    stem = folder / "secondary_structure_valid"
    write_lmdb(stem.with_suffix(".lmdb"), records)
    expected = values_of(tmp_path)
    assert expected == [("a", [-1, 0, 2, 1, -1]), ("b", [-1, 1, 1, -1])]
    texts = {
        ".json": json.dumps(records),
        ".jsonl": "\n".join(map(json.dumps, records)),
        ".csv": 'id,sequence,ss3\na,MKV,"[0, 2, 1]"\nb,AC,1 1\n',
        ".tsv": "id\tprimary\tss3\na\tMKV\t0,2,1\nb\tAC\t[1, 1]\n",
        ".fasta": ">a ss3=0,2,1\nMKV\n>b ss3=1,1\nAC\n",
    }
    shutil.rmtree(stem.with_suffix(".lmdb"))
    for suffix, text in texts.items():
        stem.with_suffix(suffix).write_text(text)
        assert values_of(tmp_path) == expected, suffix
        stem.with_suffix(suffix).unlink()
    with gzip.open(f"{stem}.csv.gz", "wt") as stream:
        stream.write(texts[".csv"])
    assert values_of(tmp_path) == expected
    Path(f"{stem}.csv.gz").unlink()
    stem.mkdir()
    for record in records:
        np.savez(stem / f"{record['id']}.npz", **{name: value for name, value in record.items() if name != "id"})
    assert values_of(tmp_path) == expected
    stem.with_suffix(".json").write_text(texts[".json"])
    with pytest.raises(DataError, match=r"the same split exists as secondary_structure_valid\.json; keep one of them"):
        values_of(tmp_path)


def test_a_single_value_of_a_table_is_a_number(tmp_path: Path) -> None:
    (tmp_path / "stability").mkdir()
    (tmp_path / "stability" / "stability_test.csv").write_text("primary,stability_score,note\nMKV,-0.5,7 up\n")
    dataset = StabilityDataset(tmp_path, "test")
    assert dataset[0][2] == -0.5
    assert dataset.data[0] == {"primary": "MKV", "stability_score": -0.5, "note": "7 up", "id": "0"}
    with pytest.raises(DataError, match="no split 'train'; splits there: test"):
        StabilityDataset(tmp_path, "train")
