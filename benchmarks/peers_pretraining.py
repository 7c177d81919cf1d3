#!/usr/bin/env python
"""Speed of a pretraining step (masked language modeling) beside transformers and tape-proteins 0.5, in one run.

    python benchmarks/peers_pretraining.py swissprot.fasta.xz --json pretraining.json
    python benchmarks/peers_pretraining.py --quick          a toy size, in a minute, on the packaged sample

Every tool trains on the same proteins with the same masks: packed rows in this repository, padded batches of proteins
of similar length in the others. A measurement is a pass over all of them, with one optimizer step per batch. The
proteins are groups of neighbors in the file sorted by length, so that batches have as little padding as in a long run.
Tools take turns (benchmarks/peers/rounds.py), each in several batch sizes; its fastest counts. The table has the median
of the unpadded tokens/s over the rounds with the minimum and the maximum, and the ratio of times, paired by round, to
the fastest setting of this repository.

Equal for all: proteins, masks (15 %), vocabulary, sizes, dropout, AdamW (fused) with weight decay on matrices, clipping
of the gradient norm at 1, threads, torch version, batches prepared before the clock starts. In bf16, all keep weights
and optimizer states in fp32, and the peers run under autocast; tape-proteins, which has no bf16, is also measured in
fp32. Attention is each tool's fastest on a CPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

from benchmarks.peers.comparison import (
    SAMPLE,
    add_options,
    descriptions_of,
    open_worker,
    parse_options,
    parse_size,
    records,
    table,
    write_results,
)
from benchmarks.peers.proteins import packed_rows, read_proteins, similar_lengths, write_rows
from benchmarks.peers.protocol import Message
from benchmarks.peers.rounds import OURS, Series, Variant, best_of, interleave
from tape.cli.parser import ArgumentParser
from tape.errors import run_cli

PEERS = ("BertForMaskedLM", "EsmForMaskedLM", "MegatronBertForMaskedLM", "tape-proteins")
SEQ_LENGTH = 2176
QUICK = {
    "sizes": ["64x2"],
    "precisions": ["fp32"],
    "proteins": 16,
    "rounds": 2,
    "batch_sizes": [8],
    "our_batch_sizes": [1],
}


def compare(options: argparse.Namespace, size: str, precision: str, data: Path) -> dict[str, Any]:
    """Measure all tools at one size and precision, print their table, and return the results."""
    hidden, layers = parse_size(size)
    setup = {
        "work": "pretraining",
        "data": str(data),
        "hidden": hidden,
        "layers": layers,
        "heads": max(1, hidden // options.head_size),
        "positions": SEQ_LENGTH,
        "seq_length": SEQ_LENGTH,
        "precision": precision,
        "dropout": options.dropout,
        "compile": options.compile,
    }
    with ExitStack() as stack:
        workers = {tool: open_worker(stack, tool, setup, options) for tool in [OURS, *options.peers]}
        series = interleave(_variants(options, precision), workers, options.rounds)
        descriptions = descriptions_of(workers)
    title = f"\n{hidden} x {layers}, {precision}"
    for line in [title, *table(series), "", _utilization(series, descriptions.get(OURS, {}))]:
        print(line, flush=True)
    return {"size": size, "precision": precision, "tools": descriptions, "measurements": records(series)}


def _variants(options: argparse.Namespace, precision: str) -> list[Variant]:
    ours = [Variant(OURS, {"batch_size": n}, f"{n} rows") for n in options.our_batch_sizes]
    peers = [(tool, n) for tool in options.peers for n in options.batch_sizes]
    theirs = [Variant(tool, {"batch_size": n}, f"{n} proteins") for tool, n in peers]
    if precision != "fp32":  # tape-proteins has no bf16: its users would train in fp32
        theirs += [
            Variant(tool, {"batch_size": n, "precision": "fp32"}, f"{n} proteins, fp32")
            for tool, n in peers
            if tool == "tape-proteins"
        ]
    return ours + theirs


def _utilization(series: Sequence[Series], description: Message) -> str:
    """Model FLOPs utilization of this repository's fastest setting; empty if it has none."""
    ours = best_of(series, OURS)
    if ours is None:
        return ""
    peak = max(reply["peak_flops"] for reply in ours.replies)
    used = ours.replies[0]["tokens"] / ours.median * description["flops_per_token"] / peak
    return f"{OURS}: {used:.0%} of {peak / 1e12:.3g} TFLOP/s, the rate of matrix products between passes"


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", nargs="?", type=Path, default=SAMPLE, help="proteins (default: the packaged sample)")
    parser.add_argument("--sizes", nargs="+", default=["128x4", "256x6", "512x8"], metavar="HIDDENxLAYERS")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=("fp32", "bf16"))
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--proteins", type=int, default=128, help="proteins in a pass (default: %(default)s)")
    parser.add_argument("--our-batch-sizes", nargs="+", type=int, default=[4], help="rows per step")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[8, 16, 32], help="proteins per step of a peer")
    parser.add_argument("--compile", action="store_true", help="--compile, and torch.compile for transformers")
    add_options(parser, PEERS)
    return parse_options(parser, words, QUICK)


def main(words: Sequence[str] | None = None) -> None:
    options = parse(words)
    group = max(options.batch_sizes)
    rows = packed_rows(similar_lengths(read_proteins(options.fasta), options.proteins, group), SEQ_LENGTH)
    lengths = [length for row in rows for length in row.lengths]
    data = {"source": options.fasta.name, "proteins": len(lengths), "tokens": sum(lengths)}
    print(f"{data['proteins']} proteins of {data['source']}, {data['tokens']:,} tokens; {options.threads} threads")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rows.npz"
        write_rows(path, rows)
        results = [
            compare(options, size, precision, path) for size in options.sizes for precision in options.precisions
        ]
    write_results(options, data, results)


if __name__ == "__main__":
    sys.exit(run_cli(main))
