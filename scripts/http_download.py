"""One file over HTTP, resumable: what arrived stays in ``NAME.part`` and the next attempt goes on from there."""

from __future__ import annotations

import http.client
import shutil
import time
import urllib.error
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from tape.errors import DataError

_BLOCK_BYTES = 1 << 18
_TIMEOUT_SECONDS = 60.0
GZIP_MAGIC = b"\x1f\x8b"


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


def download(url: str, path: Path, retries: Retries = Retries(), advice: str = "") -> None:
    """Fetch ``url`` into ``path``, going on from ``path.part`` if there is one.

    Args:
        url: of a gzip file.
        path: takes its name when the last byte is there.
        retries: for connections that break off.
        advice: what to try when the link is dead; ends the message.

    Raises:
        DataError: the link is dead, the server can't be reached, it sends a web page instead of an archive, or the
            transfer keeps breaking off. What arrived of an archive is kept.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = part_file(path)
    pause = retries.pause_seconds
    for attempt in range(1, retries.attempts + 1):
        try:
            _transfer(url, part, advice)
            part.replace(path)
            return
        except _BrokenOff as error:
            if attempt == retries.attempts:
                raise DataError(f"{url}: {error}; run the same command again to go on from there") from None
            print(f"{url}: {error}; going on")
            time.sleep(pause)
            pause *= 2


def _transfer(url: str, part: Path, advice: str) -> None:
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
        _receive(url, response, part, start, expected)
    size = part.stat().st_size
    if expected is not None and size < expected:
        raise _BrokenOff(f"the transfer broke off after {size:,} of {expected:,} bytes")
    if expected is not None and size > expected:
        part.unlink()
        raise _BrokenOff(f"{size:,} bytes arrived where {expected:,} were announced")


def _request(url: str, start: int, part: Path, advice: str) -> http.client.HTTPResponse | None:
    """The server's answer; None when ``part`` is complete already."""
    headers = {"User-Agent": "ProteinLM download_data", "Accept-Encoding": "identity"}
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
            raise DataError(
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


def _receive(url: str, response: http.client.HTTPResponse, part: Path, start: int, expected: int | None) -> None:
    """Append the body to ``part`` (or start it anew), after a look at its first bytes."""
    try:
        block = response.read(_BLOCK_BYTES)
        if not start:
            _check_is_archive(url, response, block)
        with part.open("ab" if start else "wb") as stream, _bar(url, start, expected) as bar:
            while block:
                stream.write(block)
                bar.update(len(block))
                block = response.read(_BLOCK_BYTES)
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise _BrokenOff(f"the transfer broke off ({error or type(error).__name__})") from None


def _check_is_archive(url: str, response: http.client.HTTPResponse, block: bytes) -> None:
    if block.startswith(GZIP_MAGIC):
        return
    kind = response.headers.get("Content-Type", "no type").split(";")[0]
    text = " ".join(block[:120].decode("utf-8", errors="replace").split())
    is_page = "html" in kind or text.lower().startswith(("<!doctype", "<html", "<?xml"))
    what = "a web page" if is_page else f"something else ({kind})"
    raise DataError(f"{url}: the server sent {what} instead of a .tar.gz archive; it begins with {text[:80]!r}")


def _bar(url: str, start: int, expected: int | None) -> tqdm:
    title = url.rpartition("/")[2]
    return tqdm(total=expected, initial=start, desc=title, unit="B", unit_scale=True, disable=None, leave=False)
