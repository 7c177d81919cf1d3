"""Numbers that a model computes with but does not learn, such as the scale of its targets."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn


class Constants(nn.Module):
    """Numbers as an fp32 tensor on the device of the model, which is neither built again in every forward pass nor part
    of the state dict: they are those of the configuration.

    It stays fp32 in a model that is cast to another type, in which 12,345.6 would be 12,352 (bf16) or 1e6 infinite
    (fp16), and has its values in a model that was built on the meta device.

    Args:
        numbers: the numbers, of any nesting that a tensor can have.
    """

    values: Tensor

    def __init__(self, numbers: Sequence[Any]) -> None:
        super().__init__()
        self._numbers = numbers
        self.register_buffer("values", torch.tensor(numbers, dtype=torch.float32), persistent=False)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Constants:
        """Follow the model to another device, with the same values."""
        super()._apply(fn, recurse)
        if not self.values.is_meta:
            self.values = torch.tensor(self._numbers, dtype=torch.float32, device=self.values.device)
        elif self.values.dtype != torch.float32:
            self.values = self.values.float()
        return self
