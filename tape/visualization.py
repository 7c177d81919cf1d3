"""Compatibility: tape-proteins 0.5's ``tape.visualization``, from :mod:`tape.compatibility.visualizers`."""

from __future__ import annotations

from .compatibility.visualizers import DummyVisualizer, TAPEVisualizer, TBVisualizer, WandBVisualizer, get

__all__ = ["DummyVisualizer", "TAPEVisualizer", "TBVisualizer", "WandBVisualizer", "get"]
