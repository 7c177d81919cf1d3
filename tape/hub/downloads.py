"""Resumable download of a file over HTTP. An unfinished download is kept in ``NAME.part``."""

from __future__ import annotations

import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tape.errors import DataError
from tape.runtime.progress import progress_bar
from tape.version import __version__

_BLOCK_BYTES = 1 << 18
_TIMEOUT_SECONDS = 60.0


class DeadLinkError(DataError):
    """The server has no file at this address."""


@dataclass(frozen=True)
class FileKind:
    """Expected format of a file, recognized by its first bytes, so that a server's error page is not taken for it.

    Attributes:
        name: name of the format with its article, for messages.
        can_begin_with: whether a file of this format can begin with the given bytes.
    """

    name: str
    can_begin_with: Callable[[bytes], bool]


GZIP = FileKind("a .tar.gz archive", lambda block: block.startswith(b"\x1f\x8b"))
JSON = FileKind("a JSON object", lambda block: block.lstrip().startswith(b"{"))
TORCH = FileKind("a PyTorch file", lambda block: block.startswith((b"PK\x03\x04", b"\x80")))  # zip file or pickle
SUMS = FileKind("a list of checksums", lambda block: re.match(rb"[0-9a-f]{64} ", block) is not None)
SAFETENSORS = FileKind("a safetensors file", lambda block: block[8:9] == b"{")  # after the length of the header


@dataclass(frozen=True)
class Retries:
    """Number of attempts to resume an interrupted transfer, and the first pause between them, which then doubles."""

    attempts: int = 5
    pause_seconds: float = 1.0


class _Interrupted(Exception):
    """The transfer was interrupted and can be resumed."""


def part_file(path: Path) -> Path:
    """The file for the unfinished download of ``path``."""
    return path.with_name(f"{path.name}.part")


def download(url: str, path: Path, kind: FileKind, retries: Retries = Retries(), advice: str = "") -> None:
    """Download ``url`` to ``path``, resuming from ``path.part`` if it exists.

    Args:
        url: ``http://`` or ``https://`` address.
        path: final name of the file, given to it when it is complete.
        kind: expected format.
        retries: for interrupted transfers.
        advice: end of the error message, on what to try if the file does not exist.

    Raises:
        DeadLinkError: the server has no such file.
        DataError: the server can't be reached, it sends a web page instead of the file, or the transfer is interrupted
            too often. The part that has arrived is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_file(path)
    pause = retries.pause_seconds
    for attempt in range(1, retries.attempts + 1):
        try:
            _transfer(url, part, kind, advice)
            part.replace(path)
            return
        except _Interrupted as error:
            if attempt == retries.attempts:
                raise DataError(f"{url}: {error}; run the same command again to resume the download") from None
            print(f"{url}: {error}; resuming")
            time.sleep(pause)
            pause *= 2


def _transfer(url: str, part: Path, kind: FileKind, advice: str) -> None:
    """Request the bytes that are missing in ``part``."""
    start = part.stat().st_size if part.exists() else 0
    response = _request(url, start, part, advice)
    if response is None:
        return
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0  # the server does not support ranges (or none was requested) and sends the entire file
        expected = _expected_size(response, start)
        _check_space(part, start, expected)
        _receive(url, response, part, kind, start, expected)
    size = part.stat().st_size
    if expected is not None and size < expected:
        raise _Interrupted(f"the transfer was interrupted after {size:,} of {expected:,} bytes")
    if expected is not None and size > expected:
        part.unlink()
        raise _Interrupted(f"received {size:,} bytes instead of {expected:,}")


def _request(url: str, start: int, part: Path, advice: str) -> http.client.HTTPResponse | None:
    """The server's response; None if ``part`` is complete already."""
    headers = {"User-Agent": f"ProteinLM/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(url, headers=headers), timeout=_TIMEOUT_SECONDS
        )
        return response
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                if error.headers.get("Content-Range", "").rpartition("/")[2] == str(start):
                    return None
                part.unlink()
                raise _Interrupted(
                    "the file on the server has changed since the download began; starting over"
                ) from None
            if error.code >= 500:
                raise _Interrupted(f"the server responds with HTTP {error.code} {error.reason}") from None
            raise DeadLinkError(
                f"{url}: dead link: the server responds with HTTP {error.code} {error.reason}. {advice}"
            ) from None
    except urllib.error.URLError as error:
        raise DataError(f"{url}: the server can't be reached ({error.reason}). {advice}") from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _Interrupted(f"no response ({error or type(error).__name__})") from None


def _expected_size(response: http.client.HTTPResponse, start: int) -> int | None:
    """Size of the entire file; None if the server does not state it."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    if total.isdigit():
        return int(total)
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _check_space(part: Path, start: int, expected: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if expected is not None and expected - start > free:
        raise DataError(f"{part.parent}: {free:,} bytes are free, but the download needs {expected - start:,} more")


def _receive(
    url: str, response: http.client.HTTPResponse, part: Path, kind: FileKind, start: int, expected: int | None
) -> None:
    """Check the first bytes of the body and append it to ``part``, or overwrite ``part`` if ``start`` is 0."""
    try:
        block = response.read(_BLOCK_BYTES)
        if not start:
            _check_kind(url, response, block, kind)
        name = url.rpartition("/")[2]
        with part.open("ab" if start else "wb") as stream, progress_bar(name, expected, "B", initial=start) as bar:
            while block:
                stream.write(block)
                bar.update(len(block))
                block = response.read(_BLOCK_BYTES)
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _Interrupted(f"the transfer was interrupted ({error or type(error).__name__})") from None


def _check_kind(url: str, response: http.client.HTTPResponse, block: bytes, kind: FileKind) -> None:
    if kind.can_begin_with(block):
        return
    content = response.headers.get("Content-Type", "no type").split(";")[0]
    text = " ".join(block[:120].decode("utf-8", errors="replace").split())
    is_page = "html" in content or text.lower().startswith(("<!doctype", "<html", "<?xml"))
    what = "a web page" if is_page else f"something else ({content})"
    raise DataError(f"{url}: the server sent {what} instead of {kind.name}; it begins with {text[:80]!r}")
