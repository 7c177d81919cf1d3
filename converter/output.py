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

from tape.atomic_files import atomic_directory
from tape.configs import CONFIG_NAME
from tape.errors import ConfigError
from tape.models.model_directory import BIN_NAME, PROVENANCE_NAME, SAFETENSORS_NAME, VOCABULARY_NAME

RECORD_NAME = "conversion.json"
_OURS = frozenset({CONFIG_NAME, VOCABULARY_NAME, PROVENANCE_NAME, RECORD_NAME, SAFETENSORS_NAME, BIN_NAME})


@dataclass(frozen=True)
class Output:
    """A model directory and the name of the weights in it.

    Args:
        beside: files beside it stay (the user named a weights file); otherwise the directory is replaced as a whole.
        overwrite: also replace what isn't an earlier conversion.
    """

    directory: Path
    weights: str
    beside: bool
    overwrite: bool

    @classmethod
    def parse(cls, path: Path, overwrite: bool) -> Output:
        """A path that ends in ``.safetensors`` or ``.bin`` is a weights file, any other a directory.

        Raises:
            ConfigError: the suffix of a weights file in a format that isn't written.
        """
        if path.suffix in (".pt", ".pth", ".ckpt"):
            raise ConfigError(f"-out {path}: give a directory, or a file ending in .bin or .safetensors")
        if path.suffix in (".safetensors", ".bin"):
            return cls(path.parent, path.name, True, overwrite)
        return cls(path, SAFETENSORS_NAME, False, overwrite)

    def check(self, source: Path) -> None:
        """Fail before the work is done, not after.

        Raises:
            ConfigError: the source would be replaced, or something is there that isn't an earlier conversion.
        """
        replaced = (self.directory / self.weights if self.beside else self.directory).resolve()
        if replaced == source.resolve() or replaced in source.resolve().parents:
            raise ConfigError(f"-out {replaced} would replace the source {source}")
        if self.directory.exists() and not self.directory.is_dir():
            raise ConfigError(f"{self.directory} is a file; -out needs a directory there")
        present = {child.name for child in self.directory.iterdir()} if self.directory.is_dir() else set()
        others = sorted(self._hindrances(present))
        if others and not self.overwrite:
            shown = ", ".join(others[:3])
            raise ConfigError(f"{self.directory} already holds {shown}: choose another -out, or give --overwrite")

    def _hindrances(self, present: set[str]) -> set[str]:
        earlier_conversion = RECORD_NAME in present
        if not self.beside:
            return present - _OURS if earlier_conversion else present
        shadowing = present & ({SAFETENSORS_NAME, BIN_NAME} - {self.weights})  # might be loaded in our place
        own = set() if earlier_conversion else present & {self.weights, CONFIG_NAME}
        return shadowing | own

    @contextmanager
    def staging(self) -> Iterator[Path]:
        """A folder whose files take their place when the block ends without an error."""
        if not self.beside or not self.directory.exists():
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
        for name in {SAFETENSORS_NAME, BIN_NAME, self.weights}:
            (self.directory / name).unlink(missing_ok=True)
        for file in sorted(folder.iterdir(), key=lambda file: file.name == self.weights):
            os.replace(file, self.directory / file.name)
