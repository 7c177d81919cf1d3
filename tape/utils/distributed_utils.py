"""Compatibility: tape-proteins 0.5's ``tape.utils.distributed_utils``, from :mod:`tape.compatibility.processes`."""

from __future__ import annotations

from tape.compatibility.processes import barrier_if_distributed, reduce_scalar

__all__ = ["barrier_if_distributed", "reduce_scalar"]
