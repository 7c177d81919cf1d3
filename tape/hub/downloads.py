"""One file over HTTP, resumable: what arrived stays in ``NAME.part`` and the next attempt goes on from there."""

from __future__ import annotations

import http.client
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
    """There is nothing at that address."""


@dataclass(frozen=True)
class FileKind:
    """What a file should be, told by its first bytes: a server's error page must not pass for it.

    Attributes:
        name: with its article, for messages.
        is_begun_by: whether these may be the first bytes.
    """

    name: str
    is_begun_by: Callable[[bytes], bool]


GZIP = FileKind("a .tar.gz archive", lambda block: block.startswith(b"\x1f\x8b"))
JSON = FileKind("a JSON object", lambda block: block.lstrip().startswith(b"{"))
TORCH = FileKind("a PyTorch file", lambda block: block.startswith((b"PK\x03\x04", b"\x80")))  # zip, or pickles
SAFETENSORS = FileKind("a safetensors file", lambda block: block[8:9] == b"{")  # after the header's length


@dataclass(frozen=True)
class Retries:
    """How often a transfer that breaks off is taken up again, and the pause before (doubled each time)."""

    attempts: int = 5
    pause_seconds: float = 1.0


class _BrokenOff(Exception):
    """The connection ended before the file did."""


def part_file(path: Path) -> Path:
    """Where an unfinished download of ``path`` lies."""
    return path.with_name(f"{path.name}.part")


def download(url: str, path: Path, kind: FileKind, retries: Retries = Retries(), advice: str = "") -> None:
    """Fetch ``url`` into ``path``, going on from ``path.part`` if there is one.

    Args:
        url: ``http://`` or ``https://``.
        path: takes its name when the last byte is there.
        kind: what the file must be.
        retries: for connections that break off.
        advice: what to try when the link is dead; ends the message.

    Raises:
        DeadLinkError: there is no such file.
        DataError: the server can't be reached, it sends a web page instead of the file, or the transfer keeps breaking
            off. What arrived of the file is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_file(path)
    pause = retries.pause_seconds
    for attempt in range(1, retries.attempts + 1):
        try:
            _transfer(url, part, kind, advice)
            part.replace(path)
            return
        except _BrokenOff as error:
            if attempt == retries.attempts:
                raise DataError(f"{url}: {error}; run the same command again to go on from there") from None
            print(f"{url}: {error}; going on")
            time.sleep(pause)
            pause *= 2


def _transfer(url: str, part: Path, kind: FileKind, advice: str) -> None:
    """One request for the bytes that ``part`` lacks."""
    start = part.stat().st_size if part.exists() else 0
    response = _request(url, start, part, advice)
    if response is None:
        return
    with response:
        if response.status != http.client.PARTIAL_CONTENT:
            start = 0  # the server ignores ranges (or none was asked for): it sends the file from its beginning
        expected = _expected_size(response, start)
        _check_space(part, start, expected)
        _receive(url, response, part, kind, start, expected)
    size = part.stat().st_size
    if expected is not None and size < expected:
        raise _BrokenOff(f"the transfer broke off after {size:,} of {expected:,} bytes")
    if expected is not None and size > expected:
        part.unlink()
        raise _BrokenOff(f"{size:,} bytes arrived where {expected:,} were announced")


def _request(url: str, start: int, part: Path, advice: str) -> http.client.HTTPResponse | None:
    """The server's answer; None when ``part`` is complete already."""
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
                raise _BrokenOff("the file on the server is not the one begun here; starting anew") from None
            if error.code >= 500:
                raise _BrokenOff(f"the server answers HTTP {error.code} {error.reason}") from None
            raise DeadLinkError(
                f"{url}: dead link: the server answers HTTP {error.code} {error.reason}. {advice}"
            ) from None
    except urllib.error.URLError as error:
        raise DataError(f"{url}: the server can't be reached ({error.reason}): no network, or gone. {advice}") from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _BrokenOff(f"no answer ({error or type(error).__name__})") from None


def _expected_size(response: http.client.HTTPResponse, start: int) -> int | None:
    """Size of the whole file as announced; None when the server does not say."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    if total.isdigit():
        return int(total)
    length = response.headers.get("Content-Length", "")
    return start + int(length) if length.isdigit() else None


def _check_space(part: Path, start: int, expected: int | None) -> None:
    free = shutil.disk_usage(part.parent).free
    if expected is not None and expected - start > free:
        raise DataError(f"{part.parent}: {free:,} bytes are free, but {expected - start:,} are still to come")


def _receive(
    url: str, response: http.client.HTTPResponse, part: Path, kind: FileKind, start: int, expected: int | None
) -> None:
    """Append the body to ``part`` (or start it anew), after a look at its first bytes."""
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
        raise _BrokenOff(f"the transfer broke off ({error or type(error).__name__})") from None


def _check_kind(url: str, response: http.client.HTTPResponse, block: bytes, kind: FileKind) -> None:
    if kind.is_begun_by(block):
        return
    content = response.headers.get("Content-Type", "no type").split(";")[0]
    text = " ".join(block[:120].decode("utf-8", errors="replace").split())
    is_page = "html" in content or text.lower().startswith(("<!doctype", "<html", "<?xml"))
    what = "a web page" if is_page else f"something else ({content})"
    raise DataError(f"{url}: the server sent {what} instead of {kind.name}; it begins with {text[:80]!r}")
