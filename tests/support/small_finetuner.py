"""A finetuner of a model of one layer on proteins of a few residues, without files."""

from __future__ import annotations

import copy
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tape.finetuning.checkpoint import TrainerState
from tape.finetuning.config import AdamWConfig, LoopConfig
from tape.finetuning.data import TrainingData
from tape.finetuning.trainer import Finetuner
from tape.tasks import TaskType


class Rows:
    """Proteins of unequal length with one class per residue: class 1 where the token is odd."""

    def __init__(self, count: int = 12, seed: int = 0, unlabeled: Sequence[int] = ()) -> None:
        rng = np.random.default_rng(seed)
        self.ids = [rng.integers(5, 30, int(rng.integers(4, 12))) for _ in range(count)]
        self.labels = [np.where(np.isin(i, unlabeled), -1, ids % 2) for i, ids in enumerate(self.ids)]
        self.epochs: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self.ids)

    def set_epoch(self, seed: int, epoch: int) -> None:
        self.epochs.append((seed, epoch))

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        return self.ids[index], self.labels[index]

    def collate_fn(self, batch: Sequence[tuple[np.ndarray, np.ndarray]]) -> dict[str, Tensor]:
        def pad(arrays: Sequence[np.ndarray], value: int) -> Tensor:
            return nn.utils.rnn.pad_sequence([torch.from_numpy(a) for a in arrays], True, value)

        ids, labels = zip(*batch, strict=True)
        mask = pad([np.ones_like(i) for i in ids], 0)
        return {"input_ids": pad(ids, 0), "input_mask": mask, "targets": pad(labels, -1)}


class Tagger(nn.Module):
    """Embedding, optional dropout, linear layer; the loss is the mean cross entropy over labels, nan without labels."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(30, 8)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(8, 2)

    def forward(self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None) -> Any:
        logits = self.out(self.dropout(self.embedding(input_ids)))
        if targets is None:
            return (logits,)
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), ignore_index=-1)
        return (loss, {}), logits


class Recorded:
    """A run logger that keeps everything in memory."""

    def __init__(self) -> None:
        self.epochs: list[dict[str, Any]] = []
        self.logged: list[tuple[str, int, dict[str, float]]] = []
        self.saved: dict[int, tuple[dict[str, Tensor], dict[str, Any], TrainerState]] = {}

    def log_scalars(self, group: str, values: dict[str, float], step: int) -> None:
        self.logged.append((group, step, values))

    def log_epoch(self, record: dict[str, Any]) -> None:
        self.epochs.append(record)

    def save(
        self, model: nn.Module, training_state: dict[str, Any], progress: TrainerState, loss: float | None
    ) -> None:
        state = copy.deepcopy((model.state_dict(), training_state, progress))
        self.saved[progress.epoch] = state

    def save_interrupted(self, model: nn.Module, training_state: dict[str, Any], progress: TrainerState) -> None:
        self.interrupted = copy.deepcopy((model.state_dict(), training_state, progress))


def make_trainer(
    model: nn.Module | None = None,
    rows: Rows | None = None,
    valid: Any = None,
    recorder: Any = None,
    signals: Any = None,
    **options: Any,
) -> Finetuner:
    rows = rows or Rows()
    lengths = np.array([len(ids) for ids in rows.ids])
    options = {"batch_size": 5, "num_train_epochs": 2, "eval_freq": 1 if valid else 0, **options}
    optimizer = options.pop("optimizer", AdamWConfig(learning_rate=0.05, warmup_steps=0))
    config = LoopConfig(optimizer=optimizer, **options)
    data = TrainingData(rows, lengths, np.arange(len(rows)), valid)
    return Finetuner(model or Tagger(), data, TaskType.RESIDUE_CLASS, config, run_logger=recorder, signals=signals)


@dataclass
class SignalAtLook:
    """A stop signal that is received before the ``number``-th look: before the first step of an epoch, after each step
    and after the epoch."""

    number: int

    @property
    def received(self) -> int:
        self.number -= 1
        return signal.SIGTERM if self.number <= 0 else 0
