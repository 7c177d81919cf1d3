"""Run the notebooks of the documentation in an empty folder, and store their outputs.

    python scripts/execute_notebook.py docs/tutorials/pretraining.ipynb

Needs nbclient and ipykernel (extra ``dev``). The command ``proteinlm`` in a notebook is that of this repository. Times
and other data of the run are not stored, so that a notebook changes only where its outputs do.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

from tape.cli.parser import ArgumentParser
from tape.errors import DataError, run_cli
from tape.io.writing import write_text

ROOT = Path(__file__).resolve().parent.parent
_CELL_SECONDS = 300


def execute(notebook: Path, out: Path) -> None:
    """Run a notebook and write it with its outputs.

    Args:
        notebook: the notebook.
        out: file to write; may be the notebook itself.

    Raises:
        DataError: a cell fails. Names its error.
    """
    import nbformat
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError

    content = nbformat.read(notebook, as_version=4)
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(
            content, timeout=_CELL_SECONDS, resources={"metadata": {"path": folder}}, record_timing=False
        )
        try:
            client.execute(env=_environment(Path(folder) / "bin"))
        except CellExecutionError as error:
            raise DataError(f"{notebook}: a cell fails: {error.ename}: {error.evalue}") from None
    content.metadata.get("language_info", {}).pop("version", None)
    for cell in content.cells:
        if cell.cell_type == "code":
            cell.outputs = _merged(cell.outputs)
    write_text(out, nbformat.writes(content) + "\n")


def _merged(outputs: list[Any]) -> list[Any]:
    """Outputs with the pieces of a stream together, which depend on the time at which they were written."""
    merged: list[Any] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last is not None and output.output_type == "stream" == last.output_type and output.name == last.name:
            last.text += output.text
        else:
            merged.append(output)
    return merged


def _environment(commands: Path) -> dict[str, str]:
    """This process's environment with this repository's packages, and its command ``proteinlm`` in ``commands``."""
    commands.mkdir()
    script = commands / "proteinlm"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m proteinlm "$@"\n', encoding="utf-8")
    script.chmod(0o755)
    paths = {"PATH": [str(commands)], "PYTHONPATH": [str(ROOT)]}
    without_backend = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}  # pictures are inline
    return {
        **without_backend,
        **{name: os.pathsep.join([*first, *filter(None, [os.environ.get(name)])]) for name, first in paths.items()},
    }


def main(arguments: Any = None) -> None:
    """Run the notebooks of the command line."""
    parser: argparse.ArgumentParser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--out", type=Path, metavar="DIRECTORY", help="write here instead of replacing the notebooks")
    options = parser.parse_args(arguments)
    for notebook in options.notebooks:
        execute(notebook, notebook if options.out is None else options.out / notebook.name)


if __name__ == "__main__":
    sys.exit(run_cli(main))
