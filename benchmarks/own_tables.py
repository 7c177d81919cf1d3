#!/usr/bin/env python
"""Tables of a user's size: a finetuned transformer against linear models of the amino acid composition.

    python benchmarks/own_tables.py DATA_DIR [--from-pretrained MODEL] --output-dir RUNS [--json RESULT.json]

DATA_DIR is the source of the LMDB folders (``tape/stability_train.jsonl.xz``, ``tape/remote_homology_train.jsonl.xz``).
Six tables of 50, 300 and 3,000 proteins are drawn: the stability of designed proteins, a regression, and the most
frequent folds, a classification with 5, 10 and 20 classes. A fifth of each is ``valid``. The test split is 1,000
further proteins of the same source, so that scores of all sizes are comparable; these are no published splits.

The transformer is trained by ``tape-train --data TABLE --target COLUMN`` with the defaults for tables of that size,
from MODEL, from random weights of ``--config`` values, or else from the bundled model. The linear models are
scikit-learn's ridge and logistic regression on the fractions of the 20 amino acids and the logarithm of the length;
their penalty is chosen on ``valid``. All scores are of the test split, as mean (minimum - maximum) over the seeds,
which also draw other proteins.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

import numpy as np

from benchmarks.peers.comparison import machine, option_values
from benchmarks.training import mean_and_range, train
from tape.cli.parser import ArgumentParser
from tape.cli.types import positive_int
from tape.errors import ConfigError, run_cli
from tape.io.json_files import read_json_object
from tape.io.records import open_records
from tape.io.run_layout import resolve_model_directory
from tape.io.writing import check_output_file, write_json, write_text
from tape.metrics.values import spearmanr

SIZES = (50, 300, 3000)
CLASSES = {50: 5, 300: 10, 3000: 20}
TEST_PROTEINS = 1000
SPLITS = ("train", "valid", "test")
PENALTIES = tuple(10.0**power for power in range(-3, 4))
AMINO_ACIDS = "ACDEFGHIKLMNPQRSTVWY"
_VALID_FRACTION = 0.2


@dataclass(frozen=True)
class Protein:
    """A sequence and its label: a number, or the name of a class."""

    sequence: str
    label: float | str


@dataclass(frozen=True)
class TableKind:
    """A kind of tables.

    Attributes:
        name: what is predicted, which is also the column.
        source: file of the proteins below the data directory.
        field: field of the label there.
        metric: name of the metric that is compared.
    """

    name: str
    source: str
    field: str
    metric: str


KINDS = (
    TableKind("stability", "tape/stability_train.jsonl.xz", "stability_score", "spearmanr"),
    TableKind("fold", "tape/remote_homology_train.jsonl.xz", "fold_label", "accuracy"),
)

Splits = dict[str, list[Protein]]


@dataclass(frozen=True)
class Score:
    """The test scores of one table.

    Attributes:
        kind, size, metric: which table, and the metric.
        transformer, linear: of each seed.
        seconds: wall time of ``tape-train``, all seeds.
    """

    kind: str
    size: int
    metric: str
    transformer: tuple[float, ...]
    linear: tuple[float, ...]
    seconds: float


def read_proteins(data_dir: Path, kind: TableKind) -> list[Protein]:
    """The proteins of a kind, one of each sequence."""
    found: dict[str, Protein] = {}
    for record in open_records(data_dir / kind.source, with_fields=True):
        value = record.fields[kind.field]
        label = f"fold_{value}" if kind.name == "fold" else float(value[0] if isinstance(value, list) else value)
        found.setdefault(record.residues, Protein(record.residues, label))
    return list(found.values())


def draw_table(proteins: Sequence[Protein], kind: TableKind, size: int, seed: int) -> Splits:
    """The splits of a table with ``size`` proteins in train and valid, and TEST_PROTEINS in test.

    Raises:
        ConfigError: the source has too few proteins.
    """
    if kind.name == "fold":
        common = {label for label, _ in Counter(protein.label for protein in proteins).most_common(CLASSES[size])}
        proteins = [protein for protein in proteins if protein.label in common]
    if len(proteins) < size + TEST_PROTEINS:
        raise ConfigError(f"{kind.source}: {len(proteins)} proteins to draw {size + TEST_PROTEINS} from")
    order = np.random.default_rng(seed).permutation(len(proteins))[: size + TEST_PROTEINS]
    drawn = [proteins[place] for place in order]
    valid = round(size * _VALID_FRACTION)
    return {"valid": drawn[:valid], "train": drawn[valid:size], "test": drawn[size:]}


def write_table(path: Path, splits: Splits, column: str) -> None:
    """Write a CSV file with the columns sequence, the label and split."""
    lines = [f"sequence,{column},split"]
    lines += [f"{one.sequence},{one.label},{split}" for split in SPLITS for one in splits[split]]
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "\n".join(lines) + "\n")


def composition(proteins: Sequence[Protein]) -> np.ndarray:
    """(N, 21) fractions of the amino acids and logarithm of the length."""
    rows = [
        [*(one.sequence.count(residue) / len(one.sequence) for residue in AMINO_ACIDS), np.log(len(one.sequence))]
        for one in proteins
    ]
    return np.asarray(rows)


def linear_score(splits: Splits, kind: TableKind) -> float:
    """Test score of the linear model whose penalty is the best on valid."""
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    def regression(penalty: float) -> Any:
        return Ridge(alpha=penalty)

    def classification(penalty: float) -> Any:
        return LogisticRegression(C=1 / penalty, max_iter=5000)

    create: Callable[[float], Any] = classification if kind.name == "fold" else regression
    features = {split: composition(splits[split]) for split in SPLITS}
    labels = {split: np.asarray([one.label for one in splits[split]]) for split in SPLITS}
    models = [
        make_pipeline(StandardScaler(), create(penalty)).fit(features["train"], labels["train"])
        for penalty in PENALTIES
    ]

    def score(model: Any, split: str) -> float:
        predicted = model.predict(features[split])
        if kind.name == "fold":
            return float(np.mean(predicted == labels[split]))
        return float(spearmanr(labels[split], predicted))

    best = max(models, key=lambda model: np.nan_to_num(score(model, "valid"), nan=-1.0))
    return score(best, "test")


def finetune(options: argparse.Namespace, table: Path, kind: TableKind, run: str, seed: int) -> float:
    """Test score of a transformer that is trained on a table, in a process of its own.

    Raises:
        ConfigError: it failed.
    """
    values: dict[str, Any] = {
        "--data": table,
        "--target": kind.name,
        "--output_dir": options.output_dir,
        "--log_dir": options.output_dir / "logs",
        "--exp_name": run,
        "--seed": seed,
        "--precision": options.precision,
        "--num_workers": 0,
        **({"--from_pretrained": options.from_pretrained} if options.from_pretrained else {}),
    }
    train(["transformer"], values, options.config, options.no_cuda)
    best = resolve_model_directory(options.output_dir / run)
    metrics = read_json_object(best / "eval_test.json")["metrics"]
    (value,) = [metric["value"] for metric in metrics if metric["name"] == kind.metric]
    return float("nan") if value is None else float(value)


def measure(options: argparse.Namespace) -> Iterator[Score]:
    """The scores of the tables that the options name."""
    for kind in KINDS:
        if kind.name not in options.targets:
            continue
        proteins = read_proteins(options.data_dir, kind)
        for size in options.sizes:
            transformer, linear, start = [], [], time.perf_counter()
            for seed in range(options.seed, options.seed + options.seeds):
                splits = draw_table(proteins, kind, size, seed)
                name = f"{kind.name}_{size}_seed_{seed}"
                table = options.output_dir / "tables" / f"{name}.csv"
                write_table(table, splits, kind.name)
                linear.append(linear_score(splits, kind))
                transformer.append(finetune(options, table, kind, name, seed))
            seconds = time.perf_counter() - start
            yield Score(kind.name, size, kind.metric, tuple(transformer), tuple(linear), seconds)


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, help="directory with the folder tape of labeled proteins")
    parser.add_argument("--output-dir", type=Path, required=True, help="directory of tables and runs")
    parser.add_argument("--from-pretrained", metavar="MODEL", help="model to start from (default: the bundled one)")
    parser.add_argument("--config", action="append", default=[], metavar="KEY=VALUE", help="as of tape-train")
    names = [kind.name for kind in KINDS]
    parser.add_argument("--targets", nargs="+", choices=names, default=names, help="columns to predict")
    parser.add_argument("--sizes", type=int, nargs="+", choices=SIZES, default=list(SIZES), help="proteins per table")
    parser.add_argument("--seeds", type=positive_int, default=3, help="runs per table (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="the first seed (default: %(default)s)")
    parser.add_argument("--precision", default="auto", help="as of tape-train (default: %(default)s)")
    parser.add_argument("--no-cuda", action="store_true", help="compute on the CPU")
    parser.add_argument("--json", type=Path, help="also write the scores to this file")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Train on every table, and print the scores."""
    options = parse(words)
    if options.json is not None:
        check_output_file(options.json, "--json")
    scores = list(measure(options))
    print("| target | proteins in train and valid | metric | transformer | linear, composition | time per run |")
    print("|:--|--:|:--|--:|--:|--:|")
    for one in scores:
        ranges = (mean_and_range(values, 3) for values in (one.transformer, one.linear))
        cells = (one.kind, f"{one.size:,}", one.metric, *ranges)
        print(f"| {' | '.join(cells)} | {one.seconds / options.seeds:.0f} s |")
    if options.json is not None:
        results = [asdict(one) for one in scores]
        write_json(options.json, {"machine": machine(), "options": option_values(options), "results": results})


if __name__ == "__main__":
    sys.exit(run_cli(main))
