"""Recognition of checkpoints that the converter does not read, so that errors name them and what to do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tape.errors import CheckpointError
from tape.io.checkpoint_formats import DEEPSPEED, recognize_format


def refuse_foreign_path(path: Path) -> None:
    """Refuse files and directories that :mod:`tape.io.checkpoint_formats` knows and the converter does not read.

    Raises:
        CheckpointError: names the format and how to continue.
    """
    found = recognize_format(path)
    if found is None:
        return
    if not found.is_model:
        raise CheckpointError(f"{path}: {found.name}, not a model")
    if found.export is not None:
        raise CheckpointError(f"{path}: {found.name}, which the converter does not read: {found.export}")


def describe_content(content: Mapping[Any, Any], model: Mapping[Any, Any] | None = None) -> str:
    """What a file without a Megatron language model is, by its keys; else the keys of its ``model``, or its own."""
    if "pytorch-lightning_version" in content:
        return "a PyTorch Lightning checkpoint: save its state_dict alone, without the prefix of its keys"
    if {"model", "optimizer_history"} <= content.keys():
        return "a fairseq checkpoint, whose models the converter does not support"
    if "ds_config" in content or "ds_version" in content:
        return f"{DEEPSPEED.name}: {DEEPSPEED.export}"
    shown = ", ".join(str(key)[:60] for key in list(model or content)[:6])
    return f"contains no Megatron language model (its keys: {shown})"
