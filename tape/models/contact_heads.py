"""Contact prediction from a protein's residue states, without the B x L x L x 2H pair tensor.

The features of a residue pair are ``cat(x_i * x_j, x_i - x_j)``. Every head begins with a linear map of them, and
that map has a low-rank form: ``sum_h w_h x_ih x_jh`` is one matrix product, and the difference part is a value of i
minus the same value of j. So the (2H) features of a pair are never stored.

Dropout on the pair features keeps its rate and its mean but is drawn once for a feature of a protein, for all pairs (as
``Dropout2d`` does for channels): independent draws for each pair would need the pair tensor.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .activation_checkpointing import recomputed_chain
from .heads import IGNORED, HeadOutput, MaskedBatchNorm, masked_cross_entropy

_CHANNELS = 64


def pair_projection(states: Tensor, weight: Tensor, bias: Tensor, dropout: float = 0.0) -> Tensor:
    """Linear map of the pair features ``cat(x_i * x_j, x_i - x_j)``.

    Args:
        states: (B, L, H).
        weight: (C, 2H), product part first.
        bias: (C,).
        dropout: probability of dropping a feature of a protein.

    Returns:
        (B, C, L, L).
    """
    product_weight, difference_weight = weight.chunk(2, dim=-1)
    product_states, difference_states = states, states
    if dropout > 0.0:
        keep = torch.ones_like(states[:, :1])
        product_states = states * F.dropout(keep, dropout)
        difference_states = states * F.dropout(keep, dropout)
    left = product_states.unsqueeze(1) * product_weight[None, :, None, :]
    product = left @ states.unsqueeze(1).transpose(-1, -2)
    difference = (difference_states @ difference_weight.T).transpose(1, 2)
    return product + (difference.unsqueeze(-1) - difference.unsqueeze(-2)) + bias[:, None, None]


class PairLinear(nn.Linear):
    """``Linear(2H, C)`` over pair features; weight (C, 2H)."""

    def __init__(self, hidden_size: int, channels: int) -> None:
        super().__init__(2 * hidden_size, channels)

    def forward(self, input: Tensor, dropout: float = 0.0) -> Tensor:
        return pair_projection(input, self.weight, self.bias, dropout)


class PairConv(nn.Conv2d):
    """1 x 1 convolution over pair features; weight (C, 2H, 1, 1) as in ProteinLM's checkpoints."""

    def __init__(self, hidden_size: int, channels: int) -> None:
        super().__init__(2 * hidden_size, channels, kernel_size=1)

    def forward(self, input: Tensor, dropout: float = 0.0) -> Tensor:
        assert self.bias is not None
        return pair_projection(input, self.weight[:, :, 0, 0], self.bias, dropout)


