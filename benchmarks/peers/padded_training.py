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
        self.tokens = int(lengths.sum())
        self.ignored = ignored

    def batches(self, size: int) -> list[Batch]:
        """Padded batches of ``size`` proteins of similar length, longest first."""
        return [self._pad(self.proteins[first : first + size]) for first in range(0, len(self.proteins), size)]

    def _pad(self, proteins: list[tuple[np.ndarray, np.ndarray]]) -> Batch:
        ids = pad_sequence([torch.from_numpy(ids) for ids, _ in proteins], batch_first=True)
        labels = pad_sequence([torch.from_numpy(labels) for _, labels in proteins], True, self.ignored)
        mask = pad_sequence([torch.ones(len(ids), dtype=torch.int64) for ids, _ in proteins], batch_first=True)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}


def pretraining_answers(trainer: PaddedTrainer, proteins: MaskedProteins) -> Callable[[Message], Message]:
    """Answers requests with a ``batch_size``: a pass over all proteins, or one step if it is a ``warm_up``.

    A request may also have another ``precision`` than the setup.
    """

    precision = trainer.precision

    def answer(request: Message) -> Message:
        batches = proteins.batches(request["batch_size"])
        trainer.precision = request.get("precision", precision)
        padded = sum(batch["input_ids"].numel() for batch in batches)
        if request["warm_up"]:
            return trainer.measure(batches[:1])
        return {**trainer.measure(batches), "tokens": proteins.tokens, "padded_tokens": padded}

    return answer
