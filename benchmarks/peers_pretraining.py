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
and optimizer states in fp32, and the peers run under autocast. Attention is each tool's fastest on a CPU.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.peers.environment import DEFAULT_FOLDER, peers_python
from benchmarks.peers.proteins import packed_rows, read_proteins, similar_lengths, write_rows
from benchmarks.peers.protocol import ROOT, Message, Worker, WorkerError
from benchmarks.peers.rounds import OURS, Series, Variant, best_of, interleave, machine, ratios_of
from tape.errors import ConfigError, run_cli
from tape.io.writing import write_json
from tape.runtime.cpu import usable_cores

PEERS = {
    "BertForMaskedLM": "benchmarks.peers.hugging_face",
    "EsmForMaskedLM": "benchmarks.peers.hugging_face",
    "MegatronBertForMaskedLM": "benchmarks.peers.hugging_face",
    "tape-proteins": "benchmarks.peers.tape_proteins",
}
SAMPLE = ROOT / "tape" / "sample" / "corpus" / "chains_train.fasta.xz"
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
    hidden, layers = _size(size)
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
        workers = {tool: _open(stack, tool, setup, options) for tool in [OURS, *options.peers]}
        series = interleave(_variants(options), workers, options.rounds, {"warm_up": True})
        descriptions = {tool: worker.description for tool, worker in workers.items() if isinstance(worker, Worker)}
    print(f"\n{hidden} x {layers}, {precision}", flush=True)
    for line in _table(series, descriptions):
        print(line, flush=True)
    return {"size": size, "precision": precision, "tools": descriptions, "measurements": _records(series)}


def _open(stack: ExitStack, tool: str, setup: Message, options: argparse.Namespace) -> Worker | str:
    """The worker of a tool, or the reason why there is none."""
    try:
        python = Path(sys.executable) if tool == OURS else peers_python(options.peers_env, options.install)
        module = "benchmarks.peers.ours" if tool == OURS else PEERS[tool]
        return stack.enter_context(Worker(module, python, {**setup, "tool": tool}, options.threads))
    except (WorkerError, ConfigError) as error:
        return str(error)


def _variants(options: argparse.Namespace) -> list[Variant]:
    ours = [Variant(OURS, {"batch_size": n}, f"{n} rows") for n in options.our_batch_sizes]
    return ours + [
        Variant(tool, {"batch_size": n}, f"{n} proteins") for tool in options.peers for n in options.batch_sizes
    ]


def _table(series: Sequence[Series], descriptions: Mapping[str, Message]) -> list[str]:
    """A Markdown table: a line per variant, in bold the fastest setting of each tool."""
    lines = [
        "| tool | batch | tokens/s | min - max | unpadded | time / ours |",
        "|:--|:--|--:|:--|--:|:--|",
    ]
    for one, ratio in zip(series, ratios_of(series), strict=True):
        tool, setting = one.variant.tool, one.variant.setting
        if one.error is not None:
            lines.append(f"| {tool} | {setting} | skipped: {one.error} | | | |")
            continue
        tokens, padded = one.replies[0]["tokens"], one.replies[0]["padded_tokens"]
        speed = f"{tokens / one.median:,.0f}"
        speed = f"**{speed}**" if one is best_of(series, tool) else speed
        spread = f"{tokens / max(one.seconds):,.0f} - {tokens / min(one.seconds):,.0f}"
        lines.append(f"| {tool} | {setting} | {speed} | {spread} | {tokens / padded:.0%} | {ratio or ''} |")
    ours = best_of(series, OURS)
    if ours is not None:
        peak = max(reply["peak_flops"] for reply in ours.replies)
        used = ours.replies[0]["tokens"] / ours.median * descriptions[OURS]["flops_per_token"] / peak
        lines.append(
            f"\n{OURS}: {used:.0%} of {peak / 1e12:.3g} TFLOP/s, the rate of matrix products between the passes"
        )
    return lines


def _records(series: Sequence[Series]) -> list[dict[str, Any]]:
    ratios = [None if ratio is None else asdict(ratio) for ratio in ratios_of(series)]
    return [
        {
            "tool": one.variant.tool,
            "setting": one.variant.setting,
            "error": one.error,
            "median_tokens_per_second": one.replies[0]["tokens"] / one.median if one.error is None else None,
            "ratio": ratio,
            "passes": one.replies,
        }
        for one, ratio in zip(series, ratios, strict=True)
    ]


def _size(text: str) -> tuple[int, int]:
    hidden, _, layers = text.partition("x")
    if not (hidden.isdigit() and layers.isdigit()):
        raise ConfigError(f"--sizes takes HIDDENxLAYERS such as 512x8, not {text}")
    return int(hidden), int(layers)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", nargs="?", type=Path, default=SAMPLE, help="proteins (default: the packaged sample)")
    parser.add_argument("--sizes", nargs="+", default=["128x4", "256x6", "512x8"], metavar="HIDDENxLAYERS")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=("fp32", "bf16"))
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--peers", nargs="*", default=list(PEERS), choices=list(PEERS), metavar="PEER")
    parser.add_argument("--proteins", type=int, default=128, help="proteins in a pass (default: %(default)s)")
    parser.add_argument("--our-batch-sizes", nargs="+", type=int, default=[4], help="rows per step")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[8, 16, 32], help="proteins per step of a peer")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of every tool (default: usable cores)")
    parser.add_argument("--compile", action="store_true", help="--compile, and torch.compile for transformers")
    parser.add_argument("--quick", action="store_true", help="a toy size; replaces sizes, proteins and rounds")
    parser.add_argument("--peers-env", type=Path, default=DEFAULT_FOLDER, help="environment of the peers")
    parser.add_argument("--no-install", dest="install", action="store_false", help="skip peers that aren't installed")
    parser.add_argument("--json", type=Path, help="also write all measurements to this file")
    options = parser.parse_args(words)
    if options.quick:
        vars(options).update(QUICK)
    return options


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
    if options.json is not None:
        equal = {"threads": options.threads, "dropout": options.dropout, "compile": options.compile}
        write_json(options.json, {"machine": machine(), "data": data, "settings": equal, "results": results})


if __name__ == "__main__":
    sys.exit(run_cli(main))
