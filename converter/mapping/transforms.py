"""Transforms between the tensors of a checkpoint format and those of the model, in both directions.

Each transform ``merge``s the shards of the tensor-parallel ranks into the model's tensors, and ``split``s those into
shards. Both also work on the ``meta`` device, which determines the shapes before any data is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tape.errors import CheckpointError

Tensors = tuple[Tensor, ...]

# bias of rows without a token: exp(-1e4) is zero in every precision, so that they have no part in a softmax over all
# rows; fp16 represents it
PADDING_BIAS = -1e4

_LAST_PLACES = 4  # units in the last place by which replicated values may differ


@dataclass(frozen=True)
class TransformSettings:
    """Settings of the transforms.

    Args:
        heads: attention heads of the complete model.
        version: Megatron-LM's checkpoint version, which determines the order of the query/key/value rows.
        token_rows: embedding row of each TAPE token id in the format's (merged) embedding.
        ranks: tensor-parallel size to split into.
        embedding_rows: rows of the format's complete embedding when splitting, including padding.
    """

    heads: int
    version: float
    token_rows: tuple[int, ...]
    ranks: int = 1
    embedding_rows: int = 0


@dataclass(frozen=True)
class Transform:
    """``merge`` converts shards to the model's tensors, ``split`` the model's tensors to shards."""

    merge: Callable[[Tensors, TransformSettings], Tensors]
    split: Callable[[Tensors, TransformSettings], Tensors]


def merge_same(shards: Tensors, layout: TransformSettings) -> Tensors:
    """Merge a tensor that is replicated on every rank; the replicas may differ in the last bits."""
    first = shards[0]
    for other in shards[1:]:
        if other.shape != first.shape or not (first.is_meta or _nearly_equal(first, other)):
            raise CheckpointError("the tensor-parallel ranks have different values of a replicated tensor")
    return (first,)


def _nearly_equal(first: Tensor, other: Tensor) -> bool:
    """Whether values agree within a few units in the last place.

    Megatron-LM's ranks compute the same update of the same values, but kernels without a fixed order of summation may
    round differently.
    """
    limits = torch.finfo(first.dtype)
    larger = torch.maximum(first.abs(), other.abs()).clamp(min=limits.tiny)
    return bool(((other - first).abs() <= _LAST_PLACES * limits.eps * larger).all())


def split_same(tensors: Tensors, layout: TransformSettings) -> Tensors:
    return tensors * layout.ranks


def merge_rows(shards: Tensors, layout: TransformSettings) -> Tensors:
    """Merge a column-parallel tensor: output features are sharded over the ranks."""
    return (_concatenate(shards, 0),)


def split_rows(tensors: Tensors, layout: TransformSettings) -> Tensors:
    return _shares(tensors[0], layout.ranks, 0)


def merge_columns(shards: Tensors, layout: TransformSettings) -> Tensors:
    """Merge a row-parallel tensor: input features are sharded over the ranks."""
    return (_concatenate(shards, 1),)


def split_columns(tensors: Tensors, layout: TransformSettings) -> Tensors:
    return _shares(tensors[0], layout.ranks, 1)


def merge_token_rows(shards: Tensors, layout: TransformSettings) -> Tensors:
    """Merge a vocabulary-parallel tensor and select its rows by token; padding rows are dropped."""
    merged = _concatenate(shards, 0)
    if merged.shape[0] <= max(layout.token_rows):
        raise CheckpointError(f"has {merged.shape[0]} rows, too few for the vocabulary's row {max(layout.token_rows)}")
    return (merged[list(layout.token_rows)],)


def split_token_rows(tensors: Tensors, layout: TransformSettings) -> Tensors:
    """Place the rows by token; rows of the format's other tokens and padding rows are zeros."""
    return _place_rows(tensors[0], 0.0, layout)


def split_token_biases(tensors: Tensors, layout: TransformSettings) -> Tensors:
    """Place the biases of the LM head by token; the format's other tokens and padding get :data:`PADDING_BIAS`.

    Megatron-LM's cross entropy is over all rows of the embedding, so that zeros there would give them probability.
    """
    return _place_rows(tensors[0], PADDING_BIAS, layout)


def _place_rows(tensor: Tensor, fill: float, layout: TransformSettings) -> Tensors:
    merged = tensor.new_full((layout.embedding_rows, *tensor.shape[1:]), fill)
    merged[list(layout.token_rows)] = tensor
    return _shares(merged, layout.ranks, 0)


def merge_query_key_value(shards: Tensors, layout: TransformSettings) -> Tensors:
    """Split each rank's fused rows according to the checkpoint version, then concatenate the heads of the ranks.

    For n heads per rank of size d, the rows are ordered [3, n, d] in version 0, [n, d, 3] in 1.0 and [n, 3, d] from
    2.0.
    """
    axis = _part_axis(layout)
    local_heads, remainder = divmod(layout.heads, len(shards))
    parts: list[list[Tensor]] = [[], [], []]
    for shard in shards:
        if remainder or shard.shape[0] % (3 * local_heads):
            raise CheckpointError(
                f"{shard.shape[0]} rows can't contain 3 x {layout.heads} heads over {len(shards)} ranks"
            )
        size = shard.shape[0] // (3 * local_heads)
        shape = [local_heads, size]
        shape.insert(axis, 3)
        for part, tensor in zip(parts, shard.reshape(*shape, *shard.shape[1:]).unbind(axis), strict=True):
            part.append(tensor.reshape(local_heads * size, *shard.shape[1:]))
    return tuple(torch.cat(part) for part in parts)


def split_query_key_value(tensors: Tensors, layout: TransformSettings) -> Tensors:
    """Fuse each rank's queries, keys and values in the order of the checkpoint version."""
    axis, local_heads = _part_axis(layout), layout.heads // layout.ranks
    shares = [_shares(tensor, layout.ranks, 0) for tensor in tensors]
    rest = tensors[0].shape[1:]
    return tuple(
        torch.stack([part.reshape(local_heads, -1, *rest) for part in rank], dim=axis).reshape(-1, *rest)
        for rank in zip(*shares, strict=True)
    )


def _part_axis(layout: TransformSettings) -> int:
    """Position in (heads, size) of the axis that distinguishes query, key and value."""
    return {0.0: 0, 1.0: 2}.get(layout.version, 1)


TRANSFORMS: dict[str, Transform] = {
    "same": Transform(merge_same, split_same),
    "rows": Transform(merge_rows, split_rows),
    "columns": Transform(merge_columns, split_columns),
    "token_rows": Transform(merge_token_rows, split_token_rows),
    "token_biases": Transform(merge_token_rows, split_token_biases),
    "query_key_value": Transform(merge_query_key_value, split_query_key_value),
}


def _concatenate(shards: Tensors, dimension: int) -> Tensor:
    shapes = {shard.shape[:dimension] + shard.shape[dimension + 1 :] for shard in shards}
    if len(shapes) > 1 or shards[0].ndim <= dimension:
        raise CheckpointError(f"the shapes of the ranks don't match: {[tuple(shard.shape) for shard in shards]}")
    return shards[0] if len(shards) == 1 else torch.cat(shards, dimension)


def _shares(tensor: Tensor, ranks: int, dimension: int) -> Tensors:
    if tensor.shape[dimension] % ranks:
        raise CheckpointError(f"size {tensor.shape[dimension]} can't be divided by {ranks} tensor-parallel ranks")
    return tensor.chunk(ranks, dimension)
