"""Options about the source, and the names of data types."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from tape.errors import ConfigError

_MEGATRON_ONLY = {
    "checkpoint_version": "--checkpoint-version",
    "vocabulary": "--vocab-file",
    "gelu": "--gelu",
    "layernorm_epsilon": "--layernorm-epsilon",
    "hidden_dropout": "--hidden-dropout",
    "attention_dropout": "--attention-dropout",
}

_DTYPES = {
    "float16": torch.float16,
    "half": torch.float16,
    "fp16": torch.float16,
    "bfloat16": torch.bfloat16,
    "bf16": torch.bfloat16,
    "float32": torch.float32,
    "float": torch.float32,
    "fp32": torch.float32,
    "float64": torch.float64,
    "double": torch.float64,
    "fp64": torch.float64,
}


@dataclass(frozen=True)
class SourceOptions:
    """Options about the source. Sizes are checked against the checkpoint; the others apply if it doesn't state them.

    Args:
        vocabulary: tokens by embedding row, for a Megatron checkpoint trained with another vocabulary file than
            ``iupac_vocab.txt``.
        gelu: ``"gelu"`` (erf) or ``"gelu_tanh"``.
        token_types: number of zero rows to write if the source was trained without token types.
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


def reject_options(options: SourceOptions, path: Path, reason: str, allowed: frozenset[str] = frozenset()) -> None:
    """Reject options that only apply to Megatron checkpoints.

    Raises:
        ConfigError: names the flag of a given option that is not ``allowed``.
    """
    for name, flag in _MEGATRON_ONLY.items():
        if name not in allowed and getattr(options, name) is not None:
            raise ConfigError(f"{flag} is for Megatron checkpoints; {path} {reason}")


def parse_dtype(name: str) -> torch.dtype:
    """Look up a data type by name, with or without ``torch.``.

    Raises:
        ConfigError: if the name is unknown.
    """
    try:
        return _DTYPES[name.strip().removeprefix("torch.").lower()]
    except KeyError:
        raise ConfigError(f"-dtp {name!r} is no known data type; choose one of {', '.join(_DTYPES)}") from None
