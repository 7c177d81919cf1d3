"""Writes Megatron-LM's checkpoints, version 3.0, at any tensor- and pipeline-parallel size.

The directory is a ``release``: weights without optimizer state, random state or iteration, from which Megatron-LM
starts a finetuning. The files of the ranks are written one at a time.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from converter.mapping.rules import Mapped, Shards, invert_rules, token_rows_by_name
from converter.mapping.tables import (
    MEGATRON_HEAD_WORDS,
    MEGATRON_RULES,
    MEGATRON_VOCABULARY,
    MEGATRON_WORDS,
    TOKEN_TYPES,
)
from converter.mapping.transforms import TransformSettings
from tape.configs import ProteinBertConfig
from tape.errors import ConfigError
from tape.io.writing import atomic_write, write_text
from tape.models.lazy_tensors import LazyState, LazyTensor, stored_bytes

from .key_names import core_name, extra_state_of
from .layout import RANK_FILE_NAME, RELEASE, TRACKER_NAME

VERSION = 3.0
_ROWS_MULTIPLE = 128
_LAYER = re.compile(r"\.layers\.(\d+)\.")
# options with which Megatron-LM's pretrain_bert.py builds Megatron Core's model with its local layers
_CORE_ARGUMENTS: dict[str, object] = {
    "use_mcore_models": True,
    "transformer_impl": "local",
    "spec": ["local"],
    "ckpt_format": "torch",
    "bert_binary_head": False,
    "normalization": "LayerNorm",
    "position_embedding_type": "learned_absolute",
    "untie_embeddings_and_output_weights": False,
}
_FLAT = ("language_model.transformer.", "lm_head.")  # below these names, keys stay dotted in a flat dictionary


@dataclass(frozen=True)
class MegatronTarget:
    """A Megatron-LM checkpoint of a classic model, or of Megatron Core's ``BertModel`` with its local layers.

    Args:
        core: whether to write Megatron Core's form.
        tensor: tensor-parallel size.
        pipeline: pipeline-parallel size.
        file: name of a single-file checkpoint; None writes a directory.
    """

    tensor: int = 1
    pipeline: int = 1
    file: str | None = None
    core: bool = False

    @property
    def _option(self) -> str:
        return "--to megatron-core" if self.core else "--to megatron"

    def check(self, config: ProteinBertConfig, has_head: bool) -> None:
        """Make sure that Megatron-LM can represent the model at these parallel sizes.

        Raises:
            ConfigError: if it cannot; the message gives the reason.
        """
        if config.layer_norm_position == "post":
            raise ConfigError(
                f"{self._option}: this model is post-layer-norm, as in tape-proteins 0.5, but Megatron-LM is"
                " pre-layer-norm; use --to tape or --to huggingface"
            )
        if config.pruned_heads:
            raise ConfigError(
                f"{self._option}: Megatron-LM does not support pruned heads, which this model has; use --to tape"
            )
        if not config.apply_final_ln:
            raise ConfigError(
                f"{self._option}: Megatron-LM always applies the final layer norm, which this model does not"
            )
        if _gelu_arguments(config, self.core) is None:
            head = config.mlm_hidden_act or config.hidden_act
            raise ConfigError(
                f"{self._option}: Megatron-LM can't combine {config.hidden_act} blocks with a {head} LM head"
            )
        if self.file is not None and self.tensor * self.pipeline > 1:
            raise ConfigError(f"-out {self.file}: a single file contains one rank; give a directory for several")
        self._check_divisible(config)

    def _check_divisible(self, config: ProteinBertConfig) -> None:
        for size, names, option in (
            (self.tensor, ("num_attention_heads", "intermediate_size"), "--tensor-model-parallel-size"),
            (self.pipeline, ("num_hidden_layers",), "--pipeline-model-parallel-size"),
        ):
            if size < 1:
                raise ConfigError(f"{option} {size}: must be at least 1")
            for name in names:
                if getattr(config, name) % size:
                    raise ConfigError(f"{option} {size} does not divide {name} {getattr(config, name)}")

    def write(self, folder: Path, state: LazyState, config: ProteinBertConfig, source: Mapping[str, Any]) -> None:
        """Write the files of all ranks, and the tracker file last."""
        (dtype,) = {tensor.dtype for tensor in state.values()}
        types = state[TOKEN_TYPES]
        if types.shape[0] == 1 and not bool(types.load().any()):
            # zeros stand for pretraining without token types, for which Megatron-LM has no table
            state = {name: tensor for name, tensor in state.items() if name != TOKEN_TYPES}
        shards = self._shards(state, config)
        arguments = self._arguments(config, dtype, 0 if TOKEN_TYPES not in state else types.shape[0])
        for stage in range(self.pipeline):
            for rank in range(self.tensor):
                content = {
                    "args": arguments,
                    "checkpoint_version": VERSION,
                    "iteration": source.get("iteration") or 0,
                    "model": self._model(shards, config, stage, rank),
                }
                with atomic_write(self._path(folder, stage, rank), needed=stored_bytes(content)) as stream:
                    torch.save(content, stream)
                del content
        if self.file is None:
            write_text(folder / TRACKER_NAME, RELEASE)

    def _shards(self, state: LazyState, config: ProteinBertConfig) -> dict[str, Shards]:
        rows, _ = token_rows_by_name(MEGATRON_VOCABULARY, Path("iupac_vocab.txt"))
        padded = _ROWS_MULTIPLE * self.tensor
        layout = TransformSettings(config.num_attention_heads, VERSION, rows, ranks=self.tensor, embedding_rows=padded)
        return invert_rules(MEGATRON_RULES, state, config.num_hidden_layers, layout)

    def _path(self, folder: Path, stage: int, rank: int) -> Path:
        if self.file is not None:
            return folder / self.file
        name = f"mp_rank_{rank:02d}" + (f"_{stage:03d}" if self.pipeline > 1 else "")
        return folder / RELEASE / name / RANK_FILE_NAME

    def _model(self, shards: Mapping[str, Shards], config: ProteinBertConfig, stage: int, rank: int) -> dict[str, Any]:
        """The ``model`` entry of a rank's file: flat for Megatron Core, else nested above transformer and LM head."""
        per_stage = config.num_hidden_layers // self.pipeline
        model: dict[str, Any] = {}
        for key in sorted(shards, key=_module_order):
            tensors = shards[key]
            if self._stage_of(key, per_stage) == stage:
                local = _LAYER.sub(lambda match: f".layers.{int(match[1]) - stage * per_stage}.", key)
                self._insert(model, local, _own(tensors[rank].load()))
        if self.pipeline > 1 and stage == self.pipeline - 1:
            self._insert(model, MEGATRON_HEAD_WORDS, _own(shards[MEGATRON_WORDS][rank].load()))
        return model

    def _insert(self, model: dict[str, Any], key: str, tensor: Tensor) -> None:
        if not self.core:
            _insert_nested(model, key, tensor)
            return
        name = core_name(key)
        model[name] = tensor
        extra_state = extra_state_of(name)
        if extra_state is not None:
            model[extra_state] = None

    def _stage_of(self, key: str, per_stage: int) -> int:
        if key.startswith("language_model.embedding."):
            return 0
        match = _LAYER.search(key)
        return int(match[1]) // per_stage if match else self.pipeline - 1

    def _arguments(self, config: ProteinBertConfig, dtype: torch.dtype, token_types: int) -> argparse.Namespace:
        """The arguments that Megatron-LM checks when loading, and those that determine the forward pass."""
        return argparse.Namespace(
            num_layers=config.num_hidden_layers,
            hidden_size=config.hidden_size,
            ffn_hidden_size=config.intermediate_size,
            num_attention_heads=config.num_attention_heads,
            kv_channels=config.hidden_size // config.num_attention_heads,
            max_position_embeddings=config.max_position_embeddings,
            seq_length=config.max_position_embeddings,
            layernorm_epsilon=config.layer_norm_eps,
            hidden_dropout=config.hidden_dropout_prob,
            attention_dropout=config.attention_probs_dropout_prob,
            init_method_std=config.initializer_range,
            **(_gelu_arguments(config, self.core) or {}),
            **(_CORE_ARGUMENTS | {"norm_epsilon": config.layer_norm_eps} if self.core else {}),
            onnx_safe=None,
            apply_residual_connection_post_layernorm=False,
            num_tokentypes=token_types,
            padded_vocab_size=_ROWS_MULTIPLE * self.tensor,
            make_vocab_size_divisible_by=_ROWS_MULTIPLE,
            tokenizer_type="BertWordPieceCase",
            tensor_model_parallel_size=self.tensor,
            pipeline_model_parallel_size=self.pipeline,
            params_dtype=dtype,
            fp16=dtype == torch.float16,
            bf16=dtype == torch.bfloat16,
            consumed_train_samples=0,
            consumed_valid_samples=0,
        )


