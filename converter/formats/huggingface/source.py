"""Reads Hugging Face directories of ``MegatronBertForMaskedLM`` and (post-layer-norm) ``BertForMaskedLM`` models."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from converter.formats.model_files import ModelFiles, file_hashes
from converter.formats.tape.source import read_config
from converter.mapping.rules import (
    Mapped,
    TransformSettings,
    apply_rules,
    as_single_rank,
    check_tied,
    token_rows_by_name,
)
from converter.mapping.tables import HUGGINGFACE_DROPS, HUGGINGFACE_RULES, POST_LN_DROPS, POST_LN_RULES, WORD_EMBEDDINGS
from converter.options import SourceOptions, reject_options
from converter.verify.named_forward import HUGGINGFACE_NAMES, POST_LN_NAMES, ForwardSettings, NamedForward, unsharded
from converter.verify.reference_forward import ReferenceForward
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError
from tape.io.json_files import read_json_object
from tape.io.vocabulary_files import read_vocabulary_file
from tape.models.lazy_tensors import LazyState
from tape.tokenizers import TAPETokenizer

from .reference import TransformersForward, transformers_available

PRE_LN_TYPE, POST_LN_TYPE = "megatron-bert", "bert"
TAPE_SETTINGS = "tape_config"  # our key for settings that transformers' configuration lacks

# transformers' names of activations, some of which denote the same function
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "swish",
    "swish": "swish",
}
_DECODER, _DECODER_BIAS = "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"
_BIAS = "cls.predictions.bias"


def is_huggingface(values: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is transformers'; TAPE's has no ``model_type``."""
    return "model_type" in values


class HuggingFaceSource:
    """A Hugging Face model directory; all settings come from its own files."""

    def __init__(self, files: ModelFiles, options: SourceOptions) -> None:
        reject_options(options, files.path, "states its own settings", frozenset({"vocabulary"}))
        kind = files.values["model_type"]
        if kind not in (PRE_LN_TYPE, POST_LN_TYPE):
            raise CheckpointError(
                f"{files.path}: has model_type {kind!r}; supported are {PRE_LN_TYPE} and {POST_LN_TYPE}"
            )
        self.path, self._files = files.path, files
        self._is_post = kind == POST_LN_TYPE
        self.kind = f"huggingface-{kind}"
        self._vocabulary, self._vocabulary_from = _vocabulary(files, options)
        self._rows, self._unused = token_rows_by_name(self._vocabulary)
        self.config = self._read_config()
        self._state = _with_tied_copies(files.state)

    def _read_config(self) -> ProteinBertConfig:
        values = self._files.values
        for name, expected in (("position_embedding_type", "absolute"), ("is_decoder", False)):
            if values.get(name, expected) != expected:
                raise CheckpointError(f"{self.path}: {name} is {values[name]!r}, which TAPE's model does not support")
        activation = values.get("hidden_act", "gelu")
        if activation not in ACTIVATIONS:
            raise CheckpointError(f"{self.path}: hidden_act {activation!r} is not one of {', '.join(ACTIVATIONS)}")
        names = vars(ProteinBertConfig())
        kept = values.get(TAPE_SETTINGS)
        settings = {name: value for name, value in kept.items() if name in names} if isinstance(kept, dict) else {}
        settings |= {name: value for name, value in values.items() if name in names}
        settings |= {"hidden_act": ACTIVATIONS[activation], "mlm_hidden_act": None, "apply_final_ln": True}
        settings["layer_norm_position"] = "post" if self._is_post else "pre"
        config = read_config({**_TRANSFORMERS_DEFAULTS, **settings}, self._files)
        return ProteinBertConfig.from_dict({**config.to_dict(), "vocab_size": len(self._rows)})

    @property
    def has_head(self) -> bool:
        return _BIAS in self._state

    def map(self) -> Mapped:
        layout = TransformSettings(self.config.num_attention_heads, 3.0, self._rows)
        shards = as_single_rank(self._state)
        check_tied(shards, _DECODER, WORD_EMBEDDINGS)
        check_tied(shards, _DECODER_BIAS, _BIAS)
        rules = POST_LN_RULES if self._is_post else HUGGINGFACE_RULES
        drops = POST_LN_DROPS if self._is_post else HUGGINGFACE_DROPS
        return apply_rules(rules, drops, shards, self.config.num_hidden_layers, layout)

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


# transformers' defaults of settings that a config.json may omit
_TRANSFORMERS_DEFAULTS = {"type_vocab_size": 2, "layer_norm_eps": 1e-12, "max_position_embeddings": 512}


def _with_tied_copies(state: LazyState) -> LazyState:
    """Add the second names of tied tensors, which transformers may omit."""
    copies = ((_DECODER, WORD_EMBEDDINGS), (_DECODER_BIAS, _BIAS)) if _BIAS in state else ()
    return state | {copy: state[original] for copy, original in copies if copy not in state and original in state}


def _vocabulary(files: ModelFiles, options: SourceOptions) -> tuple[tuple[str, ...], str]:
    """Tokens by embedding row, and the file that states them.

    Raises:
        CheckpointError: if no file does.
    """
    if options.vocabulary:
        return options.vocabulary, "option"
    folder = files.directory
    if (folder / "tokenizer.json").is_file():
        return _tokenizer_tokens(read_json_object(folder / "tokenizer.json"), folder), "tokenizer.json"
    if (folder / "vocab.txt").is_file():
        return read_vocabulary_file(folder / "vocab.txt").tokens, "vocab.txt"
    tokenizer = TAPETokenizer()
    if files.values.get("vocab_size") == tokenizer.vocab_size:
        return tuple(tokenizer.tokens), "TAPE's order (usual with 30 tokens)"
    raise CheckpointError(f"{folder}: contains neither tokenizer.json nor vocab.txt: give --vocab-file")


def _tokenizer_tokens(values: Mapping[str, Any], folder: Path) -> tuple[str, ...]:
    try:
        ids = {str(token): int(number) for token, number in values["model"]["vocab"].items()}
        ids |= {str(entry["content"]): int(entry["id"]) for entry in values.get("added_tokens", [])}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(
            f"{folder / 'tokenizer.json'}: contains no list of tokens with ids ({error!r})"
        ) from error
    by_id = {number: token for token, number in ids.items()}
    return tuple(by_id.get(number, "") for number in range(max(by_id, default=-1) + 1))
