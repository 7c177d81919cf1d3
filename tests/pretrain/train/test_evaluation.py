"""Which splits are evaluated after an iteration, and how many of their rows."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pretrain.data.batch_schedule import BatchConfig
from pretrain.data.blending import Blend
from pretrain.data.samples import SampleConfig
from pretrain.data.splits import DataConfig, Splits, open_splits
from pretrain.parallel import ParallelContext, ParallelDims
from pretrain.train.evaluation import EvaluationConfig, Evaluations, open_evaluations


@pytest.fixture(scope="module")
def splits(corpus_prefix: Path) -> Splits:
    return open_splits(DataConfig(Blend((str(corpus_prefix),)), split="70,20,10"), SampleConfig(seq_length=64))


def evaluations(splits: Splits, rows: int | None) -> Evaluations:
    context = ParallelContext(ParallelDims(1), 0, torch.device("cpu"), None)
    return open_evaluations(EvaluationConfig(interval=4, last=10, rows=rows), splits, BatchConfig(2, 8), 0, context)


def test_validation_follows_the_interval_and_the_test_split_comes_last(splits: Splits) -> None:
    opened = evaluations(splits, 4)
    due = {iteration: [each.split for each in opened.due(iteration)] for iteration in (3, 4, 8, 10)}
    assert due == {3: [], 4: ["valid"], 8: ["valid"], 10: ["valid", "test"]}


def test_rows_limit_what_is_evaluated(splits: Splits) -> None:
    def rows(limit: int | None) -> list[int]:
        due = evaluations(splits, limit).due(10)
        return [sum(micro_batch.rows for micro_batch in each.micro_batches) for each in due]

    assert splits.valid is not None
    assert splits.test is not None
    assert rows(None) == [len(splits.valid), len(splits.test)]
    assert rows(3) == [3, 3]
    assert rows(0) == []
