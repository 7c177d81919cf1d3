"""Tiny models and batches that the model tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from tape.configs import ProteinBertConfig

TINY: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 64,
    "type_vocab_size": 1,
    "contact_num_blocks": 2,
    "head_hidden_size": 16,
    "num_labels": 3,
}


@pytest.fixture
def tiny_config() -> Callable[..., ProteinBertConfig]:
    return lambda **changes: ProteinBertConfig(**{**TINY, **changes})


@pytest.fixture
def proteins() -> Callable[..., tuple[torch.Tensor, torch.Tensor]]:
    """Padded random proteins: lengths -> (input_ids, input_mask)."""

    def make(*lengths: int, seed: int = 0, width: int | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        generator = torch.Generator().manual_seed(seed)
        ids = torch.zeros(len(lengths), width or max(lengths), dtype=torch.long)
        for row, length in enumerate(lengths):
            ids[row, :length] = torch.randint(5, 30, (length,), generator=generator)
            ids[row, 0], ids[row, length - 1] = 2, 3
        mask = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
        return ids, mask.long()

    return make
