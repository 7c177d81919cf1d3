"""Base class of all models: initialisation, reading and writing of model directories.

Third-party TAPE code imports the base class and the heads from here.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tape.configs import CONFIG_NAME, ProteinConfig
from tape.errors import CheckpointError, ConfigError
from tape.hub.cache import local_model

from .contact_heads import PairwiseContactPredictionHead
from .heads import MLMHead, SequenceClassificationHead, SequenceToSequenceClassificationHead, ValuePredictionHead
from .infer_config import config_of_weights
from .model_directory import SAFETENSORS_NAME, StateDict, load_state_dict, save_model_directory

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

Model = TypeVar("Model", bound="ProteinModel")


class ProteinModel(nn.Module):
    """A model with a configuration.

    Subclasses set ``config_class`` and ``base_model_prefix``, the attribute under which a task model holds its encoder.
    """

    config_class: type[ProteinConfig] = ProteinConfig
    base_model_prefix = ""
    # Parameters of published checkpoints that no computation used; dropped on loading, by name.
    unused_parameters: tuple[str, ...] = ()
    # Configuration values of published checkpoints whose config.json does not state them and weights do not show them.
    unstated_config: dict[str, Any] = {}

    def __init__(self, config: ProteinConfig, *inputs: Any, **kwargs: Any) -> None:
        super().__init__()
        self.config = config

    @property
    def base_model(self) -> nn.Module:
        return getattr(self, self.base_model_prefix, self)

    def init_weights(self) -> None:
        """Initialise every submodule by :meth:`_init_weights`, then tie."""
        self.apply(self._init_weights)
        self.tie_weights()

    def _init_weights(self, module: nn.Module) -> None:
        """Initialise one submodule; overridden by each architecture."""

    def tie_weights(self) -> None:
        """Share parameters that are one by definition; overridden where there are any."""

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
        """Remove attention heads, given as layer -> heads; overridden where there are any.

        Raises:
            ConfigError: this architecture has none.
        """
        raise ConfigError(f"{type(self).__name__} has no attention heads to prune")

    @classmethod
    def from_pretrained(
        cls: type[Model],
        pretrained_model_name_or_path: str | os.PathLike[str],
        config: ProteinConfig | None = None,
        state_dict: StateDict | None = None,
        output_loading_info: bool = False,
        cache_dir: str | os.PathLike[str] | None = None,
        force_download: bool = False,
        **overrides: Any,
    ) -> Any:
        """Build the model of a model directory and load its weights; returned in evaluation mode.

        An encoder may be loaded into a task model, a task model's encoder alone, or one task's model into another's
        (the new head is then freshly initialised). Weights of the encoder itself must all be there.

        Args:
            pretrained_model_name_or_path: a directory, or a weights file beside its ``config.json``; or what stands for
                one elsewhere: a published name, a URL, an ``s3://`` address (:func:`tape.hub.cache.local_model`).
            config: used instead of the directory's own.
            state_dict: used instead of the directory's weights.
            output_loading_info: also return ``{"missing_keys", "unexpected_keys", "error_msgs"}``.
            cache_dir, force_download: of what is downloaded.
            overrides: configuration values to replace, such as ``num_labels``.

        Raises:
            CheckpointError: nothing to load there, an encoder weight missing, or a shape that differs. Names the file.
            DataError: it can't be downloaded.
        """
        path = local_model(pretrained_model_name_or_path, cache_dir, force_download)
        if config is None:
            config_file = _config_file(path)  # first: it says what is wrong with the path
        state = dict(state_dict) if state_dict is not None else load_state_dict(path)
        if config is None:
            config = cls._complete_config(config_file, state, overrides)
        model = cls(config)
        missing, unexpected = model.load_matching(state, str(path))
        model.eval()
        if output_loading_info:
            return model, {"missing_keys": missing, "unexpected_keys": unexpected, "error_msgs": []}
        return model

    @classmethod
    def _complete_config(cls, file: Path, state: StateDict, overrides: dict[str, Any]) -> ProteinConfig:
        """The configuration of a file, completed by what only the weights tell (of TAPE's and ProteinLM's checkpoints).

        Overrides come first, then what the file states, then what the weights show, then defaults.
        """
        stated = ProteinConfig.from_json_file(file).to_dict()
        known = cls.config_class.from_json_file(file).to_dict()  # names the file in what it refuses
        shown = {**cls.unstated_config, **config_of_weights(state)}
        shown = {name: value for name, value in shown.items() if name in known and name not in stated}
        return cls.config_class.from_dict({**known, **shown, **overrides})

    def load_matching(self, state: StateDict, source: str) -> tuple[list[str], list[str]]:
        """Load what fits ``state`` by name; returns (missing, unexpected) names.

        Raises:
            CheckpointError: an encoder weight is missing or any shape differs; ``source`` is named.
        """
        # The second name of a tied matrix may be absent or stale (defect 5): the word embeddings own it.
        tied = self._tied_names()
        state = {name: value for name, value in self._translate(state).items() if name not in tied}
        self._check_shapes(state, source)
        missing, unexpected = self.load_state_dict(state, strict=False)
        missing = [name for name in missing if name not in tied]
        encoder = [name for name in missing if self._belongs_to_encoder(name)]
        if encoder:
            shown = ", ".join(encoder[:5]) + (" ..." if len(encoder) > 5 else "")
            raise CheckpointError(f"{source}: {len(encoder)} weights of the encoder are missing: {shown}")
        if missing:
            logger.info("%s: newly initialised: %s", source, ", ".join(missing))
        if unexpected:
            logger.info("%s: not used here: %s", source, ", ".join(unexpected))
        return missing, unexpected

    def _translate(self, state: StateDict) -> StateDict:
        """Old names to ours, unused ones dropped, the encoder's prefix added or removed as this model needs it."""
        renamed = {}
        for name, value in state.items():
            bare = name.removeprefix(f"{self.base_model_prefix}.")
            if any(bare.startswith(unused) for unused in self.unused_parameters):
                continue
            renamed[_modern_name(name)] = value
        # Name by name, not by prefix: ``bert_tail_dense`` must not pass for a name under ``bert.`` (defect 4).
        prefix = f"{self.base_model_prefix}."
        if self.base_model is self:
            return {name.removeprefix(prefix): value for name, value in renamed.items()}
        encoder = self.base_model.state_dict().keys()
        return {prefix + name if name in encoder else name: value for name, value in renamed.items()}

    def _check_shapes(self, state: StateDict, source: str) -> None:
        own = self.state_dict()
        wrong = [
            f"{name} is {tuple(state[name].shape)}, the model has {tuple(value.shape)}"
            for name, value in own.items()
            if name in state and state[name].shape != value.shape
        ]
        if wrong:
            raise CheckpointError(f"{source}: {len(wrong)} weights have another shape: {'; '.join(wrong[:5])}")

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


