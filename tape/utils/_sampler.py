"""Compatibility: tape-proteins 0.5's ``tape.utils._sampler``, from :mod:`tape.compatibility.loaders`."""

from __future__ import annotations

from tape.compatibility.loaders import BucketBatchSampler, SortedSampler

__all__ = ["BucketBatchSampler", "SortedSampler"]
