"""Softmax attention within each protein, for padded batches and for packed rows.

A padded batch has a (B, S) key mask. A packed row, in which many proteins are concatenated along the sequence axis, has
a :class:`PackedLayout`. No S x S mask is built. Packed rows use the variable-length kernel of
:mod:`tape.models.flash_attention` on CUDA in half precision. Otherwise, proteins of similar length are gathered into
short padded groups for the attention alone, which computes the same.

On a CPU, two implementations compute the same attention, as in transformers: ``eager`` keeps the probabilities for the
backward pass and consists of batched matrix products; ``sdpa`` is torch's fused kernel, which recomputes them. In fp32
they take equally long, and the fused kernel needs less memory. In bf16, it takes two to five times as long for proteins
of usual length. With dropout, torch has no fused kernel on a CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tape.errors import ConfigError

from . import flash_attention, low_precision
from .activation_checkpointing import checkpointed
from .dropout import dropout as drop
from .kernel_shapes import SLOT_MULTIPLE, compiles_each_shape

# The time of attention grows with the square of the padded length. A group ends where its shortest protein would be
# padded by more than this factor: smaller groups waste less arithmetic, but need more kernel launches. For proteins of
# more tokens than the second number, the launches don't matter: they are grouped with proteins of equal length only.
_GROUP_LENGTH_RATIO = 1.25
_GROUP_LONGEST = 256
# Eager attention keeps S probabilities per head and token. At this length they take as much memory as the other
# activations of a block with heads of size 64, and on a processor with AMX the fused kernel is as fast in bf16.
# The choice is not measured at the start of a run, whose last digits would then depend on the load of the machine.
_EAGER_LONGEST = 1024
_EAGER_SCORES = 1 << 21  # in inference, at most so many scores are computed at a time: they stay in the cache
# In training, groups of long proteins with more scores than this, 128 MiB of probabilities per block, use the fused
# kernel: for 32 proteins of 1,000 residues, 3 blocks of 8 heads then need 0.9 GiB instead of 3.2, and less time.
_EAGER_KEPT_SCORES = 1 << 26


@dataclass(frozen=True)
class _Group:
    """Proteins of similar length, padded to the same number of slots.

    Attributes:
        proteins: number of proteins.
        longest: tokens of the longest protein.
        slots: slots per protein; no protein has tokens in those from ``longest`` on.
        mask: (proteins, slots) bool, True at real tokens; None if all have the same length.
    """

    proteins: int
    longest: int
    slots: int
    mask: Tensor | None


@dataclass(frozen=True)
class _Padding:
    """Where the T tokens of a row are in P slots of padded groups.

    Attributes:
        groups: the groups.
        source: (P,) int64, token of the row in each slot; token 0 for padding.
        slot: (T,) int64, slot of each token of the row.
    """

    groups: tuple[_Group, ...]
    source: Tensor
    slot: Tensor

    @classmethod
    def of(cls, sizes: tuple[int, ...], multiple: int = 1) -> _Padding:
        """Group proteins of these lengths; slots of proteins with eager attention are rounded up to ``multiple``."""
        length = torch.tensor(sizes, device="cpu")  # whatever torch.set_default_device is
        start = length.cumsum(0) - length
        groups, source, real = [], [], []
        for members in _similar_lengths(sizes):
            shortest, longest = sizes[members[0]], sizes[members[-1]]
            slots = longest + (-longest % multiple if longest <= _EAGER_LONGEST else 0)
            place = torch.arange(slots, device="cpu")
            mask = place < length[members][:, None]
            source.append(torch.where(mask, start[members][:, None] + place, 0).flatten())
            real.append(mask.flatten())
            groups.append(_Group(len(members), longest, slots, None if shortest == longest else mask))
        index, is_real = torch.cat(source), torch.cat(real)
        slot = torch.empty(sum(sizes), dtype=torch.int64, device="cpu")
        slot[index[is_real]] = is_real.nonzero().squeeze(1)
        return cls(tuple(groups), index, slot)

    def to(self, move: Callable[[Tensor], Tensor]) -> _Padding:
        groups = tuple(replace(group, mask=None if group.mask is None else move(group.mask)) for group in self.groups)
        return _Padding(groups, move(self.source), move(self.slot))


@dataclass(frozen=True)
class PackedLayout:
    """Boundaries of the N proteins of a packed row of T tokens.

    Args:
        lengths: number of tokens of each protein in the order of the row, including special tokens.
        positions: (T,) int64, position of each token within its protein, from 0.
        cumulative: (N + 1,) int32, start of each protein and end of the last, for variable-length kernels.
    """

    lengths: tuple[int, ...]
    positions: Tensor
    cumulative: Tensor
    _padding: _Padding

    @classmethod
    def from_lengths(cls, lengths: Sequence[int], device: torch.device | str | None = None) -> PackedLayout:
        """Build the layout of proteins with these numbers of tokens.

        Args:
            lengths: number of tokens of each protein, including special tokens.
            device: device of the tensors; None is the CPU.

        Raises:
            ConfigError: there is no protein, or one without tokens.
        """
        sizes = tuple(int(length) for length in lengths)
        if not sizes or min(sizes) < 1:
            raise ConfigError("a packed row needs at least one protein, and every protein at least one token")
        length = torch.tensor(sizes, device="cpu")  # whatever torch.set_default_device is
        start = torch.cat([length.new_zeros(1), length.cumsum(0)])
        positions = torch.arange(int(start[-1]), device="cpu") - torch.repeat_interleave(start[:-1], length)
        layout = cls(sizes, positions, start.to(torch.int32), _Padding.of(sizes))
        return layout if device is None else layout.to(device)

    @property
    def tokens(self) -> int:
        return sum(self.lengths)

    def padded(self, tokens: int) -> PackedLayout:
        """The layout of the row with padding at its end, up to ``tokens`` tokens, which attends only to padding."""
        missing, longest = tokens - self.tokens, max(self.lengths)
        if missing <= 0:
            return self
        pieces = [longest] * (missing // longest) + [missing % longest] * (missing % longest > 0)
        return PackedLayout.from_lengths([*self.lengths, *pieces], self.positions.device)

    def to(self, device: torch.device | str, non_blocking: bool = False) -> PackedLayout:
        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        return PackedLayout(self.lengths, move(self.positions), move(self.cumulative), self._padding.to(move))

    @cached_property
    def _few_shapes(self) -> _Padding:
        """Padding on the CPU in which products have few shapes."""
        return _Padding.of(self.lengths, SLOT_MULTIPLE)


def _similar_lengths(sizes: tuple[int, ...]) -> list[list[int]]:
    """Group short proteins of similar length, and long proteins of equal length."""
    groups: list[list[int]] = []
    for protein in sorted(range(len(sizes)), key=lambda index: sizes[index]):
        shortest = sizes[groups[-1][0]] if groups else 0
        if sizes[protein] == shortest or sizes[protein] <= min(shortest * _GROUP_LENGTH_RATIO, _GROUP_LONGEST):
            groups[-1].append(protein)
        else:
            groups.append([protein])
    return groups


class _PadTokens(torch.autograd.Function):
    """(T, ...) tokens -> (P, ...) slots. Each token has one real slot, so the gradient is a gather, not a sum."""

    @staticmethod
    def forward(ctx: Any, tokens: Tensor, source: Tensor, slot: Tensor) -> Tensor:
        ctx.save_for_backward(slot)
        return tokens.index_select(0, source)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (slot,) = ctx.saved_tensors
        return gradients[0].index_select(0, slot), None, None


class _UnpadTokens(torch.autograd.Function):
    """(P, ...) slots -> (T, ...) tokens. Padding slots get the gradient 0."""

    @staticmethod
    def forward(ctx: Any, slots: Tensor, slot: Tensor) -> Tensor:
        ctx.save_for_backward(slot)
        ctx.number = slots.shape[0]
        return slots.index_select(0, slot)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (slot,) = ctx.saved_tensors
        spread = gradients[0].new_zeros(ctx.number, *gradients[0].shape[1:])
        return spread.index_copy_(0, slot, gradients[0]), None


class AttentionCore(nn.Module):
    """softmax(q k^T / sqrt(d)) v with dropout on the probabilities (Vaswani et al. 2017, section 3.2.1).

    This is a separate module, without parameters, so that tensor parallelism can use a different random stream on every
    rank for this dropout. ``recompute`` is selective activation checkpointing (Korthikanti et al. 2022): the scores,
    the probabilities and their dropout mask are large, but cheap to recompute. ``backend`` computes packed rows:
    ``flash`` in one kernel, ``padded`` in padded groups, ``auto`` in one kernel where it can be used.
    """

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.dropout = dropout
        self.backend = "auto"
        self.recompute = False

    def forward(
        self, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, packing: PackedLayout | None
    ) -> Tensor:
        """Compute attention.

        Args:
            query, key, value: (B, S, heads, head size); with ``packing``, B is 1 and S is the length of the packed row.
            key_mask: (B, S) bool, True at real tokens; None if there is no padding.
            packing: layout of a packed row; can't be combined with ``key_mask``.

        Returns:
            (B, S, heads, head size).
        """
        if self.recompute and torch.is_grad_enabled():
            return checkpointed(self._attend, query, key, value, key_mask, packing)
        return self._attend(query, key, value, key_mask, packing)

    def _attend(
        self, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, packing: PackedLayout | None
    ) -> Tensor:
        dropout = self.dropout if self.training else 0.0
        if packing is None:
            return _padded(query, key, value, key_mask, dropout)
        if self._is_flash(query, dropout):
            return _flash(query, key, value, packing, dropout)
        return _grouped(query, key, value, packing, dropout)

    def _is_flash(self, query: Tensor, dropout: float) -> bool:
        if self.backend != "auto":
            return self.backend == "flash"
        reason = flash_attention.unusable_reason(query.device, query.dtype, query.shape[-1], dropout)
        return reason is None

    def with_probabilities(
        self, query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Compute attention of a padded batch from its attention maps, so that these have gradients.

        Returns:
            (B, S, heads, head size), and the maps (B, heads, S, S) in fp32 without dropout.
        """
        scores = torch.einsum("bqhd,bkhd->bhqk", query, key).float() * query.shape[-1] ** -0.5
        if key_mask is not None:
            # the lowest number, not -inf: a row without any real token is then finite
            scores = scores.masked_fill(~key_mask[:, None, None, :], torch.finfo(scores.dtype).min)
        probabilities = scores.softmax(-1)
        kept = drop(probabilities, self.dropout) if self.training and self.dropout else probabilities
        return torch.einsum("bhqk,bkhd->bqhd", kept.to(value.dtype), value), probabilities


