"""TAPE model directories as sources: ours and ProteinLM's (pre-layer-norm), and tape-proteins 0.5 (post-layer-norm)."""

from __future__ import annotations

from typing import Any

import torch

from converter.formats.model_files import ModelFiles, file_hashes
from converter.formats.tensor_files import LazyState
from converter.mapping.rules import Layout, Mapped, apply_rules, check_tied, single
from converter.mapping.tables import (
    DECODER,
    PROTEINLM_DROPS,
    PROTEINLM_POST_RULES,
    PROTEINLM_RULES,
    TAPE_05_RULES,
    WORD_EMBEDDINGS,
)
from converter.options import SourceOptions, refuse_options
from converter.verify.named_forward import TAPE_05_NAMES, Mathematics, NamedForward, whole
from converter.verify.reference_forward import ModelForward, ReferenceForward
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError, ProteinLMError
from tape.io.json_files import read_json_object
from tape.models.model_directory import PROVENANCE_NAME, check_vocabulary
from tape.tokenizers import TAPETokenizer

_TAIL = "bert.bert_tail_dense.weight"
_STALE = "never trained: mlm.decoder.weight isn't the word embeddings, to which it is tied (the original's converter)"


class TapeSource:
    """``config.json`` and weights under TAPE's names; the vocabulary is TAPE's own.

    ProteinLM's own conversions hold a masked-language-model head that is random (defects 5 and 26): they are known by
    the unused ``bert_tail_dense``, and such a head stays behind.
    """

    def __init__(self, files: ModelFiles, options: SourceOptions) -> None:
        refuse_options(options, files.path, "states its own settings")
        self.path = files.path
        self._files = files
        post = "bert.embeddings.LayerNorm.weight" in files.state
        # By the names of its blocks: our own post arrangement calls them as the other one does.
        self._is_05 = post and any(name.endswith("attention.output.dense.weight") for name in files.state)
        self.kind = "tape-proteins-0.5" if self._is_05 else "tape"
        check_vocabulary(files.directory, TAPETokenizer())
        self.config = read_config({**files.values, "layer_norm_position": "post" if post else "pre"}, files)
        if self.config.vocab_size != TAPETokenizer().vocab_size:
            raise CheckpointError(f"{files.path}: has {self.config.vocab_size} tokens, TAPE's vocabulary has 30")
        self._dropped = self._stale_head()
        self._state = {name: tensor for name, tensor in files.state.items() if name not in self._dropped}

    def _stale_head(self) -> dict[str, str]:
        state = self._files.state
        if _TAIL not in state or DECODER not in state:
            return {}
        if torch.equal(state[DECODER].load(), state[WORD_EMBEDDINGS].load()):
            return {}
        return {name: _STALE for name in state if name.startswith("mlm.")}

    @property
    def has_head(self) -> bool:
        return any(name.startswith("mlm.") for name in self._state)

    def map(self) -> Mapped:
        config = self.config
        layout = Layout(config.num_attention_heads, 3.0, tuple(range(config.vocab_size)))
        own = PROTEINLM_POST_RULES if config.layer_norm_position == "post" else PROTEINLM_RULES
        rules = TAPE_05_RULES if self._is_05 else own
        shards = single(with_tied_decoder(self._state))
        check_tied(shards, DECODER, WORD_EMBEDDINGS)
        mapped = apply_rules(rules, PROTEINLM_DROPS, shards, config.num_hidden_layers, layout)
        return Mapped(mapped.state, self._dropped | mapped.dropped)

    def evaluator(self, rounded_to: torch.dtype | None) -> ReferenceForward:
        state = with_tied_decoder(self._state)
        if not self._is_05:
            return ModelForward(self.config, state, rounded_to)
        mathematics = Mathematics.of(self.config, tuple(range(self.config.vocab_size)))
        description = "post-layer-norm BERT in plain torch (converter.verify.named_forward)"
        return NamedForward(whole(state), TAPE_05_NAMES, mathematics, description, rounded_to)

    def provenance(self) -> dict[str, Any]:
        record = {
            "kind": self.kind,
            "path": str(self.path),
            "dtypes": self._files.dtypes(),
            "files": file_hashes(self._files.files),
        }
        earlier = self._files.directory / PROVENANCE_NAME
        return record | ({"made_from": read_json_object(earlier)} if earlier.is_file() else {})


def with_tied_decoder(state: LazyState) -> LazyState:
    """A head without its own copy of the decoder has the word embeddings for one."""
    if DECODER in state or "mlm.bias" not in state or WORD_EMBEDDINGS not in state:
        return state
    return state | {DECODER: state[WORD_EMBEDDINGS]}


def read_config(values: dict[str, Any], files: ModelFiles) -> ProteinBertConfig:
    """Configuration of a transformer.

    Raises:
        CheckpointError: values that can't make one; names the file.
    """
    for name in ("hidden_size", "num_hidden_layers", "num_attention_heads", "vocab_size"):
        if name not in values:
            raise CheckpointError(f"{files.directory / 'config.json'}: states no {name}; not a transformer's")
    try:
        return ProteinBertConfig.from_dict(dict(values))
    except (ProteinLMError, TypeError) as error:
        raise ConfigError(f"{files.directory / 'config.json'}: {error}") from error
