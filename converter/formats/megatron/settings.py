"""Settings of a Megatron-LM checkpoint, from its tensors, the saved arguments and the options."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from converter.mapping.tables import MEGATRON_POSITIONS, MEGATRON_TYPES, MEGATRON_VOCABULARY, MEGATRON_WORDS
from converter.options import SourceOptions
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError, quoted

from .arguments import check_arguments
from .key_names import Form
from .layout import MegatronCheckpoint

_ROWS_MULTIPLE = 128  # default of --make-vocab-size-divisible-by
_VERSIONS = (0.0, 1.0, 2.0, 3.0)
_USUAL, _USUAL_VOCABULARY = "usual value", "Megatron's iupac_vocab.txt (usual)"
_NO_VERSION = "none stated, which means 0"
# settings by their names in Megatron-LM -> in the configuration
_CONFIGURED = {
    "gelu": "hidden_act",
    "layernorm_epsilon": "layer_norm_eps",
    "norm_epsilon": "layer_norm_eps",
    "hidden_dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "init_method_std": "initializer_range",
}
_VOCABULARY_FILES = ("", "iupac_vocab.txt", "megatron_iupac_vocab.txt")  # of ProteinLM, here, or not stated


@dataclass(frozen=True)
class MegatronSettings:
    """The settings of a checkpoint.

    Args:
        config: the model's configuration.
        version: checkpoint version, which determines the order of the query/key/value rows.
        vocabulary: tokens by embedding row.
        origin: origin of each setting.
        assumed_neutral: arguments that change the model in general, but were declared not to by the user.
    """

    config: ProteinBertConfig
    version: float
    vocabulary: tuple[str, ...]
    origin: dict[str, str] = field(default_factory=dict)
    assumed_neutral: dict[str, Any] = field(default_factory=dict)

    def assumptions(self, arguments: Mapping[str, Any]) -> tuple[str, ...]:
        """The settings that are as usual because the checkpoint does not state them, as clauses for the user.

        Args:
            arguments: the checkpoint's arguments, which name the vocabulary file, but not its tokens.
        """
        usual = [
            f"{name} {getattr(self.config, name)}"
            for setting, name in _CONFIGURED.items()
            if self.origin.get(setting) == _USUAL
        ]
        if self.origin["checkpoint_version"] == _NO_VERSION:
            usual.append("checkpoint_version 0")
        if self.origin["vocabulary"] == _USUAL_VOCABULARY:
            file = str(arguments.get("vocab_file") or "").replace("\\", "/").rpartition("/")[2]
            other = "" if file in _VOCABULARY_FILES else f", although its run had the vocabulary file {file[:60]}"
            usual.append(f"the {len(self.vocabulary)} tokens of ProteinLM's {_VOCABULARY_FILES[1]}{other}")
        return tuple(usual)


def resolve_settings(checkpoint: MegatronCheckpoint, options: SourceOptions) -> MegatronSettings:
    """Determine all settings.

    Raises:
        CheckpointError: if tensors and arguments contradict each other, or TAPE's model does not support a setting.
        ConfigError: if an option contradicts the checkpoint, or one is missing.
    """
    return _Resolver(checkpoint, options).resolve()


class _Resolver:
    """Determines the settings from tensors, arguments and options, in this order, and records the origin of each."""

    def __init__(self, checkpoint: MegatronCheckpoint, options: SourceOptions) -> None:
        self._checkpoint = checkpoint
        self._arguments = checkpoint.arguments
        self._options = options
        self._origin: dict[str, str] = {}

    def resolve(self) -> MegatronSettings:
        checkpoint = self._checkpoint
        assumed = check_arguments(self._arguments, checkpoint.path, self._options.assume_neutral or ())
        assumed |= self._check_encoder()
        hidden, intermediate, positions, token_types = self._sizes()
        layers = checkpoint.layers
        for name in ("num_layers", "encoder_num_layers", "num_unique_layers"):
            self._check(name, layers)
        self._check("hidden_size", hidden)
        self._check("ffn_hidden_size", intermediate)
        self._check("max_position_embeddings", positions)
        heads = self._heads(hidden)
        self._check("kv_channels", hidden // heads)
        vocabulary = self._vocabulary()
        body, head = self._activations()
        values = {
            "vocab_size": len(MEGATRON_VOCABULARY) - 1,
            "hidden_size": hidden,
            "num_hidden_layers": layers,
            "num_attention_heads": heads,
            "intermediate_size": intermediate,
            "hidden_act": body,
            "max_position_embeddings": positions,
            "type_vocab_size": token_types,
            "layer_norm_eps": self._number(self._epsilon_name(), self._options.layernorm_epsilon, 1e-12),
            "hidden_dropout_prob": self._number("hidden_dropout", self._options.hidden_dropout, 0.1),
            "attention_probs_dropout_prob": self._number("attention_dropout", self._options.attention_dropout, 0.1),
            "initializer_range": self._number("init_method_std", None, 0.02),
        }
        if head != body:
            values["mlm_hidden_act"] = head
        try:
            config = ProteinBertConfig.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{checkpoint.path}: {error}") from error
        return MegatronSettings(config, self._version(), vocabulary, self._origin, assumed)

    def _check_encoder(self) -> dict[str, Any]:
        """Check that a model without LM head is no GPT, which has the keys of a BERT but causal attention.

        Only the tokenizer distinguishes them. Returns it if it would be refused, but is assumed to be neutral.
        """
        stated = self._arguments.get("tokenizer_type")
        tokenizer = "Bert" if stated is None else str(stated)
        if tokenizer.startswith("Bert") or any(key.startswith("lm_head.") for key in self._checkpoint.shards):
            return {}
        if "tokenizer_type" not in (self._options.assume_neutral or ()):
            raise CheckpointError(
                f"{self._checkpoint.path}: has no BERT LM head, and tokenizer_type {tokenizer[:40]}, so it may be a GPT"
                " with causal attention, which TAPE's model does not support; if it is a BERT, give --assume-neutral"
                " tokenizer_type"
            )
        return {"tokenizer_type": tokenizer}

    def _sizes(self) -> tuple[int, int, int, int]:
        """Hidden size, FFN size, positions and token types, from the shapes of the first stage's tensors."""
        ranks = self._checkpoint.stages[0]
        shapes = {key: tensor.shape for key, tensor in ranks[0].tensors.items()}
        try:
            positions, hidden = shapes[MEGATRON_POSITIONS]
            local, _ = shapes["language_model.transformer.layers.0.mlp.dense_h_to_4h.weight"]
        except (KeyError, ValueError) as error:
            raise CheckpointError(f"{ranks[0].path}: {error.args[0]} is missing or not a matrix") from None
        types = shapes.get(MEGATRON_TYPES, (self._options.token_types or 1,))[0]
        return hidden, local * len(ranks), positions, types

    def _check(self, name: str, found: int) -> None:
        """Check that a size in the arguments agrees with the tensors."""
        declared = self._arguments.get(name)
        if declared is not None and not isinstance(declared, int):
            raise self._no_whole_number(name, declared)
        if declared is not None and declared != found:
            raise CheckpointError(
                f"{self._checkpoint.path}: its arguments state {name} {declared}, but its tensors have {found}"
            )

    def _whole_number(self, name: str, usual: int) -> int:
        """A positive integer from the arguments, else the usual value."""
        value = self._arguments.get(name)
        if value is None:
            return usual
        if not isinstance(value, int) or value < 1:
            raise self._no_whole_number(name, value)
        return value

    def _flag(self, name: str) -> bool:
        """A flag from the arguments; None, the value of an option that was not given, is False."""
        value = self._arguments.get(name)
        if value is not None and not isinstance(value, bool):
            raise CheckpointError(
                f"{self._checkpoint.path}: its arguments have {name} {quoted(value)}, not True or False"
            )
        return bool(value)

    def _no_whole_number(self, name: str, value: object) -> CheckpointError:
        return CheckpointError(
            f"{self._checkpoint.path}: its arguments have {name} {quoted(value)} ({type(value).__name__}), not a whole"
            " number"
        )

    def _heads(self, hidden: int) -> int:
        """The number of attention heads, which no tensor shape determines."""
        heads = self._arguments.get("num_attention_heads")
        self._origin["num_attention_heads"] = "arguments" if heads is not None else "option"
        if heads is None:
            heads = self._options.heads
        if heads is None:
            raise ConfigError(f"{self._checkpoint.path} does not state its number of attention heads: give -heads")
        if not isinstance(heads, int):
            raise self._no_whole_number("num_attention_heads", heads)
        if heads < 1 or hidden % heads or heads % self._checkpoint.tensor_parallel:
            raise ConfigError(
                f"{self._checkpoint.path}: {heads} attention heads don't divide hidden size {hidden}"
                f" over {self._checkpoint.tensor_parallel} tensor-parallel ranks"
            )
        return heads

    def _vocabulary(self) -> tuple[str, ...]:
        """Tokens by embedding row; without an option, those of ProteinLM, if padding explains the number of rows.

        Megatron-LM pads the vocabulary to a multiple that depends on the tensor-parallel size.
        """
        if self._options.vocabulary:
            self._origin["vocabulary"] = "option"
            return self._options.vocabulary
        self._origin["vocabulary"] = _USUAL_VOCABULARY
        ranks = self._checkpoint.stages[0]
        rows = sum(rank.tensors[MEGATRON_WORDS].shape[0] for rank in ranks if MEGATRON_WORDS in rank.tensors)
        split = self._checkpoint.padded_for or len(ranks)
        multiple = self._whole_number("make_vocab_size_divisible_by", _ROWS_MULTIPLE) * split
        allowed = math.ceil(len(MEGATRON_VOCABULARY) / multiple) * multiple
        if rows > allowed:
            raise CheckpointError(
                f"{self._checkpoint.path}: its word embeddings have {rows} rows, but ProteinLM's vocabulary of"
                f" {len(MEGATRON_VOCABULARY)} tokens is padded to {allowed} with {split} tensor-parallel ranks; if"
                " this is a protein model, give --vocab-file with the tokens of the rows, one per line"
            )
        return MEGATRON_VOCABULARY

    def _epsilon_name(self) -> str:
        """The name of layer norm's epsilon, which Megatron-LM changed in September 2023."""
        return "norm_epsilon" if "norm_epsilon" in self._arguments else "layernorm_epsilon"

    def _number(self, name: str, option: float | None, usual: float) -> float:
        """A setting from the arguments, else from the option, else the usual value."""
        argument = self._arguments.get(name)
        if argument is None:
            self._origin[name] = _USUAL if option is None else "option"
            return usual if option is None else option
        if not isinstance(argument, (int, float)):
            raise CheckpointError(
                f"{self._checkpoint.path}: its arguments have {name} {quoted(argument)}, not a number"
            )
        if option is not None and option != argument:
            raise ConfigError(f"--{name.replace('_', '-')} {option} contradicts the checkpoint, which has {argument}")
        self._origin[name] = "arguments"
        return float(argument)

    def _version(self) -> float:
        """The version: stated in the files, given by the option, or implied.

        Files without one have version 0 if Megatron-LM saved them, which has stated versions since 2020; files without
        arguments are someone's own. Names of 2021 and later came after version 3 and the order of rows that it has,
        which is also the only one of Megatron Core and of Transformer Engine's layers.
        """
        checkpoint = self._checkpoint
        version, given, path = checkpoint.version, self._options.checkpoint_version, checkpoint.path
        if version is not None and given is not None and given != version:
            raise ConfigError(f"--checkpoint-version {given} contradicts {path}, which has {version}")
        self._origin["checkpoint_version"] = "option" if version is None else "checkpoint"
        chosen = given if version is None else version
        later = checkpoint.first.form is not Form.CLASSIC
        if chosen is None and later:
            self._origin["checkpoint_version"] = "names of the tensors"
            return _VERSIONS[-1]
        if chosen is None and (not self._arguments or checkpoint.first.has_names_of_2021):
            raise ConfigError(
                f"{path} has no checkpoint_version, which determines the order of its query/key/value rows: give"
                " --checkpoint-version (3.0 for ProteinLM, and for Megatron-LM since 2021)"
            )
        if chosen is None:
            self._origin["checkpoint_version"] = _NO_VERSION
            return 0.0
        known = _VERSIONS[2:] if later else _VERSIONS
        if chosen not in known:
            numbers = ", ".join(f"{number:g}" for number in known)
            raise CheckpointError(
                f"{path}: checkpoint_version {chosen} is unknown for a model with these names; known are {numbers}"
            )
        return float(chosen)

    def _activations(self) -> tuple[str, str]:
        """Activations of the blocks and of the LM head.

        Megatron-LM's fused bias-GELU, introduced in September 2020, is the tanh approximation and is used in the blocks
        only; otherwise GELU is the erf form, unless --openai-gelu selects the tanh form everywhere. The fused
        layers of Transformer Engine have the tanh form. Megatron Core ignores --openai-gelu; its LM head has the erf
        form.
        """
        given, arguments, form = self._options.gelu, self._arguments, self._checkpoint.first.form
        if form is Form.TRANSFORMER_ENGINE:
            if given == "gelu":
                raise ConfigError(f"--gelu erf contradicts {self._checkpoint.path}, whose layers have the tanh form")
            self._origin["gelu"] = "layers of Transformer Engine"
            return ("gelu_tanh", "gelu_tanh" if self._flag("openai_gelu") else "gelu")
        if "bias_gelu_fusion" not in arguments and "openai_gelu" not in arguments:
            self._origin["gelu"] = _USUAL if given is None else "option"
            return (given or "gelu_tanh", "gelu")
        everywhere = self._flag("openai_gelu") and form is Form.CLASSIC
        body = "gelu_tanh" if everywhere or self._flag("bias_gelu_fusion") else "gelu"
        if given not in (None, body):
            raise ConfigError(f"--gelu {given} contradicts the checkpoint's arguments, which specify {body}")
        self._origin["gelu"] = "arguments"
        return (body, "gelu_tanh" if everywhere else "gelu")
