"""Resumable download of a file over HTTP.

An unfinished download is kept in ``NAME.part``, and continued only with bytes of the same version of the file; see
:mod:`tape.hub.partial_downloads`.
"""

from __future__ import annotations

import base64
import http.client
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote_to_bytes, urlsplit, urlunsplit

from tape.errors import DataError
from tape.io.credentials import without_credentials
from tape.io.digits import natural_number
from tape.io.writing import output_errors
from tape.runtime.progress import progress_bar
from tape.version import __version__

from .partial_downloads import PartialDownload, RemoteVersion

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


class _Changed(Exception):
    """The server no longer has the version of the file that the download began with."""


def download(url: str, path: Path, kind: FileKind, retries: Retries = Retries(), advice: str = "") -> None:
    """Download ``url`` to ``path``, resuming an earlier download of the same version of the file.

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
    partial = PartialDownload(path)
    pause = retries.pause_seconds
    for attempt in range(1, retries.attempts + 1):
        try:
            _transfer(url, partial, kind, advice)
            partial.finish()
            return
        except _Interrupted as error:
            if attempt == retries.attempts:
                raise DataError(
                    f"{without_credentials(url)}: {error}; run the same command again to resume the download"
                ) from None
            print(f"{without_credentials(url)}: {error}; resuming")
            time.sleep(pause)
            pause *= 2


def _transfer(url: str, partial: PartialDownload, kind: FileKind, advice: str) -> None:
    """Request the bytes that are missing in ``partial``; all, if they are not of its version."""
    version = partial.version(without_credentials(url))
    if version is not None and version.size == partial.size:
        return
    try:
        _receive_rest(url, partial, version, kind, advice)
    except _Changed:
        print(
            f"{without_credentials(url)}: the file on the server has changed since the download began; starting again"
        )
        partial.discard()
        _receive_rest(url, partial, None, kind, advice)


def _receive_rest(
    url: str, partial: PartialDownload, version: RemoteVersion | None, kind: FileKind, advice: str
) -> None:
    """Request the bytes after those in ``partial``, which are of ``version``; None: the entire file."""
    start = 0 if version is None else partial.size
    with _request(url, start, version, advice) as response:
        is_rest = response.status == http.client.PARTIAL_CONTENT
        expected = _expected_size(response, start if is_rest else 0)
        received = _version_of(url, response, expected)
        if not is_rest:
            start = 0  # another version, a server without ranges, or no range was requested: the entire file follows
            partial.start(received)
        elif version is None or not _starts_at(response, start) or not version.is_continued_by(received):
            raise _Changed
        _check_space(partial.part, start, expected)
        _receive(url, response, partial.part, kind, start, expected)
    _check_size(partial, expected)


def _version_of(url: str, response: http.client.HTTPResponse, size: int | None) -> RemoteVersion:
    etag, last_modified, date = (response.headers.get(name, "") for name in ("ETag", "Last-Modified", "Date"))
    shown = without_credentials(url)
    return RemoteVersion.of_response(shown, size, etag=etag, last_modified=last_modified, date=date)


def _check_size(partial: PartialDownload, expected: int | None) -> None:
    size = partial.size
    if expected is not None and size < expected:
        raise _Interrupted(f"the transfer was interrupted after {size:,} of {expected:,} bytes")
    if expected is not None and size > expected:
        partial.discard()
        raise _Interrupted(f"received {size:,} bytes instead of {expected:,}")


def _request(url: str, start: int, version: RemoteVersion | None, advice: str) -> http.client.HTTPResponse:
    """The server's response, with the bytes of ``version`` from ``start``, or with the entire file."""
    headers = {"User-Agent": f"ProteinLM/{__version__}", "Accept-Encoding": "identity"}
    if start and version is not None:
        headers |= {"Range": f"bytes={start}-", "If-Range": version.validator}
    request = _with_credentials(url, headers)
    try:
        response: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=_TIMEOUT_SECONDS)
        return response
    except urllib.error.HTTPError as error:
        with error:
            if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE:
                raise _Changed from None
            if error.code >= 500:
                raise _Interrupted(f"the server responds with HTTP {error.code} {error.reason}") from None
            raise DeadLinkError(
                f"{without_credentials(url)}: dead link: the server responds with HTTP {error.code} {error.reason}."
                f" {advice}"
            ) from None
    except urllib.error.URLError as error:
        raise DataError(f"{without_credentials(url)}: the server can't be reached ({error.reason}). {advice}") from None
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _Interrupted(f"no response ({error or type(error).__name__})") from None


def _with_credentials(url: str, headers: dict[str, str]) -> urllib.request.Request:
    """A request with the user name and password of the address in its header, which other hosts don't receive."""
    parts = urlsplit(url)
    user, separator, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urlunsplit(parts._replace(netloc=host)), headers=headers)
    if separator:
        encoded = base64.b64encode(unquote_to_bytes(user)).decode("ascii")
        request.add_unredirected_header("Authorization", f"Basic {encoded}")
    return request


def _starts_at(response: http.client.HTTPResponse, start: int) -> bool:
    """Whether the range in the response is the one that was requested."""
    return re.match(rf"bytes {start}-", response.headers.get("Content-Range", "")) is not None


def _expected_size(response: http.client.HTTPResponse, start: int) -> int | None:
    """Size of the entire file; None if the server does not state it."""
    total = response.headers.get("Content-Range", "").rpartition("/")[2]
    if (size := natural_number(total)) is not None:
        return size
    length = natural_number(response.headers.get("Content-Length", ""))
    return None if length is None else start + length


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
        if not start and (block or not expected):  # else the connection broke before the first byte
            _check_kind(url, response, block, kind)
        name = urlsplit(url).path.rpartition("/")[2]
        with (
            output_errors(part, expected),
            part.open("ab" if start else "wb") as stream,
            progress_bar(name, expected, "B", initial=start) as bar,
        ):
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
    raise DataError(
        f"{without_credentials(url)}: the server sent {what} instead of {kind.name}; it begins with {text[:80]!r}"
    )