def with_two_token_types(mapped: Mapped) -> Mapped:
    """The model with a second token type, a copy of the first, if it has one that is not zero.

    Megatron Core's ``BertModel`` is used with no or two token types. All token types of proteins are 0, so that the
    function is the same; what a later training writes into the second row has no effect on them.
    """
    types = mapped.state[TOKEN_TYPES]
    if types.shape[0] != 1 or not bool(types.load().any()):  # a row of zeros is left out
        return mapped
    two = LazyTensor((2, *types.shape[1:]), types.dtype, lambda: types.load().repeat(2, 1))
    reason = "row 1 is a copy of row 0: Megatron Core's BertModel has no or two token types, and those here are all 0"
    return Mapped({**mapped.state, TOKEN_TYPES: two}, mapped.dropped, {**mapped.filled, TOKEN_TYPES: reason})


def _module_order(key: str) -> tuple[int, int]:
    """Sorts keys as those of a model's state dict: embeddings, the layers one after the other, the rest.

    The order within a layer is that of the rules. Programs rely on it: transformers' conversion of Megatron-LM's BERT
    expects the bias of a layer's queries, keys and values right after their weight.
    """
    layer = _LAYER.search(key)
    if layer is not None:
        return 1, int(layer[1])
    return (0, 0) if key.startswith("language_model.embedding.") else (2, 0)


