"""Virtual environments of other programs, such as ``benchmarks/peers_requirements.txt``, installed once."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from tape.errors import ConfigError

from .protocol import ROOT

REQUIREMENTS = ROOT / "benchmarks" / "peers_requirements.txt"
DEFAULT_FOLDER = ROOT / "build" / "peers"
_STAMP = "installed.sha256"


def peers_python(folder: Path, install: bool = True, requirements: Path = REQUIREMENTS) -> Path:
    """The Python of the environment, which is created or updated if it doesn't have the pinned versions.

    Args:
        folder: the environment.
        install: False to use it only if it is complete.
        requirements: the pinned versions.

    Raises:
        ConfigError: it is not complete and must not be installed, or pip failed. The message is the reason.
    """
    python = folder / "bin" / "python"
    if has_pins(folder, requirements):
        return python
    if not install:
        raise ConfigError(f"{folder} has no environment with {requirements.name}; omit --no-install to create it")
    if folder.exists() and not (folder / "pyvenv.cfg").is_file():
        raise ConfigError(f"{folder} exists and is not a virtual environment; choose another --peers-env")
    print(f"installing {requirements.name} into {folder}", file=sys.stderr, flush=True)
    _run([sys.executable, "-m", "venv", "--clear", str(folder)])
    _run([str(python), "-m", "pip", "install", "--quiet", "--requirement", str(requirements)])
    (folder / _STAMP).write_text(_pins(requirements), encoding="utf-8")
    return python


def has_pins(folder: Path, requirements: Path = REQUIREMENTS) -> bool:
    """Whether the environment is complete and has the pinned versions."""
    stamp = folder / _STAMP
    return stamp.is_file() and stamp.read_text(encoding="utf-8") == _pins(requirements)


def _pins(requirements: Path) -> str:
    return hashlib.sha256(requirements.read_bytes()).hexdigest()


def _run(command: list[str]) -> None:
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode:
        raise ConfigError(f"{' '.join(command)} failed:\n{result.stderr.strip()}")
