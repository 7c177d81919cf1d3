"""Damaged journals: the whole records before the damage are kept, and no size in the file is taken for granted."""

from __future__ import annotations

import errno
import fcntl
import struct
from pathlib import Path

import numpy as np
import pytest

from tape.errors import DataError
from tape.inference.embedding_journal import EmbeddingJournal, journal_file, read_places

IDENTITY = {"model_sha256": "x", "proteins": 3}
RECORD = 24 + 4 * (2 * 4 + 3)  # header, states (2, 4) and a pooled vector of 3


@pytest.fixture
def out_file(tmp_path: Path) -> Path:
    """An output whose journal has three proteins."""
    out = tmp_path / "e.npz"
    with EmbeddingJournal(journal_file(out), IDENTITY) as journal:
        journal.append((index, (np.full((2, 4), index, "f4"), np.full(3, index, "f4"))) for index in range(3))
    return out


def test_all_records_are_read(out_file: Path) -> None:
    places = read_places(out_file, IDENTITY)
    assert sorted(places) == [0, 1, 2]
    states, pooled = places[1].read()
    assert (states.tolist(), pooled.tolist()) == ([[1.0] * 4] * 2, [1.0] * 3)


@pytest.mark.parametrize("sizes", [(2**31 - 1, 2**31 - 1, 0), (-1, -5, 0), (2, 4, -3), (0, 0, 0), (2, 4, 2**31 - 1)])
def test_a_record_of_an_impossible_size_ends_the_journal(out_file: Path, sizes: tuple[int, int, int]) -> None:
    path = journal_file(out_file)
    content = bytearray(path.read_bytes())
    struct.pack_into("<iii", content, len(content) - RECORD + 12, *sizes)
    path.write_bytes(content)
    assert sorted(read_places(out_file, IDENTITY)) == [0, 1]


@pytest.mark.parametrize("header", [b"{", b"\xff\xfe", b"[1]", b"[" * 100_000])
def test_a_damaged_header_is_named(out_file: Path, header: bytes) -> None:
    path = journal_file(out_file)
    path.write_bytes(b"PLMEMB01" + struct.pack("<I", len(header)) + header)
    with pytest.raises(DataError, match=r"e\.npz\.partial: its header is damaged; remove it to start over"):
        read_places(out_file, IDENTITY)


def test_a_header_of_any_length_is_not_read(out_file: Path) -> None:
    path = journal_file(out_file)
    path.write_bytes(b"PLMEMB01" + struct.pack("<I", 2**32 - 1) + b"{}")
    with pytest.raises(DataError, match="its header is damaged"):
        read_places(out_file, IDENTITY)


def test_a_file_system_without_locks_is_announced(
    out_file: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with EmbeddingJournal(journal_file(out_file), IDENTITY):
        pass
    assert "has no locks (Operation not supported); let no other command write these embeddings" in caplog.text
    assert sorted(read_places(out_file, IDENTITY)) == [0, 1, 2]
