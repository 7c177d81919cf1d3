"""Base class of all models: initialization, and loading and saving of model directories.

Third-party TAPE code imports the base class and the heads from this module.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tape.compatibility.names import names_of
from tape.configs import CONFIG_NAME, ProteinConfig
from tape.errors import CheckpointError, ConfigError, quoted
from tape.hub.cache import local_model, no_such_model
from tape.io.checkpoint_formats import recognize_format, refuse_wrapped_keys
from tape.io.json_files import read_json_object
from tape.io.run_layout import resolve_model_directory

from .constants import Constants
from .contact_heads import PairwiseContactPredictionHead
from .heads import MLMHead, SequenceClassificationHead, SequenceToSequenceClassificationHead, ValuePredictionHead
from .infer_config import infer_config, infer_final_layer_norm
from .meta_device import allocate, on_meta_device
from .model_directory import SAFETENSORS_NAME, StateDict, check_architecture, load_state_dict, save_model_directory
from .token_embeddings import resize_token_embeddings

__getattr__ = names_of(__name__)  # of tape-proteins 0.5

__all__ = [
    "MLMHead",
    "PairwiseContactPredictionHead",
    "ProteinConfig",
    "ProteinModel",
    "SequenceClassificationHead",
    "SequenceToSequenceClassificationHead",
    "ValuePredictionHead",
]

logger = logging.getLogger(__name__)

_MOST_NAMES, _LONGEST_NAME = 50, 200  # of weights in a log line
# what task models have beside their encoder
_HEAD_PARTS = ("classify", "feedforward", "mlm", "pooled_norm", "pooling", "predict")
_WITHOUT_OTHER_TENSORS = ("tape", "torch")  # packages whose modules have no tensors beside parameters and buffers

Model = TypeVar("Model", bound="ProteinModel")
Value = TypeVar("Value")


class ProteinModel(nn.Module):
    """A model with a configuration.

    Subclasses set ``config_class``, and ``base_model_prefix``, the attribute of a task model that is its encoder.
    """

    config_class: type[ProteinConfig] = ProteinConfig
    base_model_prefix = ""
    # Prefixes of parameters of published checkpoints that were never used; they are not loaded.
    unused_parameters: tuple[str, ...] = ()
    # Values for published checkpoints that can be read neither from config.json nor from the weights.
    unstated_config: dict[str, Any] = {}

    def __init__(self, config: ProteinConfig, *inputs: Any, **kwargs: Any) -> None:
        super().__init__()
        if type(config) is ProteinConfig and self.config_class is not ProteinConfig:
            _specialize(config, self.config_class)
        self.config = config

    @property
    def base_model(self) -> nn.Module:
        return getattr(self, self.base_model_prefix, self)

    def init_weights(self) -> None:
        """Initialize every submodule with :meth:`_init_weights`, then tie weights."""
        self.apply(self._init_weights)
        self.tie_weights()

    def _init_weights(self, module: nn.Module) -> None:
        """Initialize one submodule; overridden by each architecture."""

    def tie_weights(self) -> None:
        """Tie shared parameters; overridden by models that have any."""

    def save_pretrained(
        self,
        save_directory: str | os.PathLike[str],
        weights: str = SAFETENSORS_NAME,
        provenance: dict[str, Any] | None = None,
    ) -> None:
        """Write a model directory (see :mod:`tape.models.model_directory`)."""
        save_model_directory(
            save_directory, dict(self.state_dict()), self.config, weights=weights, provenance=provenance
        )

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        """Remove the attention heads given as layer -> heads; overridden by architectures that have any.

        Raises:
            ConfigError: this architecture has no attention heads.
        """
        raise ConfigError(f"{type(self).__name__} has no attention heads to prune")

    def resize_token_embeddings(self, new_num_tokens: int | None = None) -> nn.Embedding:
        """Change the number of tokens, in the configuration too: remove the last rows, or append new ones.

        Args:
            new_num_tokens: None: change nothing.

        Returns:
            The token embeddings.

        Raises:
            ConfigError: the number is not positive, or this architecture has no token embeddings.
        """
        config: Any = self.config
        count = getattr(config, "vocab_size", 1) if new_num_tokens is None else new_num_tokens
        embedding = resize_token_embeddings(self, count, self._init_weights)
        config.vocab_size = count
        self.tie_weights()
        return embedding

    @classmethod
    def from_pretrained(
        cls: type[Model],
        pretrained_model_name_or_path: str | os.PathLike[str],
        config: ProteinConfig | None = None,
        state_dict: StateDict | None = None,
        output_loading_info: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        verify: bool = True,
        **overrides: Any,
    ) -> Any:
        """Build a model from a model directory and load its weights. The model is in evaluation mode.

        An encoder can be loaded into a task model, the encoder of a task model alone, or the model of one task into
        that of another, whose head is then newly initialized. All weights of the encoder must be present.

        Args:
            pretrained_model_name_or_path: a model directory, a run directory (its best saved epoch), a weights file
                beside its ``config.json``, the name of a bundled or published model, a URL, or an ``s3://`` address;
                see :func:`tape.hub.cache.local_model`.
            config: replaces ``config.json``.
            state_dict: replaces the weights of the directory.
            output_loading_info: also return ``{"missing_keys", "unexpected_keys", "error_msgs"}``.
            cache_dir, force_download: cache of downloaded models, and whether to download again.
            verify: compare the files with their checksums: the directory's ``SHA256SUMS``, if it has one, and the CRCs
                in a ``.bin``.
            overrides: configuration values to replace, such as ``num_labels``.

        Raises:
            CheckpointError: there is no model, a file is damaged, a weight of the encoder is missing, a shape
                differs, or ``config.json`` is not that of the weights, or of ``transformers``. Names the file.
            DataError: the model can't be downloaded.
        """
        path = resolve_model_directory(local_model(pretrained_model_name_or_path, cache_dir, force_download))
        if config is None:
            config_file = _config_file(path)  # before the weights, for a better error if the path is wrong
            cls._check_program(config_file)
        state = dict(state_dict) if state_dict is not None else load_state_dict(path, verify=verify)
        if config is None:
            config = cls._complete_config(config_file, state, overrides)
            if state_dict is None:
                check_architecture(path, config, config_file, overrides)
        outline = cls._check_before_building(config, state, str(path))
        model = cls(config) if outline is None or not outline._is_complete(state) else outline._allocated()
        missing, unexpected = model.load_matching(state, str(path))
        model.eval()
        if output_loading_info:
            return model, {"missing_keys": missing, "unexpected_keys": unexpected, "error_msgs": []}
        return model

    @classmethod
    def _check_program(cls, file: Path) -> None:
        """Refuse a directory of ``transformers``: a BERT would load by its names, with the tokens of another order."""
        kind = read_json_object(file).get("model_type")
        if kind is not None and cls.config_class.__module__ == ProteinConfig.__module__:
            raise CheckpointError(
                f"{file}: a model of transformers ({quoted(kind)}), whose tokens may have other ids; use the model type"
                f" huggingface, or convert a BERT: proteinlm convert -src {file.parent} -out MODEL_DIRECTORY"
            )

    @classmethod
    def _complete_config(cls, file: Path, state: StateDict, overrides: dict[str, Any]) -> ProteinConfig:
        """Read ``config.json``, and infer values that TAPE's and ProteinLM's files lack from the weights.

        The order of precedence is: overrides, ``config.json``, values inferred from the weights, defaults.
        """
        stated = ProteinConfig.from_json_file(file).to_dict()
        known = cls.config_class.from_json_file(file).to_dict()  # raises errors that name the file
        shown = {**cls.unstated_config, **infer_config(state)}
        if "apply_final_ln" in known and not {"apply_final_ln"} & {*stated, *overrides}:
            shown["apply_final_ln"] = infer_final_layer_norm(state, file)
        shown = {name: value for name, value in shown.items() if name in known and name not in stated}
        return cls.config_class.from_dict({**known, **shown, **overrides})

    @classmethod
    def _check_before_building(cls: type[Model], config: ProteinConfig, state: StateDict, source: str) -> Model | None:
        """Compare names and shapes with the weights before memory of the configured sizes is allocated.

        Returns:
            The model on the meta device; None if it can't be built there.

        Raises:
            CheckpointError: see :meth:`load_matching`.
        """
        try:
            with on_meta_device():
                model = cls(config)
        except (RuntimeError, NotImplementedError):  # a third party's model may need real tensors
            return None
        model._check_weights(model._without_tied(state), source)
        return model

    def _is_complete(self, state: StateDict) -> bool:
        """Whether ``state`` has every value of this model, so that none has to be initialized.

        A third party's module may set tensors in its constructor that are in no state dict.
        """
        if not all(type(module).__module__.partition(".")[0] in _WITHOUT_OTHER_TENSORS for module in self.modules()):
            return False
        constants = [module for module in self.modules() if isinstance(module, Constants)]
        computed = {id(buffer) for module in constants for buffer in module.buffers()}
        own = {name for name, _ in self.named_parameters()}
        own |= {name for name, buffer in self.named_buffers() if id(buffer) not in computed}
        return own <= self._without_tied(state).keys()

    def _allocated(self: Model) -> Model:
        """This model, built on the meta device, with memory for its weights; random initial values take longer."""
        allocate(self, torch.get_default_device())
        self.tie_weights()  # the memory of tied matrices has been allocated twice
        return self

    def load_matching(self, state: StateDict, source: str) -> tuple[list[str], list[str]]:
        """Load weights by name; return the (missing, unexpected) names.

        Raises:
            CheckpointError: a weight of the encoder is missing, or a shape differs. Names ``source``.
        """
        state = self._without_tied(state)
        self._check_weights(state, source)
        missing, unexpected = self.load_state_dict(state, strict=False)
        tied = self._tied_names()
        missing = [name for name in missing if name not in tied]
        _log_differences(source, missing, unexpected)
        return missing, unexpected

    def _without_tied(self, state: StateDict) -> StateDict:
        """The weights under this model's names, each matrix once.

        The second name of a tied matrix may be missing or outdated (bug 5 in docs/compatibility.md). Its first name,
        that of the word embeddings, is the one to load.
        """
        tied = self._tied_names()
        return {name: value for name, value in self._translate(state).items() if name not in tied}

    def own_names(self, names: Iterable[str]) -> dict[str, str]:
        """Names of weights in a file, also of older programs -> their names in this model; without unused ones."""
        return {stored: own for own, stored in self._translate({name: name for name in names}).items()}

    def _translate(self, state: Mapping[str, Value]) -> dict[str, Value]:
        """Rename old names, drop unused parameters, and add or remove the encoder's prefix as this model needs it."""
        renamed = {}
        for name, value in state.items():
            if not self._is_unused(name):
                renamed[self._our_name(name)] = value
        # Compare entire names: ``bert_tail_dense`` is not a name under ``bert.`` (bug 4 in docs/compatibility.md).
        prefix = f"{self.base_model_prefix}."
        if self.base_model is self:
            return {name.removeprefix(prefix): value for name, value in renamed.items()}
        encoder = self.base_model.state_dict().keys()
        return {prefix + name if name in encoder else name: value for name, value in renamed.items()}

    def _is_unused(self, name: str) -> bool:
        return name.removeprefix(f"{self.base_model_prefix}.").startswith(self.unused_parameters)

    def _our_name(self, name: str) -> str:
        """The name of a parameter of older programs in this model: PyTorch's names of TensorFlow's layer norms."""
        for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
            if name.endswith(old):
                return name.removesuffix(old) + new
        return name

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """``load_state_dict``, also of a state of tape-proteins 0.5 or ProteinLM; inside other modules, too."""
        for name in [name for name in state_dict if name.startswith(prefix)]:
            theirs = name.removeprefix(prefix)
            renamed = prefix + self._our_name(theirs)
            if self._is_unused(theirs):
                del state_dict[name]
            elif renamed != name:
                state_dict[renamed] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _check_weights(self, state: StateDict, source: str) -> None:
        """Check shapes, and that the encoder is complete, but for the second names of tied matrices."""
        own = self.state_dict()
        wrong = [
            f"{name} is {tuple(state[name].shape)}, the model has {tuple(value.shape)}"
            for name, value in own.items()
            if name in state and state[name].shape != value.shape
        ]
        if wrong:
            raise CheckpointError(f"{source}: {len(wrong)} weights have a different shape: {'; '.join(wrong[:5])}")
        known = state.keys() | self._tied_names()
        missing = [name for name in own if name not in known and self._belongs_to_encoder(name)]
        if missing:
            refuse_wrapped_keys(state, Path(source))
            shown = ", ".join(missing[:5]) + (" ..." if len(missing) > 5 else "")
            raise CheckpointError(f"{source}: {len(missing)} weights of the encoder are missing: {shown}")

    def _belongs_to_encoder(self, name: str) -> bool:
        is_encoder = bool(self.base_model_prefix) and self.base_model is self
        return is_encoder or name.startswith(f"{self.base_model_prefix}.")

    def _tied_names(self) -> frozenset[str]:
        """Second names of shared parameters."""
        names: set[str] = set()
        seen: dict[int, str] = {}
        for name, parameter in self.named_parameters(remove_duplicate=False):
            if seen.setdefault(id(parameter), name) != name:
                names.add(name)
        return frozenset(names)


