"""Changing the number of tokens of a model (``resize_token_embeddings`` of tape-proteins and transformers)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tape.errors import ConfigError

from .heads import MLMHead


def resize_token_embeddings(model: nn.Module, count: int, initialize: Callable[[nn.Module], None]) -> nn.Embedding:
    """Keep the first ``count`` token embeddings, or append new ones, in place.

    The rows of a masked-language-model head change with them. The caller ties shared matrices again.

    Args:
        model: an encoder or task model with an embedding ``word_embeddings`` or ``embed_matrix``.
        count: the new number of tokens.
        initialize: gives a module random initial values.

    Returns:
        The new embedding.

    Raises:
        ConfigError: ``count`` is not positive, or the model has no such embedding.
    """
    if count < 1:
        raise ConfigError(f"a model needs at least one token, not {count}")
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in ("word_embeddings", "embed_matrix") and isinstance(module, nn.Embedding):
            embedding = _resized_embedding(module, count, initialize)
            model.get_submodule(name.rpartition(".")[0]).register_module(name.rpartition(".")[2], embedding)
            for head in model.modules():
                if isinstance(head, MLMHead):
                    _resize_head(head, count, initialize)
            return embedding
    raise ConfigError(f"{type(model).__name__} has no token embeddings to resize")


def _resized_embedding(old: nn.Embedding, count: int, initialize: Callable[[nn.Module], None]) -> nn.Embedding:
    new = nn.Embedding(count, old.embedding_dim, device=old.weight.device, dtype=old.weight.dtype)
    initialize(new)
    _copy_rows(old.weight, new.weight)
    return new


def _resize_head(head: MLMHead, count: int, initialize: Callable[[nn.Module], None]) -> None:
    old, old_bias = head.decoder, head.bias
    like: dict[str, Any] = {"device": old.weight.device, "dtype": old.weight.dtype}
    head.decoder = nn.Linear(old.in_features, count, bias=False, **like)
    initialize(head.decoder)
    _copy_rows(old.weight, head.decoder.weight)
    head.bias = nn.Parameter(torch.zeros(count, **like))
    _copy_rows(old_bias, head.bias)
    head.vocab_size = count


@torch.no_grad()
def _copy_rows(old: Tensor, new: Tensor) -> None:
    shared = min(len(old), len(new))
    new[:shared] = old[:shared]
