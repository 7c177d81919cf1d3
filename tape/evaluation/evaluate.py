"""One pass over a split: every protein once, whatever the batch size and the number of ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tape.datasets.batching import plan_evaluation
from tape.datasets.index import index_of, lengths_of, unmasked_labels_of
from tape.datasets.labels import Batch, count_labels, model_inputs, split_proteins
from tape.datasets.loading import load_batches, worker_count
from tape.errors import CheckpointError, ConfigError, DataError, ProteinLMError
from tape.metrics import TASK_TYPE_METRICS, Bootstrap, Metric
from tape.metrics.classes import perplexity
from tape.runtime.distributed import DistributedContext, all_gather_lists, all_reduce_sum
from tape.runtime.precision import autocast
from tape.runtime.progress import progress_bar
from tape.tasks import TASK_TYPE_TRAITS, TaskType

_LANGUAGE_SHAPES = (TaskType.MASKED_LM, TaskType.LANGUAGE_MODEL)


@dataclass(frozen=True)
class EvaluationConfig:
    """How to go through a split; none of it changes a number but ``precision``.

    ``bootstrap`` gives the metrics intervals; training's validation has none, since they take seconds on a large set.
    ``max_tokens`` bounds a forward pass, padding counted, beside ``batch_size``.
    """

    batch_size: int = 32
    num_workers: int = 0
    precision: str = "fp32"
    bootstrap: Bootstrap | None = None
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"--batch_size must be at least 1, not {self.batch_size}")


@dataclass(frozen=True)
class Evaluation:
    """Result of one pass.

    Attributes:
        metrics: ``loss`` first, then ``perplexity`` of a language model, then the shape's metrics.
        proteins: how many were evaluated.
        results: in the order of the data set, {"id", "prediction", "target"} without padding; empty unless asked for.
    """

    metrics: list[Metric]
    proteins: int
    results: list[dict[str, Any]] = field(default_factory=list)

    def value(self, name: str) -> float:
        """A metric's value; ``KeyError`` when there is none of that name."""
        return {metric.name: metric.value for metric in self.metrics}[name]

    def values(self) -> dict[str, float]:
        return {metric.name: metric.value for metric in self.metrics}


def check_measured(evaluation: Evaluation, source: object) -> None:
    """Refuse scores that mean nothing.

    Args:
        evaluation: of a split.
        source: the split's file, for messages.

    Raises:
        DataError: no record has a label.
        CheckpointError: the model's predictions are not numbers.
    """
    loss = evaluation.metrics[0]
    if loss.n == 0:
        raise DataError(f"{source}: nothing to evaluate on: no record has a label that counts")
    if math.isnan(loss.value):
        raise CheckpointError(f"the model's predictions on {source} are not numbers (nan); its weights are damaged")


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """No dropout, running batch statistics, no gradients; the model's mode is restored after."""
    before = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        model.train(before)


def forward(model: nn.Module, inputs: Batch) -> tuple[Tensor, Any]:
    """(loss, prediction) of a model with TAPE's calling convention.

    Raises:
        ConfigError: it returns something else, or the GPU's memory is too small.
    """
    try:
        outputs = model(**inputs)
    except torch.OutOfMemoryError as error:
        size, longest = (inputs["input_ids"] if "input_ids" in inputs else inputs["msa1hot"][:, 0, :, 0]).shape
        raise ConfigError(
            f"out of GPU memory with {size} proteins of up to {longest} tokens; give a smaller --batch_size, or in"
            " training more --gradient_accumulation_steps"
        ) from error
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
    shape: TaskType,
    config: EvaluationConfig,
    context: DistributedContext | None = None,
    *,
    keep_results: bool = False,
    title: str = "evaluation",
) -> Evaluation:
    """Loss and all metrics of a split in a single pass (defect 13c).

    Args:
        model: with TAPE's calling convention; not wrapped for distributed training.
        dataset: the split.
        shape: chooses the metrics.
        config: batch size, workers, precision.
        context: the processes among which the split is divided.
        keep_results: also return every prediction, on every rank.
        title: of the progress bar.
    """
    context = context or DistributedContext()
    lengths = lengths_of(dataset)
    plan = plan_evaluation(lengths, config.batch_size, context.rank, context.world_size, config.max_tokens)
    workers = worker_count(config.num_workers, len(dataset))
    rows: list[tuple[int, Any]] = []
    kept: list[tuple[int, Any, Any]] = []
    loss_sum, count_sum = 0.0, 0
    with evaluation_mode(model), progress_bar(title, len(dataset), "protein", disable=not context.is_main) as bar:
        for indices, batch in zip(plan, load_batches(dataset, plan, num_workers=workers), strict=True):
            loss, prediction = _predict(model, batch, config.precision, context.device)
            count = count_labels(shape, batch)
            if count:  # a mean over nothing may be nan
                loss_sum, count_sum = loss_sum + loss * count, count_sum + count
            proteins = split_proteins(shape, prediction, batch)
            rows.extend(_measured(dataset, shape, indices, proteins))
            if keep_results:
                kept.extend(_results(shape, indices, proteins))
            bar.update(len(indices) * context.world_size)
    loss_sum, counted = all_reduce_sum([loss_sum, count_sum], context)
    measured = [row for _, row in sorted(all_gather_lists(rows, context), key=lambda indexed: indexed[0])]
    metrics = _loss_metrics(shape, loss_sum, int(counted))
    metrics += TASK_TYPE_METRICS[shape].summarize(measured, config.bootstrap)
    results = _in_order(dataset, all_gather_lists(kept, context)) if keep_results else []
    return Evaluation(metrics, len(dataset), results)


