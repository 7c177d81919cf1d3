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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

from benchmarks.peers.comparison import parse_size
from pretrain.train.metrics_schema import METRICS_NAME
from tape.cli.parser import ArgumentParser
from tape.errors import run_cli
from tape.runtime.launch import read_launch

if TYPE_CHECKING:  # imports torch, which --help doesn't need
    from pretrain.config.arguments import PretrainConfig

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


@dataclass(frozen=True)
class Setting:
    """A run to measure.

    Attributes:
        corpus: prefix of the corpus, without .bin.
        hidden, layers, head_size: sizes of the model.
        precision: fp32, bf16 or fp16.
        micro_batch_size, seq_length: rows of a step on each process, and their tokens.
        dropout: of attention and residual stream.
        steps: measured steps, after some that are not.
        peak_tflops: of one process; None: measured.
        workers: processes that load data.
        flags: further flags of pretrain_tape.py.
    """

    corpus: str
    hidden: int
    layers: int
    head_size: int = 64
    precision: str = "fp32"
    micro_batch_size: int = 1
    seq_length: int = 2176
    dropout: float = 0.0
    steps: int = 5
    peak_tflops: float | None = None
    workers: int = 1
    flags: tuple[str, ...] = ()

    def config(self, world_size: int) -> PretrainConfig:
        """The configuration of the run, from the flags that a user would give."""
        values = {
            "--num-layers": self.layers,
            "--hidden-size": self.hidden,
            "--num-attention-heads": max(1, self.hidden // self.head_size),
            "--seq-length": self.seq_length,
            "--max-position-embeddings": self.seq_length,
            "--attention-dropout": self.dropout,
            "--hidden-dropout": self.dropout,
            "--micro-batch-size": self.micro_batch_size,
            "--train-iters": _LEFT_OUT + self.steps,
            "--data-path": self.corpus,
            "--split": "1,0,0",
            "--log-interval": 1,
            "--num-workers": self.workers,
            **({} if self.peak_tflops is None else {"--peak-tflops": self.peak_tflops}),
        }
        switches = [] if self.precision == "fp32" else [f"--{self.precision}"]
        words = [str(word) for pair in values.items() for word in pair]
        from pretrain.config.arguments import parse_arguments

        return parse_arguments([*words, *switches, *self.flags], world_size)


def measure(setting: Setting) -> Throughput | None:
    """One short run, without a checkpoint; None on ranks that do not report."""
    from pretrain.pretrain_tape import run_pretraining

    launch = read_launch(os.environ)
    with tempfile.TemporaryDirectory() as folder:
        config = setting.config(launch.world_size)
        run_pretraining(replace(config, logging=replace(config.logging, directory=folder)), launch)
        metrics = Path(folder) / METRICS_NAME
        if not metrics.exists():
            return None
        start, *steps = map(json.loads, metrics.read_text(encoding="utf-8").splitlines())
    steps = steps[_LEFT_OUT:]

    def median(name: str) -> Any:
        return statistics.median(step[name] for step in steps)

    return Throughput(
        setting.hidden,
        setting.layers,
        setting.precision,
        median("tokens_per_second"),
        median("utilisation"),
        start["peak_flops"],
        steps[-1]["memory_bytes"],
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
            setting = Setting(
                options.corpus,
                *parse_size(size),
                options.head_size,
                precision,
                options.micro_batch_size,
                options.seq_length,
                options.dropout,
                options.steps,
                options.peak_tflops,
                flags=("--compile",) if options.compile else (),
            )
            result = measure(setting)
            if result is not None:
                print(result.line(), flush=True)


if __name__ == "__main__":
    sys.exit(run_cli(main))