def _specialize(config: ProteinConfig, config_class: type[ProteinConfig]) -> None:
    """Make a configuration of the base class, as ``ProteinConfig.from_pretrained`` returns, that of an architecture.

    It is changed in place, since the constructors of models go on with the object that they were given.

    Raises:
        ConfigError: a value is invalid.
    """
    complete = config_class.from_dict(config.to_dict())
    config.__class__ = config_class
    vars(config).update(vars(complete))


def _log_differences(source: str, missing: list[str], unexpected: list[str]) -> None:
    """Log that a head is new, and unused weights that are not those of another head; the complete lists are details.

    Missing weights are those of a head, since an encoder must be complete.
    """
    if missing:
        parts = _shown_names(list(dict.fromkeys(map(_part_of, missing))))
        logger.info("%s: has no weights for %s; this new head starts from random ones", source, parts)
        logger.debug("%s: newly initialized weights: %s", source, _shown_names(missing))
    unknown = [name for name in unexpected if _part_of(name) not in _HEAD_PARTS]
    if unknown:
        logger.info("%s: unused weights: %s", source, _shown_names(unknown))
    heads = [name for name in unexpected if _part_of(name) in _HEAD_PARTS]
    if heads:
        logger.debug("%s: unused weights of another head: %s", source, _shown_names(heads))


