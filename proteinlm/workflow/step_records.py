"""What a step runner keeps about each step: ``STEP.stamp``, ``STEP.started``, ``STEP.makes`` and ``STEP.log``.

The stamp of a finished step holds its fingerprint, the record of its start that of the command which was started last.
A step with the latter alone was interrupted, and may have saved its state. ``inputs.json`` has the SHA-256 of each
input file by its path, size and time, so that a large file is read again only after one of these has changed.
``set_aside/STEP/`` has results that do not belong to the present plan, where no other step reads them.
"""

from __future__ import annotations

import os
import shutil
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
        return self._relative(path) in self._made(name)

    def names(self) -> list[str]:
        """The steps that were started, and those whose results contain others' first."""
        found = {file.name.removesuffix(".makes"): file for file in self.directory.glob("*.makes")}
        return sorted(found, key=lambda name: (min(map(len, self._made(name)), default=0), name))

    def set_aside(self, name: str) -> bool:
        """Move the results of a step to ``set_aside/STEP/``; returns whether there were any."""
        made = {number: self.directory / path for number, path in enumerate(self._made(name))}
        found = {number: path for number, path in made.items() if path.exists()}
        if not found:
            return False
        self.discard(name)
        self._aside(name).mkdir(parents=True)
        for number, path in found.items():
            os.replace(os.path.normpath(path), self._aside(name) / str(number))
        return True

    def bring_back(self, name: str) -> bool:
        """Move results back that were set aside; returns whether there were any, and nothing is in their place."""
        made = {number: Path(os.path.normpath(self.directory / path)) for number, path in enumerate(self._made(name))}
        kept = {number: path for number, path in made.items() if (self._aside(name) / str(number)).exists()}
        if not kept or any(path.exists() for path in kept.values()):
            return False
        for number, path in kept.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._aside(name) / str(number), path)
        self.discard(name)
        return True

    def discard(self, name: str) -> None:
        """Remove results that were set aside."""
        if self._aside(name).is_dir():
            shutil.rmtree(self._aside(name))

    def _aside(self, name: str) -> Path:
        return self.directory / "set_aside" / name

    def _made(self, name: str) -> list[str]:
        """The paths that the step has made, relative to the records."""
        record = self._file(name, "makes")
        return record.read_text(encoding="utf-8", errors="replace").splitlines() if record.is_file() else []

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
