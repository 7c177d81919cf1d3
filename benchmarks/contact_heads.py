#!/usr/bin/env python
"""How much of a contact score is the head, and how much the pretraining: two heads from two kinds of weights.

    python benchmarks/contact_heads.py DATA_DIR [MODEL] --output-dir RUNS [--json RESULT.json]

TAPE's linear head and ProteinLM's convolutional head of 30 residual blocks are each finetuned on contact prediction,
from the weights of MODEL and from random weights of the same configuration (but all of their heads attend to neighbors
initially where half of the model's did): four cells with the same proteins, epochs, batches and seeds. The epoch with
the lowest validation loss is evaluated. A head may need settings of its own, as in --option
linear:head_learning_rate=3e-2, which then hold for both starts. ProteinLM reports P@L/5 of .36 for TAPE's transformer
with the linear head and .52 for its own with the convolutional one, which differ in both.

Differences are paired by seed. The head's share of the whole gain is the mean of its effect on random and on pretrained
weights, over the difference of the opposite cells. A cell whose runs are complete in RUNS is not trained again.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

from benchmarks.finetuning_precision import draw
from benchmarks.peers.comparison import machine, option_values
from benchmarks.training import mean_and_range, train
from proteinlm.workflow.random_weights import random_weights_options
from tape.cli.parser import ArgumentParser
from tape.cli.types import positive_int
from tape.configs import CONFIG_NAME, ProteinBertConfig
from tape.errors import ConfigError, run_cli
from tape.evaluation.records import finite
from tape.evaluation.results import model_hash
from tape.hub.bundled import DEFAULT_MODEL, default_model
from tape.hub.cache import local_model, no_such_model
from tape.io.json_files import read_json_object
from tape.io.run_layout import resolve_model_directory
from tape.io.writing import check_output_file, scratch_directory, write_json

HEADS = ("linear", "resnet")
STARTS = ("random", "pretrained")
CELLS = tuple((head, start) for head in HEADS for start in STARTS)
METRICS = {"precision_at_l5": 6, "precision_at_l5_medium_long": 12, "precision_at_l5_long": 24}  # least separation
TASK = "contact_prediction"
HEAD_OPTIONS = ("learning_rate", "head_learning_rate", "config")  # those that leave the budget as it is
_SETTINGS_NAME = "settings.json"
_ALL = sys.maxsize

Cell = tuple[str, str]
Scores = dict[Cell, list[float]]  # by seed


@dataclass(frozen=True)
class Difference:
    """The difference of two cells by seed."""

    name: str
    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return statistics.fmean(self.values)

    def __str__(self) -> str:
        return f"{self.mean:+.4f} ({min(self.values):+.4f} to {max(self.values):+.4f})"


def differences(scores: Scores) -> tuple[Difference, ...]:
    """The effects of head and pretraining, each with the other at both of its values, and that of both."""
    pairs: dict[str, tuple[Cell, Cell]] = {
        "head, random weights": (("linear", "random"), ("resnet", "random")),
        "head, pretrained weights": (("linear", "pretrained"), ("resnet", "pretrained")),
        "pretraining, linear head": (("linear", "random"), ("linear", "pretrained")),
        "pretraining, convolutional head": (("resnet", "random"), ("resnet", "pretrained")),
        "both": (("linear", "random"), ("resnet", "pretrained")),
    }
    return tuple(
        Difference(name, tuple(after - before for before, after in zip(scores[low], scores[high], strict=True)))
        for name, (low, high) in pairs.items()
    )


def share_of_head(found: Sequence[Difference]) -> float | None:
    """The head's part of the effect of both; None if both together have no positive effect."""
    means = {difference.name: difference.mean for difference in found}
    if not means["both"] > 0:  # nan if the metric is undefined
        return None
    return (means["head, random weights"] + means["head, pretrained weights"]) / 2 / means["both"]


