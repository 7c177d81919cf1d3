#!/usr/bin/env python
"""Ridge regression on position-specific one-hot features, the baseline of protein engineering.

    python benchmarks/linear_baseline.py DATA_DIR [--task fluorescence] [--test_split test] [--out RESULT.json]

One coefficient per residue at each position, fitted on `train`; the penalty is chosen by Spearman's rho on `valid`. The
features only make sense for variants of one protein, so that position i means the same in each: lengths may differ by
deletions at the end, which are a residue of their own. Needs less than a minute on one core.

Such a model has no interactions between positions. What a pretrained model adds on such a set is its distance from it
(Hsu et al. 2022, "Learning protein fitness models from evolutionary and assay-labeled data"; Dallago et al. 2021,
"FLIP: Benchmark tasks in fitness landscape inference for proteins").
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

import numpy as np
from scipy.sparse import csr_matrix
from scipy.sparse.linalg import lsqr

from benchmarks.variant_sets import open_split, read_split
from tape.cli.parser import ArgumentParser
from tape.errors import DataError, run_cli
from tape.io.writing import check_output_file, write_json
from tape.metrics.values import spearmanr
from tape.tokenizers import TAPETokenizer

PENALTIES = (0.1, 0.3, 1.0, 3.0, 10.0, 100.0)
_LARGEST_DIFFERENCE = 0.1  # of the lengths, as a fraction of the longest: variants of one protein, not a family
_ITERATIONS = 500


@dataclass(frozen=True)
class LinearBaseline:
    """Spearman's rho of the regression.

    Attributes:
        task, split: what was measured.
        valid: rho on `valid` of each penalty.
        penalty: the best of them.
        test: its rho on ``split``.
    """

    task: str
    split: str
    valid: dict[float, float]
    penalty: float
    test: float


def features(proteins: Sequence[np.ndarray], length: int) -> csr_matrix:
    """(N, length * tokens) one-hot features: one column per token and position, 0 (padding) after the end."""
    tokens = TAPETokenizer().vocab_size
    padded = np.zeros((len(proteins), length), dtype=np.int64)
    for row, protein in zip(padded, proteins, strict=True):
        row[: len(protein)] = protein[:length]
    columns = padded + tokens * np.arange(length)
    rows = np.repeat(np.arange(len(proteins)), length)
    return csr_matrix((np.ones(columns.size), (rows, columns.ravel())), (len(proteins), length * tokens))


def fit(matrix: csr_matrix, labels: np.ndarray, penalty: float) -> np.ndarray:
    """Coefficients of ridge regression on centered labels (the intercept is the mean)."""
    return np.asarray(lsqr(matrix, labels - labels.mean(), damp=penalty**0.5, iter_lim=_ITERATIONS)[0])


def measure(data_dir: str, task: str, test_split: str) -> LinearBaseline:
    """Spearman's rho of each penalty on `valid`, and of the best one on the test split.

    Raises:
        DataError: the proteins are not variants of one protein.
    """
    names = ("train", "valid", test_split)
    splits = {name: read_split(open_split(data_dir, task, name, f"--task {task}:")) for name in names}
    lengths = np.concatenate([[len(protein) for protein in proteins] for proteins, _ in splits.values()])
    length = int(lengths.max())
    if lengths.min() < (1 - _LARGEST_DIFFERENCE) * length:
        raise DataError(
            f"{data_dir}: the proteins of {task} have {lengths.min()} to {length} residues; position-specific features"
            " are for variants of one protein"
        )
    matrices = {split: features(proteins, length) for split, (proteins, _) in splits.items()}
    labels = {split: values for split, (_, values) in splits.items()}
    coefficients = {penalty: fit(matrices["train"], labels["train"], penalty) for penalty in PENALTIES}
    valid = {penalty: spearmanr(labels["valid"], matrices["valid"] @ found) for penalty, found in coefficients.items()}
    best = max(valid, key=lambda penalty: valid[penalty])
    test = spearmanr(labels[test_split], matrices[test_split] @ coefficients[best])
    return LinearBaseline(task, test_split, valid, best, test)


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", help="directory with TAPE's folders, as scripts/prepare_data.py writes them")
    parser.add_argument("--task", default="fluorescence", help="task with a value per protein (default fluorescence)")
    parser.add_argument("--test_split", default="test", help="split to report (default test)")
    parser.add_argument("--out", type=Path, help="also write the result as JSON")
    options = parser.parse_args(arguments)
    if options.out is not None:
        check_output_file(options.out, "--out")
    result = measure(options.data_dir, options.task, options.test_split)
    for penalty, rho in result.valid.items():
        print(f"penalty {penalty:g}: Spearman's rho {rho:.4f} on valid")
    print(f"penalty {result.penalty:g}: Spearman's rho {result.test:.4f} on {result.split}")
    if options.out is not None:
        write_json(options.out, asdict(result))


if __name__ == "__main__":
    sys.exit(run_cli(main))