class ResidualBlock(nn.Module):
    """conv, batch norm, ReLU, conv, batch norm, sum, ReLU (He et al. 2016) with padding masked at every step."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = MaskedBatchNorm(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = MaskedBatchNorm(channels)

    def forward(self, pairs: Tensor, mask: Tensor | None) -> Tensor:
        """(B, C, L, L) whose padding is 0 -> the same; mask (B, L, L) bool."""
        # in place where the input is a tensor that nobody else has: one less of L x L x C
        hidden = F.relu(self.bn1(self.conv1(pairs), mask), inplace=True)
        return F.relu(pairs + self.bn2(self.conv2(hidden), mask), inplace=True)


class _Separation(nn.Module):
    """A logit of each class for each distance along the chain; weight (separations, 2), from 0."""

    def __init__(self, separations: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(separations, 2))

    def forward(self, length: int) -> Tensor:
        """(2, length, length)."""
        place = torch.arange(length, device=self.weight.device)
        distance = (place[:, None] - place).abs().clamp(max=self.weight.shape[0] - 1)
        return self.weight[distance].permute(2, 0, 1)


class PairwiseContactPredictionHead(nn.Module):
    """Contact logits of all residue pairs; symmetric, special tokens stripped.

    Args:
        hidden_size: H.
        ignore_index: target of pairs that do not count; those below 0 never do.
        architecture: ``resnet`` is ProteinLM's head (1 x 1 convolution to 64 channels, residual blocks, linear),
            ``linear`` is TAPE's (one linear map).
        num_blocks: residual blocks of ``resnet``; published checkpoints have 30.
        dropout: on the pair features, see the module's text.
        checkpoint_blocks: recompute the residual blocks in the backward pass; see
            :mod:`tape.models.activation_checkpointing`.
        separations: distances |i - j| along the chain that have a logit of their own, added to a pair's; pairs farther
            apart share the last one. Near pairs touch more often, and the features don't say how near a pair is. 0:
            none, as in the original.
    """

    def __init__(
        self,
        hidden_size: int,
        ignore_index: int = IGNORED,
        architecture: str = "resnet",
        num_blocks: int = 30,
        dropout: float = 0.5,
        checkpoint_blocks: bool = False,
        separations: int = 0,
    ) -> None:
        super().__init__()
        self.checkpoint_blocks = checkpoint_blocks
        self.architecture = architecture
        self.ignore_index = ignore_index
        self.dropout = dropout
        self.num_blocks = num_blocks if architecture == "resnet" else 0
        self.separation = _Separation(separations) if separations else None
        self.predict = nn.ModuleDict()
        if architecture == "linear":
            self.predict["1"] = PairLinear(hidden_size, 2)
            return
        self.predict["1"] = PairConv(hidden_size, _CHANNELS)
        for index in range(num_blocks):
            self.predict[f"ResidualBlock{index}"] = ResidualBlock(_CHANNELS)
        self.linear = nn.Sequential(nn.Linear(_CHANNELS, 2))

    def forward(
        self,
        inputs: Tensor,
        sequence_lengths: Tensor | None = None,
        targets: Tensor | None = None,
        input_mask: Tensor | None = None,
    ) -> HeadOutput:
        """Predict.

        Args:
            inputs: (B, L + 2, H) states with ``<cls>`` and ``<sep>``.
            sequence_lengths: (B,) residues; not needed, kept for TAPE's signature.
            targets: (B, L, L) in {0, 1}, below 0 or ignore_index.
            input_mask: (B, L + 2), 1 at real tokens.

        Returns:
            ``(logits,)`` with logits (B, L, L, 2), or ``((loss, {}), logits)``.
        """
        mask = None if input_mask is None else _pair_mask(input_mask.bool())
        pairs = self.predict["1"](inputs, self.dropout if self.training else 0.0)
        if self.architecture == "resnet":
            pairs = self._tower(pairs, mask)
        if self.separation is not None:
            pairs = pairs + self.separation(pairs.shape[-1])
        symmetric = (pairs + pairs.transpose(-1, -2)) / 2
        logits = symmetric.permute(0, 2, 3, 1)[:, 1:-1, 1:-1].contiguous()
        if targets is None:
            return (logits,)
        return (masked_cross_entropy(logits, targets, self.ignore_index), {}), logits

    def _tower(self, pairs: Tensor, mask: Tensor | None) -> Tensor:
        if mask is not None:
            pairs = pairs * mask.unsqueeze(1)
        blocks = [self.predict[f"ResidualBlock{index}"] for index in range(self.num_blocks)]
        if self.checkpoint_blocks and torch.is_grad_enabled():
            pairs = recomputed_chain(blocks, pairs, mask)
        else:
            for block in blocks:
                pairs = block(pairs, mask)
        return self.linear(pairs.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _pair_mask(mask: Tensor) -> Tensor | None:
    """(B, S) -> (B, S, S), or None when nothing is padded (then the plain, faster path serves)."""
    if bool(mask.all()):
        return None
    return mask.unsqueeze(2) & mask.unsqueeze(1)
