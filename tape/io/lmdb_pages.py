"""Reading values from an LMDB data file, with every page checked before it is used.

The LMDB library maps the file into memory and follows the page numbers and offsets in it unchecked, so that a damaged
or hostile file ends the process with SIGBUS or SIGSEGV instead of an error. Records of data sets come from downloads
and old disks; they are therefore looked up here, with ``pread``, in the B+ tree of the default database. Files are
still written by the library.

The format is that of LMDB 0.9 (data version 1) on 64-bit little-endian machines, as described in its ``mdb.c``: pages
of equal size, of which the first two hold the versions of the tree's root; branch and leaf pages with sorted nodes;
values that do not fit into a leaf on consecutive overflow pages.
"""

from __future__ import annotations

import os
import struct
import weakref
from dataclasses import dataclass
from pathlib import Path

from tape.errors import DataError

_MAGIC, _VERSION = 0xBEEFC0DE, 1
_PAGE_SIZES = tuple(1 << bits for bits in range(8, 16))
_NO_PAGE = (1 << 64) - 1
_DEEPEST_TREE = 32  # CURSOR_STACK in mdb.c

_PAGE_HEADER = struct.Struct("<QHHHH")  # number, unused, flags, end of the node offsets, start of the nodes
_OVERFLOW_HEADER = struct.Struct("<QHHI")  # number, unused, flags, number of pages
_BRANCH, _LEAF, _OVERFLOW, _META = 0x01, 0x02, 0x04, 0x08

_NODE_HEADER = struct.Struct("<HHHH")  # low and high half of a size or page number, flags, size of the key
_VALUE_ON_OVERFLOW_PAGES = 0x01

_DATABASE = "IHH5Q"  # page size, flags, depth, branch, leaf and overflow pages, entries, root
_META_PAGE = struct.Struct("<IIQQ" + 2 * _DATABASE + "QQ")  # magic, version, address, map size, ..., last page, commit
_OFFSET = struct.Struct("<H")
_PAGE_NUMBER = struct.Struct("<Q")


class _DamageError(Exception):
    """A page is not what its place in the file requires; the message is the end of a sentence about the file."""


@dataclass(frozen=True)
class _Tree:
    """The newest committed version of the default database."""

    page_size: int
    root: int
    last_page: int
    commit: int


