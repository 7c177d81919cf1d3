"""The .bin/.idx pair, byte for byte."""

from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from pretrain.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from tape.errors import DataError


def write(prefix: Path, sequences: list[list[int]], layout: str = "mmap", documents: list[int] | None = None) -> Path:
    with IndexedDatasetWriter(prefix, 30, layout) as writer:
        ids = np.array([token for sequence in sequences for token in sequence])
        writer.add(ids, [len(sequence) for sequence in sequences], documents or [1] * len(sequences))
    return prefix


def test_layout_of_the_files_is_megatrons(tmp_path: Path) -> None:
    """INTERFACE section 8: two sequences of 36 and 27 residues."""
    prefix = write(tmp_path / "two", [[*range(5, 30), *range(5, 16)], [*range(5, 30), 7, 9]])
    index, data = (tmp_path / "two.idx").read_bytes(), (tmp_path / "two.bin").read_bytes()
    assert (len(data), len(index)) == (126, 82)
    assert index[:9] == b"MMIDIDX\x00\x00"
    assert struct.unpack("<QBQQ", index[9:34]) == (1, 8, 2, 3)
    assert struct.unpack("<2i", index[34:42]) == (36, 27)
    assert struct.unpack("<2q", index[42:58]) == (0, 72)
    assert struct.unpack("<3q", index[58:]) == (0, 1, 2)
    assert np.frombuffer(data, "<u2")[36:39].tolist() == [5, 6, 7]
    assert IndexedDataset(prefix)[1].tolist() == [*range(5, 30), 7, 9]


def test_lazy_layout(tmp_path: Path) -> None:
    prefix = write(tmp_path / "old", [[5, 6, 7], [8, 9]], "lazy")
    index = (tmp_path / "old.idx").read_bytes()
    assert index[:8] == b"TNTIDX\x00\x00"
    assert struct.unpack("<6Q", index[8:56]) == (1, 4, 4, 2, 2, 3)
    assert struct.unpack("<11q", index[56:]) == (0, 1, 2, 0, 3, 5, 3, 2, 0, 1, 2)
    assert [sequence.tolist() for sequence in IndexedDataset(prefix)] == [[5, 6, 7], [8, 9]]


@pytest.mark.parametrize("code", [(1, "u1"), (2, "i1"), (3, "<i2"), (4, "<i4"), (5, "<i8"), (8, "<u2")])
def test_every_integer_type_is_read(tmp_path: Path, code: tuple[int, str]) -> None:
    tokens = np.array([5, 6, 7, 8], dtype=code[1])
    size = tokens.dtype.itemsize
    (tmp_path / "x.bin").write_bytes(tokens.tobytes())
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code[0], 2, 3)
    modes = b"\x00\x00"  # newer Megatron may append one byte a sequence
    (tmp_path / "x.idx").write_bytes(header + struct.pack("<2i2q3q", 1, 3, 0, size, 0, 1, 2) + modes)
    dataset = IndexedDataset(tmp_path / "x")
    assert [dataset[0].tolist(), dataset[1].tolist()] == [[5], [6, 7, 8]]
    assert dataset.read(1, 1, 2).tolist() == [7, 8]


def test_documents_of_several_sequences(tmp_path: Path) -> None:
    dataset = IndexedDataset(write(tmp_path / "x", [[5], [6, 7], [8]], documents=[2, 1]))
    assert dataset.document_index.tolist() == [0, 2, 3]
    assert (len(dataset), dataset.tokens, dataset.sizes.tolist()) == (3, 4, [1, 2, 1])


def test_the_reader_survives_pickling(tmp_path: Path) -> None:  # defect 33
    dataset = IndexedDataset(write(tmp_path / "x", [[5, 6], [7]]))
    assert dataset[0].tolist() == [5, 6]
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 300  # the name, not the content
    assert pickle.loads(pickled)[1].tolist() == [7]


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_a_truncated_file_is_named(tmp_path: Path, suffix: str) -> None:
    prefix = write(tmp_path / "x", [[5, 6], [7]])
    path = tmp_path / f"x{suffix}"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=rf"x{suffix}: .*(truncated|bytes)"):
        IndexedDataset(prefix)[0]


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_a_missing_file_is_named(tmp_path: Path, suffix: str) -> None:
    prefix = write(tmp_path / "x", [[5, 6], [7]])
    (tmp_path / f"x{suffix}").unlink()
    with pytest.raises(DataError, match=rf"x{suffix}: No such file|no such file"):
        len(IndexedDataset(prefix))


def test_a_missing_index_suggests_the_name_that_was_meant(tmp_path: Path) -> None:
    write(tmp_path / "x_text_document", [[5]])
    with pytest.raises(DataError, match="did you mean .*x_text_document"):
        len(IndexedDataset(tmp_path / "x"))


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(0, b"NOT", "neither"), (9, b"\x02", "version 2"), (17, b"\x06", "element type 6"), (58, b"\x01", "boundaries")],
)
def test_damage_is_described(tmp_path: Path, offset: int, value: bytes, message: str) -> None:
    prefix = write(tmp_path / "x", [[5, 6], [7]])
    content = bytearray((tmp_path / "x.idx").read_bytes())
    content[offset : offset + len(value)] = value
    (tmp_path / "x.idx").write_bytes(content)
    with pytest.raises(DataError, match=message):
        len(IndexedDataset(prefix))


def test_sequences_that_overlap_are_refused(tmp_path: Path) -> None:
    prefix = write(tmp_path / "x", [[5, 6], [7]])
    content = bytearray((tmp_path / "x.idx").read_bytes())
    content[34:38] = struct.pack("<i", 1)
    (tmp_path / "x.idx").write_bytes(content)
    with pytest.raises(DataError, match="do not follow"):
        len(IndexedDataset(prefix))


def test_an_empty_corpus_is_refused(tmp_path: Path) -> None:
    prefix = write(tmp_path / "x", [])
    with pytest.raises(DataError, match="no sequence"):
        len(IndexedDataset(prefix))


def test_an_error_leaves_nothing_and_keeps_the_old_corpus(tmp_path: Path) -> None:
    prefix = write(tmp_path / "x", [[5, 6]])
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ValueError, match="sizes sum to 1"), IndexedDatasetWriter(prefix, 30) as writer:
        writer.add(np.array([7, 8]), [1], [1])
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert IndexedDataset(prefix)[0].tolist() == [5, 6]


def test_work_folders_of_killed_runs_are_removed(tmp_path: Path) -> None:
    abandoned = tmp_path / ".x.999999999.tmp"
    abandoned.mkdir()
    (abandoned / "bin").write_bytes(b"half")
    write(tmp_path / "x", [[5]])
    assert not abandoned.exists()
