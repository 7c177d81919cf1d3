"""Convolutions along proteins over the real tokens of a padded batch.

All proteins of the batch are in one row, with zeros between them as far as a kernel reaches, which are what zero
padding is at the ends of each protein. Nothing is computed on the padding of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from . import low_precision
from .graph_capture import is_captured
from .kernel_shapes import needs_few_shapes, rounded_size
from .unpadding import RealTokens, lengths_of


@dataclass(frozen=True)
class SeparatedRow:
    """Where the T real tokens of a padded batch are in a row of R slots, in which zeros separate the proteins.

    Where each shape of a product has a kernel of its own, there are also zeros at the end, so that R has few values.

    Attributes:
        real: the real tokens in the batch.
        slots: R.
        slot: (T,) int64, the slot of each real token.
        separators: (R - T,) int64, the other slots.
    """

    real: RealTokens
    slots: int
    slot: Tensor
    separators: Tensor

    @classmethod
    def from_mask(cls, features: Tensor, mask: Tensor | None, reach: int) -> SeparatedRow | None:
        """The row of a batch; None where the padded batch is computed as it is.

        That is the case on accelerators, where the lengths would have to be copied from the device; while a graph is
        built, of which they would become constants; if padding is not at the end of each protein; and without tokens.

        Args:
            features: (B, S, C).
            mask: (B, S) bool, True at real tokens; None if there is no padding.
            reach: zeros between two proteins.
        """
        if features.device.type != "cpu" or is_captured():
            return None
        batch, length = features.shape[:2]
        if mask is None:
            mask = torch.ones(batch, length, dtype=torch.bool, device=features.device)
        if lengths_of(mask) is None or not mask.any():
            return None
        real = RealTokens.of(mask)
        protein = real.index // length
        slot = torch.arange(len(protein), device=features.device) + reach * protein
        slots = len(protein) + reach * (batch - 1)
        if needs_few_shapes(features):
            slots = rounded_size(slots)
        is_separator = torch.ones(slots, dtype=torch.bool, device=features.device).index_fill_(0, slot, False)
        return cls(real, slots, slot, is_separator.nonzero().squeeze(1))

    def separate(self, tokens: Tensor) -> Tensor:
        """(T, C) -> (R, C), 0 between the proteins."""
        return tokens.new_zeros(self.slots, tokens.shape[1]).index_copy(0, self.slot, tokens)

    def pad(self, row: Tensor) -> Tensor:
        """(R, C) -> (B, S, C), 0 at padding."""
        return self.real.pad(row.index_select(0, self.slot))


def convolve(row: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Convolution of a row that keeps its length, as ``F.conv1d`` with padding K // 2.

    Args:
        row: (R, C).
        weight: (O, C, K) with an odd K.
        bias: (O,).

    Returns:
        (R, O).
    """
    outputs, channels, width = weight.shape
    slots, reach = row.shape[0], width // 2
    if outputs * width < channels:
        # One matrix product with all positions of the kernel, whose results are then shifted and summed. For a few
        # outputs, torch's convolution on a CPU takes five times as long. In bf16, the products are rounded before they
        # are summed, in fp32: the error is a third larger than that of the convolution.
        products = F.linear(row, weight.permute(2, 0, 1).flatten(0, 1)).unflatten(1, (width, outputs))
        padded = F.pad(products.float() if products.dtype.itemsize < 4 else products, (0, 0, 0, 0, reach, reach))
        total = sum((padded[first : first + slots, first] for first in range(1, width)), padded[:slots, 0])
        return (total + bias).to(products.dtype)
    if slots >= channels and low_precision.uses_tiles(low_precision.operand_dtype(row)):
        # The row as an image of height 1 whose channels are last in memory, as the kernel reads them. It computes the
        # same numbers without two transposed copies. With fewer slots, arranging the weight would take longer.
        image = row[None, None].permute(0, 3, 1, 2)
        return F.conv2d(image, weight.unsqueeze(2), bias, padding=(0, reach)).permute(0, 2, 3, 1).flatten(0, 2)
    return F.conv1d(row.t().unsqueeze(0), weight, bias, padding=reach).squeeze(0).t()