def tie(owner: nn.Embedding, follower: nn.Linear) -> None:
    """Make ``follower`` compute with the matrix of ``owner``."""
    follower.weight = owner.weight


def normal_initialisation(module: nn.Module, std: float) -> None:
    """BERT's: N(0, std) matrices and embeddings, zero biases, unit layer norms (Devlin et al. 2018, appendix A.2)."""
    with torch.no_grad():
        if isinstance(module, nn.Linear | nn.Embedding):
            module.weight.normal_(0.0, std)
        if isinstance(module, nn.LayerNorm):
            module.weight.fill_(1.0)
        bias = getattr(module, "bias", None)
        if isinstance(module, nn.Linear | nn.LayerNorm) and isinstance(bias, Tensor):
            bias.zero_()


def _modern_name(name: str) -> str:
    """TensorFlow's names of layer-norm parameters to PyTorch's."""
    for old, new in ((".gamma", ".weight"), (".beta", ".bias")):
        if name.endswith(old):
            return name.removesuffix(old) + new
    return name


def _config_file(path: Path) -> Path:
    file = path / CONFIG_NAME if path.is_dir() else path.parent / CONFIG_NAME
    if not path.exists():
        raise CheckpointError(f"{path}: no such model directory or weights file")
    if not file.is_file():
        raise CheckpointError(f"{path}: no {CONFIG_NAME} there")
    return file
