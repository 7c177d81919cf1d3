"""The batch-size ramp-up against Megatron-LM's rule, step by step."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pretrain.data.batch_schedule import BatchConfig, Rampup
from pretrain.data.samples import TrainingOrder
from tape.errors import ConfigError

RAMP = BatchConfig(2, 32, Rampup(8, 4, 300))


def megatron_batch(consumed: int, start: int, increment: int, samples: int, full: int) -> int:
    """megatron/microbatches.py, RampupBatchsizeNumMicroBatches.update."""
    if consumed > samples:
        return full
    per_increment = samples / ((full - start) // increment)
    return start + int(consumed / per_increment) * increment


def test_batches_grow_like_megatrons() -> None:
    consumed, sizes = 0, []
    for iteration in range(40):
        assert RAMP.consumed_samples(iteration) == consumed
        sizes.append(RAMP.batch_size(consumed))
        assert sizes[-1] == megatron_batch(consumed, 8, 4, 300, 32)
        consumed += sizes[-1]
    assert sizes[0] == 8
    assert sizes[-1] == 32
    assert sizes == sorted(sizes)
    assert set(sizes) == set(range(8, 33, 4))


def test_number_of_iterations_for_a_number_of_samples() -> None:
    for samples in (0, 7, 8, 100, 299, 300, 1000):
        iterations = RAMP.iterations(samples)
        assert RAMP.consumed_samples(iterations) <= samples < RAMP.consumed_samples(iterations + 1)
    assert BatchConfig(2, 8).iterations(63) == 7


def test_steps_after_a_resume_are_the_same() -> None:
    steps = list(RAMP.steps(0, 30))
    for done in (3, 11, 25):
        assert list(RAMP.steps(RAMP.consumed_samples(done), 30 - done)) == steps[done:]
        assert RAMP.consumed_samples(30 - done, RAMP.consumed_samples(done)) == RAMP.consumed_samples(30)


@pytest.mark.parametrize("ranks", [1, 2])
def test_every_batch_is_divided_among_the_ranks(ranks: int) -> None:
    orders = [TrainingOrder(RAMP, 100, 12, rank, ranks) for rank in range(ranks)]
    seen = sorted(sample for order in orders for micro in order for sample in micro)
    assert seen == list(range(100, RAMP.consumed_samples(12, 100)))
    assert all(len(order) == len(list(order)) for order in orders)


@pytest.mark.parametrize(
    ("ramp", "message"),
    [
        (Rampup(8, 5, 300), "do not reach --global-batch-size 32 exactly"),
        (Rampup(40, 4, 300), "do not reach"),
        (Rampup(8, 0, 300), "three positive numbers"),
        (Rampup(6, 2, 300), "6 is not a multiple of --micro-batch-size 2 times 2"),
    ],
)
def test_invalid_ramp_ups_are_errors(ramp: Rampup, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        BatchConfig(2, 32, ramp).check(2)


def test_resume_during_the_ramp_up_equals_the_uninterrupted_run(
    tmp_path: Path,
    flags: Callable[..., list[str]],
    pretrain_here: Callable[[list[str]], None],
    records: Callable[..., list[dict[str, Any]]],
) -> None:
    def run(folder: str, *extra: object) -> list[dict[str, Any]]:
        save = tmp_path / folder
        ramp = ("--rampup-batch-size", 2, 2, 20, "--save", save, "--load", save, "--log-interval", 1, *extra)
        pretrain_here(flags(*ramp, train_iters=8))
        return records(save)

    whole = run("whole")
    run("parts", "--exit-interval", 3)
    parts = run("parts")
    names = ("iteration", "lm_loss", "consumed_samples", "consumed_tokens")
    assert [[record[name] for name in names] for record in parts] == [
        [record[name] for name in names] for record in whole
    ]
    assert [record["consumed_samples"] for record in whole] == [2, 4, 6, 8, 12, 16, 22, 30]
    metadata = json.loads((tmp_path / "parts" / "iter_0000008" / "metadata.json").read_text())
    assert metadata["consumed_samples"] == 30
