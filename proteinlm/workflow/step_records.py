"""What a step runner keeps about each step: ``STEP.stamp``, ``STEP.started``, ``STEP.makes`` and ``STEP.log``.

The stamp of a finished step holds its fingerprint, the record of its start that of the command which was started last.
A step with the latter alone was interrupted, and may have saved its state. ``inputs.json`` has the SHA-256 of each
input file by its path, size and time, so that a large file is read again only after one of these has changed.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.errors import ConfigError
from tape.io.checksums import sha256_of
from tape.io.json_files import read_json_object
from tape.io.writing import atomic_write, write_json


@dataclass(frozen=True)
class StepRecords:
    """The records in a directory.

    Attributes:
        directory: where they are.
    """

    directory: Path

    def log(self, name: str) -> Path:
        """The file that gets the output of a step."""
        return self.directory / f"{name}.log"

    def is_stamped(self, name: str, fingerprint: str) -> bool:
        """Whether the step has finished with this fingerprint."""
        return _holds(self._file(name, "stamp"), fingerprint)

    def was_started(self, name: str, fingerprint: str) -> bool:
        """Whether the last start of the step was with this fingerprint."""
        return _holds(self._file(name, "started"), fingerprint)

    def stamp(self, name: str, fingerprint: str) -> None:
        """Record that the step has finished."""
        _write(self._file(name, "stamp"), [fingerprint])

    def start(self, name: str, fingerprint: str, makes: Sequence[Path]) -> None:
        """Record that the step starts, and the paths that it will make."""
        _write(self._file(name, "makes"), [f"{self._relative(path)}\n" for path in makes])
        _write(self._file(name, "started"), [fingerprint])

    def has_finished(self, name: str) -> bool:
        """Whether the step has finished, with any fingerprint."""
        return self._file(name, "stamp").is_file()

    def invalidate(self, name: str, keep_start: bool) -> None:
        """Make the step run again; it starts anew, unless the record of its start is kept."""
        self._file(name, "stamp").unlink(missing_ok=True)
        if not keep_start:
            self._file(name, "started").unlink(missing_ok=True)

    def has_made(self, name: str, path: Path) -> bool:
        """Whether, according to the records, the step has made a path."""
        record = self._file(name, "makes")
        known = record.read_text(encoding="utf-8", errors="replace").splitlines() if record.is_file() else []
        return self._relative(path) in known

    def _relative(self, path: Path) -> str:
        """The path relative to the records, so that results and records can be moved together."""
        return os.path.relpath(path, self.directory)

    def _file(self, name: str, kind: str) -> Path:
        return self.directory / f"{name}.{kind}"


class InputSums:
    """SHA-256 of the input files, which copying or a new modification time does not change.

    Args:
        file: where sums are kept between runs. A damaged file is written anew.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        try:
            self._kept = read_json_object(file, ConfigError) if file.is_file() else {}
        except ConfigError:
            self._kept = {}
        self._found: dict[str, list[int | str]] = {}

    def of(self, file: Path) -> str:
        """The sum of a file."""
        name, status = str(file.resolve()), file.stat()
        seen = [status.st_size, status.st_mtime_ns]
        if name not in self._found:
            kept: Any = self._kept.get(name)
            is_same = isinstance(kept, list) and kept[:-1] == seen
            self._found[name] = kept if is_same else [*seen, sha256_of(file)]
        return str(self._found[name][-1])

    def save(self) -> None:
        """Keep the sums for the next run."""
        if self._found != self._kept:
            write_json(self._file, self._found)


def _holds(file: Path, fingerprint: str) -> bool:
    return file.is_file() and file.read_bytes() == fingerprint.encode()


def _write(file: Path, lines: Iterable[str]) -> None:
    with atomic_write(file, "w") as stream:
        stream.writelines(lines)
