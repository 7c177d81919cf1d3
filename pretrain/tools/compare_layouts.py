#!/usr/bin/env python
"""Train the same model with every parallel layout of a number of processes, and compare its curves to one process's.

    python pretrain/tools/compare_layouts.py --processes 4 --steps 20

Uses random proteins, no dropout and gradient clipping, on the CPU with gloo. Prints for every layout the largest
difference of the training loss, of the gradient norm, and of the evaluation loss at the end. Flags of pretrain_tape.py
that change the model or the step (--bf16, --recompute-granularity selective, --compile, ...) may follow after ``--``.
"""

from __future__ import annotations

import argparse
import itertools
import math
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.process import BaseProcess
from multiprocessing.queues import Queue
from pathlib import Path
from queue import Empty
from typing import TYPE_CHECKING

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[2])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

import numpy as np

from pretrain.data.batch_schedule import BatchConfig
from tape.cli.parser import ArgumentParser
from tape.errors import ConfigError, ProteinLMError, run_cli
from tape.io.writing import scratch_directory
from tape.masking import mask_tokens
from tape.runtime.launch import Launch
from tape.tokenizers import TAPETokenizer

# The modules that use torch are imported where they are needed, so that --help takes a fraction of a second.
if TYPE_CHECKING:
    from pretrain.data.samples import PackedRow
    from pretrain.parallel import ParallelContext

SEQ_LENGTH = 48
_EVALUATION_ROWS = 11  # not divisible, so that ranks have different numbers of rows in every layout
MODEL = (
    *("--num-layers", "4", "--hidden-size", "32", "--num-attention-heads", "4"),
    *("--seq-length", str(SEQ_LENGTH), "--max-position-embeddings", str(SEQ_LENGTH)),
    *("--micro-batch-size", "1", "--global-batch-size", "4", "--data-path", "none"),
    *("--attention-dropout", "0", "--hidden-dropout", "0", "--clip-grad", "1"),
)
OPTIMIZERS = {
    "sgd": ("--optimizer", "sgd", "--lr", "0.1", "--lr-decay-style", "constant"),
    "adam": ("--optimizer", "adam", "--lr", "3e-3", "--lr-decay-style", "constant"),
    "muon": (
        *("--optimizer", "muon", "--muon-extra-scale-factor", "0.2"),
        *("--lr", "3e-3", "--lr-decay-style", "constant"),
    ),
}
_POLL_SECONDS = 1.0


@dataclass(frozen=True)
class Layout:
    """A parallel layout; the names are those of the flags, shortened."""

    tensor: int = 1
    data: int = 1
    pipeline: int = 1
    sequence: bool = False
    sharded: bool = False

    @property
    def world(self) -> int:
        return self.tensor * self.data * self.pipeline

    def flags(self) -> list[str]:
        sizes = ("--tensor-model-parallel-size", self.tensor, "--pipeline-model-parallel-size", self.pipeline)
        switches = ["--sequence-parallel"] * self.sequence + ["--data-parallel-sharding"] * self.sharded
        return [*map(str, sizes), *switches]

    def __str__(self) -> str:
        words = (f"TP {self.tensor}", f"DP {self.data}", f"PP {self.pipeline}")
        return " ".join((*words, *["SP"] * self.sequence, *["sharded"] * self.sharded))


@dataclass(frozen=True)
class Curve:
    """The losses and gradient norms per step, the evaluation loss at the end, and the number of skipped steps."""

    losses: tuple[float, ...]
    norms: tuple[float, ...]
    evaluation: float
    skipped: int = 0

    def difference(self, other: Curve) -> tuple[float, float, float]:
        """The largest absolute difference of losses, the largest relative one of norms, and that of the evaluation."""
        loss = max(abs(a - b) for a, b in zip(self.losses, other.losses, strict=True))
        norm = max(abs(a - b) / b for a, b in zip(self.norms, other.norms, strict=True))
        return loss, norm, abs(self.evaluation - other.evaluation)


def layouts(world: int) -> list[Layout]:
    """All layouts of exactly ``world`` processes."""
    sizes = [n for n in range(1, world + 1) if world % n == 0]
    return [
        Layout(tensor, data, pipeline, sequence, sharded)
        for pipeline, data, tensor in itertools.product(sizes, repeat=3)
        if pipeline * data * tensor == world
        for sharded in (False, True)[: 1 + (data > 1)]
        for sequence in (False, True)[: 1 + (tensor > 1)]
    ]


