"""Text files, compressed or not: bounds on what a file may make a reader hold in memory."""

from __future__ import annotations

import gzip
import lzma
import zlib
from pathlib import Path

import pytest

from tape.errors import DataError
from tape.io.records import open_records, open_rows
from tape.io.text_files import LONGEST_LINE, open_bytes, open_text


def test_lines_up_to_the_bound_are_read(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    text = f"{'A' * 99_999}\n" * 50
    path.write_text(text)
    with open_text(path, longest_line=100_000) as stream:
        assert "".join(stream) == text


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_a_line_ends_as_python_reads_it(tmp_path: Path, end: str) -> None:
    path = tmp_path / "x.txt"
    path.write_bytes(f"ABC{end}".encode() * 200_000)
    with open_text(path, longest_line=1000) as stream:
        assert sum(1 for _ in stream) == 200_000


def test_a_line_over_the_bound_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    path.write_text("first\nsecond\n" + "A" * 400_000)
    with pytest.raises(DataError, match=r"x\.txt, line 3 is longer than 1,000 bytes"):
        with open_text(path, longest_line=1000) as stream:
            list(stream)


@pytest.mark.parametrize("suffix", [".fasta", ".sto", ".txt", ".csv", ".jsonl"])
def test_a_compressed_line_of_any_length_is_not_put_together(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"bomb{suffix}.gz"
    start = {".fasta": b">x\n", ".sto": b"# STOCKHOLM 1.0\n", ".csv": b"id,sequence\nx,"}.get(suffix, b"")
    block = gzip.compress(b"A" * (1 << 24), 1)
    with path.open("wb") as stream:
        stream.write(gzip.compress(start))
        for _ in range(LONGEST_LINE // (1 << 24) + 1):
            stream.write(block)
    with pytest.raises(DataError, match="is longer than 134,217,728 bytes") as caught:
        list(open_records(path))
    assert str(path) in str(caught.value)


def test_a_json_list_may_be_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is read value by value, so its length is no problem."""
    monkeypatch.setattr("tape.io.records.reader.LONGEST_LINE", 10)
    path = tmp_path / "x.json"
    path.write_text('[{"id": "a", "primary": "MKVLA"}, {"id": "b", "primary": "GG"}]')
    assert [row.fields["id"] for row in open_rows(path)] == ["a", "b"]


def test_an_xz_file_of_several_streams_with_padding_is_read(tmp_path: Path) -> None:
    file = tmp_path / "x.xz"
    file.write_bytes(lzma.compress(b"one\n") + bytes(8) + lzma.compress(b"two\n" * 10**5) + bytes(4))
    with open_bytes(file) as stream:
        assert stream.read() == b"one\n" + b"two\n" * 10**5


def test_an_xz_file_with_a_huge_dictionary_is_refused(tmp_path: Path) -> None:
    """A header of some bytes asks for 1.5 GiB."""
    file = tmp_path / "x.fasta.xz"
    small = lzma.compress(b">a\nMK\n", filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}])
    header = bytearray(small[12:20])
    assert header[2] == lzma.FILTER_LZMA2
    header[4] = 39  # 3 * 2^30 bytes
    file.write_bytes(small[:12] + bytes(header) + zlib.crc32(header).to_bytes(4, "little") + small[24:])
    with pytest.raises(DataError, match=r"x\.fasta\.xz: decompressing it needs more than 256 MiB .*compress it again"):
        with open_bytes(file) as stream:
            stream.read()
