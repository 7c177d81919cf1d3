"""Options about the source, and the names of data types."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from tape.configs import ProteinBertConfig
from tape.errors import ConfigError, quoted

if TYPE_CHECKING:
    import torch

    from tape.models.lazy_tensors import LazyState

FORMATS = ("tape", "megatron", "megatron-core", "huggingface", "pretraining")  # those that are written
LM_HEADS = ("keep", "drop", "approximate")

# options about a Megatron checkpoint; other formats state these settings themselves
_MEGATRON_SETTINGS = {
    "checkpoint_version": "--checkpoint-version",
    "vocabulary": "--vocab-file",
    "gelu": "--gelu",
    "layernorm_epsilon": "--layernorm-epsilon",
    "hidden_dropout": "--hidden-dropout",
    "attention_dropout": "--attention-dropout",
    "assume_neutral": "--assume-neutral",
}

# by name, so that --help needs no torch
_DTYPES = {
    "float16": "float16",
    "half": "float16",
    "fp16": "float16",
    "bfloat16": "bfloat16",
    "bf16": "bfloat16",
    "float32": "float32",
    "float": "float32",
    "fp32": "float32",
    "float64": "float64",
    "double": "float64",
    "fp64": "float64",
}


MEGATRON_SETTINGS = frozenset(_MEGATRON_SETTINGS)


class CheckedSource(Protocol):
    """What the options are checked against.

    Attributes:
        path: the checkpoint's path.
        accepts: names of the Megatron settings that the format leaves open.
    """

    path: Path
    accepts: frozenset[str]

    @property
    def config(self) -> ProteinBertConfig:
        """Configuration of the TAPE model."""


@dataclass(frozen=True)
class SourceOptions:
    """Options about the source. Sizes are checked against the checkpoint; the others apply if it doesn't state them.

    Args:
        vocabulary: tokens by embedding row, for a Megatron checkpoint trained with another vocabulary file than
            ``iupac_vocab.txt``.
        gelu: ``"gelu"`` (erf) or ``"gelu_tanh"``.
        assume_neutral: names of Megatron arguments that do not change what the model computes.
        token_types: number of zero rows to write if the source was trained without token types.
        verify: compare the files of a model directory with its ``SHA256SUMS``, if it has one.
    """

    hidden_size: int | None = None
    heads: int | None = None
    layers: int | None = None
    checkpoint_version: float | None = None
    vocabulary: tuple[str, ...] | None = None
    token_types: int | None = None
    gelu: str | None = None
    layernorm_epsilon: float | None = None
    hidden_dropout: float | None = None
    attention_dropout: float | None = None
    assume_neutral: tuple[str, ...] | None = None
    verify: bool = True

    def with_token_types_of(self, reference: LazyState | None) -> SourceOptions:
        """The options for a result with as many token types as the reference checkpoint of ``-dst`` has."""
        from converter.mapping.tables import TOKEN_TYPES

        if reference is None or TOKEN_TYPES not in reference:
            return self
        return replace(self, token_types=reference[TOKEN_TYPES].shape[0])

    def check(self, source: CheckedSource) -> None:
        """Check that no option contradicts the source, or states what its format states itself.

        Raises:
            ConfigError: names the flag.
        """
        for name, flag in _MEGATRON_SETTINGS.items():
            if name not in source.accepts and getattr(self, name) is not None:
                raise ConfigError(f"{flag} is for Megatron checkpoints; {source.path} states its own settings")
        for flag, given, name in (
            ("-hidden", self.hidden_size, "hidden_size"),
            ("-heads", self.heads, "num_attention_heads"),
            ("-layers", self.layers, "num_hidden_layers"),
        ):
            found = getattr(source.config, name)
            if given is not None and given != found:
                raise ConfigError(f"{flag} {given} contradicts {source.path}, which has {name} {found}")


def parse_dtype(name: str) -> torch.dtype:
    """Look up a data type by name, with or without ``torch.``.

    Raises:
        ConfigError: if the name is unknown.
    """
    try:
        found = _DTYPES[name.strip().removeprefix("torch.").lower()]
    except KeyError:
        raise ConfigError(f"-dtp {quoted(name)} is no known data type; choose one of {', '.join(_DTYPES)}") from None
    import torch

    return getattr(torch, found)
