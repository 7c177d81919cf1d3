"""Refuses an installation whose files are mixed with those of tape-proteins.

Both distributions install a package ``tape``. In one environment, each overwrites modules of the other, and removing
one of them removes modules of the rest. Importing this module raises the error: ``tape`` imports it first, and so do
those modules that remain if tape-proteins is installed later.
"""

from __future__ import annotations

import os
import sys

_SITE_PACKAGES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # pathlib's import takes milliseconds


def find_mixture(site_packages: str | os.PathLike[str]) -> str | None:
    """The error for a directory of installed packages; None if tape-proteins is not one of them."""
    metadata = (".dist-info", ".egg-info")
    names = os.listdir(site_packages)
    found = [name for name in names if name.startswith("tape_proteins-") and name.endswith(metadata)]
    if not found:
        return None
    version = found[0].split("-")[1].removesuffix(".dist").removesuffix(".egg")
    return (
        f"tape-proteins {version} is installed in {os.fspath(site_packages)} too, and both it and proteinlm consist of"
        " a package named tape, whose files are now mixed: uninstall both (pip uninstall tape-proteins proteinlm), and"
        " install proteinlm again, or one of them in an environment of its own"
    )


def _is_command() -> bool:
    """Whether the program is one of the installed commands, which print errors without a traceback."""
    file = getattr(sys.modules.get("__main__"), "__file__", None) or ""
    return os.path.basename(file).startswith(("tape-", "proteinlm"))


if (_mixture := find_mixture(_SITE_PACKAGES)) is not None:
    raise SystemExit(f"error: {_mixture}") if _is_command() else ImportError(_mixture)
