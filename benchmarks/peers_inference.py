#!/usr/bin/env python
"""Speed of evaluation and embedding, and of the start of commands, beside transformers and tape-proteins 0.5.

    python benchmarks/peers_inference.py swissprot.fasta.xz --json inference.json
    python benchmarks/peers_inference.py --quick             a toy size, in a minute, on the packaged sample
    python benchmarks/peers_inference.py --parts start
    python benchmarks/peers_inference.py swissprot.fasta.xz --parts memory

``embed`` writes the mean over the residues of each protein, ``evaluate`` predicts secondary structure (random labels).
This repository and tape-proteins run their commands tape-embed and tape-eval, in a process that has imported them,
including reading, metrics and writing; transformers runs a loop over batches sorted by length, which writes its results
to one file. Every pass loads the model from disk. Residues are classified by TAPE's convolutions in this repository and
in tape-proteins, by one linear layer in transformers. Tools take turns (benchmarks/peers/rounds.py), each in several
batch sizes; its fastest counts. In bf16, transformers runs under autocast; tape-proteins has only fp32. The memory is
the peak above that before a pass. ``--measured N`` runs on N of the proteins: groups of neighbors in the order of
length, in random order, so that batches sorted by length have the lengths and the padding of all ``--proteins``.

``memory`` is the peak of tape-embed and tape-eval, the model included, on a quarter, half, and all of the proteins, in
processes of their own; each part has the longest batch.

``start`` is the time from the start of a process: of ``import tape``, of every command's ``--help``, and of a
finetuning run (128 x 4, stability, 8 proteins) up to the log line of its first step. Files are in the system's cache.

Equal for all: proteins, vocabulary, sizes, threads, torch version. tape-proteins runs with the two changes without
which it does not start on a CPU with a current torch (benchmarks/peers/tape_proteins.py).
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

from benchmarks.peers.comparison import (
    SAMPLE,
    WORKER_OF_OURS,
    add_options,
    descriptions_of,
    open_worker,
    parse_options,
    parse_size,
    records,
    table,
    write_results,
)
from benchmarks.peers.environment import peers_python
from benchmarks.peers.inference import TEST, WARM_UP
from benchmarks.peers.labeled_proteins import write_split
from benchmarks.peers.proteins import SEED, read_proteins, similar_lengths
from benchmarks.peers.protocol import Worker
from benchmarks.peers.rounds import OURS, Ratio, Series, Variant, interleave, ratio
from benchmarks.peers.startup import Stopwatch, our_commands, tape_proteins_commands
from tape.cli.parser import ArgumentParser
from tape.errors import ConfigError, run_cli

PEERS = ("Bert", "Esm", "MegatronBert", "tape-proteins")
PARTS = ("embed", "evaluate", "start", "memory")
POSITIONS = 2176
TASK = "secondary_structure"
QUICK = {"size": "64x2", "precisions": ["fp32"], "proteins": 16, "batch_sizes": [8], "rounds": 2}
_PROTEINS_OF_WARM_UP = 8
_SHARES = (4, 2, 1)  # of the proteins, for the memory


def compare(options: argparse.Namespace, command: str, precision: str, proteins: Sequence[str]) -> dict[str, Any]:
    """Measure all tools on embedding or evaluation in one precision, print their table, and return the results."""
    setup = _setup(options, command, precision, proteins)
    with tempfile.TemporaryDirectory() as data, ExitStack() as stack:
        write_split(Path(data), TASK, TEST, proteins)
        write_split(Path(data), TASK, WARM_UP, proteins[:_PROTEINS_OF_WARM_UP])
        workers = {}
        for tool in [OURS, *options.peers]:
            scratch = Path(data) / f"of_{tool}"
            scratch.mkdir()
            workers[tool] = open_worker(stack, tool, {**setup, "data": data, "scratch": str(scratch)}, options)
        variants = [
            Variant(tool, {"batch_size": size}, f"batches of {size}{', fp32' * (tool == 'tape-proteins')}")
            for tool in workers
            for size in options.batch_sizes
        ]
        series = interleave(variants, workers, options.rounds)
        descriptions = descriptions_of(workers)
    print(f"\n{command}, {options.size}, {precision}: {len(proteins)} proteins, {setup['tokens']:,} tokens")
    for line in table(series):
        print(line, flush=True)
    return {"part": command, "precision": precision, "tools": descriptions, "measurements": records(series)}


def _setup(options: argparse.Namespace, command: str, precision: str, proteins: Sequence[str]) -> dict[str, Any]:
    hidden, layers = parse_size(options.size)
    return {
        "work": "inference",
        "command": command,
        "tokens": sum(len(protein) + 2 for protein in proteins),
        "hidden": hidden,
        "layers": layers,
        "heads": max(1, hidden // options.head_size),
        "positions": POSITIONS,
        "precision": precision,
        "dropout": 0.0,
    }


def measure_memory(
    options: argparse.Namespace, command: str, precision: str, proteins: Sequence[str]
) -> dict[str, Any]:
    """Measure the peak memory of this repository's command by the number of proteins, and print it."""
    print(f"\n{command}, {options.size}, {precision}: peak memory above that of the process before the command")
    by_length, size = sorted(proteins, key=len), options.batch_sizes[0]
    longest, others = by_length[-size:], by_length[:-size]
    random.Random(SEED).shuffle(others)
    measurements = []
    for share in _SHARES:
        some = [*longest, *others[: max(0, len(proteins) // share - size)]]
        with tempfile.TemporaryDirectory() as data:
            write_split(Path(data), TASK, TEST, some)
            scratch = Path(data) / "scratch"
            scratch.mkdir()
            setup = {**_setup(options, command, precision, some), "data": data, "scratch": str(scratch)}
            with Worker(WORKER_OF_OURS, Path(sys.executable), setup, options.threads) as worker:
                reply = worker.ask({"batch_size": size, "warm_up": False})
        memory = reply["memory_bytes"]
        print(f"{len(some):,} proteins: {'unknown' if memory is None else f'{memory / 1e6:.0f} MB'}", flush=True)
        measurements.append({"proteins": len(some), **reply})
    return {"part": "memory", "command": command, "precision": precision, "measurements": measurements}


def compare_starts(options: argparse.Namespace, proteins: Sequence[str]) -> dict[str, Any]:
    """Time the starts of this repository's commands and of those of tape-proteins, and print their table."""
    with tempfile.TemporaryDirectory() as folder:
        words = _first_step(Path(folder), proteins)
        commands = our_commands(words)
        watches: dict[str, Stopwatch | str] = {OURS: Stopwatch(commands, options.threads)}
        variants = [Variant(OURS, {"command": name}, name) for name in commands]
        if "tape-proteins" in options.peers:
            try:
                python = peers_python(options.peers_env.absolute(), options.install)
                watches["tape-proteins"] = Stopwatch(tape_proteins_commands(python, words), options.threads)
            except ConfigError as error:
                watches["tape-proteins"] = str(error)
            names = tape_proteins_commands(Path(), words)
            variants += [Variant("tape-proteins", {"command": name}, name) for name in names]
        series = interleave(variants, watches, options.rounds)
    ratios = [_ratio_of_start(one, series) for one in series]
    print("\n| start | tool | seconds | min - max | time / ours |\n|:--|:--|--:|:--|:--|")
    for one, times in zip(series, ratios, strict=True):
        cells = [one.variant.setting, one.variant.tool, *_seconds_of(one), "" if times is None else str(times)]
        print(f"| {' | '.join(cells)} |", flush=True)
    measurements = [
        {
            "tool": one.variant.tool,
            "start": one.variant.setting,
            "error": one.error,
            "seconds": one.seconds,
            "ratio": None if times is None else asdict(times),
        }
        for one, times in zip(series, ratios, strict=True)
    ]
    return {"part": "start", "measurements": measurements}


def _ratio_of_start(one: Series, series: Sequence[Series]) -> Ratio | None:
    """The ratio to this repository's start of the same name."""
    ours = next(
        (other for other in series if other.variant.tool == OURS and other.variant.setting == one.variant.setting), None
    )
    if ours is None or ours.error is not None or one.error is not None:
        return None
    return ratio(one, ours)


def _seconds_of(one: Series) -> list[str]:
    if one.error is not None:
        return [f"skipped: {one.error}", ""]
    return [f"{one.median:.2f}", f"{min(one.seconds):.2f} - {max(one.seconds):.2f}"]


def _first_step(folder: Path, proteins: Sequence[str]) -> list[str]:
    """Write the data and the configuration of a finetuning run; the arguments of tape-train."""
    for split in ("train", "valid"):
        write_split(folder, "stability", split, [protein[:45] for protein in proteins])
    sizes = {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}
    config = {**sizes, "vocab_size": 30, "max_position_embeddings": 512, "type_vocab_size": 1}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    paths = ["--model_config_file", str(folder / "config.json"), "--data_dir", str(folder)]
    numbers = ["--batch_size", "8", "--num_train_epochs", "1", "--num_log_iter", "1", "--num_workers", "0"]
    return ["transformer", "stability", *paths, *numbers, "--no_cuda"]


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("fasta", nargs="?", type=Path, default=SAMPLE, help="proteins (default: the packaged sample)")
    parser.add_argument("--parts", nargs="+", default=list(PARTS), choices=PARTS, metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--size", default="512x8", metavar="HIDDENxLAYERS")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=("fp32", "bf16"))
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--proteins", type=int, default=5000, help="drawn from the file (default: %(default)s)")
    parser.add_argument("--measured", type=int, help="so many of them, with their lengths (default: all)")
    parser.add_argument("--batch-sizes", nargs="+", type=int, default=[8, 32], help="proteins per forward pass")
    add_options(parser, PEERS)
    return parse_options(parser, words, QUICK)


def main(words: Sequence[str] | None = None) -> None:
    options = parse(words)
    everything = read_proteins(options.fasta)
    if len(everything) < options.proteins:
        raise ConfigError(f"{options.fasta} has {len(everything)} proteins; --proteins asks for {options.proteins}")
    drawn = random.Random(SEED).sample(everything, options.proteins)
    proteins = [protein[: POSITIONS - 2] for protein in drawn]
    if options.measured is not None:
        proteins = similar_lengths(sorted(proteins, key=len), options.measured, max(options.batch_sizes))
        random.Random(SEED).shuffle(proteins)
    print(f"{len(proteins)} of {options.proteins} proteins of {options.fasta.name}; {options.threads} threads")
    results = [
        compare(options, part, precision, proteins)
        for part in ("embed", "evaluate")
        if part in options.parts
        for precision in options.precisions
    ]
    if "memory" in options.parts:
        results += [
            measure_memory(options, command, precision, proteins)
            for command in ("embed", "evaluate")
            for precision in options.precisions
        ]
    if "start" in options.parts:
        results.append(compare_starts(options, proteins))
    residues = sum(len(protein) for protein in proteins)
    write_results(options, {"source": options.fasta.name, "proteins": len(proteins), "residues": residues}, results)


if __name__ == "__main__":
    sys.exit(run_cli(main))
