"""Contact prediction heads that never store the (B, L, L, 2H) features of all residue pairs.

The features of a pair are ``cat(x_i * x_j, x_i - x_j)``. Every head starts with a linear map of them, which can be
computed from the residue states: ``sum_h w_h x_ih x_jh`` is a matrix product, and the map of the difference is the
difference of two mapped states.

Dropout on the pair features keeps its rate and mean, but is drawn once per protein and feature for all pairs, as
``Dropout2d`` does for channels. Independent draws for each pair would need the pair features.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tape.tokenizers import SPECIAL_TOKENS_PER_PROTEIN

from .activation_checkpointing import checkpointed_chain
from .batch_norm import MaskedBatchNorm
from .graph_capture import is_captured
from .heads import IGNORED, HeadOutput, is_labeled
from .input_checks import check_classes
from .kernel_shapes import SLOT_MULTIPLE, needs_few_shapes
from .unpadding import lengths_of

_CHANNELS = 64
# A part takes as long as this many more pairs: 0.5 ms on one core.
_PAIRS_PER_PART = 10_000
_MINIMUM_SEPARATION = 6  # of the pairs of P@L/5


def pair_projection(states: Tensor, weight: Tensor, bias: Tensor, dropout: float = 0.0) -> Tensor:
    """Linear map of the pair features ``cat(x_i * x_j, x_i - x_j)``.

    Args:
        states: (B, L, H).
        weight: (C, 2H), with the weights of the products first.
        bias: (C,).
        dropout: probability of dropping a feature for all pairs of a protein.

    Returns:
        (B, C, L, L), in the precision of the products, since a bias in fp32 would make all residual blocks add in fp32.
    """
    product_weight, difference_weight = weight.chunk(2, dim=-1)
    products = product_projection(states, product_weight, dropout)
    difference = (_drop(states, dropout) @ difference_weight.T).transpose(1, 2)
    return products + (difference.unsqueeze(-1) - difference.unsqueeze(-2)) + bias.to(products.dtype)[:, None, None]


def product_projection(states: Tensor, weight: Tensor, dropout: float = 0.0) -> Tensor:
    """Linear map of the products ``x_i * x_j`` alone, without a bias; weight (C, H). See :func:`pair_projection`."""
    left = _drop(states, dropout).unsqueeze(1) * weight[None, :, None, :]
    return left @ states.unsqueeze(1).transpose(-1, -2)


def _drop(states: Tensor, dropout: float) -> Tensor:
    return states * F.dropout(torch.ones_like(states[:, :1]), dropout) if dropout > 0.0 else states


class PairLinear(nn.Linear):
    """``Linear(2H, C)`` over pair features, averaged over both orders of each pair; weight (C, 2H).

    The differences ``x_i - x_j`` and ``x_j - x_i`` cancel, so that only the first half of the weight has an effect.
    """

    def __init__(self, hidden_size: int, channels: int) -> None:
        super().__init__(2 * hidden_size, channels)

    def forward(self, input: Tensor, dropout: float = 0.0) -> Tensor:
        products = product_projection(input, self.weight.chunk(2, dim=-1)[0], dropout)
        return _symmetric(products) + self.bias[:, None, None]


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
        """(B, C, L, L) with padding 0 -> the same shape, with padding 0; mask (B, L, L) bool."""
        # In place where no one else uses the input, which saves a (B, C, L, L) tensor.
        hidden = F.relu(self.bn1(self.conv1(pairs), mask), inplace=True)
        return F.relu(pairs + self.bn2(self.conv2(hidden), mask), inplace=True)


class _Separation(nn.Module):
    """Learned logits of both classes for each sequence separation; weight (separations, 2), initialized to 0."""

    def __init__(self, separations: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(separations, 2))

    def forward(self, length: int) -> Tensor:
        """Logits (2, length, length) of all pairs."""
        place = torch.arange(length, device=self.weight.device)
        distance = (place[:, None] - place).abs().clamp(max=self.weight.shape[0] - 1)
        return self.weight[distance].permute(2, 0, 1)


@dataclass(frozen=True)
class _Part:
    """Logits of some proteins of a batch.

    Attributes:
        rows: the proteins.
        pairs: (b, 2, L, L) logits; L is at least the length of its proteins.
        residues: the length of the longest of its proteins, or L.
    """

    rows: slice
    pairs: Tensor
    residues: int

    def labels(self, targets: Tensor) -> Tensor:
        """The targets (b, L, L) of the part among those of the batch."""
        length = self.pairs.shape[-1]
        return targets[self.rows, :length, :length]


class PairwiseContactPredictionHead(nn.Module):
    """Symmetric contact logits of all pairs of residues.

    Args:
        hidden_size: H.
        ignore_index: a target that is ignored, besides all targets below 0.
        architecture: ``resnet`` is ProteinLM's head (1 x 1 convolution to 64 channels, residual blocks, linear),
            ``linear`` is TAPE's (one linear map).
        num_blocks: number of residual blocks of ``resnet``; published checkpoints have 30.
        dropout: dropout probability of the pair features, see the module's docstring.
        checkpoint_blocks: activation checkpointing of the residual blocks, see
            :mod:`tape.models.activation_checkpointing`.
        separations: number of sequence separations |i - j| with a learned logit that is added to the pair's; larger
            separations share the last one. Pairs that are close in sequence are in contact more often, but their
            features do not contain the separation. 0 disables it, as in the original.
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
        """Predict contacts.

        Args:
            inputs: (B, L + 2, H) states, including ``<cls>`` and ``<sep>``.
            sequence_lengths: (B,) number of residues, for P@L/5; default: according to ``input_mask``.
            targets: (B, L, L) in {0, 1}; below 0 or ``ignore_index`` if there is no label, as at padding.
            input_mask: (B, L + 2), 1 at real tokens.

        Returns:
            ``(logits,)`` with logits (B, L, L, 2), whose values at padding have no meaning, or
            ``((loss, {"precision_at_l5": P@L/5 of the batch}), logits)``. The loss is not computed from the tensor
            that is returned, so that this has a gradient only by what else is computed from it.
        """
        parts = self._parts(inputs, None if input_mask is None else input_mask.bool())
        logits = _padded(parts, inputs.shape[1] - SPECIAL_TOKENS_PER_PROTEIN)
        if targets is None:
            return (logits,)
        check_classes(targets, logits.shape[:-1], 2)
        targets = targets.view(logits.shape[:-1])
        loss = _mean(self._loss_sum(part.pairs, part.labels(targets)) for part in parts)
        if sequence_lengths is None:
            sequence_lengths = (torch.ones_like(inputs[..., 0]) if input_mask is None else input_mask != 0).sum(1) - 2
        precision = _mean(
            self._precision_sum(sequence_lengths[part.rows], part.pairs, part.labels(targets)) for part in parts
        )
        return (loss, {"precision_at_l5": precision}), logits

    @torch.no_grad()
    def compute_precision_at_l5(self, sequence_lengths: Tensor, prediction: Tensor, labels: Tensor) -> Tensor:
        """P@L/5 at separations >= 6, averaged over the proteins that have such a pair; 0 if none has.

        The definition is that of :mod:`tape.metrics.contacts`, except that the order of equal scores is arbitrary.

        Args:
            sequence_lengths: (B,) number of residues.
            prediction: (B, L, L, 2) logits.
            labels: (B, L, L) targets.
        """
        return _mean([self._precision_sum(sequence_lengths, prediction.movedim(-1, 1), labels)])

    @torch.no_grad()
    def _precision_sum(self, lengths: Tensor, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Sum of P@L/5, and number of proteins that have it; logits (B, 2, L, L)."""
        other, contact = logits.unbind(1)
        valid = is_labeled(labels, self.ignore_index).triu(_MINIMUM_SEPARATION)
        scores = (contact - other).masked_fill_(~valid, float("-inf"))
        best = scores.flatten(1).topk(max(1, labels.shape[-1] // 5)).indices
        count = torch.minimum((lengths // 5).clamp(min=1, max=best.shape[1]), valid.sum((1, 2)))
        chosen = torch.arange(best.shape[1], device=best.device) < count.unsqueeze(1)
        correct = (labels.flatten(1).gather(1, best) * chosen).sum(1)
        return (correct / count.clamp(min=1)).sum(), (count > 0).sum()

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits (B, L, L, 2): the mean cross entropy in fp32 over labeled pairs; 0 if there are none."""
        check_classes(targets, logits.shape[:-1], logits.shape[-1])
        return _mean([self._loss_sum(logits.movedim(-1, 1), targets.view(logits.shape[:-1]))])

    def _loss_sum(self, logits: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Sum and number of the losses of logits (B, 2, L, L), which depend on the difference of the two classes."""
        other, contact = logits.float().unbind(1)
        labeled = is_labeled(targets, self.ignore_index)
        difference = contact - other
        correct = torch.where(targets > 0, difference, -difference).masked_fill(~labeled, float("inf"))
        return -F.logsigmoid(correct).sum(), labeled.sum()

    def _parts(self, inputs: Tensor, mask: Tensor | None) -> list[_Part]:
        """The symmetric logits of the batch; on a CPU, a linear head computes each protein alone, without padding."""
        dropout = self.dropout if self.training else 0.0
        if self.architecture == "resnet":
            pairs = self._tower(self.predict["1"](inputs, dropout), None if mask is None else _pair_mask(mask))
            return [self._part(slice(None), _symmetric(pairs[..., 1:-1, 1:-1]))]
        lengths = None if mask is None or inputs.device.type != "cpu" or is_captured() else lengths_of(mask)
        if lengths is None or not _saves_time(lengths, inputs.shape[1]):
            return [self._part(slice(None), self.predict["1"](inputs[:, 1:-1], dropout))]
        multiple = SLOT_MULTIPLE if needs_few_shapes(inputs) else 1
        parts = []
        for row, length in enumerate(lengths.tolist()):
            residues = length - SPECIAL_TOKENS_PER_PROTEIN
            stop = min(residues + -residues % multiple + 1, inputs.shape[1] - 1)
            pairs = self.predict["1"](inputs[row : row + 1, 1:stop], dropout)
            parts.append(self._part(slice(row, row + 1), pairs, residues))
        return parts

    def _part(self, rows: slice, pairs: Tensor, residues: int | None = None) -> _Part:
        length = pairs.shape[-1]
        logits = pairs if self.separation is None else pairs + self.separation(length)
        return _Part(rows, logits, length if residues is None else residues)

    def _tower(self, pairs: Tensor, mask: Tensor | None) -> Tensor:
        if pairs.device.type == "cpu" and not is_captured():  # up to 13 % faster there than channels first
            pairs = pairs.contiguous(memory_format=torch.channels_last)
        if mask is not None:
            pairs = pairs * mask.unsqueeze(1)
        blocks = [self.predict[f"ResidualBlock{index}"] for index in range(self.num_blocks)]
        if self.checkpoint_blocks and torch.is_grad_enabled():
            pairs = checkpointed_chain(blocks, pairs, mask)
        else:
            for block in blocks:
                pairs = block(pairs, mask)
        return self.linear(pairs.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def _saves_time(lengths: Tensor, longest: int) -> bool:
    """Whether a linear head is faster with each protein alone: the pairs at padding must outweigh the overhead."""
    if not len(lengths) or int(lengths.min()) <= SPECIAL_TOKENS_PER_PROTEIN:
        return False
    return len(lengths) * (longest**2 - _PAIRS_PER_PART) > int(lengths.square().sum())


def _padded(parts: list[_Part], length: int) -> Tensor:
    """The logits of all parts, (B, length, length, 2), 0 beyond the residues of a part."""
    logits = [part.pairs[..., : part.residues, : part.residues].permute(0, 2, 3, 1) for part in parts]
    missing = [length - own.shape[1] for own in logits]
    if not any(missing) and len(parts) == 1:
        return logits[0].contiguous()
    return torch.cat([F.pad(own, (0, 0, 0, extra, 0, extra)) for own, extra in zip(logits, missing, strict=True)])


def _mean(sums: Iterable[tuple[Tensor, Tensor]]) -> Tensor:
    """The mean of all parts, from the sum and the number of each."""
    totals, numbers = zip(*sums, strict=True)
    return torch.stack(totals).sum() / torch.stack(numbers).sum().clamp(min=1)


def _symmetric(pairs: Tensor) -> Tensor:
    """Mean of (B, C, L, L) and its transpose."""
    return (pairs + pairs.transpose(-1, -2)).mul_(0.5)


def _pair_mask(mask: Tensor) -> Tensor | None:
    """(B, S) -> (B, S, S); None if there is no padding, which allows the faster path without masks."""
    if bool(mask.all()):
        return None
    return mask.unsqueeze(2) & mask.unsqueeze(1)
