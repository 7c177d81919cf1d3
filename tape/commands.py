"""The installed commands: each is run by :func:`.errors.run_cli`, from its imports on.

The functions print an error as one line and return the exit code. What a command runs is imported inside
:func:`.errors.run_cli`, so that Ctrl-C during the imports, which can take seconds, ends it as at any later time.
"""

from __future__ import annotations

from importlib import import_module

from . import installation  # noqa: F401 - first, since the next import fails in a mixed installation
from .errors import run_cli


def train_command() -> int:
    """``tape-train`` and ``tape_train.py``."""
    return run_cli(lambda: import_module("tape.main").run_train())


def eval_command() -> int:
    """``tape-eval`` and ``tape_eval.py``."""
    return run_cli(lambda: import_module("tape.main").run_eval())


def embed_command() -> int:
    """``tape-embed``."""
    return run_cli(lambda: import_module("tape.main").run_embed())


def train_distributed_command() -> int:
    """``tape-train-distributed``."""
    return run_cli(lambda: import_module("tape.main").run_train_distributed())


def score_command() -> int:
    """``tape-score``."""
    return run_cli(lambda: import_module("tape.cli.score").run_score())


def contacts_command() -> int:
    """``tape-contacts``."""
    return run_cli(lambda: import_module("tape.cli.contacts").run_contacts())


def leakage_command() -> int:
    """``tape-leakage``."""
    return run_cli(lambda: import_module("tape.cli.leakage").run_leakage())


def groups_command() -> int:
    """``tape-groups``."""
    return run_cli(lambda: import_module("tape.cli.groups").run_groups())


def report_command() -> int:
    """``tape-report`` and ``scripts/report.py``."""
    return run_cli(lambda: import_module("tape.report.command").main())


def compare_command() -> int:
    """``tape-compare`` and ``scripts/compare.py``."""
    return run_cli(lambda: import_module("tape.report.compare").main())
