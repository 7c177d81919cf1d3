"""Files that hypothesis invents: any bytes are records or an error that names the file."""

from __future__ import annotations

import bz2
import gzip
import lzma
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tape.errors import DataError
from tape.io.records import FORMATS, RecordOptions, open_records

# Pieces of all formats, so that files get beyond their first line.
PIECES = [
    *(b">", b"a", b" x=1", b"\n", b"\r\n", b"\r", b";", b"#", b"MKV", b"mk-J*.", b"# STOCKHOLM 1.0\n", b"//\n"),
    *(b"a  MK\n", b"id,primary\n", b"id\tsequence\n", b",", b"\t", b'"', b'""', b"[", b"]", b"{", b"}", b'"id": 1'),
    *(b'{"text": "MK"}\n', b"null", b"NaN", b"1e999", b"9" * 5000, b"\0", b"\xff", b"\xe9", b"\\ud800"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", "é\u2028\ud7ff".encode(), b"[" * 2000, b"A" * 5000, b" " * 99),
]
COMPRESSED: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
}
ANY_BYTES = st.one_of(st.binary(max_size=300), st.lists(st.sampled_from(PIECES), max_size=25).map(b"".join))
FORMAT_NAMES = sorted(set(FORMATS) - {"lmdb"})
bounded = settings(
    max_examples=100,
    deadline=timedelta(seconds=5),
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


def read(path: Path, format: str) -> None:
    """Read all records; a DataError must name the file."""
    message = str(path)
    try:
        for record in open_records(path, RecordOptions(format), with_fields=True):
            assert record.sequence
            record.name.encode()
    except DataError as error:
        message = str(error)
    assert str(path) in message


@pytest.mark.parametrize("format", FORMAT_NAMES)
@bounded
@given(content=ANY_BYTES, compression=st.sampled_from(sorted(COMPRESSED)))
def test_any_bytes_are_records_or_a_named_error(tmp_path: Path, format: str, content: bytes, compression: str) -> None:
    path = tmp_path / "x"
    path.write_bytes(COMPRESSED[compression](content))
    read(path, format + compression)


@pytest.mark.parametrize("compression", [".gz", ".bz2", ".xz", ".zst"])
@bounded
@given(content=ANY_BYTES, cut=st.integers(0, 400), flipped=st.integers(0, 400))
def test_a_damaged_archive_is_named(tmp_path: Path, compression: str, content: bytes, cut: int, flipped: int) -> None:
    path = tmp_path / "x"
    data = bytearray(COMPRESSED.get(compression, bytes)(content)[:cut])
    if data:
        data[flipped % len(data)] ^= 1 << flipped % 8
    path.write_bytes(data)
    read(path, f"fasta{compression}")