class LMDBFile:
    """Read-only LMDB data file. Processes may share an open file after a fork, and the file may be opened repeatedly.

    Args:
        path: the data file, ``data.mdb`` of a directory.

    Raises:
        OSError: the file can't be opened.
        DataError: it is not an LMDB file, or shorter than its header states.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)
        size = os.fstat(self._file).st_size
        if size == 0:
            raise DataError(f"{path}: empty file")
        try:
            self._tree = self._newest_tree()
        except _DamageError as error:
            raise DataError(f"{path}: not a readable LMDB file ({error})") from None
        needed = (self._tree.last_page + 1) * self._tree.page_size
        if size < needed:
            raise DataError(f"{path}: truncated: it has {size} bytes, but {needed} according to its header")

    def get(self, key: bytes) -> bytes | None:
        """The value of a key, or None if there is no such key.

        Raises:
            DataError: the pages that lead to the key are damaged.
        """
        try:
            return None if self._tree.root == _NO_PAGE else self._find(key)
        except _DamageError as error:
            raise DataError(f"{self.path}: damaged LMDB file at key {key.decode()!r} ({error})") from None

    def _newest_tree(self) -> _Tree:
        first = self._meta_page(0)
        second = self._meta_page(first.page_size)
        if second.page_size != first.page_size:
            raise _DamageError("its two headers have different page sizes")
        return max(first, second, key=lambda tree: tree.commit)

    def _meta_page(self, offset: int) -> _Tree:
        content = self._read(offset, _PAGE_HEADER.size + _META_PAGE.size)
        flags = _PAGE_HEADER.unpack_from(content)[2]
        values = _META_PAGE.unpack_from(content, _PAGE_HEADER.size)
        magic, version = values[:2]
        if not flags & _META or magic != _MAGIC:
            raise _DamageError("it has no LMDB header")
        if version != _VERSION:
            raise _DamageError(f"version {version} of the format; version {_VERSION} is supported")
        page_size, order = values[4], values[13]
        if page_size not in _PAGE_SIZES:
            raise _DamageError(f"pages of {page_size} bytes")
        if order:
            raise _DamageError("keys in another order, or with several values")
        root, last_page, commit = values[19:]
        return _Tree(page_size, root, last_page, commit)

    def _find(self, key: bytes) -> bytes | None:
        """Descend from the root to the leaf that may hold ``key``."""
        number = self._tree.root
        for _ in range(_DEEPEST_TREE):
            page, flags = self._page(number)
            nodes = _Nodes(page, is_branch=bool(flags & _BRANCH))
            index = nodes.last_not_after(key)
            if flags & _LEAF:
                return self._value(nodes, index) if index >= 0 and nodes.key(index) == key else None
            number = nodes.child(index)
        raise _DamageError(f"more than {_DEEPEST_TREE} levels of pages")

    def _page(self, number: int) -> tuple[bytes, int]:
        """A branch or leaf page, and its flags."""
        page = self._read_page(number, 1)
        stored, _, flags, _, _ = _PAGE_HEADER.unpack_from(page)
        if stored != number or flags & (_BRANCH | _LEAF | _OVERFLOW | _META) not in (_BRANCH, _LEAF):
            raise _DamageError(f"page {number} is no page of the tree")
        return page, flags

    def _value(self, nodes: _Nodes, index: int) -> bytes:
        size, flags, content = nodes.leaf(index)
        if flags == 0:
            return content
        if flags != _VALUE_ON_OVERFLOW_PAGES:
            raise _DamageError("its value is a database of its own")
        (number,) = _PAGE_NUMBER.unpack(content)
        pages = -(-(_OVERFLOW_HEADER.size + size) // self._tree.page_size)
        value = self._read_page(number, pages)
        stored, _, page_flags, stored_pages = _OVERFLOW_HEADER.unpack_from(value)
        if stored != number or not page_flags & _OVERFLOW or stored_pages < pages:
            raise _DamageError(f"page {number} does not begin a value of {size} bytes")
        return value[_OVERFLOW_HEADER.size : _OVERFLOW_HEADER.size + size]

    def _read_page(self, number: int, pages: int) -> bytes:
        if not 2 <= number <= number + pages - 1 <= self._tree.last_page:
            raise _DamageError(f"page {number} of {self._tree.last_page + 1}")
        return self._read(number * self._tree.page_size, pages * self._tree.page_size)

    def _read(self, offset: int, size: int) -> bytes:
        content = os.pread(self._file, size, offset)
        while 0 < len(content) < size:  # a signal, or the 2 GiB that one call reads at most
            more = os.pread(self._file, size - len(content), offset + len(content))
            if not more:
                break
            content += more
        if len(content) < size:
            raise _DamageError(f"it ends before byte {offset + size}")
        return content


class _Nodes:
    """The sorted nodes of a branch or leaf page."""

    def __init__(self, page: bytes, *, is_branch: bool) -> None:
        self._page = page
        self._is_branch = is_branch
        number, _, _, lower, upper = _PAGE_HEADER.unpack_from(page)
        self._number = number
        if not _PAGE_HEADER.size <= lower <= upper <= len(page) or (is_branch and lower < _PAGE_HEADER.size + 2):
            raise self._beyond_end()
        self._count = (lower - _PAGE_HEADER.size) // _OFFSET.size

    def last_not_after(self, key: bytes) -> int:
        """The index of the last node whose key is at most ``key``; -1 if there is none.

        The first key of a branch page stands for all smaller ones, and is not stored.
        """
        low, high = int(self._is_branch), self._count
        while low < high:
            middle = (low + high) // 2
            if self.key(middle) <= key:
                low = middle + 1
            else:
                high = middle
        return low - 1

    def key(self, index: int) -> bytes:
        at, _, _, _, size = self._node(index)
        return self._slice(at, size)

    def child(self, index: int) -> int:
        """The page number in a node of a branch page."""
        _, low, high, flags, _ = self._node(index)
        return low | high << 16 | flags << 32

    def leaf(self, index: int) -> tuple[int, int, bytes]:
        """The size of a value, the node's flags, and the value or the number of its first overflow page."""
        at, low, high, flags, key_size = self._node(index)
        size = low | high << 16
        stored = _PAGE_NUMBER.size if flags & _VALUE_ON_OVERFLOW_PAGES else size
        return size, flags, self._slice(at + key_size, stored)

    def _node(self, index: int) -> tuple[int, int, int, int, int]:
        """The offset of a node's key, and the fields of its header."""
        (at,) = _OFFSET.unpack_from(self._page, _PAGE_HEADER.size + _OFFSET.size * index)
        try:
            return at + _NODE_HEADER.size, *_NODE_HEADER.unpack_from(self._page, at)
        except struct.error:
            raise self._beyond_end() from None

    def _slice(self, at: int, size: int) -> bytes:
        if at + size > len(self._page):
            raise self._beyond_end()
        return self._page[at : at + size]

    def _beyond_end(self) -> _DamageError:
        return _DamageError(f"page {self._number} has offsets beyond its end")
