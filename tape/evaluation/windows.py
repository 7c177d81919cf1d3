"""Overlapping windows over proteins that are longer than a model's position table (``--length window``).

The windows are as long as the position table allows, overlap by about half, and are spread evenly over the protein.
Predicted values are averaged. For classes and labels, the probabilities are averaged, and returned as logits. The
average is over all windows of a protein, or over the windows that contain a residue or a pair of residues. Pairs
that are too far apart for any window get the lowest contact probability of the other pairs, so that they rank last.
Shorter proteins have a single window, and their prediction is that of the model.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tape.models.heads import masked_binary_cross_entropy, masked_cross_entropy
from tape.models.task_models import TaskModel
from tape.tasks import TaskType

_PER_PROTEIN = (TaskType.VALUE, TaskType.SEQUENCE_CLASS, TaskType.MULTILABEL)
_LEAST = 1e-6  # probability of a label that has a logit in fp32


@dataclass(frozen=True)
class Window:
    """``length`` residues of row ``row`` of a batch, from residue ``start`` (from 0)."""

    row: int
    start: int
    length: int


Parts = dict[int, list[tuple[Window, tuple[Tensor, ...]]]]  # row -> its windows with the model's outputs


def window_starts(length: int, size: int) -> list[int]:
    """First residues of the windows of ``size`` residues over a protein of ``length`` residues."""
    if length <= size:
        return [0]
    count = 1 + -(-(length - size) // max(1, size // 2))
    return [int(start) for start in np.rint(np.linspace(0, length - size, count))]


def pass_lengths(model: nn.Module, lengths: np.ndarray) -> np.ndarray:
    """(N,) residues of the longest forward pass over each protein, which a token budget limits.

    Args:
        model: a model; a :class:`WindowedModel` reads at most one window per row of a batch at a time.
        lengths: (N,) residues of the proteins.
    """
    return np.minimum(lengths, model.size) if isinstance(model, WindowedModel) else lengths


class WindowedModel(nn.Module):
    """Wraps a task model or an encoder for proteins of any length. For evaluation only, not for training.

    Args:
        model: a model with TAPE's signature of ``forward``.
        task_type: type of the task; for ``EMBEDDING``, the model returns (states, pooled).
        positions: rows of the model's position table.
    """

    def __init__(self, model: nn.Module, task_type: TaskType, positions: int) -> None:
        super().__init__()
        self.model, self.task_type, self.size = model, task_type, positions - 2
        self.config = getattr(model, "config", None)

    def forward(
        self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None, **others: Any
    ) -> tuple[Any, ...]:
        """As ``forward`` of the model. ``others`` such as ``protein_length`` are recomputed for windows."""
        if input_ids.shape[1] <= self.size + 2:
            inputs = {"input_ids": input_ids, "input_mask": input_mask, **others}
            output: tuple[Any, ...] = self.model(**inputs, **({} if targets is None else {"targets": targets}))
            return output
        mask = torch.ones_like(input_ids) if input_mask is None else input_mask
        lengths = [int(count) - 2 for count in (mask != 0).sum(1).tolist()]
        windows = [Window(row, start, min(n, self.size)) for row, n in enumerate(lengths) for start in self._starts(n)]
        parts = self._run(windows, input_ids, lengths)
        if self.task_type == TaskType.EMBEDDING:
            return self._embedding(parts, lengths)
        prediction = self._stitch(parts, lengths)
        if targets is None:
            return (prediction,)
        return (self._loss(prediction, targets), {}), prediction

    def _starts(self, length: int) -> list[int]:
        return window_starts(length, self.size)

    def _run(self, windows: list[Window], ids: Tensor, lengths: list[int]) -> Parts:
        """Run the model on all windows, as many at a time as the batch has rows; return the outputs without padding."""
        found: Parts = defaultdict(list)
        ordered = sorted(windows, key=lambda window: -window.length)
        for first in range(0, len(ordered), len(ids)):
            chunk = ordered[first : first + len(ids)]
            tokens = torch.tensor([window.length + 2 for window in chunk], device=ids.device)
            place = torch.arange(chunk[0].length + 2, device=ids.device)
            mask = (place < tokens.unsqueeze(1)).to(torch.int64)
            inputs = {"input_ids": self._tokens(chunk, ids, lengths), "input_mask": mask}
            if self.task_type == TaskType.RESIDUE_PAIR:
                inputs["protein_length"] = tokens - 2
            outputs = self.model(**inputs)
            for number, window in enumerate(chunk):
                found[window.row].append((window, self._own(outputs, number, window)))
        return {row: sorted(found[row], key=lambda part: part[0].start) for row in found}

    @staticmethod
    def _tokens(chunk: list[Window], ids: Tensor, lengths: list[int]) -> Tensor:
        tokens = torch.zeros((len(chunk), chunk[0].length + 2), dtype=ids.dtype, device=ids.device)
        for own, window in zip(tokens, chunk, strict=True):
            row = ids[window.row]
            own[0] = row[0]
            own[1 : window.length + 1] = row[1 + window.start : 1 + window.start + window.length]
            own[window.length + 1] = row[lengths[window.row] + 1]
        return tokens

    def _own(self, outputs: tuple[Any, ...], number: int, window: Window) -> tuple[Tensor, ...]:
        first = outputs[0][number].float()
        if self.task_type == TaskType.RESIDUE_PAIR:
            return (first[: window.length, : window.length],)
        if self.task_type in _PER_PROTEIN:
            return (first,)
        states = first[: window.length + 2]
        return (states, outputs[1][number].float()) if self.task_type == TaskType.EMBEDDING else (states,)

    # --- combining the windows --------------------------------------------------------------------------------------

    def _stitch(self, parts: Parts, lengths: list[int]) -> Tensor:
        rows = [self._combine([(w, out[0]) for w, out in parts[row]], n) for row, n in enumerate(lengths)]
        if self.task_type in _PER_PROTEIN:
            return torch.stack(rows)
        longest = max(len(row) for row in rows)
        if self.task_type == TaskType.RESIDUE_PAIR:
            return torch.stack([F.pad(row, (0, 0, 0, longest - len(row), 0, longest - len(row))) for row in rows])
        return torch.stack([F.pad(row, (0, 0, 0, longest - len(row))) for row in rows])

    def _combine(self, parts: list[tuple[Window, Tensor]], length: int) -> Tensor:
        """The prediction for one protein from those for its windows."""
        if len(parts) == 1:
            return parts[0][1]
        if self.task_type == TaskType.VALUE:
            return torch.stack([value for _, value in parts]).mean(0)
        if self.task_type == TaskType.MULTILABEL:
            return torch.stack([logits.sigmoid() for _, logits in parts]).mean(0).logit(_LEAST)
        chances = [(window, logits.softmax(-1)) for window, logits in parts]
        if self.task_type == TaskType.SEQUENCE_CLASS:
            return _log(torch.stack([chance for _, chance in chances]).mean(0))
        if self.task_type == TaskType.RESIDUE_PAIR:
            return _log(_mean_pairs(chances, length))
        return _log(_mean_tokens(chances, length))

    def _embedding(self, parts: Parts, lengths: list[int]) -> tuple[Tensor, Tensor]:
        states = [_mean_tokens([(w, out[0]) for w, out in parts[row]], n) for row, n in enumerate(lengths)]
        pooled = [torch.stack([out[1] for _, out in parts[row]]).mean(0) for row in range(len(lengths))]
        longest = max(lengths) + 2
        return torch.stack([F.pad(s, (0, 0, 0, longest - len(s))) for s in states]), torch.stack(pooled)

    def _loss(self, prediction: Tensor, targets: Tensor) -> Tensor:
        if isinstance(self.model, TaskModel):
            return self.model.loss(prediction, targets)
        if self.task_type == TaskType.VALUE:  # a model of a user's own
            return F.mse_loss(prediction, targets.float().view_as(prediction))
        if self.task_type == TaskType.MULTILABEL:
            return masked_binary_cross_entropy(prediction, targets)
        return masked_cross_entropy(prediction, targets)


def _log(probabilities: Tensor) -> Tensor:
    return probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()


def _mean_tokens(parts: list[tuple[Window, Tensor]], length: int) -> Tensor:
    """(length + 2, C): mean of each residue over its windows, with ``<cls>`` of the first and ``<sep>`` of the last."""
    total = parts[0][1].new_zeros((length + 2, parts[0][1].shape[-1]))
    count = total.new_zeros((length + 2, 1))
    total[0], total[-1] = parts[0][1][0], parts[-1][1][-1]
    count[0], count[-1] = 1, 1
    for window, values in parts:
        place = slice(1 + window.start, 1 + window.start + window.length)
        total[place] += values[1:-1]
        count[place] += 1
    return total / count


def _mean_pairs(parts: list[tuple[Window, Tensor]], length: int) -> Tensor:
    """(length, length, 2): mean of each pair over the windows that contain it."""
    total = parts[0][1].new_zeros((length, length, 2))
    count = total.new_zeros((length, length, 1))
    for window, values in parts:
        place = slice(window.start, window.start + window.length)
        total[place, place] += values
        count[place, place] += 1
    seen = count[..., 0] > 0
    total = total / count.clamp(min=1)
    lowest = total[seen][:, 1].min()
    total[~seen] = torch.stack([1 - lowest, lowest])
    return total
