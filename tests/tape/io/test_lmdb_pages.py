"""Values of LMDB files equal the library's; damaged pages are errors that name the file, never crashes."""

from __future__ import annotations

import contextlib
import multiprocessing
import random
import struct
from pathlib import Path

import lmdb
import pytest

from tape.errors import DataError
from tape.io.lmdb_pages import LMDBFile

PAGE = 4096
META_ROOT = 16 + 24 + 48 + 40  # of the default database, in a header page


def write(path: Path, values: dict[bytes, bytes], remove: tuple[bytes, ...] = ()) -> Path:
    """A data file of the library with two commits."""
    with lmdb.open(str(path), subdir=False, lock=False, map_size=1 << 26) as environment:
        with environment.begin(write=True) as transaction:
            for key, value in values.items():
                transaction.put(key, value)
        with environment.begin(write=True) as transaction:
            for key in remove:
                transaction.delete(key)
    return path


@pytest.fixture
def values() -> dict[bytes, bytes]:
    """Enough for three levels of pages: short and long keys, empty values, and values on overflow pages."""
    generator = random.Random(0)
    sizes = (0, 1, 300, 1500, 2030, 5000, 40_000)
    values = {str(number).encode(): generator.randbytes(generator.choice(sizes)) for number in range(1500)}
    return values | {bytes([letter]) * 400: bytes([letter]) for letter in range(97, 123)}


def test_every_value_is_that_of_the_library(tmp_path: Path, values: dict[bytes, bytes]) -> None:
    removed = tuple(list(values)[100:900:3])
    file = LMDBFile(write(tmp_path / "data.mdb", values, removed))
    assert [file.get(key) for key in removed] == [None] * len(removed)
    assert {key: file.get(key) for key in values if key not in removed} == {
        key: value for key, value in values.items() if key not in removed
    }
    assert [file.get(key) for key in (b"", b"!", b"15000", b"zzz")] == [None] * 4


def test_a_file_without_values_has_none(tmp_path: Path) -> None:
    assert LMDBFile(write(tmp_path / "data.mdb", {})).get(b"0") is None


def patched(path: Path, offset: int, content: bytes) -> Path:
    data = bytearray(path.read_bytes())
    data[offset : offset + len(content)] = content
    path.write_bytes(data)
    return path


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Page 0 and 1: headers; the others: one leaf, one value on overflow pages, unused pages."""
    return write(tmp_path / "data.mdb", {b"0": b"short", b"1": bytes(9000)})


def root(path: Path) -> int:
    """The offset of the newest tree's root."""
    data = path.read_bytes()
    roots = [struct.unpack_from("<QQQ", data, header + META_ROOT) for header in (0, PAGE)]
    return max(roots, key=lambda fields: fields[2])[0] * PAGE


@pytest.mark.parametrize(
    ("offset", "content", "message"),
    [
        pytest.param(0, struct.pack("<Q", 99), "no page of the tree", id="another page's number"),
        pytest.param(10, b"\x04", "no page of the tree", id="an overflow page"),
        pytest.param(10, b"\x01", "page [0-9]+", id="a branch page"),
        pytest.param(12, b"\xff\xff", "offsets beyond its end", id="more nodes than the page can hold"),
        pytest.param(14, b"\xff\xff", "offsets beyond its end", id="nodes after the page"),
        pytest.param(16, b"\xfe\x0f" * 2, "offsets beyond its end", id="a node over the end of the page"),
    ],
)
def test_damage_of_a_page_is_an_error_at_the_key(small: Path, offset: int, content: bytes, message: str) -> None:
    file = LMDBFile(patched(small, root(small) + offset, content))
    with pytest.raises(DataError, match=rf"data\.mdb: damaged LMDB file at key '1' \(.*{message}"):
        file.get(b"1")


@pytest.mark.parametrize("page", [0, 1, 1000, 1 << 40, (1 << 64) - 2])
def test_a_root_that_is_no_page_is_an_error_not_a_crash(small: Path, page: int) -> None:
    for header in (0, PAGE):
        patched(small, header + META_ROOT, struct.pack("<Q", page))
    with pytest.raises(DataError, match=r"damaged LMDB file at key '0' \(page"):
        LMDBFile(small).get(b"0")


def test_pages_that_lead_in_circles_end(tmp_path: Path) -> None:
    path = write(tmp_path / "data.mdb", {str(number).encode(): bytes(500) for number in range(30)})
    at = root(path)
    data = path.read_bytes()
    for slot in range((struct.unpack_from("<H", data, at + 12)[0] - 16) // 2):  # every child is the root itself
        (node,) = struct.unpack_from("<H", data, at + 16 + 2 * slot)
        patched(path, at + node, struct.pack("<IH", at // PAGE, 0))
    with pytest.raises(DataError, match="more than 32 levels"):
        LMDBFile(path).get(b"7")


def test_a_file_that_shrinks_while_it_is_open_is_an_error(small: Path) -> None:
    file = LMDBFile(small)
    with small.open("r+b") as stream:
        stream.truncate(2 * PAGE)
    with pytest.raises(DataError, match=r"damaged LMDB file at key '0' \(it ends before byte"):
        file.get(b"0")


def test_keys_in_another_order_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "data.mdb", {})
    for header in (0, PAGE):
        patched(path, header + 16 + 24 + 48 + 4, struct.pack("<H", 4))
    with pytest.raises(DataError, match="several values"):
        LMDBFile(path)


def _damaged(pristine: bytes, generator: random.Random) -> bytes:
    """The file with some numbers of its headers, pages and nodes replaced."""
    data = bytearray(pristine)
    for _ in range(generator.randint(1, 3)):
        page = generator.randrange(len(data) // PAGE) * PAGE
        at = page + generator.randrange(0, 200 if generator.random() < 0.7 else PAGE, 2)
        value = generator.choice([0, 1, 2, 3, 4, 5, 16, 255, PAGE, 65535, generator.randrange(65536)])
        data[at : at + 2] = struct.pack("<H", value)
    return bytes(data)


def _get_all(path: Path, keys: list[bytes]) -> None:
    """Read all keys of damaged files; any exception but a DataError is one of this process."""
    generator, pristine = random.Random(1), path.read_bytes()
    for _ in range(150):
        path.write_bytes(_damaged(pristine, generator))
        with contextlib.suppress(DataError):
            file = LMDBFile(path)
            for key in keys:
                with contextlib.suppress(DataError):
                    file.get(key)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")  # pytest's own threads
def test_no_damage_ends_the_process(tmp_path: Path) -> None:
    values = {str(number).encode(): bytes(number * 37 % 5000) for number in range(60)}
    path = write(tmp_path / "data.mdb", values)
    worker = multiprocessing.get_context("fork").Process(target=_get_all, args=(path, list(values)))
    worker.start()
    worker.join()
    assert worker.exitcode == 0
