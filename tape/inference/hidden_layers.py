"""The states of chosen layers of an encoder instead of its output (``tape-embed --layers``).

Layers are numbered as the hidden states of ``transformers``: 0 is the input of the first block (the embeddings), n the
output of block n, and the last one the output of the encoder, with its final layer norm. Negative numbers count from
the end, so that -1 is the last.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tape.errors import ConfigError
from tape.evaluation.evaluate import evaluation_mode
from tape.tokenizers import TAPETokenizer

LAST = (-1,)


class HiddenLayers(nn.Module):
    """Wraps an encoder to return the states of several layers, one after the other.

    Args:
        model: an encoder with ``output_hidden_states``.
        layers: numbers of the K layers.
    """

    def __init__(self, model: nn.Module, layers: tuple[int, ...]) -> None:
        super().__init__()
        self.model, self.layers = model, layers
        self.config = getattr(model, "config", None)

    def forward(self, *args: Any, **inputs: Any) -> tuple[Tensor, Tensor]:
        """(states (B, S, K * H), pooled (B, P))."""
        states, pooled, hidden, *_ = self.model(*args, **inputs)
        chosen = [(*hidden[:-1], states)[layer] for layer in self.layers]
        return torch.cat(chosen, -1), pooled


def select_layers(
    model: nn.Module, layers: tuple[int, ...] | None, tokenizer: TAPETokenizer
) -> tuple[nn.Module, tuple[int, ...]]:
    """An encoder that returns the states of the given layers.

    Args:
        model: an encoder; with ``output_hidden_states`` unless ``layers`` is :data:`LAST`.
        layers: numbers of layers; None: all.
        tokenizer: the vocabulary of the model.

    Returns:
        The encoder, and the numbers of the layers.

    Raises:
        ConfigError: there is no such layer, one is given twice, or the architecture has no states of one size.
    """
    if layers == LAST:
        return model, layers
    count = _hidden_states(model, tokenizer)
    layers = tuple(range(count)) if layers is None else layers
    wrong = next((layer for layer in layers if not -count <= layer < count), None)
    if wrong is not None:
        raise ConfigError(
            f"--layers {wrong}: the model has the layers 0 (embeddings) to {count - 1} (the last block, or -1)"
        )
    if len({layer % count for layer in layers}) < len(layers):
        raise ConfigError(f"--layers {' '.join(map(str, layers))}: a layer is given twice; there are {count}")
    return HiddenLayers(model, layers), layers


def _hidden_states(model: nn.Module, tokenizer: TAPETokenizer) -> int:
    """Number of hidden states of an encoder, found by a forward pass of one residue."""
    device = next((parameter.device for parameter in model.parameters()), None)
    with evaluation_mode(model):
        states, _, *others = model(torch.from_numpy(tokenizer.encode("A"))[None].to(device))
    hidden = others[0] if others else ()
    if not hidden or any(layer.shape != states.shape for layer in hidden):
        raise ConfigError(
            f"--layers: {type(model).__name__} has no states per layer of the size of its output; leave it out"
        )
    return len(hidden)
