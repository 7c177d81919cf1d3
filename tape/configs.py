"""Model configurations: what ``config.json`` of a model directory holds (INTERFACE: sorted keys, unknown keys kept)."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping
from operator import index
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from tape.hub.cache import local_model
from tape.io.json_files import read_json_object

from .errors import ConfigError

Config = TypeVar("Config", bound="ProteinConfig")

CONFIG_NAME = "config.json"


class ProteinConfig:
    """Base of all configurations. Third-party models subclass it as TAPE's; any extra key is kept as an attribute."""

    def __init__(self, **kwargs: Any) -> None:
        self.finetuning_task = kwargs.pop("finetuning_task", None)
        self.num_labels = kwargs.pop("num_labels", 2)
        self.output_attentions = kwargs.pop("output_attentions", False)
        self.output_hidden_states = kwargs.pop("output_hidden_states", False)
        self.torchscript = kwargs.pop("torchscript", False)
        for name, value in kwargs.items():
            setattr(self, name, value)

    @classmethod
    def from_dict(cls: type[Config], values: dict[str, Any]) -> Config:
        return cls(**values)

    @classmethod
    def from_json_file(cls: type[Config], path: str | os.PathLike[str]) -> Config:
        """Read a JSON object.

        Raises:
            CheckpointError: the file is missing or not a JSON object.
            ConfigError: it holds a value that is not allowed.
        """
        values = read_json_object(path)
        try:
            return cls.from_dict(values)
        except ConfigError as error:
            raise ConfigError(f"{path}: {error}") from error

    @classmethod
    def from_pretrained(cls: type[Config], path: str | os.PathLike[str], **overrides: Any) -> Config:
        """Configuration of a model directory, a JSON file, or a model elsewhere; with some values replaced."""
        path = local_model(path)
        config = cls.from_json_file(path / CONFIG_NAME if path.is_dir() else path)
        return cls.from_dict({**config.to_dict(), **overrides})

    def to_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def to_json_string(self) -> str:
        return json.dumps(self.to_dict(), indent=2, sort_keys=True) + "\n"

    def to_json_file(self, path: str | os.PathLike[str]) -> None:
        Path(path).write_text(self.to_json_string(), encoding="utf-8")

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        self.to_json_file(Path(directory) / CONFIG_NAME)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ProteinConfig) and self.to_dict() == other.to_dict()

    __hash__ = None  # type: ignore[assignment]  # mutable, as TAPE's

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.to_json_string().strip()}"


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_sizes(config: ProteinConfig, names: Iterable[str]) -> None:
    """Refuse what isn't a positive whole number; fields that a configuration doesn't have are passed over."""
    for name in names:
        value = getattr(config, name, 1)
        if not isinstance(value, int) or value < 1:
            raise ConfigError(f"{name} must be a positive whole number, not {value!r}")


def _check_probabilities(config: ProteinConfig, names: Iterable[str]) -> None:
    """Refuse what isn't a number in [0, 1]; fields that a configuration doesn't have are passed over."""
    for name in names:
        value = getattr(config, name, 0)
        if not _is_number(value) or not 0 <= value <= 1:
            raise ConfigError(f"{name} must lie in [0, 1], not {value!r}")


_SIZES = (
    "vocab_size",
    "input_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "type_vocab_size",
    "contact_num_blocks",
    "head_hidden_size",
)
_PROBABILITIES = ("hidden_dropout_prob", "attention_probs_dropout_prob", "contact_dropout")
_NOT_NEGATIVE = ("initializer_range", "layer_norm_eps")
_COUNTS = ("contact_separations",)
_ACTIVATIONS = ("gelu", "gelu_tanh", "relu", "swish")
POOLINGS = ("cls", "mean", "attention")
INITIAL_ATTENTION = ("random", "neighbours")
_CHOICES: dict[str, tuple[str | bool | None, ...]] = {
    "hidden_act": _ACTIVATIONS,
    "mlm_hidden_act": (None, *_ACTIVATIONS),
    "contact_head": ("resnet", "linear"),
    "contact_checkpoint": (False, True),
    "pooling": POOLINGS,
    "layer_norm_position": ("pre", "post"),
    "initial_attention": INITIAL_ATTENTION,
    "resnet_pooler": ("attention", "sum"),
}


