"""Bytes of the .bin/.idx files in both layouts, damaged files, and the writer's cleanup."""

from __future__ import annotations

import os
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from pretrain.data import indexed_dataset
from pretrain.data.indexed_dataset import IndexedDataset, IndexedDatasetWriter
from tape.errors import DataError


def write(prefix: Path, sequences: list[list[int]], layout: str = "mmap", documents: list[int] | None = None) -> Path:
    with IndexedDatasetWriter(prefix, 30, layout) as writer:
        ids = np.array([token for sequence in sequences for token in sequence])
        writer.add(ids, [len(sequence) for sequence in sequences], documents or [1] * len(sequences))
    return prefix


def test_mmap_layout_equals_megatrons(tmp_path: Path) -> None:
    """Two sequences of 36 and 27 residues, as in docs/data-formats.md."""
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


def test_lazy_layout_equals_megatrons(tmp_path: Path) -> None:
    prefix = write(tmp_path / "old", [[5, 6, 7], [8, 9]], "lazy")
    index = (tmp_path / "old.idx").read_bytes()
    assert index[:8] == b"TNTIDX\x00\x00"
    assert struct.unpack("<6Q", index[8:56]) == (1, 4, 4, 2, 2, 3)
    assert struct.unpack("<11q", index[56:]) == (0, 1, 2, 0, 3, 5, 3, 2, 0, 1, 2)
    assert [sequence.tolist() for sequence in IndexedDataset(prefix)] == [[5, 6, 7], [8, 9]]


MMAP_OF_FAIRSEQ = b"MMIDIDX\0\0" + struct.pack("<QBQ2i2q", 1, 4, 2, 36, 27, 0, 144)
LAZY_OF_FAIRSEQ = b"TNTIDX\0\0" + struct.pack("<5Q3q3q2q", 1, 4, 4, 2, 2, 0, 1, 2, 0, 3, 5, 3, 2)


@pytest.mark.parametrize("content", [MMAP_OF_FAIRSEQ, LAZY_OF_FAIRSEQ], ids=["mmap", "lazy"])
def test_an_index_of_fairseq_is_named_with_the_next_step(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "train.idx").write_bytes(content)
    with pytest.raises(
        DataError, match=r"train\.idx: an index of fairseq-preprocess, .*dict\.txt; .*proteinlm preprocess"
    ):
        len(IndexedDataset(tmp_path / "train"))


@pytest.mark.parametrize("code", [(1, "u1"), (2, "i1"), (3, "<i2"), (4, "<i4"), (5, "<i8"), (8, "<u2")])
def test_every_integer_type_is_read(tmp_path: Path, code: tuple[int, str]) -> None:
    tokens = np.array([5, 6, 7, 8], dtype=code[1])
    size = tokens.dtype.itemsize
    (tmp_path / "x.bin").write_bytes(tokens.tobytes())
    header = b"MMIDIDX\x00\x00" + struct.pack("<QBQQ", 1, code[0], 2, 3)
    modes = b"\x00\x00"  # recent Megatron-LM may append one byte per sequence
    (tmp_path / "x.idx").write_bytes(header + struct.pack("<2i2q3q", 1, 3, 0, size, 0, 1, 2) + modes)
    dataset = IndexedDataset(tmp_path / "x")
    assert [dataset[0].tolist(), dataset[1].tolist()] == [[5], [6, 7, 8]]
    assert dataset.read(1, 1, 2).tolist() == [7, 8]


def test_documents_of_several_sequences(tmp_path: Path) -> None:
    dataset = IndexedDataset(write(tmp_path / "x", [[5], [6, 7], [8]], documents=[2, 1]))
    assert dataset.document_index.tolist() == [0, 2, 3]
    assert (len(dataset), dataset.tokens, dataset.sizes.tolist()) == (3, 4, [1, 2, 1])


