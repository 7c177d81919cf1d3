"""Compatibility: the classes of tape-proteins 0.5's ``tape.optimization``, from :mod:`tape.finetuning.optimizer`."""

from __future__ import annotations

from .finetuning.optimizer import AdamW, WarmupLinearSchedule

__all__ = ["AdamW", "WarmupLinearSchedule"]
