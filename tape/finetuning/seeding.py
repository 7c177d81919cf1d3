"""Seeds of everything random in a run."""

from __future__ import annotations

import random

import numpy as np
import torch


def seed_all(seed: int) -> None:
    """Seed PyTorch and, for third parties' data sets, numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def epoch_seed(seed: int, epoch: int, rank: int) -> int:
    """Seed of everything random in an epoch. It differs between ranks; otherwise all would draw the same dropout masks
    (bug 12 in docs/compatibility.md)."""
    return int(np.random.SeedSequence([seed, epoch + 1, rank]).generate_state(1)[0])