@pytest.mark.parametrize("layout", ["mmap", "lazy"])
def test_an_index_without_documents_has_one_per_sequence(tmp_path: Path, layout: str) -> None:
    """As merge_file_ of Megatron-LM before 2023 wrote it: the documents of the merged corpora were lost."""
    prefix = write(tmp_path / "x", [[5], [6, 7], [8]], layout)
    assert IndexedDataset(prefix).states_documents
    index = bytearray((tmp_path / "x.idx").read_bytes()[: -3 * 8])
    place = 26 if layout == "mmap" else 48
    assert struct.unpack_from("<Q", index, place) == (4,)
    struct.pack_into("<Q", index, place, 1)
    (tmp_path / "x.idx").write_bytes(index)
    dataset = IndexedDataset(prefix)
    assert dataset.document_index.tolist() == [0, 1, 2, 3]
    assert not dataset.states_documents
    assert [sequence.tolist() for sequence in dataset] == [[5], [6, 7], [8]]


def test_reader_can_be_pickled(tmp_path: Path) -> None:  # bug 33 in docs/compatibility.md
    dataset = IndexedDataset(write(tmp_path / "x", [[5, 6], [7]]))
    assert dataset[0].tolist() == [5, 6]
    pickled = pickle.dumps(dataset)
    assert len(pickled) < 300  # only the prefix, not the content
    assert pickle.loads(pickled)[1].tolist() == [7]


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_error_names_the_truncated_file(tmp_path: Path, suffix: str) -> None:
    prefix = write(tmp_path / "x", [[5, 6], [7]])
    path = tmp_path / f"x{suffix}"
    path.write_bytes(path.read_bytes()[:-2])
    with pytest.raises(DataError, match=rf"x{suffix}: .*(truncated|bytes)"):
        IndexedDataset(prefix)[0]


def test_a_file_that_is_shortened_while_it_is_open_is_an_error(tmp_path: Path) -> None:  # of a map: SIGBUS
    prefix = write(tmp_path / "x", [[5, 6], [7, 8]])
    dataset = IndexedDataset(prefix)
    assert dataset[1].tolist() == [7, 8]
    os.truncate(tmp_path / "x.bin", 5)
    assert dataset[0].tolist() == [5, 6]
    with pytest.raises(DataError, match=r"x\.bin: truncated after it was opened: it had 8 bytes and has 5 now"):
        _ = dataset[1]


def test_an_index_that_is_shortened_while_it_is_open_has_been_loaded(tmp_path: Path) -> None:  # of a map: SIGBUS
    sequences = [[number] for number in range(2000)]
    dataset = IndexedDataset(write(tmp_path / "x", sequences))
    assert dataset[0].tolist() == [0]
    os.truncate(tmp_path / "x.idx", 0)
    assert dataset[1999].tolist() == [1999]
    assert dataset.sizes.tolist() == [1] * 2000
    assert dataset.document_index[-1] == 2000


def test_a_directory_of_fairseq_is_named_with_the_next_step(tmp_path: Path) -> None:
    (tmp_path / "data-bin").mkdir()
    (tmp_path / "data-bin" / "dict.txt").write_text("A 1\n")
    for prefix in (tmp_path / "data-bin", f"{tmp_path}/data-bin/"):
        with pytest.raises(
            DataError, match=r"data-bin: a directory of fairseq-preprocess.*proteinlm preprocess --input"
        ):
            len(IndexedDataset(prefix))


def test_a_directory_as_prefix_suggests_the_corpora_in_it(tmp_path: Path) -> None:
    write(tmp_path / "corpora" / "x", [[5, 6]])
    with pytest.raises(DataError, match=r"corpora: a directory; give the prefix.*did you mean .*corpora/x\?"):
        len(IndexedDataset(tmp_path / "corpora"))


@pytest.mark.parametrize("suffix", [".bin", ".idx"])
def test_error_names_the_missing_file(tmp_path: Path, suffix: str) -> None:
    prefix = write(tmp_path / "x", [[5, 6], [7]])
    (tmp_path / f"x{suffix}").unlink()
    with pytest.raises(DataError, match=rf"x{suffix}: No such file|no such file"):
        len(IndexedDataset(prefix))


