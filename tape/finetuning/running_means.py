"""Means of loss and accuracy while a model is trained."""

from __future__ import annotations

from torch import Tensor

from tape.metrics.classes import perplexity
from tape.runtime.distributed import DistributedContext, all_reduce_sum
from tape.tasks import TaskType


class RunningMeans:
    """Means over labels of loss and accuracy, between two log lines or over an epoch."""

    def __init__(self, task_type: TaskType) -> None:
        self._task_type = task_type
        self._loss = self._correct = self._count = 0.0
        self._has_classes = False

    def add(self, loss: float, correct: Tensor | None, count: int) -> None:
        """Add a micro-batch: its mean loss, its number of correct labels (None: no classes) and of labels."""
        self._loss += loss * count
        self._count += count
        if correct is not None:
            self._has_classes = True
            self._correct += float(correct)

    def sums(self) -> list[float]:
        """The sums on this rank, from which :meth:`restore` continues."""
        return [self._loss, self._correct, self._count, float(self._has_classes)]

    def restore(self, sums: list[float]) -> None:
        """Set the sums on this rank."""
        self._loss, self._correct, self._count = (float(value) for value in sums[:3])
        self._has_classes = bool(sums[3])

    def means(self, context: DistributedContext) -> dict[str, float]:
        """Means over the labels of all ranks (bug 18 in docs/compatibility.md); resets the sums."""
        loss, correct, count = all_reduce_sum([self._loss, self._correct, self._count], context)
        self._loss = self._correct = self._count = 0.0
        if count == 0:
            return {}
        values = {"loss": loss / count}
        if self._has_classes:
            values["accuracy"] = correct / count
        if self._task_type in (TaskType.MASKED_LM, TaskType.LANGUAGE_MODEL):
            values["perplexity"] = perplexity(values["loss"])
        return values
