"""The unfinished part of a download, and the version of the remote file that it belongs to.

``NAME.part`` holds the bytes received so far, ``NAME.part.json`` the version that they are of: address, ``ETag``,
``Last-Modified`` and size, from the headers of the first response. The next attempt requests the remaining bytes of
exactly this version (``If-Range``, RFC 9110, section 13.1.5). Without a validator that identifies the version, or if
the file on the server has changed, the download starts again, so that a file never consists of two versions.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path

from tape.errors import DataError
from tape.io.json_files import read_json_object
from tape.io.writing import write_json


@dataclass(frozen=True)
class RemoteVersion:
    """A version of a file on a server.

    Attributes:
        url: the address.
        etag: the strong entity tag, with its quotation marks; empty: none. Files with equal weak tags (``W/"..."``) may
            differ in their bytes, so these are not stored.
        last_modified: the time of the last change, as the server wrote it; empty: unknown, or so shortly before the
            response that the file may have changed again within the same second.
        size: bytes of the entire file; None: unknown.
    """

    url: str
    etag: str = ""
    last_modified: str = ""
    size: int | None = None

    @classmethod
    def of_response(
        cls, url: str, size: int | None, *, etag: str = "", last_modified: str = "", date: str = ""
    ) -> RemoteVersion:
        """The version that a response is of.

        Args:
            url: the address that was requested.
            size: bytes of the entire file; None: unknown.
            etag, last_modified, date: the response's headers ``ETag``, ``Last-Modified`` and ``Date``; empty: absent.
        """
        strong = etag.strip() if etag.strip().startswith('"') else ""
        return cls(url, strong, _unambiguous_time(last_modified, date), size)

    @property
    def validator(self) -> str:
        """The value of ``If-Range`` that requests this version; empty: the server identifies no version."""
        return self.etag or self.last_modified

    def is_continued_by(self, other: RemoteVersion) -> bool:
        """Whether a part of ``other`` may be appended to a part of this version."""
        if self.size is not None and other.size is not None and self.size != other.size:
            return False
        if self.etag:
            return self.etag == other.etag
        return self.last_modified != "" and self.last_modified == other.last_modified


def _unambiguous_time(modified: str, received: str) -> str:
    """``Last-Modified``, if it is at least a second before the response (RFC 9110, section 8.8.2.2)."""
    with suppress(ValueError, TypeError):  # absent or not a date; with and without a time zone
        if (parsedate_to_datetime(received) - parsedate_to_datetime(modified)).total_seconds() >= 1:
            return modified
    return ""


@dataclass(frozen=True)
class PartialDownload:
    """The unfinished part of the download of ``path``."""

    path: Path

    @property
    def part(self) -> Path:
        """The file with the bytes received so far."""
        return self.path.with_name(f"{self.path.name}.part")

    @property
    def record(self) -> Path:
        """The file with the version that they are of."""
        return self.path.with_name(f"{self.path.name}.part.json")

    @property
    def size(self) -> int:
        """Bytes received so far."""
        return self.part.stat().st_size if self.part.exists() else 0

    def version(self, url: str) -> RemoteVersion | None:
        """The version of a part that can be continued from ``url``; None: start again.

        None without a part, without its record (as earlier versions of the project left it), for a part from another
        address, and for a version that the server does not identify.
        """
        try:
            content = read_json_object(self.record, DataError)
            version = RemoteVersion(**content)
        except (DataError, TypeError):
            return None
        is_valid = all(isinstance(text, str) for text in (version.url, version.etag, version.last_modified))
        if not is_valid or not isinstance(version.size, int | None) or version.url != url or not self.size:
            return None
        return version if version.validator or version.size == self.size else None

    def start(self, version: RemoteVersion) -> None:
        """Begin a download from its first byte."""
        self.part.unlink(missing_ok=True)
        write_json(self.record, asdict(version))

    def discard(self) -> None:
        """Delete the part."""
        self.part.unlink(missing_ok=True)
        self.record.unlink(missing_ok=True)

    def finish(self) -> None:
        """Give the complete file its name."""
        self.part.replace(self.path)
        self.record.unlink(missing_ok=True)