def test_error_for_a_missing_index_suggests_similar_prefixes(tmp_path: Path) -> None:
    write(tmp_path / "x_text_document", [[5]])
    with pytest.raises(DataError, match="did you mean .*x_text_document"):
        len(IndexedDataset(tmp_path / "x"))


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [(0, b"NOT", "neither"), (9, b"\x02", "version 2"), (17, b"\x06", "element type 6"), (58, b"\x01", "boundaries")],
)
def test_errors_for_damaged_headers(tmp_path: Path, offset: int, value: bytes, message: str) -> None:
    prefix = write(tmp_path / "x", [[5, 6], [7]])
    content = bytearray((tmp_path / "x.idx").read_bytes())
    content[offset : offset + len(value)] = value
    (tmp_path / "x.idx").write_bytes(content)
    with pytest.raises(DataError, match=message):
        len(IndexedDataset(prefix))


def test_overlapping_sequences_are_an_error(tmp_path: Path) -> None:
    prefix = write(tmp_path / "x", [[5, 6], [7]])
    content = bytearray((tmp_path / "x.idx").read_bytes())
    content[34:38] = struct.pack("<i", 1)
    (tmp_path / "x.idx").write_bytes(content)
    with pytest.raises(DataError, match="not contiguous"):
        len(IndexedDataset(prefix))


@pytest.mark.parametrize("value", [-(2**63), 2**62, 2**61, -1, 2**63 - 1])
@pytest.mark.parametrize(("slot", "name"), [(1, "start"), (4, "size")])
def test_sizes_and_starts_whose_bytes_would_overflow_are_an_error(
    tmp_path: Path, value: int, slot: int, name: str
) -> None:
    prefix = write(tmp_path / "x", [[5, 6, 7], [8, 9], [10]], "lazy")
    index = bytearray((tmp_path / "x.idx").read_bytes())
    struct.pack_into("<q", index, 56 + 8 * (4 + slot), value)  # 56 bytes of header, 4 offsets of dimensions
    (tmp_path / "x.idx").write_bytes(index)
    with pytest.raises(DataError, match=rf"x\.idx: damaged: sequence \d has {name} {value}"):
        len(IndexedDataset(prefix))


@pytest.mark.parametrize("itemsize", [2**63, 0, 2])
def test_an_element_size_of_another_type_is_an_error(tmp_path: Path, itemsize: int) -> None:
    prefix = write(tmp_path / "x", [[5, 6, 7]], "lazy")
    index = bytearray((tmp_path / "x.idx").read_bytes())
    struct.pack_into("<Q", index, 24, itemsize)
    (tmp_path / "x.idx").write_bytes(index)
    with pytest.raises(DataError, match=rf"x\.idx: damaged: it states {itemsize} bytes per token"):
        len(IndexedDataset(prefix))


def test_empty_corpus_is_an_error(tmp_path: Path) -> None:
    prefix = write(tmp_path / "x", [])
    with pytest.raises(DataError, match="no sequence"):
        len(IndexedDataset(prefix))


def test_error_while_writing_keeps_the_previous_corpus(tmp_path: Path) -> None:
    prefix = write(tmp_path / "x", [[5, 6]])
    before = sorted(path.name for path in tmp_path.iterdir())
    with pytest.raises(ValueError, match="sizes sum to 1"), IndexedDatasetWriter(prefix, 30) as writer:
        writer.add(np.array([7, 8]), [1], [1])
    assert sorted(path.name for path in tmp_path.iterdir()) == before
    assert IndexedDataset(prefix)[0].tolist() == [5, 6]


def test_temporary_folders_of_killed_processes_are_removed(tmp_path: Path) -> None:
    abandoned = tmp_path / ".x.abcdefgh.tmp"
    abandoned.mkdir()
    (abandoned / "bin").write_bytes(b"half")
    write(tmp_path / "x", [[5]])
    assert not abandoned.exists()


@pytest.mark.skipif(not hasattr(os, "posix_fadvise"), reason="the system has no posix_fadvise")
def test_tokens_begin_to_reach_the_disk_before_the_last_are_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise the last fsync waits for the whole corpus."""
    ranges: list[tuple[int, int]] = []
    monkeypatch.setattr(indexed_dataset, "_WRITEBACK_BYTES", 12)
    monkeypatch.setattr(os, "posix_fadvise", lambda descriptor, start, size, advice: ranges.append((start, size)))
    with IndexedDatasetWriter(tmp_path / "corpus", vocab_size=30) as writer:
        for size in (5, 2, 8):  # of 2 bytes each
            writer.add(np.arange(size), [size], [1])
    assert ranges == [(0, 14), (14, 16)]