def _gelu_arguments(config: ProteinBertConfig, core: bool) -> dict[str, bool] | None:
    """Megatron-LM's flags for the activations of blocks and LM head; None if it can't combine them."""
    pair = (config.hidden_act, config.mlm_hidden_act or config.hidden_act)
    known = {("gelu", "gelu"): (False, False), ("gelu_tanh", "gelu"): (True, False), ("gelu_tanh",) * 2: (False, True)}
    if pair not in known or (core and known[pair][1]):
        return None
    return dict(zip(("bias_gelu_fusion", "openai_gelu"), known[pair], strict=True))


def _insert_nested(model: dict[str, Any], key: str, tensor: Tensor) -> None:
    flat = next((prefix for prefix in _FLAT if key.startswith(prefix)), None)
    last = key.removeprefix(flat) if flat else key.rpartition(".")[2]
    for name in key.removesuffix(last).rstrip(".").split("."):
        model = model.setdefault(name, {})
    model[last] = tensor


def _own(tensor: Tensor) -> Tensor:
    """A tensor with its own storage; torch.save would otherwise write the storage of which it is a view."""
    return (
        tensor.contiguous()
        if tensor.untyped_storage().nbytes() == tensor.nbytes
        else tensor.clone(memory_format=torch.contiguous_format)
    )
