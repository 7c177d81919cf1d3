"""Reads TAPE model directories: pre-layer-norm (this project, ProteinLM) or post-layer-norm (tape-proteins 0.5)."""

from __future__ import annotations

from typing import Any

import torch

from converter.formats.model_files import ModelFiles, file_hashes
from converter.mapping.rules import Mapped, TransformSettings, apply_rules, as_single_rank, check_tied
from converter.mapping.tables import (
    DECODER,
    PROTEINLM_DROPS,
    PROTEINLM_POST_RULES,
    PROTEINLM_RULES,
    TAPE_05_RULES,
    WORD_EMBEDDINGS,
)
from converter.verify.named_forward import TAPE_05_NAMES, ForwardSettings, NamedForward, unsharded
from converter.verify.reference_forward import ModelForward, ReferenceForward
from tape.configs import CONFIG_NAME
from tape.errors import CheckpointError
from tape.io.json_files import read_json_object
from tape.models.infer_config import infer_final_layer_norm
from tape.models.lazy_tensors import LazyState
from tape.models.model_directory import PROVENANCE_NAME, check_architecture, check_vocabulary
from tape.tokenizers import TAPETokenizer

_TAIL = "bert.bert_tail_dense.weight"
_UNTRAINED = "never trained: mlm.decoder.weight differs from the word embeddings it is tied to (ProteinLM's converter)"


class TapeSource:
    """A TAPE model directory: ``config.json`` and weights with TAPE's names and vocabulary.

    Conversions by ProteinLM's converter contain a random masked-LM head (bugs 5 and 26 in docs/compatibility.md). They
    are recognized by the unused ``bert_tail_dense``, and the head is dropped.
    """

    accepts: frozenset[str] = frozenset()
    assumed: tuple[str, ...] = ()

    def __init__(self, files: ModelFiles) -> None:
        self.path = files.path
        self._files = files
        self._dropped = _untrained_head(files.state)
        self._state = {name: tensor for name, tensor in files.state.items() if name not in self._dropped}
        post = "bert.embeddings.LayerNorm.weight" in files.state
        # recognized by the names in its blocks, since our own post-layer-norm models have ProteinLM's names
        self._is_05 = post and any(name.endswith("attention.output.dense.weight") for name in files.state)
        self.kind = "tape-proteins-0.5" if self._is_05 else "tape"
        check_vocabulary(files.directory, TAPETokenizer())
        values = {**files.values, "layer_norm_position": "post" if post else "pre"}
        if "apply_final_ln" not in values:
            values["apply_final_ln"] = infer_final_layer_norm(files.state, files.directory / CONFIG_NAME)
        self.config = files.transformer_config(values)
        check_architecture(files.weights, self.config, files.directory / CONFIG_NAME)
        if self.config.vocab_size != TAPETokenizer().vocab_size:
            raise CheckpointError(
                f"{files.path}: has {self.config.vocab_size} tokens, but TAPE's vocabulary has 30: save word"
                " embeddings, decoder and bias with the rows of these tokens alone, in their order, and vocab_size 30"
            )

    @property
    def has_head(self) -> bool:
        return any(name.startswith("mlm.") for name in self._state)

    def map(self, with_head: bool = True) -> Mapped:
        config = self.config
        layout = TransformSettings(config.num_attention_heads, 3.0, tuple(range(config.vocab_size)))
        own = PROTEINLM_POST_RULES if config.layer_norm_position == "post" else PROTEINLM_RULES
        rules = TAPE_05_RULES if self._is_05 else own
        shards = as_single_rank(with_tied_decoder(self._state))
        mapped = apply_rules(rules, PROTEINLM_DROPS, shards, config.num_hidden_layers, layout, self.path)
        mapped = Mapped(mapped.state, self._dropped | mapped.dropped)
        if not with_head:
            return mapped.without_head()
        check_tied(shards, DECODER, WORD_EMBEDDINGS, self.path)
        return mapped

    def reference_forward(self, rounded_to: torch.dtype | None) -> ReferenceForward:
        state = with_tied_decoder(self._state)
        if not self._is_05:
            return ModelForward(self.config, state, rounded_to)
        settings = ForwardSettings.of(self.config, tuple(range(self.config.vocab_size)))
        description = "post-layer-norm BERT in plain torch (converter.verify.named_forward)"
        return NamedForward(unsharded(state), TAPE_05_NAMES, settings, description, rounded_to)

    def provenance(self) -> dict[str, Any]:
        record = {
            "kind": self.kind,
            "path": str(self.path),
            "dtypes": self._files.dtypes(),
            "files": file_hashes(self._files.files),
        }
        earlier = self._files.directory / PROVENANCE_NAME
        return record | ({"made_from": read_json_object(earlier)} if earlier.is_file() else {})


def _untrained_head(state: LazyState) -> dict[str, str]:
    """The parameters of an untrained masked-LM head, with the reason for dropping them."""
    if _TAIL not in state or DECODER not in state:
        return {}
    if torch.equal(state[DECODER].load(), state[WORD_EMBEDDINGS].load()):
        return {}
    return {name: _UNTRAINED for name in state if name.startswith("mlm.")}


def with_tied_decoder(state: LazyState) -> LazyState:
    """Add the tied decoder weight to a head that was saved without it."""
    if DECODER in state or "mlm.bias" not in state or WORD_EMBEDDINGS not in state:
        return state
    return state | {DECODER: state[WORD_EMBEDDINGS]}
