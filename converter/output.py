"""The output of a conversion: a directory, or a weights file with ``config.json`` beside it.

Everything is written to a hidden temporary directory first and moved into place when the certificate has passed, so
that a failed conversion leaves nothing at the output path.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from converter.formats.base import MEGATRON_FORMATS
from converter.formats.huggingface.writer import FILES as HUGGINGFACE_FILES
from converter.formats.megatron.layout import RELEASE, TRACKER_NAME
from converter.formats.record import RECORD_NAME
from converter.formats.sharded.writer import DIRECTORY as PRETRAINING_DIRECTORY
from tape.configs import CONFIG_NAME
from tape.errors import ConfigError
from tape.io.checksums import SUMS_NAME
from tape.io.writing import (
    atomic_directory,
    check_output_directory,
    check_replaceable,
    final_names,
    output_errors,
    remove_leftovers,
    replace_directory,
    temporary_directory,
)
from tape.models.model_directory import BIN_NAME, PROVENANCE_NAME, SAFETENSORS_NAME, VOCABULARY_NAME

_TAPE_FILES = frozenset({CONFIG_NAME, VOCABULARY_NAME, PROVENANCE_NAME, SAFETENSORS_NAME, BIN_NAME, SUMS_NAME})
_OURS = frozenset({RECORD_NAME, TRACKER_NAME, RELEASE, PRETRAINING_DIRECTORY}) | _TAPE_FILES | HUGGINGFACE_FILES
_STAGING_NAME = "conversion"

# Suffixes by which -out denotes a single file, per format.
_FILE_SUFFIXES = {
    "tape": (".safetensors", ".bin"),
    "huggingface": (),
    "pretraining": (),
    **dict.fromkeys(MEGATRON_FORMATS, (".pt",)),
}
_WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Output:
    """The output directory, or a single file in it.

    Args:
        directory: the directory to write.
        file: name of the single file to write, leaving the others in place; None replaces the entire directory.
        format: one of :data:`converter.options.FORMATS`.
        overwrite: whether to replace files that are not an earlier conversion.
    """

    directory: Path
    file: str | None
    format: str
    overwrite: bool

    @classmethod
    def parse(cls, path: Path, format: str, overwrite: bool) -> Output:
        """A path with one of the format's suffixes is a file, any other path a directory.

        Raises:
            ConfigError: if the suffix is that of a weights file of another format.
        """
        suffixes = _FILE_SUFFIXES[format]
        if path.suffix in suffixes:
            return cls(_resolve_symlink(path.parent), path.name, format, overwrite)
        if path.suffix in _WEIGHTS_SUFFIXES:
            allowed = f", or a file ending in {' or '.join(reversed(suffixes))}" if suffixes else ""
            raise ConfigError(f"-out {path}: give a directory{allowed} (--to {format})")
        return cls(_resolve_symlink(path), None, format, overwrite)

    @property
    def record(self) -> str:
        """Name of the conversion record. A single Megatron file has its own, since there may be others beside it."""
        if self.file and self.format in MEGATRON_FORMATS:
            return f"{Path(self.file).stem}.{RECORD_NAME}"
        return RECORD_NAME

    def check(self, source: Path) -> None:
        """Check the output path before any work is done.

        Raises:
            ConfigError: if the source would be replaced, or there are files that are not an earlier conversion.
        """
        replaced = (self.directory / self.file if self.file else self.directory).resolve()
        if replaced == source.resolve() or replaced in source.resolve().parents:
            raise ConfigError(f"-out {replaced} would replace the source {source}")
        if self.directory.exists() and not self.directory.is_dir():
            raise ConfigError(f"{self.directory} is a file; -out needs a directory there")
        present = {child.name for child in self.directory.iterdir()} if self.directory.is_dir() else set()
        if self.file and self.format == "tape":
            self._check_source_beside(source.resolve())
        check_output_directory(self.directory, "-out")
        others = sorted(self._conflicting_files(present))
        if others and self.file is None and self.overwrite:
            check_replaceable(self.directory, _OURS.__contains__, "--overwrite:")
        if others and not self.overwrite:
            shown = ", ".join(others[:3])
            raise ConfigError(f"{self.directory} already contains {shown}: choose another -out, or give --overwrite")

    def _check_source_beside(self, source: Path) -> None:
        """Refuse to replace the source: writing a weights file removes other weights and config.json beside it."""
        here, weights = self.directory.resolve(), (SAFETENSORS_NAME, BIN_NAME)
        is_here = source.parent == here and source.name in weights
        if is_here or (source == here and any((source / name).is_file() for name in weights)):
            raise ConfigError(f"-out {here / str(self.file)} would replace the source {source}")

    def _conflicting_files(self, present: set[str]) -> set[str]:
        earlier_conversion = self.record in present
        if self.file is None:
            return present - _OURS if earlier_conversion else present
        own = set() if earlier_conversion else present & {self.file, self.record}
        if self.format != "tape":
            return own
        # these could be loaded instead of the result, or would be left with a config.json of another model
        others = {name for name in present - {self.file} if Path(name).suffix in _FILE_SUFFIXES[self.format]}
        return others | own | (set() if earlier_conversion else present & {CONFIG_NAME})

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A temporary directory whose files are published when the block ends without an error."""
        if self.file is None or not self.directory.exists():
            with atomic_directory(self.directory, overwrite=True) as folder:
                yield folder
            return
        remove_leftovers(self.directory, _STAGING_NAME)
        remove_leftovers(self.directory.parent, self.directory.name)
        with output_errors(self.directory), temporary_directory(self.directory, _STAGING_NAME) as folder:
            with final_names(folder, self.directory):
                yield folder
            if self.format != "tape" or not self._exchange_directory(folder):
                self._move(folder)

    def _exchange_directory(self, folder: Path) -> bool:
        """Exchange the directory for one with the new files and links to its other files, in one step.

        There is a complete model at any time then. False where it is not possible: the directory has subdirectories or
        is the working directory of this process, or the file system has no hard links.
        """
        new = {file.name for file in folder.iterdir()}
        others = [child for child in self.directory.iterdir() if child != folder.parent]
        if not all(child.is_file() for child in others):
            return False
        kept = [child for child in others if child.name not in new | {SAFETENSORS_NAME, BIN_NAME}]
        try:
            if self.directory.resolve() == Path.cwd():
                return False
            with temporary_directory(self.directory.parent, self.directory.name) as whole:
                for file in (*kept, *folder.iterdir()):
                    os.link(file, whole / file.name, follow_symlinks=False)
                shutil.copymode(self.directory, whole)
                replace_directory(whole, self.directory)
        except OSError:
            if not folder.exists():  # exchanged already
                raise
            return False
        return True

    def _move(self, folder: Path) -> None:
        """Remove the old weights first and publish the new ones last: weights never meet another model's config.

        The record comes first, so that the same command replaces what a killed one has left.
        """
        for name in {SAFETENSORS_NAME, BIN_NAME} if self.format == "tape" else set():
            (self.directory / name).unlink(missing_ok=True)
        for file in sorted(folder.iterdir(), key=lambda file: (file.name == self.file, file.name != self.record)):
            os.replace(file, self.directory / file.name)


def _resolve_symlink(directory: Path) -> Path:
    """Resolve a symbolic link, which the final rename would otherwise replace by a directory."""
    return directory.resolve() if directory.is_symlink() else directory
