"""Unsupervised contact prediction from attention maps (Rao et al. 2021, ``tape-contacts``).

R. Rao et al. 2021, "Transformer protein language models are unsupervised structure learners": the attention map of each
head is symmetrized and corrected for its average product (APC, Dunn et al. 2008). A logistic regression over all heads
of all layers, fitted on 20 proteins at separations of at least 6, predicts the probability of a contact. The objective
is that of the paper (and of liblinear), with an L1 penalty: |w|_1 + C sum of log(1 + exp(-y (w x + b))) with C = 0.15.
Unlike in the paper, the intercept b is not penalized.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tape.errors import CheckpointError, ConfigError, DataError
from tape.evaluation.evaluate import Evaluation, evaluation_mode
from tape.evaluation.spooled_results import SpooledResults
from tape.metrics import Bootstrap, measure_contacts, summarize_contacts
from tape.metrics.contacts import MINIMUM_SEPARATION
from tape.runtime.out_of_memory import MemoryRemedies, explain_out_of_memory
from tape.runtime.progress import progress_bar

from .contact_regression import ContactRegression

logger = logging.getLogger(__name__)

TASK_NAME = "unsupervised_contact_prediction"


def average_product_correction(maps: np.ndarray) -> np.ndarray:
    """a_ij - a_i. a_.j / a_.. of each (L, L) map in (..., L, L); a map with the sum 0 is unchanged."""
    rows, columns = maps.sum(axis=-1, keepdims=True), maps.sum(axis=-2, keepdims=True)
    total = maps.sum(axis=(-1, -2), keepdims=True)
    product = rows * columns
    return np.asarray(maps - np.divide(product, total, out=np.zeros_like(product), where=total != 0))


def attention_features(model: nn.Module, ids: np.ndarray, device: torch.device) -> np.ndarray:
    """(L, L, layers * heads) float32: the symmetrized and corrected maps, without special tokens.

    Args:
        model: an encoder with ``output_attentions``.
        ids: (L + 2,) token ids of one protein.
        device: the model's device.

    Raises:
        CheckpointError: the model does not return attention maps.
    """
    with explain_out_of_memory("the attention maps", (1, len(ids)), MemoryRemedies()):
        outputs = model(torch.from_numpy(ids)[None].to(device))
        return _features(model, outputs[-1])


def _features(model: nn.Module, layers: Any) -> np.ndarray:
    if not isinstance(layers, tuple) or not layers or layers[0].ndim != 4:
        raise CheckpointError(f"{type(model).__name__} does not return attention maps, which this method needs")
    maps = torch.cat([layer[0, :, 1:-1, 1:-1].float() for layer in layers]).cpu().numpy()
    return np.ascontiguousarray(np.moveaxis(average_product_correction(maps + maps.swapaxes(-1, -2)), 0, -1))


def fit_logistic_regression(
    features: np.ndarray, labels: np.ndarray, c: float, tolerance: float = 1e-5, iterations: int = 5000
) -> tuple[np.ndarray, float]:
    """Minimize |w|_1 + c sum of log(1 + exp(-y (w x + b))), y in {-1, 1}.

    With w = u - v and non-negative u and v, the penalty is linear, and the problem is smooth with bounds. L-BFGS-B
    solves it; weights that the penalty removes are exactly 0. The objective is divided by c N.

    Args:
        features: (N, F).
        labels: (N,) in {0, 1}.
        c: weight of the loss.
        tolerance: largest projected gradient at the solution, relative to the slope of the penalty.
        iterations: maximum number of iterations.

    Returns:
        (w (F,), b).

    Raises:
        ConfigError: ``c`` is not positive.
        DataError: all labels are equal.
    """
    from scipy.optimize import minimize

    if c <= 0:
        raise ConfigError(f"the weight of the loss, C, must be above 0, not {c}")
    if len(np.unique(labels)) != 2:
        raise DataError("the regression needs pairs with and without contact, but all pairs have the same label")
    size = features.shape[1]
    signs = np.where(labels > 0, 1.0, -1.0)
    penalty = 1.0 / (c * len(labels))

    def objective(parameters: np.ndarray) -> tuple[float, np.ndarray]:
        weights = parameters[:size] - parameters[size:-1]
        margins = signs * (features @ weights.astype(features.dtype) + parameters[-1])
        slopes = -signs * np.exp(-np.logaddexp(0.0, margins)) / len(labels)  # -y sigmoid(-margin) / N
        gradient = (slopes.astype(features.dtype) @ features).astype(np.float64)
        value = float(np.logaddexp(0.0, -margins).mean() + penalty * parameters[:-1].sum())
        return value, np.concatenate([gradient + penalty, penalty - gradient, [slopes.sum()]])

    bounds = [(0.0, None)] * (2 * size) + [(None, None)]
    share = float(np.mean(labels > 0))
    start = np.zeros(2 * size + 1)
    start[-1] = np.log(share / (1 - share))  # the solution without features
    limits = {"maxiter": iterations, "maxfun": 4 * iterations}
    options = {**limits, "ftol": 1e-14, "gtol": tolerance * penalty, "maxcor": 20}
    found = minimize(objective, start, jac=True, method="L-BFGS-B", bounds=bounds, options=options).x
    return found[:size] - found[size:-1], float(found[-1])


def choose_proteins(dataset: Any, number: int, seed: int, longest: int | None) -> list[int]:
    """Draw the proteins of the fit among those of at most ``longest`` residues; return their indices.

    Raises:
        ConfigError: ``number`` is below 1.
        DataError: there are fewer than ``number`` proteins.
    """
    if number < 1:
        raise ConfigError(f"the regression needs at least 1 protein, not {number}")
    lengths = dataset.build_index().lengths
    fitting = np.flatnonzero(lengths <= (lengths.max() if longest is None else longest))
    if fitting.size < number:
        raise DataError(
            f"{dataset.data.path}: {fitting.size} proteins are short enough for the model, fewer than {number}"
        )
    return sorted(np.random.default_rng(seed).choice(fitting, number, replace=False).tolist())


def fit_contacts(
    model: nn.Module, dataset: Any, indices: Sequence[int], c: float, device: torch.device
) -> ContactRegression:
    """Fit the regression on proteins of a contact data set, whose items are (ids, mask, (L, L) labels, length)."""
    features, labels = [], []
    with evaluation_mode(model), progress_bar("attention maps", len(indices), "protein") as bar:
        for index in indices:
            ids, _, target, _ = dataset[index]
            first, second = np.triu_indices(target.shape[0], k=MINIMUM_SEPARATION)
            valid = target[first, second] != -1
            first, second = first[valid], second[valid]
            features.append(attention_features(model, ids, device)[first, second])
            labels.append(target[first, second])
            bar.update()
    matrix, truth = np.concatenate(features), np.concatenate(labels)
    weights, intercept = fit_logistic_regression(matrix, truth, c)
    if not weights.any():
        logger.warning(
            "all weights of the regression are 0, so all scores are equal: at C = %g, the attention maps do not predict"
            " the contacts of these %d proteins",
            c,
            len(indices),
        )
    names = tuple(dataset.build_index().identifiers[index] for index in indices)
    return ContactRegression(weights, intercept, names, len(truth), c)


def evaluate_contacts(
    model: nn.Module,
    dataset: Any,
    regression: ContactRegression,
    device: torch.device,
    bootstrap: Bootstrap | None = None,
    title: str = "contacts",
    folder: Path | None = None,
) -> Evaluation:
    """Evaluate a split, with the metrics of finetuned contact prediction.

    Args:
        model: the encoder, with attention maps as outputs.
        dataset: the split.
        regression: fitted by :func:`fit_contacts`.
        device: that of the model.
        bootstrap: resampling for the metrics' intervals; None: no intervals.
        title: label of the progress bar.
        folder: on whose disk the predictions are kept; None: the system's folder for temporary files.

    Raises:
        OutputError: that disk is full.
        DataError: no protein has a labeled pair at a separation of 6 or more.
    """
    rows, results = [], SpooledResults(len(dataset), folder)
    identifiers = dataset.build_index().identifiers
    with evaluation_mode(model), progress_bar(title, len(dataset), "protein") as bar:
        for index in range(len(dataset)):
            ids, _, target, _ = dataset[index]
            scores = regression.scores(attention_features(model, ids, device)).astype(np.float32)
            rows.append(measure_contacts(scores, target))
            results.add(index, {"id": identifiers[index], "prediction": scores, "target": target.astype(np.int8)})
            bar.update()
    metrics = summarize_contacts(rows, bootstrap)
    if not any(metric.n for metric in metrics):
        raise DataError(
            f"{dataset.data.path}: nothing to evaluate on: no protein has a labeled pair of residues at a separation of"
            f" {MINIMUM_SEPARATION} or more"
        )
    return Evaluation(metrics, len(dataset), results, rows)
