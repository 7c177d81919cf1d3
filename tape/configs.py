"""Model configurations: the content of ``config.json``, which has sorted keys; unknown keys are kept."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from operator import index
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

from tape.compatibility.constructors import construct, set_attributes
from tape.hub.cache import local_model
from tape.io.checksums import renew_sum
from tape.io.json_files import read_json_object
from tape.io.run_layout import resolve_model_directory

from .errors import ConfigError, quoted
from .targets import Target

Config = TypeVar("Config", bound="ProteinConfig")

CONFIG_NAME = "config.json"


class ProteinConfig:
    """Base class of all configurations, also of third-party models. Unknown keys are kept as attributes.

    Attributes:
        settings_beside_weights: names of the settings that change what the weights compute, although their shapes don't
            show them; see :func:`settings_beside_weights`.
        target: fields of a :class:`tape.targets.Target`; absent for models that were not trained on a user's table.
        class_weights, value_scale: weight of each class in the loss, and the scale of values; absent if there are none.
    """

    settings_beside_weights: ClassVar[tuple[str, ...]] = ()

    def __init__(self, **kwargs: Any) -> None:
        self.finetuning_task = kwargs.pop("finetuning_task", None)
        self.num_labels = kwargs.pop("num_labels", 2)
        self.output_attentions = kwargs.pop("output_attentions", False)
        self.output_hidden_states = kwargs.pop("output_hidden_states", False)
        self.torchscript = kwargs.pop("torchscript", False)
        target = kwargs.pop("target", None)
        if target is not None:  # of a user's table; otherwise not written
            self.target = Target.from_dict(target).to_dict()
        absent = [name for name in ("class_weights", "value_scale") if kwargs.get(name) is None]
        kwargs = {name: value for name, value in kwargs.items() if name not in absent}
        set_attributes(self, kwargs)

    @classmethod
    def from_dict(cls: type[Config], values: dict[str, Any]) -> Config:
        return construct(cls, values)

    @classmethod
    def from_json_file(cls: type[Config], path: str | os.PathLike[str]) -> Config:
        """Read a configuration from a JSON file.

        Raises:
            CheckpointError: the file is missing or not a JSON object.
            ConfigError: a value is invalid.
        """
        values = read_json_object(path)
        try:
            return cls.from_dict(values)
        except (ConfigError, TypeError) as error:  # TypeError: a setting is missing, or named as Python's own argument
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def from_pretrained(
        cls: type[Config], pretrained_model_name_or_path: str | os.PathLike[str], **overrides: Any
    ) -> Config:
        """Configuration of a model or run directory, a JSON file or a remote model, with ``overrides`` replaced."""
        path = resolve_model_directory(local_model(pretrained_model_name_or_path))
        config = cls.from_json_file(path / CONFIG_NAME if path.is_dir() else path)
        return cls.from_dict({**config.to_dict(), **overrides})

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, path: str | os.PathLike[str]) -> None:
        """Write the configuration, and its sum in the ``SHA256SUMS`` of a model directory."""
        Path(path).write_text(self.to_json_string(), encoding="utf-8")
        renew_sum(Path(path))

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        self.to_json_file(Path(directory) / CONFIG_NAME)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProteinConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable, as in TAPE

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string().strip()}"


def settings_beside_weights(config: ProteinConfig) -> dict[str, Any]:
    """The settings, as JSON values, that change what the weights compute, although their shapes don't show them."""
    values = config.to_dict()
    found: dict[str, Any] = json.loads(
        json.dumps({name: values[name] for name in config.settings_beside_weights if name in values})
    )
    return found


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_counts(config: ProteinConfig, ranges: Mapping[str, tuple[int, int]]) -> None:
    """Check that fields are integers in their ranges; fields that the configuration does not have are skipped."""
    for name, (lowest, highest) in ranges.items():
        value = getattr(config, name, lowest)
        if not isinstance(value, int) or isinstance(value, bool) or not lowest <= value <= highest:
            raise ConfigError(f"{name} must be an integer from {lowest} to {highest:,}, not {quoted(value)}")


def _check_probabilities(config: ProteinConfig, names: Iterable[str]) -> None:
    """Check that fields are numbers in [0, 1]; fields that the configuration does not have are skipped."""
    for name in names:
        value = getattr(config, name, 0)
        if not _is_number(value) or not 0 <= value <= 1:
            raise ConfigError(f"{name} must be in [0, 1], not {quoted(value)}")


