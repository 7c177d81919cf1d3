#!/usr/bin/env python
"""How full the rows are, and how long packing takes: best fit and next fit on the lengths of a corpus.

python benchmarks/packing.py corpus/swissprot_text_document --seq-length 2176 512
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

import numpy as np

from pretrain.data.corpus import open_corpus
from pretrain.data.packing import EpochPlanner, PackingConfig
from tape.cli.parser import ArgumentParser
from tape.errors import run_cli
from tape.tokenizers import TAPETokenizer


@dataclass(frozen=True)
class Packing:
    """Rows of one epoch. ``used`` is the fraction of positions that are not padding."""

    seq_length: int
    proteins: int
    rows: int
    used: float
    next_fit_used: float
    seconds: float


def measure(sizes: np.ndarray, seq_length: int) -> Packing:
    """Plan one epoch and check that every protein is in it, whole and once."""
    began = time.perf_counter()
    planner = EpochPlanner(sizes, PackingConfig(seq_length))
    plan = planner.plan(0)
    seconds = time.perf_counter() - began
    residues = np.zeros(len(sizes), dtype=np.int64)
    for row in range(plan.rows):
        for piece in plan.row(row):
            residues[piece.protein] += piece.length
    if (residues != sizes).any():
        raise AssertionError(f"protein {int(np.flatnonzero(residues != sizes)[0])} is not whole in the epoch")
    used = planner.tokens / (plan.rows * seq_length)
    return Packing(seq_length, len(sizes), plan.rows, used, next_fit(sizes, seq_length), seconds)


def next_fit(sizes: np.ndarray, seq_length: int) -> float:
    """Fraction of positions used by next fit: in shuffled order, a row ends where the next protein does not fit."""
    costs = np.minimum(np.random.default_rng(0).permutation(sizes) + 2, seq_length).tolist()
    rows, room = 0, 0
    for cost in costs:
        if cost > room:
            rows, room = rows + 1, seq_length
        room -= cost
    return sum(costs) / (rows * seq_length)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="prefix of a corpus (without .bin)")
    parser.add_argument("--seq-length", type=int, nargs="+", default=[2176, 512])
    options = parser.parse_args(arguments)
    sizes = open_corpus(options.corpus, TAPETokenizer()).sizes
    for seq_length in options.seq_length:
        result = measure(np.asarray(sizes), seq_length)
        print(
            f"rows of {seq_length}: {result.proteins:,} proteins, each whole and once, in {result.rows:,} rows; "
            f"{result.used:.2%} of positions used (next fit: {result.next_fit_used:.2%}), "
            f"planned in {result.seconds:.2f} s"
        )


if __name__ == "__main__":
    sys.exit(run_cli(main))
