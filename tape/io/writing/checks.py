"""Checks of the place that a command writes to, before its work.

Every command calls :func:`check_output_file` or :func:`check_output_directory` before it loads a model, so that hours
of computation are not lost because of a read-only disk.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

from tape.errors import ConfigError, quoted

from .disk_space import BLOCK_BYTES, nearest_existing

_ADVICE = "choose another place"


def check_output_file(path: Path, option: str, advice: str = _ADVICE) -> None:
    """Check that a file can be written, before the work that is to be stored in it.

    Args:
        path: the file, which may exist; missing parent directories can be created.
        option: the option that names it, for the message.
        advice: what to do if it can't be written.

    Raises:
        ConfigError: it is a directory, or its directory can't be written. Names the reason.
    """
    if path.is_dir():
        raise ConfigError(f"{option} {path}: is a directory; give the name of a file")
    _check_directory(path.parent, f"{option} {path}", advice)


def check_is_no_input(path: Path, inputs: Iterable[str | Path], option: str) -> None:
    """Check that an output does not replace a file that the command reads.

    Args:
        path: the output, which need not exist.
        inputs: the files that are read; other texts, such as ``-`` and residues, are none.
        option: the option that names the output, for the message.

    Raises:
        ConfigError: the output is one of the inputs, perhaps by another name.
    """
    for file in inputs:
        # not Path.is_file(), which raises if the text is too long for a file
        if os.path.isfile(path) and os.path.isfile(file) and os.path.samefile(path, file):
            raise ConfigError(f"{option} {path}: is also the input, which would be replaced; choose another name")


def check_output_directory(path: Path, option: str, advice: str = _ADVICE) -> None:
    """Check that files can be written in a directory, which may be a new one, before the work.

    Args:
        path: the directory; missing ones can be created.
        option: the option that names it, for the message.
        advice: what to do if it can't be written.

    Raises:
        ConfigError: it, or one of its parents, is a file or can't be written. Names the reason.
    """
    _check_directory(path, f"{option} {path}", advice)


def _check_directory(directory: Path, shown: str, advice: str) -> None:
    if "\0" in shown:
        raise ConfigError(f"{quoted(shown)}: a path can't contain a NUL character")
    try:
        existing = nearest_existing(directory)
        if not existing.is_dir():
            raise ConfigError(f"{shown}: {existing} is a file; give the name of a directory, which may be a new one")
        # an unnamed file where the system has them: os.access doesn't know of quotas, NFS servers or root
        with tempfile.TemporaryFile(dir=existing) as stream:
            stream.write(bytes(BLOCK_BYTES))  # a full disk still creates empty files
    except OSError as error:
        raise ConfigError(f"{shown}: can't be written ({error.strerror}); {advice}") from error


def check_replaceable(directory: Path, is_output: Callable[[str], bool], option: str) -> None:
    """Check that a directory that is replaced as a whole contains nothing but what the command itself writes.

    Args:
        directory: the directory, which need not exist.
        is_output: whether a name is one that the command writes.
        option: the option that names the directory, for the message.

    Raises:
        ConfigError: it is a file, or contains other files, which the message names.
    """
    if directory.exists() and not directory.is_dir():
        raise ConfigError(f"{option} {directory} is a file; give the name of a directory")
    present = [child.name for child in directory.iterdir()] if directory.is_dir() else []
    others = sorted(name for name in present if not is_output(name))
    if others:
        raise ConfigError(
            f"{option} {directory} contains {', '.join(others[:3])}, which this command does not write and would"
            " delete; choose another name, or move it away"
        )
