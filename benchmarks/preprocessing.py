#!/usr/bin/env python
"""Speed of preprocess_data.py against a plain Python loop that reads the same FASTA and writes the same ids.

Also measures what bounds both: decompressing the file, and reading its records. All run in turn; medians are printed.

python benchmarks/preprocessing.py swissprot.fasta.xz --workers 1 2 --runs 3
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

import numpy as np

from pretrain.data.preprocessing import preprocess
from tape.cli.parser import ArgumentParser
from tape.errors import run_cli
from tape.io.records import Record, open_blocks
from tape.io.text_files import open_bytes, open_text
from tape.tokenizers import TAPETokenizer


@dataclass(frozen=True)
class Speed:
    """The speed of one implementation."""

    name: str
    sequences: int
    residues: int
    seconds: float

    def line(self, reference: Speed) -> str:
        return (
            f"{self.name:<24} {self.seconds:8.2f} s {self.sequences / self.seconds:10,.0f} sequences/s "
            f"{self.residues / self.seconds:12,.0f} residues/s {reference.seconds / self.seconds:6.2f} x"
        )


def plain_loop(source: Path, target: Path) -> Speed:
    """Look up each letter in a dictionary and write the ids, without checks, index or sidecar."""
    began = time.perf_counter()
    vocabulary = TAPETokenizer().vocab
    sequences = residues = 0
    with target.open("wb") as stream:
        for sequence in _fasta(source):
            ids = array("H")
            for letter in sequence:
                ids.append(vocabulary[letter])
            ids.tofile(stream)
            sequences, residues = sequences + 1, residues + len(ids)
    return Speed("plain Python loop", sequences, residues, time.perf_counter() - began)


def _fasta(path: Path) -> Iterator[str]:
    parts: list[str] = []
    with open_text(path) as stream:
        for line in stream:
            if not line.startswith(">"):
                parts.append(line.strip())
            elif parts:
                yield "".join(parts)
                parts = []
    if parts:
        yield "".join(parts)


def ours(source: Path, prefix: Path, workers: int) -> Speed:
    began = time.perf_counter()
    summary = preprocess([source], prefix, workers=workers)
    seconds = time.perf_counter() - began
    return Speed(f"preprocess_data, {workers} worker{'s' * (workers > 1)}", summary.documents, summary.tokens, seconds)


def decompression_seconds(source: Path) -> float:
    """Time for the bytes of the file alone; no implementation can be faster."""
    began = time.perf_counter()
    with open_bytes(source) as stream:
        while stream.read(1 << 20):
            pass
    return time.perf_counter() - began


def reading(source: Path) -> Speed:
    """Find and check the records, without tokenizing them."""
    began = time.perf_counter()
    sequences = residues = 0
    for item in open_blocks(source):
        sizes = [len(item.sequence)] if isinstance(item, Record) else item.sizes
        sequences, residues = sequences + len(sizes), residues + int(np.sum(sizes))
    return Speed("reading alone", sequences, residues, time.perf_counter() - began)


def measure(source: Path, workers: Sequence[int], runs: int = 1) -> list[Speed]:
    """Medians, the plain loop first; all write new files, with the same bytes of ids."""
    measured = []
    for _ in range(runs):
        with tempfile.TemporaryDirectory() as folder:
            measured.append(_measure_once(source, workers, Path(folder)))
    return [sorted(speeds, key=lambda speed: speed.seconds)[runs // 2] for speeds in zip(*measured, strict=True)]


def _measure_once(source: Path, workers: Sequence[int], folder: Path) -> list[Speed]:
    plain = folder / "plain.bin"
    loop = plain_loop(source, plain)
    speeds = []
    for number in workers:
        prefix = folder / f"ours{number}"
        os.sync()  # otherwise preprocess_data waits for the disk to take what the one before it has left in memory
        speeds.append(ours(source, prefix, number))
        if Path(f"{prefix}_text_document.bin").read_bytes() != plain.read_bytes():
            raise AssertionError(f"{number} workers: other ids than the plain loop's")
    read = reading(source)
    bytes_alone = Speed("decompression alone", loop.sequences, loop.residues, decompression_seconds(source))
    return [loop, *speeds, bytes_alone, read]


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=3, help="the median of this many runs is printed")
    options = parser.parse_args(arguments)
    speeds = measure(options.fasta, options.workers, options.runs)
    for speed in speeds:
        print(speed.line(speeds[0]))


if __name__ == "__main__":
    sys.exit(run_cli(main))
