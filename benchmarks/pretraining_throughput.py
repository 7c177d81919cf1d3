#!/usr/bin/env python
"""Tokens/s without padding and model FLOPs utilization of pretraining, by model size and precision, on this machine.

Each measurement is a short run of pretrain_tape.py on a real corpus, including packing, masking and the optimizer. The
first steps are omitted, and the median of the others is reported. Memory is the peak of the process so far, so list
small models first. Use torchrun for several ranks.

    python benchmarks/pretraining_throughput.py corpus/swissprot_text_document --sizes 512x8 1024x16
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pretrain.config.arguments import parse_arguments
from pretrain.pretrain_tape import run_pretraining
from tape.errors import ConfigError, run_cli
from tape.runtime.launch import read_launch

_LEFT_OUT = 2  # steps that allocate and warm up


@dataclass(frozen=True)
class Throughput:
    """Medians over the steps of one run."""

    hidden: int
    layers: int
    precision: str
    tokens_per_second: float
    utilization: float
    peak: float
    memory: int

    def line(self) -> str:
        return (
            f"{self.hidden:>5} x {self.layers:<3} {self.precision:<5} {self.tokens_per_second:10,.0f} tokens/s "
            f"{self.utilization:7.1%} of {self.peak / 1e12:.3g} TFLOP/s {self.memory / (1 << 30):7.2f} GiB"
        )


def measure(options: argparse.Namespace, size: str, precision: str) -> Throughput | None:
    """One short run; None on ranks that do not report."""
    hidden, layers = _size(size)
    launch = read_launch(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        arguments = parse_arguments([*_flags(options, hidden, layers, precision), "--save", folder], launch.world_size)
        run_pretraining(arguments, launch)
        metrics = Path(folder) / "metrics.jsonl"
        if not metrics.exists():
            return None
        start, *steps = map(json.loads, metrics.read_text(encoding="utf-8").splitlines())
    steps = steps[_LEFT_OUT:]

    def median(name: str) -> Any:
        return statistics.median(step[name] for step in steps)

    return Throughput(
        hidden,
        layers,
        precision,
        median("tokens_per_second"),
        median("utilisation"),
        start["peak_flops"],
        steps[-1]["memory_bytes"],
    )


def _size(text: str) -> tuple[int, int]:
    hidden, _, layers = text.partition("x")
    if not (hidden.isdigit() and layers.isdigit()):
        raise ConfigError(f"--sizes takes HIDDENxLAYERS such as 512x8, not {text}")
    return int(hidden), int(layers)


def _flags(options: argparse.Namespace, hidden: int, layers: int, precision: str) -> list[str]:
    values = {
        "--num-layers": layers,
        "--hidden-size": hidden,
        "--num-attention-heads": max(1, hidden // options.head_size),
        "--seq-length": options.seq_length,
        "--max-position-embeddings": options.seq_length,
        "--attention-dropout": options.dropout,
        "--hidden-dropout": options.dropout,
        "--micro-batch-size": options.micro_batch_size,
        "--train-iters": _LEFT_OUT + options.steps,
        "--data-path": options.corpus,
        "--split": "1,0,0",
        "--log-interval": 1,
        "--num-workers": 1,
    }
    stated = [] if options.peak_tflops is None else ["--peak-tflops", str(options.peak_tflops)]
    return (
        [str(word) for pair in values.items() for word in pair]
        + stated
        + ([f"--{precision}"] if precision != "fp32" else [])
        + (["--compile"] if options.compile else [])
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", help="prefix of a corpus (without .bin)")
    parser.add_argument("--sizes", nargs="+", default=["512x8", "1024x16"], metavar="HIDDENxLAYERS")
    parser.add_argument("--precisions", nargs="+", default=["fp32", "bf16"], choices=("fp32", "bf16", "fp16"))
    parser.add_argument("--seq-length", type=int, default=2176)
    parser.add_argument("--head-size", type=int, default=64)
    parser.add_argument("--micro-batch-size", type=int, default=1)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--steps", type=int, default=5, help="measured steps, after two that are not")
    parser.add_argument(
        "--compile", action="store_true", help="compile the blocks during the steps that are not measured"
    )
    parser.add_argument("--peak-tflops", type=float, help="of one process; measured when not given")
    options = parser.parse_args(arguments)
    for size in options.sizes:
        for precision in options.precisions:
            result = measure(options, size, precision)
            if result is not None:
                print(result.line(), flush=True)


if __name__ == "__main__":
    sys.exit(run_cli(main))
