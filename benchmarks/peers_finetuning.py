#!/usr/bin/env python
"""Speed of a finetuning step of each task beside transformers and tape-proteins 0.5, in one run.

    python benchmarks/peers_finetuning.py swissprot.fasta.xz --json finetuning.json
    python benchmarks/peers_finetuning.py --quick           a toy size, in a minute, on the packaged sample

Workloads: secondary structure and remote homology on proteins of 50 to 500 residues, fluorescence on 237 residues,
stability on 45, and contact prediction, one protein per step: the linear head at 400 residues, and ProteinLM's
convolutional head at 256. Sequences are real, labels random. A measurement is a pass over all proteins, with one
optimizer step per batch of proteins of similar length. Tools take turns (benchmarks/peers/rounds.py), each in several
batch sizes; its fastest counts. The table has the median of the unpadded tokens/s with minimum and maximum, the ratio
of times, paired by round, to the fastest setting of this repository, and the memory of the first step above weights,
gradients and optimizer states.

Equal for all: proteins, batches, vocabulary, sizes, dropout, AdamW with weight decay on matrices, clipping of the
gradient norm at 1, threads, torch version, batches prepared before the clock starts. In bf16, all keep weights and
optimizer states in fp32, and the peers run under autocast; tape-proteins, which has no bf16, is also measured in fp32.
Not equal: heads are each tool's own, and transformers has none for contacts. tape-proteins has only the linear contact
head; the convolutional one is built on its encoder over the pair features, as ProteinLM does. It runs as published,
except that its gradients are cleared before each step.
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
from benchmarks.peers.labeled_proteins import WORKLOADS, Workload, choose, write_task
from benchmarks.peers.proteins import read_proteins
from benchmarks.peers.rounds import OURS, Variant, interleave
from tape.cli.parser import ArgumentParser
from tape.errors import run_cli

PEERS = ("Bert", "Esm", "MegatronBert", "tape-proteins")
POSITIONS = 1024
QUICK = {
    "workloads": ["secondary_structure", "stability", "contacts_linear"],
    "size": "64x2",
    "precisions": ["fp32"],
    "proteins": 8,
    "batch_sizes": [8],
    "rounds": 2,
    "shorten": 2,
}


def compare(
    options: argparse.Namespace, name: str, precision: str, proteins: Sequence[str], folder: Path
) -> dict[str, Any]:
    """Measure all tools on one workload in one precision, print their table, and return the results."""
    workload, (hidden, layers) = WORKLOADS[name], parse_size(options.size)
    setup = {
        "work": "finetuning",
        "task": workload.task,
        "contact_head": workload.contact_head,
        "data": str(folder),
        "hidden": hidden,
        "layers": layers,
        "heads": max(1, hidden // options.head_size),
        "positions": POSITIONS,
        "precision": precision,
        "dropout": options.dropout,
    }
    peers = [peer for peer in options.peers if peer == "tape-proteins" or not workload.is_pairs]
    with ExitStack() as stack:
        workers = {tool: open_worker(stack, tool, setup, options) for tool in [OURS, *peers]}
        series = interleave(_variants(options, workload, peers, precision), workers, options.rounds)
        descriptions = descriptions_of(workers)
    tokens = sum(len(protein) + 2 for protein in proteins)
    print(f"\n{name}, {hidden} x {layers}, {precision}: {len(proteins)} proteins, {tokens:,} tokens")
    for line in table(series):
        print(line, flush=True)
    return {"workload": name, "precision": precision, "tools": descriptions, "measurements": records(series)}


def _variants(options: argparse.Namespace, workload: Workload, peers: Sequence[str], precision: str) -> list[Variant]:
    sizes = [1] if workload.is_pairs else options.batch_sizes
    words = [f"{size} protein{'s' * (size > 1)}" for size in sizes]
    variants = [
        Variant(tool, {"batch_size": size}, text)
        for tool in [OURS, *peers]
        for size, text in zip(sizes, words, strict=True)
    ]
    if precision != "fp32" and "tape-proteins" in peers:
        variants += [
            Variant("tape-proteins", {"batch_size": size, "precision": "fp32"}, f"{text}, fp32")
            for size, text in zip(sizes, words, strict=True)
        ]
    return variants


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", nargs="?", type=Path, default=SAMPLE, help="proteins (default: the packaged sample)")
    parser.add_argument("--workloads", nargs="+", default=list(WORKLOADS), choices=list(WORKLOADS), metavar="WORKLOAD")
    parser.add_argument("--size", default="512x8", metavar="HIDDENxLAYERS")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=("fp32", "bf16"))
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.1, help="default: 0.1, that of all tools")
    parser.add_argument(
        "--proteins", type=int, default=32, help="proteins in a pass; contacts: 1 (default: %(default)s)"
    )
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[8, 16, 32], help="proteins per step")
    parser.set_defaults(shorten=1)
    add_options(parser, PEERS)
    return parse_options(parser, words, QUICK)


def main(words: Sequence[str] | None = None) -> None:
    options = parse(words)
    proteins, results, data = read_proteins(options.fasta), [], {}
    print(f"proteins of {options.fasta.name}; {options.threads} threads")
    for name in options.workloads:
        workload = WORKLOADS[name]
        length = None if workload.length is None else workload.length // options.shorten
        number = 1 if workload.is_pairs else options.proteins
        chosen = choose(proteins, length, number, max(options.batch_sizes))
        data[name] = [len(protein) for protein in chosen]
        with tempfile.TemporaryDirectory() as folder:
            write_task(Path(folder), workload.task, chosen)
            for precision in options.precisions:
                results.append(compare(options, name, precision, chosen, Path(folder)))
    write_results(options, {"source": options.fasta.name, "residues": data}, results)


if __name__ == "__main__":
    sys.exit(run_cli(main))
