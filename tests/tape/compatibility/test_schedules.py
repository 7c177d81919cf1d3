"""Learning rates of TAPE's schedules after each step."""

from __future__ import annotations

import gc
import math
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tape.optimization import (
    AdamW,
    ConstantLRSchedule,
    WarmupConstantSchedule,
    WarmupCosineSchedule,
    WarmupCosineWithHardRestartsSchedule,
)

HALF = (1 + math.cos(math.pi / 4)) / 2, 0.5, (1 - math.cos(math.pi / 4)) / 2


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (ConstantLRSchedule, [1.0] * 7),
        (lambda optimizer: WarmupConstantSchedule(optimizer, 2), [0.0, 0.5, 1.0, 1.0, 1.0, 1.0, 1.0]),
        (lambda optimizer: WarmupCosineSchedule(optimizer, 2, 6), [0.0, 0.5, 1.0, *HALF, 0.0]),
        (lambda optimizer: WarmupCosineSchedule(optimizer, 2, 6, cycles=1.0), [0.0, 0.5, 1.0, 0.5, 0.0, 0.5, 1.0]),
        (lambda optimizer: WarmupCosineWithHardRestartsSchedule(optimizer, 2, 6), [0.0, 0.5, 1.0, *HALF, 0.0]),
        (
            lambda optimizer: WarmupCosineWithHardRestartsSchedule(optimizer, 2, 6, cycles=2.0),
            [0.0, 0.5, 1.0, 0.5, 1.0, 0.5, 0.0],
        ),
    ],
)
def test_learning_rates(make: Callable[[Any], Any], expected: list[float]) -> None:
    weight = torch.nn.Parameter(torch.ones(2))
    optimizer = AdamW([weight], lr=1.0)
    schedule = make(optimizer)
    rates = []
    for _ in expected:
        rates.append(optimizer.param_groups[0]["lr"])
        weight.grad = torch.ones(2)
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx(expected)


def test_no_schedule_keeps_its_optimizer_in_a_reference_cycle() -> None:
    gc.disable()
    try:
        for make in (
            lambda optimizer: WarmupConstantSchedule(optimizer, 2),
            lambda optimizer: WarmupCosineSchedule(optimizer, 2, 6),
            lambda optimizer: WarmupCosineWithHardRestartsSchedule(optimizer, 2, 6),
        ):
            optimizer = AdamW([torch.nn.Parameter(torch.ones(2))], lr=1.0)
            schedule, freed = make(optimizer), weakref.ref(optimizer)
            del optimizer, schedule
            assert freed() is None
    finally:
        gc.enable()
