"""One pass over a split, in which every protein is seen once, whatever the batch size and the number of ranks, and the
metrics that it measures."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tape.datasets.batching import plan_evaluation
from tape.datasets.index import index_of, lengths_of, unmasked_labels_of
from tape.datasets.labels import Batch, count_labels, model_inputs, split_proteins
from tape.datasets.loading import load_batches, worker_count
from tape.datasets.unmasked_labels import UNMASKED, WithUnmaskedLabels
from tape.errors import CheckpointError, ConfigError, DataError
from tape.metrics import NAMED_METRICS, Bootstrap, Metric, TaskTypeMetrics, metrics_of
from tape.metrics.classes import perplexity
from tape.registry import registry
from tape.runtime.distributed import DistributedContext, all_gather_lists, all_reduce_sum
from tape.runtime.out_of_memory import MemoryRemedies, explain_out_of_memory
from tape.runtime.precision import autocast
from tape.runtime.progress import progress_bar
from tape.targets import value_names_of
from tape.tasks import TASK_TYPE_TRAITS, TaskType

from .config import InferenceConfig
from .spooled_results import Result, SpooledResults
from .windows import pass_lengths

# Names of --metrics that differ from those in an evaluation.
_METRIC_KEYS = {"L5": "precision_at_l5"}
_LANGUAGE_MODELS = (TaskType.MASKED_LM, TaskType.LANGUAGE_MODEL)


@dataclass(frozen=True)
class Evaluation:
    """Result of one pass.

    Attributes:
        metrics: ``loss`` first, then ``perplexity`` for language models, then the metrics of the task type.
        proteins: number of proteins evaluated.
        results: {"id", "prediction", "target"} of each protein without padding, in the order of the data set, read from
            disk one at a time; empty without ``keep_results``.
        measured: measurements of each protein (:func:`tape.metrics.metrics_of`), in the same order, from which
            the metrics of some of the proteins can be computed.
        confusions: (C, C) labeled items by true and predicted class; None for a task without classes or without labels.
    """

    metrics: list[Metric]
    proteins: int
    results: Sequence[Result] = ()
    measured: Sequence[Any] = ()
    confusions: np.ndarray | None = None

    def value(self, name: str) -> float:
        """The value of a metric; raises ``KeyError`` for an unknown name."""
        return {metric.name: metric.value for metric in self.metrics}[name]

    def values(self) -> dict[str, float]:
        """Metric name -> value."""
        return {metric.name: metric.value for metric in self.metrics}


def check_measured(evaluation: Evaluation, source: object) -> None:
    """Check that an evaluation measured something.

    Args:
        evaluation: the result for a split.
        source: the split's file, for messages.

    Raises:
        DataError: no record has a label.
        CheckpointError: the model's predictions are nan.
    """
    loss = evaluation.metrics[0]
    if loss.n == 0:
        raise DataError(f"{source}: nothing to evaluate on: no record has a valid label")
    if math.isnan(loss.value):
        raise CheckpointError(f"the model's predictions on {source} are not numbers (nan); its weights are damaged")


def check_metrics(names: Sequence[str], task: str, task_type: TaskType) -> None:
    """Check, before anything is computed, that the task has all of the named metrics.

    Raises:
        ConfigError: it lacks one; the message lists its metrics, with those registered by third parties.
    """
    allowed = [
        name for name in sorted(registry.metric_name_mapping) if task_type in NAMED_METRICS.get(name, {task_type})
    ]
    for name in names:
        if name not in allowed:
            raise ConfigError(
                f"--metrics {name}: {task} has no such metric; it has {', '.join(allowed) or 'none by name'}."
                " Without --metrics all of the task's are computed"
            )


def chosen_metrics(evaluation: Evaluation, names: Sequence[str], values: Sequence[str] = ()) -> dict[str, float]:
    """The metrics named by ``--metrics``; all metrics if it names none. Of a model that predicts several ``values``, a
    name stands for the mean, if there is one, and the metric of each.

    A metric that is not part of the evaluation (``accuracy`` of contacts, a third party's) is computed from the
    predictions.

    Raises:
        ConfigError: a metric is unknown, or can't be computed from these predictions.
    """
    own = evaluation.values()
    if not names:
        return own
    chosen: dict[str, float] = {}
    for name in names:
        key = _METRIC_KEYS.get(name, name)
        found = {full: own[full] for full in (key, *(f"{key}_{column}" for column in values)) if full in own}
        chosen |= found or {key: _computed(name, evaluation)}
    return chosen


def _computed(name: str, evaluation: Evaluation) -> float:
    metric = registry.get_metric(name)
    targets = [result["target"] for result in evaluation.results]
    predictions = [result["prediction"] for result in evaluation.results]
    try:
        return float(metric(targets, predictions))
    except Exception as error:  # a third party's function may raise anything
        raise ConfigError(f"metric {name} can't be computed from these predictions: {error}") from error


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients inside the block; restores the model's mode after it."""
    before = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(before)


def batch_shape(inputs: Batch) -> Sequence[int]:
    """(proteins, tokens of the longest) of a batch."""
    return tuple((inputs["input_ids"] if "input_ids" in inputs else inputs["msa1hot"][:, 0, :, 0]).shape)


def memory_remedies(precision: str) -> MemoryRemedies:
    """What lowers the memory of a forward pass in evaluation, embedding and prediction.

    Args:
        precision: that of the pass.
    """
    return MemoryRemedies(
        ("a smaller --batch_size", "--max_tokens N"), ("--bf16",) if precision == "fp32" else ("a smaller model",)
    )


def forward(model: nn.Module, inputs: Batch) -> tuple[Tensor, Any]:
    """Call a model with TAPE's calling convention; returns (loss, prediction).

    Raises:
        ConfigError: the model returns something else.
    """
    outputs = model(**inputs)
    try:
        (loss, _), prediction = outputs[0], outputs[1]
        return loss.mean(), prediction
    except (TypeError, ValueError, IndexError, AttributeError):
        raise ConfigError(
            f"{type(model).__name__} must return ((loss, metrics), prediction, ...) when it is given targets"
        ) from None


def evaluate(
    model: nn.Module,
    dataset: Any,
    task_type: TaskType,
    config: InferenceConfig,
    context: DistributedContext | None = None,
    *,
    bootstrap: Bootstrap | None = None,
    keep_results: bool = False,
    folder: Path | None = None,
    title: str = "evaluation",
) -> Evaluation:
    """Loss and all metrics of a split in a single pass.

    Args:
        model: with TAPE's calling convention; not wrapped for distributed training.
        dataset: the split.
        task_type: determines the metrics.
        config: batch size, workers, precision.
        context: the ranks among which the split is divided.
        bootstrap: resampling for the metrics' intervals; None: no intervals (they take seconds on a large split).
        keep_results: also return every prediction, on every rank.
        folder: on whose disk the predictions are kept; None: the system's folder for temporary files.
        title: label of the progress bar.

    Raises:
        ConfigError: there is not enough memory, or ``max_tokens`` is less than the longest pass.
        OutputError: the disk on which the predictions are kept is full.
    """
    context = context or DistributedContext()
    lengths = pass_lengths(model, lengths_of(dataset))
    plan = plan_evaluation(
        lengths, config.batch_size_for(task_type), context.rank, context.world_size, config.max_tokens
    )
    workers = worker_count(config.num_workers, len(dataset))
    is_unmasked = task_type == TaskType.RESIDUE_CLASS and unmasked_labels_of(dataset) is not None
    examples = WithUnmaskedLabels(dataset) if is_unmasked else dataset
    values = value_names_of(getattr(model, "config", None))
    of_type = metrics_of(task_type, values)
    rows: list[tuple[int, Any]] = []
    results = SpooledResults(len(dataset), folder) if keep_results else None
    loss_sum, count_sum = 0.0, 0
    with evaluation_mode(model), progress_bar(title, len(dataset), "protein", disable=not context.is_main) as bar:
        for indices, batch in zip(plan, load_batches(examples, plan, num_workers=workers), strict=True):
            unmasked = batch.pop(UNMASKED) if is_unmasked else None
            loss, prediction = _predict(model, batch, config.precision, context.device)
            count = count_labels(task_type, batch)
            if count:  # the mean over no label may be nan
                loss_sum, count_sum = loss_sum + loss * count, count_sum + count
            proteins = split_proteins(task_type, prediction, batch)
            rows.extend(_measured(of_type, indices, proteins, unmasked))
            if results is not None:
                _add_results(results, dataset, task_type, indices, proteins)
            bar.update(len(indices) * context.world_size)
    loss_sum, counted = all_reduce_sum([loss_sum, count_sum], context)
    measured = [row for _, row in sorted(all_gather_lists(rows, context), key=lambda indexed: indexed[0])]
    metrics = _loss_metrics(task_type, values, loss_sum, int(counted))
    metrics += of_type.summarize(measured, bootstrap)
    confusions = None if of_type.confusions is None else of_type.confusions(measured)
    if results is None:
        return Evaluation(metrics, len(dataset), measured=measured, confusions=confusions)
    results.exchange(context)
    return Evaluation(metrics, len(dataset), results, measured, confusions)


def _predict(model: nn.Module, batch: Batch, precision: str, device: torch.device) -> tuple[float, Any]:
    with (
        explain_out_of_memory("the forward pass", batch_shape(batch), memory_remedies(precision)),
        autocast(precision, device),
    ):
        loss, prediction = forward(model, model_inputs(batch, device))
        return float(loss), prediction


def _measured(
    of_type: TaskTypeMetrics,
    indices: np.ndarray,
    proteins: list[tuple[Any, Any]],
    unmasked: Sequence[np.ndarray] | None,
) -> Iterator[tuple[int, Any]]:
    """(index in the data set, measurements) of each protein, with labels outside ``valid_mask`` if there are any."""
    labels = [()] * len(proteins) if unmasked is None else [(one,) for one in unmasked]
    for index, protein, others in zip(indices.tolist(), proteins, labels, strict=True):
        yield index, of_type.measure(*protein, *others)


def _add_results(
    results: SpooledResults,
    dataset: Any,
    task_type: TaskType,
    indices: np.ndarray,
    proteins: list[tuple[Any, Any]],
) -> None:
    """Add the proteins of a batch with their ids (bug 19 in docs/compatibility.md)."""
    dataset_index = index_of(dataset)
    for index, (prediction, target) in zip(indices.tolist(), proteins, strict=True):
        if task_type in _LANGUAGE_MODELS:
            prediction = prediction.argmax(-1)  # the logits of every token of Pfam would fill a disk
        if task_type == TaskType.RESIDUE_PAIR:
            target = target.astype(np.int8)  # 0, 1, -1
        if task_type == TaskType.PAIR_GEOMETRY:  # bins instead of distributions, for the same reason
            prediction = {
                name.removeprefix("p_"): value.argmax(-1).astype(np.int8) for name, value in prediction.items()
            }
        identifier = str(index) if dataset_index is None else dataset_index.identifiers[index]
        results.add(index, {"id": identifier, "prediction": prediction, "target": target})


def _loss_metrics(task_type: TaskType, values: Sequence[str], loss_sum: float, counted: int) -> list[Metric]:
    """The loss as a mean over labels, not over batches, and its perplexity (bug 18 in docs/compatibility.md)."""
    loss = loss_sum / counted if counted else math.nan
    items = "the values of all targets" if values else TASK_TYPE_TRAITS[task_type].counted
    metrics = [Metric("loss", loss, counted, f"training loss, a mean over {items}")]
    if task_type in _LANGUAGE_MODELS:
        metrics.append(Metric("perplexity", perplexity(loss), counted, "exp of the mean loss over predicted tokens"))
    return metrics
