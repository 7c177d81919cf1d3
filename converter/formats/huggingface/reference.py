"""The reference forward pass of a Hugging Face directory, computed by the ``transformers`` library if installed."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from converter.verify.reference_forward import (
    FINAL,
    LOGITS,
    LOSS,
    POOLED,
    ActivationRecorder,
    cross_entropy,
    cut_padding,
    layer_activations,
    pad_batch,
    stream_weights,
)
from tape.configs import CONFIG_NAME
from tape.errors import CheckpointError, quoted
from tape.models.lazy_tensors import LazyTensor
from tape.tokenizers import TAPETokenizer


def transformers_available() -> bool:
    return importlib.util.find_spec("transformers") is not None


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress transformers' warnings about its own classes."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(before)


class TransformersForward:
    """``AutoModelForMaskedLM`` with a directory's ``config.json``, on padded batches, one block at a time.

    Args:
        directory: contains ``config.json``.
        weights: tensors by transformers' names; head and pooler are optional.
        token_rows: embedding row of each TAPE token.
        rounded_to: data type to which weights are rounded before use; None uses them unchanged.
    """

    def __init__(
        self,
        directory: Path,
        weights: Mapping[str, LazyTensor],
        token_rows: Sequence[int],
        rounded_to: torch.dtype | None = None,
    ) -> None:
        import transformers

        self._rows = torch.tensor(list(token_rows))
        self._recorder = ActivationRecorder()
        self._pools = "bert.pooler.dense.weight" in weights
        self._has_head = "cls.predictions.bias" in weights
        eager = {"attn_implementation": "eager"}
        try:
            with _quiet(), torch.device("meta"):
                config = transformers.AutoConfig.from_pretrained(str(directory))
                with_head = transformers.AutoModelForMaskedLM.from_config(config, **eager)
                bert = transformers.AutoModel.from_config(config, **eager, add_pooling_layer=self._pools)
        except Exception as error:  # what transformers raises for invalid values has no common base class
            raise CheckpointError(
                f"{directory / CONFIG_NAME}: transformers can't build a model from it ({quoted(error)})"
            ) from error
        self._bert, self._head = bert.eval().double(), with_head.cls.eval().double()
        self.description = f"transformers {transformers.__version__} {type(with_head).__name__}"
        self._stream(weights, rounded_to)

    def _stream(self, weights: Mapping[str, LazyTensor], rounded_to: torch.dtype | None) -> None:
        units: dict[str, nn.Module] = {"bert.embeddings.": self._bert.embeddings}
        for number, layer in enumerate(self._bert.encoder.layer):
            units[f"bert.encoder.layer.{number}."] = layer
            keys, state = layer_activations(number)
            self._recorder.watch(layer.attention.self.key, keys)
            self._recorder.watch(layer, state)
        if hasattr(self._bert.encoder, "ln"):
            units["bert.encoder.ln."] = self._bert.encoder.ln
        if self._pools:
            units["bert.pooler."] = self._bert.pooler
        if self._has_head:
            units["cls."] = self._head
        for prefix, unit in units.items():
            stream_weights(unit, prefix, weights, rounded_to)

    @torch.no_grad()
    def states(self, proteins: Sequence[str]) -> list[dict[str, Tensor]]:
        ids = [self._ids(protein) for protein in proteins]
        batch, mask = pad_batch(ids)
        self._recorder.stages = {}
        # passed explicitly, because the model's own buffers of them are on the meta device
        output: Any = self._bert(batch, mask, **self._places(batch))
        hidden = output[0]
        stages = self._recorder.stages | {FINAL: hidden}
        if self._has_head:
            scores = self._head(hidden)
            stages[LOGITS] = scores[..., self._rows]
            stages[LOSS] = cross_entropy(scores, batch)
        found = cut_padding(stages, ids)
        if self._pools:
            for row, states in enumerate(found):
                states[POOLED] = output[1][row : row + 1]
        return found

    @torch.no_grad()
    def embeddings(self, protein: str) -> Tensor:
        ids = self._ids(protein)[None]
        embedded: Tensor = self._bert.embeddings(ids, **self._places(ids))
        return embedded[0]

    @staticmethod
    def _places(batch: Tensor) -> dict[str, Tensor]:
        positions = torch.arange(batch.shape[1])[None]
        return {"position_ids": positions, "token_type_ids": torch.zeros_like(batch)}

    def _ids(self, protein: str) -> Tensor:
        return self._rows[torch.from_numpy(TAPETokenizer().encode(protein))]