def _part_of(name: str) -> str:
    return name.partition(".")[0]


def _shown_names(names: list[str]) -> str:
    """Names for a log line; a file may have any number of them, of any length."""
    shown = ", ".join(name[:_LONGEST_NAME] for name in names[:_MOST_NAMES])
    return shown + (f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else "")


def tie(owner: nn.Embedding, follower: nn.Linear) -> None:
    """Make ``follower`` use the weight matrix of ``owner``."""
    follower.weight = owner.weight


def normal_initialization(module: nn.Module, std: float) -> None:
    """BERT's initialization (Devlin et al. 2018, appendix A.2): N(0, std) for matrices and embeddings, 0 for biases, 1
    for the weights of layer norms."""
    with torch.no_grad():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(0.0, std)
        if isinstance(module, nn.LayerNorm):
            module.weight.fill_(1.0)
        bias = getattr(module, "bias", None)
        if isinstance(module, nn.Linear | nn.LayerNorm) and isinstance(bias, Tensor):
            bias.zero_()


def _config_file(path: Path) -> Path:
    file = path / CONFIG_NAME if path.is_dir() else path.parent / CONFIG_NAME
    if not path.exists():
        raise no_such_model(path)
    if not file.is_file():
        raise CheckpointError(f"{path}: {describe_other(path)}")
    return file


def describe_other(path: Path) -> str:
    """What a path without configuration is, and how to make a model directory of it."""
    found = recognize_format(path)
    if found is not None and not found.is_model:
        return f"{found.name}, not a model"
    if found is not None and found.export is not None:
        return f"{found.name}, not a model directory: {found.export}"
    name = "" if found is None else f"{found.name} with "
    return (
        f"{name}no {CONFIG_NAME} there, so not a model directory; checkpoints become one with"
        f" proteinlm convert -src {path} -out MODEL_DIRECTORY"
    )
