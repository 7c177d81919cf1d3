"""Batch normalization of padded batches."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalization over real positions only. Padding is excluded from the statistics, and 0 in the output.

    The state dict has the keys of ``BatchNorm1d`` and ``BatchNorm2d``. While ``is_recomputing``, the running statistics
    are not updated, because the first forward pass has done so already.
    """

    is_recomputing = False

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalize (B, C, ...); ``mask`` (B, ...) is True at real positions, None if there is no padding."""
        if mask is None:
            return self._all(input)
        if not self.training:
            return self._all(input) * mask.unsqueeze(1)
        rows = input.movedim(1, -1)
        normalized = self._all(rows[mask])
        return torch.zeros_like(rows).masked_scatter(mask.unsqueeze(-1), normalized.to(rows.dtype)).movedim(-1, 1)

    def _all(self, values: Tensor) -> Tensor:
        counts = self.training and not self.is_recomputing
        if counts and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = self.momentum if counts and self.momentum is not None else 0.0
        # A single value per channel has no variance: use the running statistics, as in evaluation.
        batch_statistics = self.training and values.numel() // values.shape[1] > 1
        return F.batch_norm(
            values, self.running_mean, self.running_var, self.weight, self.bias, batch_statistics, momentum, self.eps
        )