def _predict(model: nn.Module, batch: Batch, precision: str, device: torch.device) -> tuple[float, Any]:
    with autocast(precision, device):
        loss, prediction = forward(model, model_inputs(batch, device))
    return float(loss), prediction


def _measured(
    dataset: Any, shape: TaskType, indices: np.ndarray, proteins: list[tuple[Any, Any]]
) -> Iterator[tuple[int, Any]]:
    """(index in the data set, row) of each protein; a row sees labels outside valid_mask where the data have any."""
    measure = TASK_TYPE_METRICS[shape].measure
    unmasked = unmasked_labels_of(dataset) if shape == TaskType.RESIDUE_CLASS else None
    for index, protein in zip(indices.tolist(), proteins, strict=True):
        yield index, measure(*protein) if unmasked is None else measure(*protein, unmasked(index))


def _results(shape: TaskType, indices: np.ndarray, proteins: list[tuple[Any, Any]]) -> list[tuple[int, Any, Any]]:
    kept = []
    for index, (prediction, target) in zip(indices.tolist(), proteins, strict=True):
        if shape in _LANGUAGE_SHAPES:
            prediction = prediction.argmax(-1)  # a row of logits for every token of Pfam would fill a disk
        if shape == TaskType.RESIDUE_PAIR:
            target = target.astype(np.int8)  # 0, 1, -1
        if shape == TaskType.PAIR_GEOMETRY:  # bins, not distributions: the same reason
            prediction = {
                name.removeprefix("p_"): value.argmax(-1).astype(np.int8) for name, value in prediction.items()
            }
        kept.append((index, prediction, target))
    return kept


def _in_order(dataset: Any, kept: list[tuple[int, Any, Any]]) -> list[dict[str, Any]]:
    """Results in the order of the data set, each once, with the proteins' ids (defect 19)."""
    dataset_index = index_of(dataset)
    ordered = sorted(kept, key=lambda result: result[0])
    if [index for index, _, _ in ordered] != list(range(len(dataset))):
        raise ProteinLMError(f"evaluated {len(ordered)} of {len(dataset)} proteins")  # can't be, if the plan is right
    return [
        {
            "id": str(index) if dataset_index is None else dataset_index.identifiers[index],
            "prediction": prediction,
            "target": target,
        }
        for index, prediction, target in ordered
    ]


def _loss_metrics(shape: TaskType, loss_sum: float, counted: int) -> list[Metric]:
    """The loss as a mean over labels, not over batches, and the perplexity of that mean (defect 18)."""
    loss = loss_sum / counted if counted else math.nan
    metrics = [Metric("loss", loss, counted, f"training loss, a mean over {TASK_TYPE_TRAITS[shape].counted}")]
    if shape in _LANGUAGE_SHAPES:
        metrics.append(Metric("perplexity", perplexity(loss), counted, "exp of the mean loss over predicted tokens"))
    return metrics
