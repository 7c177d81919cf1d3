"""Where a converted model goes: a directory, or a weights file with its ``config.json`` beside it.

Everything is first written in a hidden folder next to its place and moved there when the certificate has passed, so
a refused conversion leaves nothing under the output's name.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from converter.formats.huggingface.writer import FILES as HUGGINGFACE_FILES
from converter.formats.megatron.layout import TRACKER_NAME
from converter.formats.megatron.writer import RELEASE
from tape.configs import CONFIG_NAME
from tape.errors import ConfigError
from tape.io.atomic import atomic_directory
from tape.models.model_directory import BIN_NAME, PROVENANCE_NAME, SAFETENSORS_NAME, VOCABULARY_NAME

RECORD_NAME = "conversion.json"
_TAPE_FILES = frozenset({CONFIG_NAME, VOCABULARY_NAME, PROVENANCE_NAME, SAFETENSORS_NAME, BIN_NAME})
_OURS = frozenset({RECORD_NAME, TRACKER_NAME, RELEASE}) | _TAPE_FILES | HUGGINGFACE_FILES

# Suffixes that make -out one file, for each form.
_FILE_SUFFIXES = {"tape": (".safetensors", ".bin"), "megatron": (".pt",), "huggingface": ()}
_WEIGHTS_SUFFIXES = (".safetensors", ".bin", ".pt", ".pth", ".ckpt")


@dataclass(frozen=True)
class Output:
    """A directory and, where the user named one, the file in it.

    Args:
        file: files beside it stay; None: the directory is replaced as a whole.
        form: ``tape``, ``megatron`` or ``huggingface``.
        overwrite: also replace what isn't an earlier conversion.
    """

    directory: Path
    file: str | None
    form: str
    overwrite: bool

    @classmethod
    def parse(cls, path: Path, form: str, overwrite: bool) -> Output:
        """A path that ends in one of the form's suffixes is a file, any other a directory.

        Raises:
            ConfigError: the suffix of a weights file that the form doesn't have.
        """
        suffixes = _FILE_SUFFIXES[form]
        if path.suffix in suffixes:
            return cls(_followed(path.parent), path.name, form, overwrite)
        if path.suffix in _WEIGHTS_SUFFIXES:
            allowed = f", or a file ending in {' or '.join(reversed(suffixes))}" if suffixes else ""
            raise ConfigError(f"-out {path}: give a directory{allowed} (--to {form})")
        return cls(_followed(path), None, form, overwrite)

    @property
    def record(self) -> str:
        """Name of the record; a file of Megatron's has its own, since others may lie beside it."""
        return f"{Path(self.file).stem}.{RECORD_NAME}" if self.file and self.form == "megatron" else RECORD_NAME

    def check(self, source: Path) -> None:
        """Fail before the work is done, not after.

        Raises:
            ConfigError: the source would be replaced, or something is there that isn't an earlier conversion.
        """
        replaced = (self.directory / self.file if self.file else self.directory).resolve()
        if replaced == source.resolve() or replaced in source.resolve().parents:
            raise ConfigError(f"-out {replaced} would replace the source {source}")
        if self.directory.exists() and not self.directory.is_dir():
            raise ConfigError(f"{self.directory} is a file; -out needs a directory there")
        present = {child.name for child in self.directory.iterdir()} if self.directory.is_dir() else set()
        if self.file and self.form == "tape":
            self._check_source_beside(source.resolve())
        others = sorted(self._hindrances(present))
        if others and not self.overwrite:
            shown = ", ".join(others[:3])
            raise ConfigError(f"{self.directory} already holds {shown}: choose another -out, or give --overwrite")

    def _check_source_beside(self, source: Path) -> None:
        """Writing one weights file removes the directory's other one, and replaces its configuration."""
        here, weights = self.directory.resolve(), (SAFETENSORS_NAME, BIN_NAME)
        is_here = source.parent == here and source.name in weights
        if is_here or (source == here and any((source / name).is_file() for name in weights)):
            raise ConfigError(f"-out {here / str(self.file)} would replace the source {source}")

    def _hindrances(self, present: set[str]) -> set[str]:
        earlier_conversion = self.record in present
        if self.file is None:
            return present - _OURS if earlier_conversion else present
        own = set() if earlier_conversion else present & {self.file, self.record}
        if self.form != "tape":
            return own
        # might be loaded in our place, or would lie beside a configuration that isn't theirs
        others = {name for name in present - {self.file} if Path(name).suffix in _FILE_SUFFIXES[self.form]}
        return others | own | (set() if earlier_conversion else present & {CONFIG_NAME})

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder whose files take their place when the block ends without an error."""
        if self.file is None or not self.directory.exists():
            with atomic_directory(self.directory, overwrite=True) as folder:
                yield folder
            return
        folder = Path(tempfile.mkdtemp(prefix=".conversion.", suffix=".tmp", dir=self.directory))
        try:
            yield folder
            self._move(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _move(self, folder: Path) -> None:
        """Old weights go first and new ones come last: no moment shows weights with another model's configuration."""
        for name in {SAFETENSORS_NAME, BIN_NAME} if self.form == "tape" else set():
            (self.directory / name).unlink(missing_ok=True)
        for file in sorted(folder.iterdir(), key=lambda file: file.name == self.file):
            os.replace(file, self.directory / file.name)


def _followed(directory: Path) -> Path:
    """What a symbolic link stands for: the rename at the end would otherwise put a directory in the link's place."""
    return directory.resolve() if directory.is_symlink() else directory
