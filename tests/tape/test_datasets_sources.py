"""Files of records: LMDB, FASTA, JSON, npz, and padding."""

from __future__ import annotations

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from tape.datasets import FastaDataset, JSONDataset, LMDBDataset, NPZDataset, dataset_factory, pad_sequences
from tape.errors import DataError
from tape.lmdb_store import write_lmdb


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


def test_lmdb_is_read_when_asked_for_and_travels_to_workers(tmp_path: Path) -> None:
    # defect 35: nothing is read in the constructor, and a pickled data set opens the file again
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
    with pytest.raises(DataError, match=r"e\.json: holds no record"):
        JSONDataset(tmp_path / "e.json")
    (tmp_path / "n").mkdir()
    with pytest.raises(DataError, match=r"no \.npz file"):
        NPZDataset(tmp_path / "n")
    np.savez(tmp_path / "n" / "p.npz", primary=np.array([{"a": 1}], dtype=object))
    with pytest.raises(DataError, match="without pickled objects"):
        NPZDataset(tmp_path / "n")[0]
