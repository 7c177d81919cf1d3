"""Imports the packages of this project from where this project is, whatever else has their names.

``pretrain``, ``converter`` and ``tape`` are common names, and Python imports the first module of a name in the working
directory (``python -m``) or in ``PYTHONPATH``: with a user's own ``pretrain.py`` there, a command would run that.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType

# not pathlib, whose import takes milliseconds
_DIRECTORY = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
NAMES = frozenset({"tape", "pretrain", "converter", "proteinlm"})


class OwnPackages:
    """A finder for ``sys.meta_path`` that finds the packages of NAMES beside this package, and nothing else."""

    @staticmethod
    def find_spec(
        fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The package beside this one, if ``fullname`` is one of NAMES; None: the next finder is asked."""
        return PathFinder.find_spec(fullname, [_DIRECTORY], target) if fullname in NAMES else None


def install() -> None:
    """Put :class:`OwnPackages` before the other finders, once."""
    if OwnPackages not in sys.meta_path:
        sys.meta_path.insert(0, OwnPackages)


def forget_working_directory() -> None:
    """Remove the working directory, which ``python -m`` puts first, from the search path of all modules.

    A user's ``random.py`` beside the data would replace that of the standard library. The directory is kept if this
    package is in it, as in a clone that is not installed.
    """
    if sys.path and os.path.abspath(sys.path[0]) == os.getcwd() != _DIRECTORY:
        del sys.path[0]