# Ranges of the sizes. Each limit is far beyond any model, and low enough that a damaged or hostile file is refused
# before memory is allocated or layers are built.
_WIDEST, _DEEPEST = 1 << 20, 1 << 12
_RANGES: dict[str, tuple[int, int]] = {
    "vocab_size": (1, 1 << 24),
    "input_size": (1, _WIDEST),
    "hidden_size": (1, _WIDEST),
    "num_hidden_layers": (1, _DEEPEST),
    "num_attention_heads": (1, _WIDEST),
    "intermediate_size": (1, 1 << 24),
    "max_position_embeddings": (1, 1 << 24),
    "type_vocab_size": (1, _WIDEST),
    "contact_num_blocks": (1, _DEEPEST),
    "contact_separations": (0, _WIDEST),
    "head_hidden_size": (1, _WIDEST),
    "num_labels": (-1, _WIDEST),  # -1: a task without classes
}
_PROBABILITIES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "contact_dropout")
_NOT_NEGATIVE = ("initializer_range", "layer_norm_eps")
_ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "swish")
POOLINGS = ("cls", "mean", "attention")
POOLED_NORMS = ("none", "batch")
INITIAL_ATTENTION = ("random", "neighbours", "half-neighbours")
_CHOICES: dict[str, tuple[str | bool | None, ...]] = {
    "hidden_act": _ACTIVATIONS,
    "mlm_hidden_act": (None, *_ACTIVATIONS),
    "contact_head": ("resnet", "linear"),
    "contact_checkpoint": (False, True),
    "apply_final_ln": (False, True),
    "pooling": POOLINGS,
    "pooled_norm": POOLED_NORMS,
    "layer_norm_position": ("pre", "post"),
    "initial_attention": INITIAL_ATTENTION,
    "resnet_pooler": ("attention", "sum"),
}


