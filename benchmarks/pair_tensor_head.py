"""The contact head that contact_memory.py compares with this repository's."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PairTensorHead(nn.Module):
    """TAPE's contact head in its direct form: the product and the difference of every pair are stored."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.linear = nn.Linear(2 * hidden_size, 2)

    def forward(
        self, states: Tensor, lengths: Tensor | None, targets: Tensor, input_mask: Tensor | None = None
    ) -> tuple[tuple[Tensor, dict[str, Tensor]], Tensor]:
        product = states[:, :, None, :] * states[:, None, :, :]
        difference = states[:, :, None, :] - states[:, None, :, :]
        logits = self.linear(self.dropout(torch.cat([product, difference], -1)))
        logits = ((logits + logits.transpose(1, 2)) / 2)[:, 1:-1, 1:-1].contiguous()
        loss = nn.functional.cross_entropy(logits.view(-1, 2), targets.view(-1), ignore_index=-1)
        return (loss, {}), logits
