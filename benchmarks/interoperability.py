#!/usr/bin/env python
"""Exchange files with every program that this project reads or writes files of, and compare what both sides compute.

    python benchmarks/interoperability.py --json interoperability.json
    python benchmarks/interoperability.py --clients converter        the converter's directions alone, in ten seconds

Clients: the converter in all directions, tape-proteins 0.5, transformers, Megatron Core, and biotrainer. Models are
small and random in all parameters; the largest difference of what both sides compute is printed by direction. Clients
are installed into environments of their own at first (pip; a few minutes); one that can't be is reported as not run.
Runs on the CPU; a minute of one core. The status is 1 if a difference exceeds its tolerance.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

from benchmarks.clients.biotrainer import BIOTRAINER
from benchmarks.clients.client import Client, Result, run_client
from benchmarks.clients.directions import CONVERTER, conversions, matrix
from benchmarks.clients.hugging_face import TRANSFORMERS
from benchmarks.clients.megatron_core import MEGATRON_CORE
from benchmarks.clients.tape_proteins import TAPE_PROTEINS
from benchmarks.peers.comparison import machine
from benchmarks.peers.environment import REQUIREMENTS, peers_python
from benchmarks.peers.protocol import ROOT
from tape.cli.parser import ArgumentParser
from tape.errors import ProteinLMError, run_cli
from tape.io.writing import write_json

CLIENTS: dict[str, Client] = {
    "tape-proteins": TAPE_PROTEINS,
    "transformers": TRANSFORMERS,
    "megatron-core": MEGATRON_CORE,
    "biotrainer": BIOTRAINER,
}


def results_of(name: str, folder: Path, environments: Path, install: bool) -> Iterator[Result]:
    """The comparisons with one client.

    Args:
        name: a client, or the converter.
        folder: an empty folder.
        environments: folder of the environments.
        install: whether to install missing ones.
    """
    if name == CONVERTER:
        yield from conversions(folder)
    else:
        yield from run_client(CLIENTS[name], folder, partial(_python, environments, install))


def _python(environments: Path, install: bool, requirements: str) -> Path:
    file = ROOT / "benchmarks" / requirements
    return peers_python(environments / requirements.partition("_")[0], install, file)


def line_of(result: Result) -> str:
    """A line of the Markdown table."""
    shown = f"not run: {result.reason}" if result.difference is None else f"{result.difference:.1e}"
    note = "" if result.passed or result.difference is None else f" (more than {result.tolerance:.0e})"
    return f"| {result.client} | {result.direction} | {result.compared} | {shown}{note} |"


def main(arguments: Sequence[str] | None = None) -> None:
    names = [CONVERTER, *CLIENTS]
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", nargs="+", choices=names, default=names, metavar="CLIENT", help=", ".join(names))
    parser.add_argument("--environments", type=Path, default=REQUIREMENTS.parents[1] / "build", help="of the clients")
    parser.add_argument("--no-install", dest="install", action="store_false", help="skip clients that aren't installed")
    parser.add_argument("--json", type=Path, help="file to write all differences to")
    options = parser.parse_args(arguments)
    results: list[Result] = []
    for name in options.clients:
        with tempfile.TemporaryDirectory(prefix="interoperability_") as folder:
            found = list(results_of(name, Path(folder), options.environments.absolute(), options.install))
        results += found
        if name == CONVERTER:
            print("\n".join(matrix(found)), flush=True)
        elif found:
            header = ["| client | direction | compared | largest difference |", "|:--|:--|:--|--:|"]
            print("\n".join([*header, *map(line_of, found), ""]), flush=True)
    if options.json is not None:
        write_json(options.json, {"machine": machine(), "results": [asdict(result) for result in results]})
    wrong = [result for result in results if result.difference is not None and not result.passed]
    if wrong:
        raise ProteinLMError(f"{len(wrong)} of {len(results)} differences exceed their tolerance")


if __name__ == "__main__":
    sys.exit(run_cli(main))