class EncoderConfig(ProteinConfig):
    """Configuration of an encoder with TAPE's heads; base class of all built-in architectures but trRosetta.

    Args:
        contact_head: ``resnet`` for ProteinLM's head (1x1 convolution and residual blocks), ``linear`` for TAPE's.
        contact_num_blocks: number of residual blocks of the ``resnet`` head.
        contact_dropout: dropout of the features of residue pairs. TAPE and ProteinLM use 0.5, which is too much for
            models with a small hidden size.
        contact_separations: number of sequence separations with a learned logit, see
            :class:`tape.models.contact_heads.PairwiseContactPredictionHead`.
        contact_checkpoint: activation checkpointing of the residual blocks and of a transformer's attention. Training
            needs a fraction of the memory and about a third more time, with identical results.
        head_hidden_size: hidden size of the value and class heads; 1024 in ProteinLM, 512 in TAPE.
        pooling: input of the value and class heads: the model's own pooled output (``cls``; the state of ``<cls>`` of a
            transformer), the ``mean`` over residues, or a learned weighted mean (``attention``); see
            :mod:`tape.models.pooling`.
        pooled_norm: ``batch`` for batch normalization of that input, see :mod:`tape.models.task_models`; TAPE and
            ProteinLM have ``none``.

    Raises:
        ConfigError: a value is invalid.
    """

    settings_beside_weights: ClassVar[tuple[str, ...]] = ("pooling", "target", "value_scale")

    def __init__(
        self,
        contact_head: str = "resnet",
        contact_num_blocks: int = 30,
        head_hidden_size: int = 1024,
        pooling: str = "cls",
        contact_checkpoint: bool = False,
        contact_dropout: float = 0.5,
        contact_separations: int = 0,
        pooled_norm: str = "none",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.contact_head = contact_head
        self.contact_num_blocks = contact_num_blocks
        self.head_hidden_size = head_hidden_size
        self.pooling = pooling
        self.contact_checkpoint = contact_checkpoint
        self.contact_dropout = contact_dropout
        self.contact_separations = contact_separations
        self.pooled_norm = pooled_norm

    def _check(self) -> None:
        """Check all values; fields that the architecture does not have are skipped."""
        _check_counts(self, _RANGES)
        _check_probabilities(self, _PROBABILITIES)
        for name in _NOT_NEGATIVE:
            value = getattr(self, name, 0)
            if not _is_number(value) or not 0 <= value <= sys.float_info.max:
                raise ConfigError(f"{name} must be a non-negative number, not {quoted(value)}")
        for name, allowed in _CHOICES.items():
            if hasattr(self, name) and getattr(self, name) not in allowed:
                shown = quoted(getattr(self, name))
                raise ConfigError(f"{name} must be one of {', '.join(map(str, allowed))}, not {shown}")
        if getattr(self, "pruned_heads", None) and not hasattr(self, "num_attention_heads"):
            raise ConfigError("pruned_heads is for transformers; this architecture has no attention heads")


class ProteinBertConfig(EncoderConfig):
    """Configuration of the transformer. Arguments that TAPE does not have:

    Args:
        hidden_act: ``gelu`` is the erf form, ``gelu_tanh`` is Megatron-LM's fused approximation.
        mlm_hidden_act: activation of the language-model head; None means ``hidden_act``. Megatron-LM's head always has
            the erf form, even if its blocks have the tanh form.
        apply_final_ln: False reproduces models finetuned with the original code, which skipped the final layer norm
            (bug 2 in docs/compatibility.md).
        layer_norm_position: ``pre`` as in Megatron-LM and ProteinLM (layer norms before attention and MLP, and a final
            one), or ``post`` as in BERT and tape-proteins 0.5 (after the embeddings and after each residual sum, and a
            tanh pooler). If ``config.json`` does not state it, it is inferred from the weights.
        pruned_heads: layer -> removed attention heads, both from 0; ``num_attention_heads`` includes them.
        initial_attention: initialization of new weights: ``random`` as in BERT, or all or half of the heads attend to
            neighboring residues (``neighbours``, ``half-neighbours``), see :mod:`tape.models.neighbor_attention`.

    Raises:
        ConfigError: a value is invalid.
    """

    settings_beside_weights = (
        "apply_final_ln",
        "hidden_act",
        "layer_norm_eps",
        "layer_norm_position",
        "mlm_hidden_act",
        "num_attention_heads",
        *EncoderConfig.settings_beside_weights,
    )
    pruned_heads: Mapping[int, list[int]] = MappingProxyType(
        {}
    )  # class attribute, so that it is written only if there are any

    def __init__(
        self,
        vocab_size: int = 30,
        hidden_size: int = 768,
        num_hidden_layers: int = 12,
        num_attention_heads: int = 12,
        intermediate_size: int = 3072,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        attention_probs_dropout_prob: float = 0.1,
        max_position_embeddings: int = 8096,
        type_vocab_size: int = 2,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        apply_final_ln: bool = True,
        mlm_hidden_act: str | None = None,
        layer_norm_position: str = "pre",
        pruned_heads: Mapping[Any, Iterable[int]] | None = None,
        initial_attention: str = "random",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.num_attention_heads = num_attention_heads
        self.intermediate_size = intermediate_size
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.attention_probs_dropout_prob = attention_probs_dropout_prob
        self.max_position_embeddings = max_position_embeddings
        self.type_vocab_size = type_vocab_size
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.apply_final_ln = apply_final_ln
        self.mlm_hidden_act = mlm_hidden_act
        self.layer_norm_position = layer_norm_position
        self.initial_attention = initial_attention
        self._check()
        if pruned_heads:
            self.prune_heads(pruned_heads)

    def _check(self) -> None:
        super()._check()
        if self.hidden_size % self.num_attention_heads:
            raise ConfigError(
                f"hidden_size {self.hidden_size} is not a multiple of num_attention_heads {self.num_attention_heads}"
            )
        if self.initial_attention != "random":
            self._check_neighbors()

    def _check_neighbors(self) -> None:
        heads, size = self.num_attention_heads, self.hidden_size // self.num_attention_heads
        if self.layer_norm_position == "post":
            raise ConfigError(f"initial_attention {self.initial_attention} requires layer_norm_position pre")
        if heads < 2 or size % 2:
            raise ConfigError(
                f"initial_attention {self.initial_attention} requires at least 2 heads of an even size (for sines and"
                f" cosines), not {heads} of {size}"
            )

    def prune_heads(self, heads: Mapping[Any, Iterable[int]]) -> None:
        """Add heads to ``pruned_heads``. :meth:`ProteinModel.prune_heads` removes them from a model, too.

        Raises:
            ConfigError: ``heads`` is invalid, or a layer would lose all heads. Nothing has changed then.
        """
        try:  # keys of JSON objects are strings
            gone = {int(layer): {index(head) for head in those} for layer, those in heads.items()}
        except (AttributeError, TypeError, ValueError):
            raise ConfigError(
                f"pruned_heads must map layers to heads, such as {{0: [1, 3]}}, not {quoted(heads)}"
            ) from None
        count = self.num_attention_heads
        for layer, those in gone.items():
            if layer not in range(self.num_hidden_layers) or not those.issubset(range(count)):
                raise ConfigError(
                    f"can't prune heads {quoted(sorted(those))} of layer {quoted(layer)}: the model has layers 0 to"
                    f" {self.num_hidden_layers - 1} with heads 0 to {count - 1}"
                )
            those |= set(self.pruned_heads.get(layer, ()))
            if len(those) == count:
                raise ConfigError(f"can't prune all {count} heads of layer {layer}; at least one must remain")
        found = {**self.pruned_heads, **{layer: sorted(those) for layer, those in gone.items() if those}}
        if found:
            self.pruned_heads = dict(sorted(found.items()))


class ProteinOneHotConfig(EncoderConfig):
    """Configuration of TAPE's one-hot baseline, which has no parameters except in the head."""

    def __init__(
        self,
        vocab_size: int = 30,
        initializer_range: float = 0.02,
        use_evolutionary: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if use_evolutionary:
            raise ConfigError("use_evolutionary needs alignment features, which these data sets do not have")
        self.vocab_size = vocab_size
        self.initializer_range = initializer_range
        self.use_evolutionary = use_evolutionary
        self.hidden_size = vocab_size  # size of the heads' input
        self._check()


class ProteinResNetConfig(EncoderConfig):
    """Configuration of TAPE's residual network. The argument that TAPE does not have:

    Args:
        resnet_pooler: ``attention`` weights the states by a softmax over the residues; ``sum`` adds them, as
            tape-proteins 0.5 does, where the softmax is over an axis of size 1.
    """

    settings_beside_weights = (
        "hidden_act",
        "layer_norm_eps",
        "resnet_pooler",
        *EncoderConfig.settings_beside_weights,
    )

    def __init__(
        self,
        vocab_size: int = 30,
        hidden_size: int = 512,
        num_hidden_layers: int = 30,
        hidden_act: str = "gelu",
        hidden_dropout_prob: float = 0.1,
        initializer_range: float = 0.02,
        layer_norm_eps: float = 1e-12,
        resnet_pooler: str = "attention",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.hidden_act = hidden_act
        self.hidden_dropout_prob = hidden_dropout_prob
        self.initializer_range = initializer_range
        self.layer_norm_eps = layer_norm_eps
        self.resnet_pooler = resnet_pooler
        self._check()


class ProteinLSTMConfig(EncoderConfig):
    """Configuration of TAPE's LSTM, with ``num_hidden_layers`` in each direction."""

    def __init__(
        self,
        vocab_size: int = 30,
        input_size: int = 128,
        hidden_size: int = 1024,
        num_hidden_layers: int = 3,
        hidden_dropout_prob: float = 0.1,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_hidden_layers = num_hidden_layers
        self.hidden_dropout_prob = hidden_dropout_prob
        self.initializer_range = initializer_range
        self._check()


class TRRosettaConfig(ProteinConfig):
    """Configuration of trRosetta's dilated residual network.

    Args:
        num_features: number of channels.
        kernel_size: size of the convolutions, odd.
        num_layers: number of residual blocks, whose dilations are 1, 2, 4, 8, 16 in turn.
        dropout: dropout probability in the stem and in every block.
        msa_cutoff: sequence identity above which sequences of an alignment are down-weighted as similar.
        penalty_coeff: ridge regularization of the inverse covariance.

    Raises:
        ConfigError: a value is invalid.
    """

    settings_beside_weights = ("msa_cutoff", "penalty_coeff")

    def __init__(
        self,
        num_features: int = 64,
        kernel_size: int = 3,
        num_layers: int = 61,
        dropout: float = 0.15,
        msa_cutoff: float = 0.8,
        penalty_coeff: float = 4.5,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.num_features = num_features
        self.kernel_size = kernel_size
        self.num_layers = num_layers
        self.dropout = dropout
        self.msa_cutoff = msa_cutoff
        self.penalty_coeff = penalty_coeff
        self.initializer_range = initializer_range
        self._check()

    def _check(self) -> None:
        _check_counts(self, {"num_features": (1, _WIDEST), "kernel_size": (1, 1 << 10), "num_layers": (1, _DEEPEST)})
        if self.kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size must be odd, not {self.kernel_size}")
        _check_probabilities(self, ("dropout", "msa_cutoff"))


class UniRepConfig(EncoderConfig):
    """Configuration of UniRep's multiplicative LSTM. The defaults are those of the published model with 1,900 units."""

    def __init__(
        self,
        vocab_size: int = 26,
        input_size: int = 10,
        hidden_size: int = 1900,
        hidden_dropout_prob: float = 0.1,
        layer_norm_eps: float = 1e-12,
        initializer_range: float = 0.02,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.hidden_dropout_prob = hidden_dropout_prob
        self.layer_norm_eps = layer_norm_eps
        self.initializer_range = initializer_range
        self._check()
