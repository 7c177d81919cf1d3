"""The programs that steps run: the scripts of a clone, or the sub-commands of an installed ``proteinlm``."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_SCRIPTS = {
    "compare": "scripts/compare.py",
    "compare-losses": "scripts/compare_losses.py",
    "convert": "converter/megatron-converter.py",
    "eval": "tape_eval.py",
    "groups": "scripts/groups.py",
    "leakage": "scripts/leakage.py",
    "measure-iterations": "scripts/measure_iterations.py",
    "model-card": "scripts/model_card.py",
    "prepare": "scripts/prepare_data.py",
    "pretrain": "pretrain/pretrain_tape.py",
    "report": "scripts/report.py",
    "train": "tape_train.py",
}


def is_clone() -> bool:
    """Whether this package is that of a clone of the repository, not of an installed wheel."""
    return (ROOT / "scripts" / "quickstart.sh").is_file()


def program(name: str) -> tuple[str, ...]:
    """The words that start a program: the name of a sub-command of ``proteinlm``.

    The script of a clone is a path relative to :func:`working_directory`.
    """
    return (sys.executable, *launched(name))


def launched(name: str) -> tuple[str, ...]:
    """The words that name a program for a launcher of Python programs, such as torchrun."""
    return (_SCRIPTS[name],) if is_clone() else ("-m", "proteinlm", name)


def working_directory(out: Path) -> Path:
    """The directory that steps run in: the clone, or else the directory of the results, where no file is a user's."""
    return ROOT if is_clone() else out