class SyntheticRows:
    """Rows of random proteins with a skewed composition that a model can learn; ``rows[i]`` is row i."""

    def __init__(self, seed: int = 1, length: int = SEQ_LENGTH) -> None:
        self._seed, self._length = seed, length
        self._tokenizer = TAPETokenizer()
        self._weights = np.random.default_rng(0).dirichlet(np.ones(20) * 0.5)

    def __getitem__(self, number: int) -> PackedRow:
        from pretrain.data.samples import PackedRow

        generator = np.random.default_rng([self._seed, number])
        lengths: list[int] = []
        while (left := self._length - sum(lengths)) >= 4:
            lengths.append(int(generator.integers(3, min(left, self._length // 2) + 1)))
        parts = [self._protein(length, generator) for length in lengths]
        return PackedRow(np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), lengths)

    def _protein(self, length: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        residues = generator.choice(self._tokenizer.residue_ids[:20], size=length - 2, p=self._weights)
        ids = np.concatenate([[self._tokenizer.cls_id], residues, [self._tokenizer.sep_id]])
        return mask_tokens(ids, self._tokenizer, generator)


def run_layout(flags: Sequence[str], launch: Launch, steps: int) -> Curve:
    """Train as one process of a layout.

    Args:
        flags: flags of pretrain_tape.py.
        launch: rank and rendezvous of this process.
        steps: number of optimizer steps.
    """
    import torch

    from pretrain.build import build_trainer
    from pretrain.config.arguments import parse_arguments
    from pretrain.data.samples import EvaluationOrder, join_rows
    from pretrain.parallel import open_parallel_context

    arguments = parse_arguments([*flags, "--train-iters", str(max(steps, 1))], launch.world_size)
    with open_parallel_context(
        arguments.dims, launch, "gloo", torch.device("cpu"), arguments.parallel.timeout
    ) as processes:
        trainer = build_trainer(arguments, processes)
        results = [trainer.train_step(*step) for step in _steps(arguments.batch, processes, steps)]
        dims = processes.dims
        order = EvaluationOrder(_EVALUATION_ROWS, arguments.batch.micro_batch, processes.data_rank, dims.data)
        rows = SyntheticRows(seed=2)
        batches = [join_rows([rows[i] for i in numbers]) for numbers in order]
        loss = trainer.evaluator.evaluate(batches, steps, "valid").validation_loss
    if arguments.parallel.compile:
        torch.compiler.reset()  # blocks differ between layouts; torch.compile stops after eight versions
    losses, norms = tuple(r.loss for r in results), tuple(r.grad_norm for r in results)
    return Curve(losses, norms, loss, sum(r.skipped for r in results))


def _steps(batch: BatchConfig, processes: ParallelContext, steps: int) -> Iterator[tuple[int, list]]:
    from pretrain.data.samples import TrainingOrder, join_rows

    rows = SyntheticRows()
    order = iter(TrainingOrder(batch, 0, steps, processes.data_rank, processes.dims.data))
    for step, (consumed, _) in enumerate(batch.steps(0, steps), 1):
        number = batch.micro_batches(processes.dims.data, consumed)
        yield step, [join_rows([rows[i] for i in next(order)]) for _ in range(number)]


Run = tuple[Layout, Sequence[str], int]


def run_all(runs: Sequence[Run], processes: int) -> Iterator[Curve]:
    """Run all layouts in one set of processes, each on as many as it needs, and yield every curve when it is complete.

    Raises:
        ProteinLMError: if a run fails; its details have the traceback.
    """
    with scratch_directory("compare_layouts_") as folder:
        context = get_context("spawn")
        queue: Queue[Curve | str] = context.Queue()
        ranks = [context.Process(target=_rank, args=(rank, runs, folder, queue)) for rank in range(processes)]
        done = False
        try:
            for rank in ranks:
                rank.start()
            for layout, _, _ in runs:
                curve = _next_curve(queue, ranks)
                if isinstance(curve, str):
                    raise ProteinLMError(f"{layout} failed:", details=curve.splitlines())
                yield curve
            done = True
        finally:
            for rank in ranks:
                if rank.pid is None:  # not started
                    continue
                if not done:
                    rank.terminate()
                rank.join()


def _next_curve(queue: Queue[Curve | str], ranks: Sequence[BaseProcess]) -> Curve | str:
    """The next item of the queue; an error message if a process exits without one."""
    while True:
        with suppress(Empty):
            return queue.get(timeout=_POLL_SECONDS)
        for number, rank in enumerate(ranks):
            if rank.exitcode:
                return f"rank {number} ended with exit code {rank.exitcode}"


def _rank(rank: int, runs: Sequence[Run], folder: Path, queue: Queue[Curve | str]) -> None:
    import torch

    torch.set_num_threads(1)
    for number, (layout, flags, steps) in enumerate(runs):
        if rank >= layout.world:
            continue
        launch = Launch(rank, layout.world, rank, f"file://{folder}/run{number}", "compare_layouts")
        try:
            curve = run_layout([*MODEL, *layout.flags(), *flags], launch, steps)
        except Exception:  # the parent raises it
            queue.put(traceback.format_exc())
            return
        if rank == 0:
            queue.put(curve)


def main() -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=4, help="largest number of processes; runs powers of two (4)")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps (20)")
    parser.add_argument("--optimizer", choices=OPTIMIZERS, nargs="+", default=list(OPTIMIZERS), help="default: all")
    parser.add_argument("flags", nargs="*", help="flags of pretrain_tape.py, after --")
    options = parser.parse_args()
    if options.steps < 1 or options.processes < 1:
        raise ConfigError("--steps and --processes must be at least 1")
    worlds = [2**n for n in range(int(math.log2(options.processes)) + 1)]
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    chosen = [layout for world in worlds for layout in layouts(world)]
    for name in options.optimizer:
        print_table(name, chosen, options.flags, options.steps, max(worlds))


def print_table(optimizer: str, chosen: Sequence[Layout], flags: Sequence[str], steps: int, processes: int) -> None:
    """Run the layouts with an optimizer and print one line per layout; the first layout is one process."""
    runs = [(layout, (*OPTIMIZERS[optimizer], *flags), steps) for layout in chosen]
    alone = None
    for layout, curve in zip(chosen, run_all(runs, processes), strict=True):
        if alone is None:
            alone = curve
            print(
                f"\n{optimizer}, {steps} steps: loss {alone.losses[0]:.6f} -> {alone.losses[-1]:.6f}, evaluation "
                f"{alone.evaluation:.6f} on one process; largest differences from it:"
            )
            print(f"{'layout':34} {'loss':>9} {'norm, rel.':>10} {'evaluation':>10}")
        loss, norm, evaluation = curve.difference(alone)
        print(f"{layout!s:34} {loss:9.1e} {norm:10.1e} {evaluation:10.1e}", flush=True)


if __name__ == "__main__":
    sys.exit(run_cli(main))
