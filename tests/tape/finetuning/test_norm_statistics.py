"""Batch normalization of the head's input: evaluation uses the statistics of the current weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from tape import ProteinBertForSequenceClassification, ProteinBertForValuePrediction
from tape.configs import ProteinBertConfig
from tape.finetuning.config import AdamWConfig, LoopConfig
from tape.finetuning.data import TrainingData
from tape.finetuning.norm_statistics import pooled_norm_of, update_statistics
from tape.finetuning.trainer import Finetuner
from tape.runtime.distributed import DistributedContext
from tape.tasks import TaskType

LENGTH = 60
SMALL: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": LENGTH,
    "initializer_range": 0.1,
    "head_hidden_size": 16,
    "pooling": "mean",
}


class Variants:
    """Single mutants of one protein; the value is the sum of an effect per position and residue."""

    def __init__(self, count: int, seed: int = 0) -> None:
        rng = np.random.default_rng(1)
        wild, effects = rng.integers(5, 25, LENGTH), rng.normal(size=(LENGTH, 30))
        rng = np.random.default_rng(seed)
        self.ids = np.tile(wild, (count, 1))
        places, residues = rng.integers(1, LENGTH - 1, count), rng.integers(5, 25, count)
        self.ids[np.arange(count), places] = residues
        self.values = effects[places, residues].astype(np.float32)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.float32]:
        return self.ids[index], self.values[index]

    def collate_fn(self, batch: Any) -> dict[str, torch.Tensor]:
        ids = torch.from_numpy(np.stack([ids for ids, _ in batch]))
        targets = torch.tensor([[value] for _, value in batch])
        return {"input_ids": ids, "input_mask": torch.ones_like(ids), "targets": targets}


def trainer(model: torch.nn.Module, epochs: int = 2) -> Finetuner:
    train, valid = Variants(200), Variants(64, 1)
    lengths = np.full(len(train), LENGTH)
    data = TrainingData(train=train, valid=valid, indices=np.arange(len(train)), lengths=lengths)
    config = LoopConfig(
        batch_size=20, num_train_epochs=epochs, num_workers=0, optimizer=AdamWConfig(1e-2, warmup_steps=0)
    )
    return Finetuner(model, data, TaskType.VALUE, config)


def test_running_statistics_are_those_of_the_final_weights_without_dropout() -> None:
    torch.manual_seed(0)
    model = ProteinBertForValuePrediction(ProteinBertConfig(**SMALL, pooled_norm="batch", hidden_dropout_prob=0.3))
    run = trainer(model)
    run.train()
    norm = pooled_norm_of(model)
    assert norm is not None
    vectors: list[torch.Tensor] = []
    norm.register_forward_pre_hook(lambda _, inputs: vectors.append(inputs[0]))
    with torch.no_grad():
        model.eval()(torch.from_numpy(run.data.train.ids))
    torch.testing.assert_close(norm.running_mean, vectors[0].mean(0), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(norm.running_var, vectors[0].double().var(0).float(), rtol=1e-3, atol=1e-9)


def test_ranks_have_the_statistics_of_all_proteins(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sums of two ranks, each with half of the proteins, are those of one rank with all of them."""
    torch.manual_seed(0)
    model = ProteinBertForValuePrediction(ProteinBertConfig(**SMALL, pooled_norm="batch"))
    norm, data, context = pooled_norm_of(model), Variants(40), DistributedContext()
    assert norm is not None
    halves = [data.collate_fn([data[i] for i in part]) for part in np.split(np.arange(40), 2)]
    update_statistics(model, norm, halves, "fp32", context)
    expected = norm.running_mean.clone(), norm.running_var.clone()
    sums: list[list[float]] = []
    monkeypatch.setattr(
        "tape.finetuning.norm_statistics.all_reduce_sum", lambda values, _: sums.append(values) or values
    )
    for half in halves:
        update_statistics(model, norm, [half], "fp32", context)
    together = np.sum(sums, 0)
    monkeypatch.setattr("tape.finetuning.norm_statistics.all_reduce_sum", lambda values, _: together.tolist())
    update_statistics(model, norm, halves[:1], "fp32", context)
    torch.testing.assert_close((norm.running_mean, norm.running_var), expected)


def test_other_models_have_no_such_statistics() -> None:
    config = ProteinBertConfig(**SMALL, num_labels=3)
    assert pooled_norm_of(ProteinBertForSequenceClassification(config)) is None
    assert pooled_norm_of(torch.nn.Linear(2, 2)) is None
