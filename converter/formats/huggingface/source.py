"""Reads Hugging Face directories of ``MegatronBertForMaskedLM`` and (post-layer-norm) ``BertForMaskedLM`` models."""

from __future__ import annotations

from typing import Any

import torch

from converter.formats.model_files import ModelFiles, file_hashes
from converter.mapping.rules import (
    Mapped,
    TransformSettings,
    apply_rules,
    as_single_rank,
    check_tied,
    token_rows_by_name,
)
from converter.mapping.tables import HUGGINGFACE_DROPS, HUGGINGFACE_RULES, POST_LN_DROPS, POST_LN_RULES, WORD_EMBEDDINGS
from converter.options import SourceOptions
from converter.verify.named_forward import HUGGINGFACE_NAMES, POST_LN_NAMES, ForwardSettings, NamedForward, unsharded
from converter.verify.reference_forward import ReferenceForward
from tape.configs import CONFIG_NAME
from tape.models.lazy_tensors import LazyState
from tape.models.model_directory import check_architecture

from .configuration import read_configuration
from .reference import TransformersForward, transformers_available
from .tokenizer import read_vocabulary

_DECODER, _DECODER_BIAS = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"
_BIAS = "cls.predictions.bias"


class HuggingFaceSource:
    """A Hugging Face model directory; all settings come from its own files."""

    accepts = frozenset({"vocabulary"})
    assumed: tuple[str, ...] = ()

    def __init__(self, files: ModelFiles, options: SourceOptions) -> None:
        self.path, self._files = files.path, files
        self._state = _with_tied_copies(files.state)
        self.config = read_configuration(files)
        check_architecture(files.weights, self.config, files.directory / CONFIG_NAME)
        self.kind = f"huggingface-{files.values['model_type']}"
        self._is_post = self.config.layer_norm_position == "post"
        vocabulary, self._vocabulary_from = read_vocabulary(files, options.vocabulary)
        self._rows, self._unused = token_rows_by_name(vocabulary, self.path)

    @property
    def has_head(self) -> bool:
        return _BIAS in self._state

    def map(self, with_head: bool = True) -> Mapped:
        layout = TransformSettings(self.config.num_attention_heads, 3.0, self._rows)
        shards = as_single_rank(self._state)
        rules = POST_LN_RULES if self._is_post else HUGGINGFACE_RULES
        drops = POST_LN_DROPS if self._is_post else HUGGINGFACE_DROPS
        mapped = apply_rules(rules, drops, shards, self.config.num_hidden_layers, layout, self.path)
        if not with_head:
            return mapped.without_head()
        check_tied(shards, _DECODER, WORD_EMBEDDINGS, self.path)
        check_tied(shards, _DECODER_BIAS, _BIAS, self.path)
        return mapped

    def reference_forward(self, rounded_to: torch.dtype | None) -> ReferenceForward:
        """A forward pass by transformers if it is installed, otherwise in plain torch."""
        if transformers_available():
            return TransformersForward(self._files.directory, self._state, self._rows, rounded_to)
        return self.plain_reference_forward(rounded_to)

    def plain_reference_forward(self, rounded_to: torch.dtype | None = None) -> NamedForward:
        settings = ForwardSettings.of(self.config, self._rows)
        names = POST_LN_NAMES if self._is_post else HUGGINGFACE_NAMES
        description = (
            "plain torch by transformers' names (converter.verify.named_forward); transformers isn't installed"
        )
        return NamedForward(unsharded(self._state), names, settings, description, rounded_to)

    def provenance(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "path": str(self.path),
            "dtypes": self._files.dtypes(),
            "settings_from": {"vocabulary": self._vocabulary_from},
            "files": file_hashes(self._files.files),
            "unused_tokens": list(self._unused),
        }


def _with_tied_copies(state: LazyState) -> LazyState:
    """Add the second names of tied tensors, of which files may have either."""
    has_head = _BIAS in state or _DECODER_BIAS in state
    copies = ((_DECODER, WORD_EMBEDDINGS), (_DECODER_BIAS, _BIAS), (_BIAS, _DECODER_BIAS)) if has_head else ()
    return state | {copy: state[original] for copy, original in copies if copy not in state and original in state}
