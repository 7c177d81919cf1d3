#!/usr/bin/env python
"""Speed of preprocess_data.py against a plain Python loop that reads the same FASTA and writes the same ids.

python benchmarks/preprocessing.py swissprot.fasta.xz --workers 1 2
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pretrain.tools.preprocess_data import preprocess
from tape.errors import run_cli
from tape.io.text_files import open_text
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


def measure(source: Path, workers: Sequence[int]) -> list[Speed]:
    """The plain loop first; all must write the same bytes of ids."""
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / "plain.bin"
        speeds = [plain_loop(source, plain)]
        for number in workers:
            prefix = Path(folder) / f"ours{number}"
            speeds.append(ours(source, prefix, number))
            if Path(f"{prefix}_text_document.bin").read_bytes() != plain.read_bytes():
                raise AssertionError(f"{number} workers: other ids than the plain loop's")
    return speeds


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", type=Path)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args(arguments)
    speeds = measure(options.fasta, options.workers)
    for speed in speeds:
        print(speed.line(speeds[0]))


if __name__ == "__main__":
    sys.exit(run_cli(main))
