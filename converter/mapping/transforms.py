"""How the tensors of one form become those of another, in both directions.

Each transform ``merge``s a source's tensors, one for each tensor-parallel rank, into a model's, and ``split``s a
model's into what each rank holds. Both also take tensors without data (on the ``meta`` device), which tells the shapes
before anything is read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from tape.errors import CheckpointError

Tensors = tuple[Tensor, ...]

_LAST_PLACES = 4  # by which replicated values may differ


@dataclass(frozen=True)
class Layout:
    """What the transforms must know of a form.

    Args:
        heads: attention heads of the whole model.
        version: Megatron's checkpoint version, for the order of the query/key/value rows.
        token_rows: for each TAPE token id, its row in the form's (merged) embedding.
        ranks: tensor-parallel ranks to split into.
        embedding_rows: rows of the form's whole embedding when splitting, padding included.
    """

    heads: int
    version: float
    token_rows: tuple[int, ...]
    ranks: int = 1
    embedding_rows: int = 0


@dataclass(frozen=True)
class Transform:
    """``merge``: ranks' tensors to model's. ``split``: the model's to the ranks'."""

    merge: Callable[[Tensors, Layout], Tensors]
    split: Callable[[Tensors, Layout], Tensors]


def merge_same(shards: Tensors, layout: Layout) -> Tensors:
    """Replicated on every rank: the ranks may differ by rounding of the last bits at most."""
    first = shards[0]
    for other in shards[1:]:
        if other.shape != first.shape or not (first.is_meta or _nearly_equal(first, other)):
            raise CheckpointError("the tensor-parallel ranks hold different values of what is one tensor")
    return (first,)


def _nearly_equal(first: Tensor, other: Tensor) -> bool:
    """Within a few units in the last place of each value. Megatron-LM's ranks compute the same update of the same
    numbers; kernels that add in no fixed order may round one of them differently."""
    limits = torch.finfo(first.dtype)
    larger = torch.maximum(first.abs(), other.abs()).clamp(min=limits.tiny)
    return bool(((other - first).abs() <= _LAST_PLACES * limits.eps * larger).all())


def split_same(tensors: Tensors, layout: Layout) -> Tensors:
    return tensors * layout.ranks


def merge_rows(shards: Tensors, layout: Layout) -> Tensors:
    """Column-parallel: output rows are spread over the ranks."""
    return (_concatenate(shards, 0),)


def split_rows(tensors: Tensors, layout: Layout) -> Tensors:
    return _shares(tensors[0], layout.ranks, 0)


def merge_columns(shards: Tensors, layout: Layout) -> Tensors:
    """Row-parallel: input columns are spread over the ranks."""
    return (_concatenate(shards, 1),)


def split_columns(tensors: Tensors, layout: Layout) -> Tensors:
    return _shares(tensors[0], layout.ranks, 1)


def merge_token_rows(shards: Tensors, layout: Layout) -> Tensors:
    """Vocabulary-parallel: rows are spread over the ranks, and picked by token name (padding rows stay behind)."""
    whole = _concatenate(shards, 0)
    if whole.shape[0] <= max(layout.token_rows):
        raise CheckpointError(f"has {whole.shape[0]} rows, too few for the vocabulary's row {max(layout.token_rows)}")
    return (whole[list(layout.token_rows)],)


def split_token_rows(tensors: Tensors, layout: Layout) -> Tensors:
    """Rows go where the form has their tokens; those of its other tokens and of the padding are zeros."""
    (tensor,) = tensors
    whole = tensor.new_zeros(layout.embedding_rows, *tensor.shape[1:])
    whole[list(layout.token_rows)] = tensor
    return _shares(whole, layout.ranks, 0)


def merge_query_key_value(shards: Tensors, layout: Layout) -> Tensors:
    """Split each rank's fused rows by the version's order, then put the ranks' heads in sequence.

    With n heads a rank of size d the rows are [3, n, d] in version 0, [n, d, 3] in 1.0 and [n, 3, d] from 2.0.
    """
    axis = _part_axis(layout)
    local_heads, remainder = divmod(layout.heads, len(shards))
    parts: list[list[Tensor]] = [[], [], []]
    for shard in shards:
        if remainder or shard.shape[0] % (3 * local_heads):
            raise CheckpointError(f"{shard.shape[0]} rows don't hold 3 x {layout.heads} heads over {len(shards)} ranks")
        size = shard.shape[0] // (3 * local_heads)
        shape = [local_heads, size]
        shape.insert(axis, 3)
        for part, tensor in zip(parts, shard.reshape(*shape, *shard.shape[1:]).unbind(axis), strict=True):
            part.append(tensor.reshape(local_heads * size, *shard.shape[1:]))
    return tuple(torch.cat(part) for part in parts)


def split_query_key_value(tensors: Tensors, layout: Layout) -> Tensors:
    """Each rank's heads, its queries, keys and values in the version's order."""
    axis, local_heads = _part_axis(layout), layout.heads // layout.ranks
    shares = [_shares(tensor, layout.ranks, 0) for tensor in tensors]
    rest = tensors[0].shape[1:]
    return tuple(
        torch.stack([part.reshape(local_heads, -1, *rest) for part in rank], dim=axis).reshape(-1, *rest)
        for rank in zip(*shares, strict=True)
    )


def _part_axis(layout: Layout) -> int:
    """Which axis of (heads, size) the three parts are put before."""
    return {0.0: 0, 1.0: 2}.get(layout.version, 1)


TRANSFORMS: dict[str, Transform] = {
    "same": Transform(merge_same, split_same),
    "rows": Transform(merge_rows, split_rows),
    "columns": Transform(merge_columns, split_columns),
    "token_rows": Transform(merge_token_rows, split_token_rows),
    "query_key_value": Transform(merge_query_key_value, split_query_key_value),
}


def _concatenate(shards: Tensors, dimension: int) -> Tensor:
    shapes = {shard.shape[:dimension] + shard.shape[dimension + 1 :] for shard in shards}
    if len(shapes) > 1 or shards[0].ndim <= dimension:
        raise CheckpointError(f"the ranks' shapes don't fit together: {[tuple(shard.shape) for shard in shards]}")
    return shards[0] if len(shards) == 1 else torch.cat(shards, dimension)


def _shares(tensor: Tensor, ranks: int, dimension: int) -> Tensors:
    if tensor.shape[dimension] % ranks:
        raise CheckpointError(f"size {tensor.shape[dimension]} can't be divided over {ranks} tensor-parallel ranks")
    return tensor.chunk(ranks, dimension)
