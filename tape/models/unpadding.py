"""Padded batches without computation on padding: the encoder receives one packed row of the real tokens.

On a CPU in half precision, some padding is left at the end of the row; see :mod:`tape.models.kernel_shapes`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .attention import PackedLayout
from .graph_capture import is_captured
from .kernel_shapes import rounded_size


def lengths_of(mask: Tensor) -> Tensor | None:
    """(B, S) bool, True at real tokens -> (B,) number of tokens; None if padding is not at the end of each protein."""
    lengths = mask.sum(1)
    is_at_end = torch.equal(mask, torch.arange(mask.shape[1], device=mask.device) < lengths[:, None])
    return lengths if is_at_end else None


def is_unpadded(mask: Tensor) -> bool:
    """True if a batch is known to have no padding, so that attention needs no mask.

    That is never known on accelerators, from which the mask would have to be copied, and while a graph is built, of
    which the answer would become a constant.

    Args:
        mask: (B, S) bool, True at real tokens.
    """
    return mask.device.type == "cpu" and not is_captured() and mask.numel() > 0 and bool(mask.all())


@dataclass(frozen=True)
class RealTokens:
    """Where the T real tokens of a padded batch of B proteins with S slots each are.

    Attributes:
        shape: (B, S).
        index: (T,) int64, index of each real token among the B S slots.
    """

    shape: torch.Size
    index: Tensor

    @classmethod
    def of(cls, mask: Tensor) -> RealTokens:
        """The real tokens of a batch; mask (B, S) bool, True at them."""
        return cls(mask.shape, mask.flatten().nonzero().squeeze(1))

    def gather(self, values: Tensor) -> Tensor:
        """(B, S, ...) -> (T, ...)."""
        return values.flatten(0, 1).index_select(0, self.index)

    def pad(self, tokens: Tensor) -> Tensor:
        """(T, ...) -> (B, S, ...), 0 at padding."""
        slots = tokens.new_zeros(self.shape.numel(), *tokens.shape[1:])
        return slots.index_copy(0, self.index, tokens).unflatten(0, self.shape)


@dataclass(frozen=True)
class Unpadding:
    """The real tokens of a padded batch of B proteins with S slots each, and R - T tokens of padding after these T.

    Attributes:
        layout: layout of the packed row.
    """

    layout: PackedLayout
    _real: RealTokens
    _padding: int

    @classmethod
    def of(cls, mask: Tensor, few_sizes: bool = False) -> Unpadding | None:
        """The unpadding of a batch; None where the padded batch is computed as it is.

        That is the case without padding, if padding is not at the end of each protein, if a protein has no token, on
        accelerators, where the lengths would have to be copied from the device before anything is computed, and while
        the model is compiled or traced, since the lengths would become constants of the graph.

        Args:
            mask: (B, S) bool, True at real tokens.
            few_sizes: pad the row to one of a few sizes, without which R is T.
        """
        if mask.device.type != "cpu" or is_captured() or not mask.numel():
            return None
        lengths = lengths_of(mask)
        if lengths is None or int(lengths.min()) in (0, mask.shape[1]):
            return None
        layout, real = PackedLayout.from_lengths(lengths.tolist(), mask.device), RealTokens.of(mask)
        if few_sizes:
            layout = layout.padded(min(rounded_size(layout.tokens), mask.numel()))
        return cls(layout, real, layout.tokens - len(real.index))

    def unpad(self, values: Tensor) -> Tensor:
        """(B, S, ...) -> (1, R, ...), 0 at padding."""
        tokens = self._real.gather(values)
        return F.pad(tokens, (*(0, 0) * (tokens.ndim - 1), 0, self._padding)).unsqueeze(0)

    def pad(self, tokens: Tensor) -> Tensor:
        """(1, R, ...) -> (B, S, ...), 0 at padding."""
        return self._real.pad(tokens[0, : len(self._real.index)])
