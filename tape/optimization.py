"""Compatibility: the classes of tape-proteins 0.5's ``tape.optimization``.

They are those of :mod:`tape.finetuning.optimizer` and :mod:`tape.compatibility.schedules`.
"""

from __future__ import annotations

from .compatibility.schedules import (
    ConstantLRSchedule,
    WarmupConstantSchedule,
    WarmupCosineSchedule,
    WarmupCosineWithHardRestartsSchedule,
)
from .finetuning.optimizer import AdamW, WarmupLinearSchedule

__all__ = [
    "AdamW",
    "ConstantLRSchedule",
    "WarmupConstantSchedule",
    "WarmupCosineSchedule",
    "WarmupCosineWithHardRestartsSchedule",
    "WarmupLinearSchedule",
]