def finetune(options: argparse.Namespace, cell: Cell, model: Path, data: Path, scratch: Path) -> None:
    """Train and evaluate all seeds of a cell, in a process of its own.

    Raises:
        ConfigError: it failed.
    """
    head, start = cell
    weights = ["--from_pretrained", str(model)] if start == "pretrained" else random_weights(model)
    values = {
        "--contact_head": head,
        "--data_dir": data,
        "--output_dir": options.output_dir,
        "--log_dir": scratch / "logs",
        "--exp_name": name_of(cell),
        "--seed": options.seed,
        "--seeds": options.seeds,
        "--eval_splits": options.split,
        "--save_freq": "improvement",
        "--num_train_epochs": options.epochs,
        "--batch_size": options.batch_size,
        "--learning_rate": options.learning_rate,
        "--precision": options.precision,
        "--num_workers": 0,
        "--num_log_iter": 1000,
        **({"--max_length": options.max_length} if options.max_length else {}),
    }
    own = [(name, value) for own_head, name, value in options.option if own_head == head]
    values |= {f"--{name}": value for name, value in own if name != "config"}
    config = [*options.config, *(value for name, value in own if name == "config")]
    train(["transformer", TASK, *weights], values, config, options.no_cuda)


def random_weights(model: Path) -> list[str]:
    """The options for random weights of a model's configuration."""
    initial_attention = ProteinBertConfig.from_pretrained(model).initial_attention
    return list(random_weights_options(model / CONFIG_NAME, initial_attention))


def head_option(words: str) -> list[str]:
    """``HEAD:NAME=VALUE`` as head, name and value, for argparse; a list, as the JSON file of settings has it.

    Raises:
        argparse.ArgumentTypeError: of no head, without a value, or an option that cells must have in common.
    """
    head, colon, rest = words.partition(":")
    name, equals, value = rest.partition("=")
    if not (colon and equals and value) or head not in HEADS or name not in HEAD_OPTIONS:
        names = ", ".join(HEAD_OPTIONS)
        raise argparse.ArgumentTypeError(
            f"{words!r} is not HEAD:NAME=VALUE, with a HEAD of {', '.join(HEADS)} and a NAME of {names}"
        )
    return [head, name, value]


def name_of(cell: Cell) -> str:
    """Name of a cell's directory of runs."""
    return "_".join(cell)


def summary_of(options: argparse.Namespace, cell: Cell) -> Path:
    """The summary over the seeds, which is written when all of them are evaluated."""
    return Path(options.output_dir / name_of(cell) / "summary.json")


def check_settings(options: argparse.Namespace, model: Path) -> None:
    """Record the settings of the runs beside them; runs with other settings are no basis for a comparison.

    Raises:
        ConfigError: the directory has runs with other settings.
    """
    ignored = ("jobs", "json", "output_dir", "no_cuda")
    settings = {name: value for name, value in option_values(options).items() if name not in ignored}
    settings["model_sha256"] = model_hash(model)
    settings["random_weights"] = random_weights(model)[2:]  # the file may move with its model
    path = options.output_dir / _SETTINGS_NAME
    if path.is_file():
        earlier = read_json_object(path)
        earlier.setdefault("random_weights", [])  # of earlier versions, which had no exception
        other = sorted(name for name, value in settings.items() if earlier.get(name) != value)
        if other:
            raise ConfigError(f"{path}: its runs have other settings ({', '.join(other)}); choose another --output-dir")
    options.output_dir.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def drawn_data(options: argparse.Namespace, stack: ExitStack) -> tuple[Path, dict[str, int]]:
    """The directory of the data, or one with the proteins drawn; and their numbers, if any are drawn."""
    numbers = {"train": options.train, "valid": options.valid, options.split: options.test}
    if not any(numbers.values()):
        return options.data_dir, {}
    target = stack.enter_context(scratch_directory("contact_heads"))
    drawn = draw(options.data_dir, TASK, {split: number or _ALL for split, number in numbers.items()}, target)
    return target, drawn


def read_scores(options: argparse.Namespace, metric: str) -> Scores:
    """A metric of every cell, in the order of the seeds; ``nan`` where no protein has a pair at its separation."""
    found: Scores = {}
    for cell in CELLS:
        runs = read_json_object(summary_of(options, cell))["runs"]
        found[cell] = [
            float(run["metrics"][options.split][metric]) for run in sorted(runs, key=lambda run: run["seed"])
        ]
    return found