class EncoderConfig(ProteinConfig):
    """An encoder with TAPE's heads: what all built-in architectures have in common.

    Args:
        contact_head: ``resnet`` is ProteinLM's (1x1 convolution and residual blocks), ``linear`` is TAPE's.
        contact_num_blocks: residual blocks of the ``resnet`` head.
        contact_dropout: on the features of residue pairs; 0.5 is TAPE's and ProteinLM's, too much for narrow models.
        contact_separations: distances along the chain with a learned logit of their own, added to that of every pair;
            see :class:`tape.models.contact_heads.PairwiseContactPredictionHead`.
        contact_checkpoint: recompute those blocks, and a transformer's attention maps, in the backward pass instead of
            keeping what they compute: training takes a fraction of the memory and about a third longer. No number
            changes.
        head_hidden_size: width of the value and class heads; ProteinLM 1024, TAPE 512.
        pooling: what value and class heads see of a protein: the model's own vector (``cls``; of the transformer the
            state of ``<cls>``), the ``mean`` over residues, or their learned weighted mean (``attention``); see
            :mod:`tape.models.pooling`.

    Raises:
        ConfigError: sizes or names that can't make a model.
    """

    def __init__(
        self,
        contact_head: str = "resnet",
        contact_num_blocks: int = 30,
        head_hidden_size: int = 1024,
        pooling: str = "cls",
        contact_checkpoint: bool = False,
        contact_dropout: float = 0.5,
        contact_separations: int = 0,
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

    def _check(self) -> None:
        """Refuse what can't make a model; fields that an architecture doesn't have are passed over."""
        _check_sizes(self, _SIZES)
        _check_probabilities(self, _PROBABILITIES)
        for name in _NOT_NEGATIVE:
            value = getattr(self, name, 0)
            if not _is_number(value) or not 0 <= value < math.inf:
                raise ConfigError(f"{name} must be a number that is not negative, not {value!r}")
        for name in _COUNTS:
            value = getattr(self, name, 0)
            if not isinstance(value, int) or value < 0:
                raise ConfigError(f"{name} must be a whole number that is not negative, not {value!r}")
        for name, allowed in _CHOICES.items():
            if hasattr(self, name) and getattr(self, name) not in allowed:
                raise ConfigError(f"{name} must be one of {', '.join(map(str, allowed))}, not {getattr(self, name)!r}")
        if getattr(self, "pruned_heads", None) and not hasattr(self, "num_attention_heads"):
            raise ConfigError("pruned_heads is for transformers; this architecture has no attention heads")


class ProteinBertConfig(EncoderConfig):
    """The transformer.

    Args (those that TAPE doesn't have):
        hidden_act: ``gelu`` is the erf form; ``gelu_tanh`` is Megatron's fused approximation.
        mlm_hidden_act: of the language-model head; None means as ``hidden_act``. Megatron's head always has the erf
            form, even where its blocks have the tanh form.
        apply_final_ln: False reproduces finetunes of the original code, which skipped the final layer norm.
        layer_norm_position: ``pre`` is Megatron's and ProteinLM's (layer norms before attention and MLP, and a final
            one); ``post`` is BERT's and tape-proteins 0.5's (after the embeddings and after each residual sum, and a
            tanh pooler). Weights decide it where a ``config.json`` does not.
        pruned_heads: layer -> attention heads that it lacks, both from 0; ``num_attention_heads`` counts them in.
        initial_attention: of new weights. ``random`` is BERT's; with ``neighbours`` heads begin by looking at near
            residues, see :mod:`tape.models.neighbor_attention`.

    Raises:
        ConfigError: sizes or names that can't make a model.
    """

    pruned_heads: Mapping[int, list[int]] = MappingProxyType({})  # of the class: written only where there are any

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
        if self.initial_attention == "neighbours":
            self._check_neighbors()

    def _check_neighbors(self) -> None:
        heads, size = self.num_attention_heads, self.hidden_size // self.num_attention_heads
        if self.layer_norm_position == "post":
            raise ConfigError("initial_attention neighbours is for layer_norm_position pre")
        if heads < 2 or size % 2:
            raise ConfigError(
                "initial_attention neighbours needs 2 heads or more, of an even size (sines beside cosines), not"
                f" {heads} of {size}"
            )

    def prune_heads(self, heads: Mapping[Any, Iterable[int]]) -> None:
        """Add to ``pruned_heads``; :meth:`ProteinModel.prune_heads` removes them from a model too.

        Raises:
            ConfigError: not heads by layer, no such head, or none would be left of a layer. Nothing has changed then.
        """
        try:  # JSON has the layers as text
            gone = {int(layer): {index(head) for head in those} for layer, those in heads.items()}
        except (AttributeError, TypeError, ValueError):
            raise ConfigError(f"pruned_heads must name heads by layer, such as {{0: [1, 3]}}, not {heads!r}") from None
        count = self.num_attention_heads
        for layer, those in gone.items():
            if layer not in range(self.num_hidden_layers) or not those.issubset(range(count)):
                raise ConfigError(
                    f"no heads {sorted(those)} of layer {layer} to prune: there are layers 0 to"
                    f" {self.num_hidden_layers - 1} with heads 0 to {count - 1}"
                )
            those |= set(self.pruned_heads.get(layer, ()))
            if len(those) == count:
                raise ConfigError(f"all {count} heads of layer {layer} would be pruned; one must stay")
        found = {**self.pruned_heads, **{layer: sorted(those) for layer, those in gone.items() if those}}
        if found:
            self.pruned_heads = dict(sorted(found.items()))


class ProteinOneHotConfig(EncoderConfig):
    """TAPE's baseline: one indicator a residue type, no parameters before the head."""

    def __init__(
        self,
        vocab_size: int = 30,
        initializer_range: float = 0.02,
        use_evolutionary: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if use_evolutionary:
            raise ConfigError("use_evolutionary needs alignment features, which these data sets do not carry")
        self.vocab_size = vocab_size
        self.initializer_range = initializer_range
        self.use_evolutionary = use_evolutionary
        self.hidden_size = vocab_size  # what the heads see
        self._check()


class ProteinResNetConfig(EncoderConfig):
    """TAPE's residual network.

    Args (one that TAPE doesn't have):
        resnet_pooler: ``attention`` weights residue states by a softmax over the protein, ``sum`` adds them up: what
            tape-proteins 0.5 computed, whose softmax ran over an axis of size 1.
    """

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
    """TAPE's LSTM, ``num_hidden_layers`` in each direction."""

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
    """trRosetta's dilated residual network.

    Args:
        num_features: channels.
        kernel_size: odd.
        num_layers: residual blocks, their dilations 1, 2, 4, 8, 16 in turn.
        dropout: in the stem and in every block.
        msa_cutoff: identity above which two sequences of an alignment share their weight.
        penalty_coeff: strength of the ridge in the inverse covariance.
    """

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
        _check_sizes(self, ("num_features", "kernel_size", "num_layers"))
        if self.kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size must be odd, not {self.kernel_size}")
        _check_probabilities(self, ("dropout", "msa_cutoff"))


class UniRepConfig(EncoderConfig):
    """UniRep's multiplicative LSTM; the defaults are those of the published 1,900 units."""

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
