"""Training of a model that takes padded batches, as a user of transformers or tape-proteins would write it.

Also runs in the environment of the peers: it imports only torch and numpy.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from .memory import peak_above_the_model
from .protocol import Message

Batch = dict[str, Tensor]
LEARNING_RATE, WEIGHT_DECAY, MAX_GRAD_NORM = 1e-4, 0.01, 1.0


def autocast(precision: str) -> AbstractContextManager[Any]:
    """The context of the forward pass for ``fp32`` or ``bf16``."""
    return torch.autocast("cpu", torch.bfloat16) if precision == "bf16" else nullcontext()


class PaddedTrainer:
    """AdamW (fused), clipping of the gradient norm, autocast for bf16.

    Args:
        model: the model, trained in place.
        loss_of: the loss of a batch.
        precision: fp32 or bf16.
    """

    def __init__(self, model: nn.Module, loss_of: Callable[[Batch], Tensor], precision: str) -> None:
        self.model = model.train()
        self.loss_of = loss_of
        self.precision = precision
        matrices = [p for p in model.parameters() if p.dim() >= 2]
        others = [p for p in model.parameters() if p.dim() < 2]
        groups = [{"params": matrices, "weight_decay": WEIGHT_DECAY}, {"params": others, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE, fused=True)

    def step(self, batch: Batch) -> float:
        """One optimizer step; the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        with autocast(self.precision):
            loss = self.loss_of(batch)
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), MAX_GRAD_NORM)
        self.optimizer.step()
        return float(loss.detach())

    def measure(self, batches: Sequence[Batch]) -> Message:
        """One step per batch: ``seconds`` of all, and the mean ``loss``."""
        began = time.perf_counter()
        losses = [self.step(batch) for batch in batches]
        return {"seconds": time.perf_counter() - began, "loss": sum(losses) / len(losses), "steps": len(losses)}


class LabeledProteins:
    """Proteins with labels, from an ``.npz`` file of :mod:`benchmarks.peers.labeled_proteins`.

    Args:
        path: the file.
        ignored: label of padding, for the model.
    """

    def __init__(self, path: Path, ignored: int = -1) -> None:
        with np.load(path) as arrays:
            ids, lengths, targets = (torch.from_numpy(arrays[name]) for name in ("input_ids", "lengths", "targets"))
        self.ids = ids.split(lengths.tolist())
        self.ignored = ignored
        count = len(lengths)
        pairs = ((lengths - 2) ** 2).tolist()
        if targets.numel() == count:  # one per protein
            self.targets = list(targets.split(1))
        elif targets.numel() == int(lengths.sum()):  # one per token
            self.targets = [torch.where(part == -1, ignored, part) for part in targets.split(lengths.tolist())]
        else:
            parts = zip(targets.split(pairs), lengths.tolist(), strict=True)
            self.targets = [part.view(length - 2, length - 2) for part, length in parts]

    def batches(self, size: int) -> list[Batch]:
        """Padded batches of ``size`` consecutive proteins."""
        return [self._pad(slice(first, first + size)) for first in range(0, len(self.ids), size)]

    def _pad(self, part: slice) -> Batch:
        ids, targets = self.ids[part], self.targets[part]
        lengths = torch.tensor([len(protein) - 2 for protein in ids])
        mask = pad_sequence([torch.ones_like(protein) for protein in ids], batch_first=True)
        if targets[0].dim() == 2 and len(targets) > 1:
            raise ValueError("pairs of residues are measured in batches of one protein")
        if targets[0].dim() == 2:
            joined = targets[0][None]
        elif targets[0].numel() == 1:
            joined = torch.stack(targets) if targets[0].is_floating_point() else torch.cat(targets)
        else:
            joined = pad_sequence(targets, batch_first=True, padding_value=self.ignored)
        padded = pad_sequence(list(ids), batch_first=True)
        return {"input_ids": padded, "attention_mask": mask, "targets": joined, "protein_length": lengths}


class MaskedProteins:
    """Proteins with masked residues, from a file of :func:`benchmarks.peers.proteins.write_rows`.

    Args:
        path: the file.
        ignored: label of positions that are not predicted, for the model.
    """

    def __init__(self, path: Path, ignored: int) -> None:
        with np.load(path) as arrays:
            ids, labels, lengths = (arrays[name] for name in ("input_ids", "labels", "lengths"))
        labels = np.where(labels == -1, ignored, labels)
        ends = np.cumsum(lengths)[:-1]
        proteins = zip(np.split(ids, ends), np.split(labels, ends), strict=True)
        self.proteins = sorted(proteins, key=lambda protein: -len(protein[0]))
        self.ignored = ignored

    def batches(self, size: int) -> list[Batch]:
        """Padded batches of ``size`` proteins of similar length, longest first."""
        return [self._pad(self.proteins[first : first + size]) for first in range(0, len(self.proteins), size)]

    def _pad(self, proteins: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
        ids = pad_sequence([torch.from_numpy(ids) for ids, _ in proteins], batch_first=True)
        labels = pad_sequence([torch.from_numpy(labels) for _, labels in proteins], True, self.ignored)
        mask = pad_sequence([torch.ones(len(ids), dtype=torch.int64) for ids, _ in proteins], batch_first=True)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def answers(trainer: PaddedTrainer, batches_of: Callable[[int], list[Batch]]) -> Callable[[Message], Message]:
    """Answers requests with a ``batch_size``: a pass over all batches, or one step if it is a ``warm_up``.

    A request may also have another ``precision`` than the setup.

    Args:
        trainer: trains the model.
        batches_of: the batches of a size, the largest first.
    """
    precision = trainer.precision
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())

    def answer(request: Message) -> Message:
        batches = batches_of(request["batch_size"])
        trainer.precision = request.get("precision", precision)
        if request["warm_up"]:
            return {"memory_bytes": peak_above_the_model(parameters, lambda: trainer.step(batches[0]))}
        tokens = sum(int(batch["attention_mask"].sum()) for batch in batches)
        padded = sum(batch["attention_mask"].numel() for batch in batches)
        return {**trainer.measure(batches), "tokens": tokens, "padded_tokens": padded}

    return answer
