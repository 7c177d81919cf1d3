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
        """The steps that were started; one whose results are inside those of another comes before it."""
        found = [file.name.removesuffix(".makes") for file in self.directory.glob("*.makes")]
        return sorted(found, key=lambda name: (-max(map(len, self._made(name)), default=0), name))

    def set_aside(self, name: str) -> bool:
        """Move the results of a step to ``set_aside/STEP/``; returns whether there were any.

        Raises:
            ConfigError: results of the step are there already, or they can't be moved. Names the paths.
        """
        found = {aside: path for aside, path in self._places(name) if path.exists()}
        for aside, path in found.items():
            if aside.exists():
                raise ConfigError(f"{path}: {aside} has results of the same step; remove one of them")
            self._move(path, aside)
        return bool(found)

    def bring_back(self, name: str) -> bool:
        """Move results back that were set aside; returns whether there were any, and nothing is in their place.

        Raises:
            ConfigError: they can't be moved.
        """
        kept = {aside: path for aside, path in self._places(name) if aside.exists()}
        if not kept or any(path.exists() for path in kept.values()):
            return False
        for aside, path in kept.items():
            self._move(aside, path)
        self.discard(name)
        return True

    def forget_inside(self, paths: Sequence[Path]) -> None:
        """Forget the steps whose results are inside these paths, which are made anew."""
        outer = [Path(os.path.normpath(path)) for path in paths]
        for name in self.names():
            if any(path in made.parents for _, made in self._places(name) for path in outer):
                self.invalidate(name, keep_start=False)
                self.discard(name)

    def _places(self, name: str) -> list[tuple[Path, Path]]:
        """(place when set aside, path) of each result of a step."""
        folder = self.directory / "set_aside" / name
        made = enumerate(self._made(name))
        return [(folder / str(number), Path(os.path.normpath(self.directory / path))) for number, path in made]

    def _move(self, path: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            os.replace(path, target)
        except OSError as error:
            raise ConfigError(f"{path} can't be moved to {target}: {error.strerror}; move or remove it") from error

    def discard(self, name: str) -> None:
        """Remove results that were set aside."""
        shutil.rmtree(self.directory / "set_aside" / name, ignore_errors=True)

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
