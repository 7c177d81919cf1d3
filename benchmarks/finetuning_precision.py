#!/usr/bin/env python
"""Whether finetuning in bf16 reaches the scores of fp32: both precisions with several seeds, on the validation set.

    python scripts/prepare_data.py SOURCE data --tasks secondary_structure stability
    python benchmarks/finetuning_precision.py data --json precision.json

Each run is a ``tape-train`` from random weights on proteins drawn from the train split, and its score is that of the
last epoch on proteins drawn from the valid split; the test splits are not used. Both precisions have the same proteins,
initial weights, order of batches and dropout seeds, so that only the rounding differs within a pair; seeds differ in
all of these but the proteins. The table has the mean over the seeds with minimum and maximum, the mean of the
differences by seed, and the range of fp32, the noise to which the difference has to be compared.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

import numpy as np

from benchmarks.peers.comparison import machine, option_values, parse_size
from benchmarks.peers.protocol import ROOT, model_sizes
from tape.cli.parser import ArgumentParser
from tape.errors import ConfigError, run_cli
from tape.io.json_files import read_json_lines
from tape.io.writing import write_json
from tape.runtime.cpu import usable_cores
from tape.tasks import TASKS
from tape.tokenizers import TAPETokenizer

PRECISIONS = ("fp32", "bf16")
_SEED = 1234  # of the proteins drawn
_LINES_OF_ERROR = 3


@dataclass(frozen=True)
class Schedule:
    """How a task is finetuned from random weights.

    Attributes:
        metric: the validation metric to compare.
        epochs: number of epochs.
        learning_rate: peak learning rate.
        options: further flags of ``tape-train``.
    """

    metric: str
    epochs: int
    learning_rate: float
    options: tuple[str, ...] = ()


SCHEDULES = {
    "secondary_structure": Schedule("accuracy", 3, 1e-3),
    "stability": Schedule("spearmanr", 6, 1e-3, ("--pooling", "mean")),
}


@dataclass(frozen=True)
class Comparison:
    """Scores of a task in both precisions, in the order of the seeds."""

    task: str
    metric: str
    fp32: tuple[float, ...]
    bf16: tuple[float, ...]

    @property
    def difference(self) -> float:
        """Mean of bf16 minus fp32."""
        return statistics.mean(b - a for a, b in zip(self.fp32, self.bf16, strict=True))

    @property
    def noise(self) -> float:
        """Range of the scores of fp32 over the seeds."""
        return max(self.fp32) - min(self.fp32)

    @property
    def is_within_noise(self) -> bool:
        return abs(self.difference) <= self.noise

    def line(self) -> str:
        """The row of the table."""
        cells = [self.task, self.metric, _shown(self.fp32), _shown(self.bf16), f"{self.difference:+.4f}"]
        return f"| {' | '.join([*cells, f'{self.noise:.4f}', 'yes' if self.is_within_noise else 'no'])} |"


def _shown(scores: Sequence[float]) -> str:
    return f"{statistics.mean(scores):.4f} ({min(scores):.4f} - {max(scores):.4f})"


def draw(data_dir: Path, task: str, numbers: Mapping[str, int], target: Path) -> dict[str, int]:
    """Write proteins of a task, drawn at random, as JSON lines, and the description of their data set.

    Args:
        data_dir: directory with one folder per task, as for ``tape-train``.
        task: name of the task.
        numbers: split -> number of proteins; all of them if there are fewer.
        target: receives the same layout.

    Returns:
        Split -> number of proteins written.
    """
    from tape.datasets.index import load_split  # here: --help needs no torch
    from tape.datasets.sources import PROVENANCE_NAME
    from tape.registry import registry

    folder = target / TASKS[task].folder
    folder.mkdir()
    description = data_dir / folder.name / PROVENANCE_NAME
    if description.is_file():
        shutil.copyfile(description, folder / PROVENANCE_NAME)
    written = {}
    for split, number in numbers.items():
        source = load_split(registry.get_task_spec(task).dataset_class, str(data_dir), split, TAPETokenizer()).data
        generator = np.random.default_rng(_SEED)
        chosen = np.sort(generator.permutation(len(source))[:number])
        with (folder / f"{folder.name}_{split}.jsonl").open("w", encoding="utf-8") as stream:
            for index in chosen.tolist():
                print(json.dumps({name: _plain(value) for name, value in source[index].items()}), file=stream)
        written[split] = len(chosen)
    return written


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def score(options: argparse.Namespace, task: str, precision: str, seed: int, data: Path) -> float:
    """Finetune once in a process of its own; the metric of the last epoch on the validation set.

    Raises:
        ConfigError: the run failed.
    """
    schedule, name = SCHEDULES[task], f"{precision}_{seed}"
    epochs = options.epochs or schedule.epochs
    from tape.finetuning.run_directory import HISTORY_NAME

    values = {
        "--model_config_file": data / "config.json",
        "--data_dir": data,
        "--output_dir": data / "results",
        "--log_dir": data / "logs",
        "--exp_name": name,
        "--batch_size": options.batch_size,
        "--learning_rate": schedule.learning_rate,
        "--num_train_epochs": epochs,
        "--save_freq": epochs,
        "--num_workers": 0,
        "--seed": seed,
        "--precision": precision,
    }
    words = [str(word) for pair in values.items() for word in pair]
    command = [sys.executable, str(ROOT / "tape_train.py"), "transformer", task, *words, *schedule.options, "--no_cuda"]
    variables = {**os.environ, "OMP_NUM_THREADS": str(options.threads)}
    result = subprocess.run(command, capture_output=True, text=True, env=variables, check=False)
    if result.returncode:
        raise ConfigError(f"{' '.join(command)} failed:\n" + "\n".join(result.stderr.splitlines()[-_LINES_OF_ERROR:]))
    return float(read_json_lines(data / "results" / name / HISTORY_NAME)[-1]["valid"][schedule.metric])


def compare(options: argparse.Namespace, task: str) -> tuple[Comparison, dict[str, int]]:
    """Finetune on one task with all seeds in both precisions; returns the scores and the numbers of proteins."""
    hidden, layers = parse_size(options.size)
    sizes = model_sizes(
        {"hidden": hidden, "layers": layers, "heads": max(1, hidden // 32), "positions": 2176, "dropout": 0.1}
    )
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder)
        numbers = draw(options.data_dir, task, {"train": options.train, "valid": options.valid}, data)
        write_json(data / "config.json", {**sizes, "vocab_size": TAPETokenizer().vocab_size, "type_vocab_size": 1})
        scores: dict[str, list[float]] = {precision: [] for precision in PRECISIONS}
        for seed in options.seeds:
            for precision in PRECISIONS:
                scores[precision].append(score(options, task, precision, seed, data))
                print(f"{task}, seed {seed}, {precision}: {scores[precision][-1]:.4f}", file=sys.stderr, flush=True)
    return Comparison(task, SCHEDULES[task].metric, tuple(scores["fp32"]), tuple(scores["bf16"])), numbers


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, help="directory with one folder per task, as for tape-train")
    parser.add_argument("--tasks", nargs="+", default=list(SCHEDULES), choices=list(SCHEDULES), metavar="TASK")
    parser.add_argument("--size", default="128x3", metavar="HIDDENxLAYERS")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--train", type=int, default=1000, help="proteins to train on (default: %(default)s)")
    parser.add_argument("--valid", type=int, default=300, help="proteins to validate on (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help="default: 3 (secondary structure), 6 (stability)")
    parser.add_argument("--batch-size", type=int, default=16, help="proteins per step (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of each run (default: usable cores)")
    parser.add_argument("--json", type=Path, help="also write the scores of all runs to this file")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Print the table; 1 if a difference is larger than the noise."""
    options = parse(words)
    results = []
    print("| task | metric | fp32 (min - max) | bf16 (min - max) | bf16 - fp32 | range of fp32 | within |")
    print("|:--|:--|--:|--:|--:|--:|:--|", flush=True)
    for task in options.tasks:
        comparison, numbers = compare(options, task)
        print(comparison.line(), flush=True)
        results.append((comparison, numbers))
    if options.json is not None:
        runs = [
            {**asdict(comparison), "difference": comparison.difference, "noise": comparison.noise, "proteins": numbers}
            for comparison, numbers in results
        ]
        write_json(options.json, {"machine": machine(), "options": option_values(options), "results": runs})
    return int(not all(comparison.is_within_noise for comparison, _ in results))


if __name__ == "__main__":
    sys.exit(run_cli(main))
