"""Compatibility: the functions of tape-proteins 0.5's ``tape.utils`` that have a counterpart here."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .finetuning.trainer import seed_all
from .io import lmdb_store
from .io.run_layout import experiment_name

__all__ = ["get_expname", "set_random_seeds", "write_lmdb"]


def get_expname(exp_name: str | None, task: str | None = None, model_type: str | None = None) -> str:
    """Name of a run directory; see :func:`tape.io.run_layout.experiment_name`."""
    return experiment_name(str(task), str(model_type), exp_name=exp_name)


def set_random_seeds(seed: int, n_gpu: int = 0) -> None:
    """Seed Python, numpy and PyTorch; ``n_gpu`` is ignored, since PyTorch seeds all devices."""
    seed_all(seed)


def write_lmdb(lmdb_file: str | Path, iterable: Iterable[dict[str, Any]], map_size: int = 0) -> None:
    """Write records as an LMDB of TAPE's format; ``map_size`` is ignored, since the file grows as needed."""
    lmdb_store.write_lmdb(Path(lmdb_file), iterable)