def _padded(
    query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, dropout: float, longest: int | None = None
) -> Tensor:
    proteins, slots, heads, _ = query.shape
    is_large = slots > _EAGER_LONGEST or (torch.is_grad_enabled() and proteins * heads * slots**2 > _EAGER_KEPT_SCORES)
    is_eager = dropout > 0 or (query.dtype.itemsize < 4 and not is_large)
    if is_eager and query.device.type == "cpu" and low_precision.is_native(query.dtype):
        return _eager(query, key, value, key_mask, dropout, longest)
    return _sdpa(query, key, value, key_mask, dropout, longest)


def _eager(
    query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, dropout: float, longest: int | None = None
) -> Tensor:
    """Without a mask, all proteins have ``longest`` tokens; by default as many as slots."""
    proteins, length, heads, size = query.shape
    part = max(1, _EAGER_SCORES // (heads * length**2))
    if part < proteins and not torch.is_grad_enabled():
        contexts = []
        for first in range(0, proteins, part):
            some = slice(first, first + part)
            mask = None if key_mask is None else key_mask[some]
            contexts.append(_eager(query[some], key[some], value[some], mask, dropout, longest))
        return torch.cat(contexts)
    q, k, v = (tensor.transpose(1, 2).reshape(-1, length, size) for tensor in (query, key, value))
    nothing = query.new_empty(()).expand(proteins * heads, length, length)
    scores = torch.baddbmm(nothing, q, k.transpose(1, 2), beta=0, alpha=size**-0.5)
    # the lowest number, not -inf: a row without any real token is then finite, as in the fused kernel
    lowest = torch.finfo(scores.dtype).min
    if key_mask is not None:
        ignored = torch.zeros_like(key_mask, dtype=scores.dtype).masked_fill_(~key_mask, lowest)
        # detached: the gradient is that of the scores, and autograd would copy it twice for a change of a view
        scores.detach().view(proteins, heads, length, length).add_(ignored[:, None, None, :])
    elif longest is not None and longest < length:
        scores.detach()[:, :, longest:] = lowest  # the gradient there is 0 in any case, since the probability is
    probabilities = scores.softmax(-1)
    if dropout:
        probabilities = drop(probabilities, dropout)
    context = torch.bmm(probabilities, v)
    return context.view(proteins, heads, length, size).transpose(1, 2)


def _sdpa(
    query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, dropout: float, longest: int | None = None
) -> Tensor:
    """Without a mask, all proteins have ``longest`` tokens; by default as many as slots."""
    if key_mask is None and longest is not None:
        key, value = key[:, :longest], value[:, :longest]
    mask = None if key_mask is None else key_mask[:, None, None, :]
    context = F.scaled_dot_product_attention(
        query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2), attn_mask=mask, dropout_p=dropout
    )
    return context.transpose(1, 2)


def _grouped(query: Tensor, key: Tensor, value: Tensor, packing: PackedLayout, dropout: float) -> Tensor:
    few_shapes = compiles_each_shape(query.device, query.dtype)
    padding = packing._few_shapes if few_shapes else packing._padding
    sizes = [group.proteins * group.slots for group in padding.groups]
    spread = [_PadTokens.apply(tensor[0], padding.source, padding.slot).split(sizes) for tensor in (query, key, value)]
    contexts = []
    for group, *parts in zip(padding.groups, *spread, strict=True):
        q, k, v = (part.unflatten(0, (group.proteins, group.slots)) for part in parts)
        contexts.append(_padded(q, k, v, group.mask, dropout, group.longest).flatten(0, 1))
    return _UnpadTokens.apply(torch.cat(contexts), padding.slot).unsqueeze(0)


def _flash(query: Tensor, key: Tensor, value: Tensor, packing: PackedLayout, dropout: float) -> Tensor:
    longest = max(packing.lengths)
    context = flash_attention.flash_attention(query[0], key[0], value[0], packing.cumulative, longest, dropout)
    return context.unsqueeze(0)
