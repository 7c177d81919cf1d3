"""A bare virtual environment with a wheel of this tree, as a person installs it."""

from __future__ import annotations

import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks.peers.protocol import ROOT
from tape.errors import ConfigError

from .commands import environment_of, run

EXTRAS = ("hdf5", "parquet", "plots", "structures")
_SOURCES = ("tape", "pretrain", "converter", "proteinlm", "pyproject.toml", "setup.py", "README.md", "LICENSE")
_COMPLETE = "installed.txt"


def install_wheel(folder: Path, output: Path, install: bool, show: Callable[[str], None]) -> bool:
    """Create the environment anew, with the wheel and its extras.

    Args:
        folder: the environment.
        output: a folder for the wheel and the log, ``install.log``.
        install: False to use the environment as it is.
        show: is given each command before it runs.

    Returns:
        Whether it was installed.

    Raises:
        ConfigError: there is none and it must not be installed, the folder is something else, or a command failed.
    """
    if not install:
        if not (folder / _COMPLETE).is_file():
            raise ConfigError(f"{folder} has no environment with this project; omit --no-install to create it")
        return False
    if folder.exists() and not (folder / "pyvenv.cfg").is_file():
        raise ConfigError(f"{folder} exists and is not a virtual environment; choose other --environments")
    variables, log = environment_of(folder, 1), output / "install.log"
    wheel = build_wheel(output, variables, log)
    for command in (
        f"{shlex.quote(sys.executable)} -m venv --clear {shlex.quote(str(folder))}",
        f"python -m pip install --quiet torch=={_version_of_torch()}",
        f"python -m pip install --quiet './{wheel.name}[{','.join(EXTRAS)}]'",
    ):
        show(command)
        run(command, output, variables, log)
    (folder / _COMPLETE).write_text(wheel.name, encoding="utf-8")
    return True


def build_wheel(output: Path, variables: dict[str, str], log: Path) -> Path:
    """Build the wheel from a copy of the sources, so that no earlier build is in it.

    Raises:
        ConfigError: pip failed.
    """
    with tempfile.TemporaryDirectory() as copy:
        for name in _SOURCES:
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, Path(copy, name), ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(ROOT / name, copy)
        build = shlex.join([sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", ".", copy])
        run(build, output, variables, log)
    (wheel,) = output.glob("*.whl")
    return wheel


def _version_of_torch() -> str:
    text = (ROOT / "requirements" / "run.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"^torch==(\S+)", text, re.MULTILINE)
    return str(version)