def report(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Print the tables; returns the results of each metric."""
    results = []
    for metric, separation in METRICS.items():
        scores = read_scores(options, metric)
        found = differences(scores)
        share = share_of_head(found)
        range_of = f"P@L/5, separation >= {separation}, {options.split}"
        print(f"\n{range_of}, mean (minimum - maximum) over {options.seeds} seeds")
        print("| weights | linear head | convolutional head |\n|:--|--:|--:|")
        for start in STARTS:
            print(f"| {start} | {' | '.join(mean_and_range(scores[head, start], 4) for head in HEADS)} |")
        for difference in found:
            print(f"{difference.name}: {difference}")
        print(f"share of the head: {'undefined' if share is None else f'{share:.2f}'}", flush=True)
        results.append(
            {
                "metric": metric,
                "split": options.split,
                "scores": {name_of(cell): list(map(finite, values)) for cell, values in scores.items()},
                "differences": {difference.name: list(map(finite, difference.values)) for difference in found},
                "share_of_head": share,
            }
        )
    return results


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, help="directory with the folder proteinnet")
    parser.add_argument("model", nargs="?", help=f"directory or name of the model (default: {DEFAULT_MODEL})")
    parser.add_argument("--output-dir", type=Path, required=True, help="directory of the runs, one folder per cell")
    parser.add_argument("--seeds", type=positive_int, default=3, help="runs of each cell (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="the first seed (default: %(default)s)")
    parser.add_argument("--epochs", type=positive_int, default=5, help="of each run (default: %(default)s)")
    parser.add_argument("--batch-size", type=positive_int, default=8, help="proteins per step (default: %(default)s)")
    parser.add_argument("--learning-rate", type=float, default=1e-3, help="peak rate (default: %(default)s)")
    parser.add_argument("--precision", default="auto", help="as of tape-train (default: %(default)s)")
    parser.add_argument("--max-length", type=positive_int, help="train on proteins of at most so many residues")
    parser.add_argument("--config", action="append", default=[], metavar="KEY=VALUE", help="as of tape-train")
    parser.add_argument(
        "--option",
        action="append",
        default=[],
        type=head_option,
        metavar="HEAD:NAME=VALUE",
        help=f"for one of the heads, {' or '.join(HEADS)}: its {', '.join(HEAD_OPTIONS)} (as of tape-train)",
    )
    parser.add_argument("--train", type=positive_int, metavar="N", help="draw N proteins to train on (default: all)")
    parser.add_argument("--valid", type=positive_int, metavar="N", help="draw N proteins to validate on (default: all)")
    parser.add_argument("--test", type=positive_int, metavar="N", help="draw N proteins to evaluate on (default: all)")
    parser.add_argument("--split", default="test", help="split to evaluate (default: %(default)s)")
    parser.add_argument("--jobs", type=positive_int, default=1, help="cells to train at the same time (default: one)")
    parser.add_argument("--no-cuda", action="store_true", help="compute on the CPU")
    parser.add_argument("--json", type=Path, help="also write the scores to this file")
    options = parser.parse_args(words)
    options.model = options.model or default_model("transformer")
    return options


def main(words: Sequence[str] | None = None) -> None:
    """Train the cells that are missing, and print the tables."""
    options = parse(words)
    if options.json is not None:
        check_output_file(options.json, "--json")
    model = resolve_model_directory(local_model(options.model))
    if not (model / CONFIG_NAME).is_file():
        raise no_such_model(model)
    check_settings(options, model)
    with ExitStack() as stack:
        data, drawn = drawn_data(options, stack)
        scratch = stack.enter_context(scratch_directory("contact_heads"))
        missing = [cell for cell in CELLS if not summary_of(options, cell).is_file()]
        with ThreadPoolExecutor(options.jobs) as pool:
            for _ in pool.map(lambda cell: finetune(options, cell, model, data, scratch), missing):
                pass
    results = report(options)
    if options.json is not None:
        settings = read_json_object(options.output_dir / _SETTINGS_NAME)
        write_json(options.json, {"machine": machine(), "options": settings, "drawn": drawn, "results": results})


if __name__ == "__main__":
    sys.exit(run_cli(main))
