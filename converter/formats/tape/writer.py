"""Writes TAPE model directories."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.configs import ProteinBertConfig
from tape.models.lazy_tensors import LazyState
from tape.models.model_directory import SAFETENSORS_NAME, save_model_directory


@dataclass(frozen=True)
class TapeTarget:
    """A TAPE model directory.

    Args:
        weights: name of the weights file; its suffix selects safetensors or PyTorch's format.
    """

    weights: str = SAFETENSORS_NAME

    def check(self, config: ProteinBertConfig, has_head: bool) -> None:
        """TAPE's format represents every model of this project."""

    def write(self, folder: Path, state: LazyState, config: ProteinBertConfig, source: Mapping[str, Any]) -> None:
        """Write configuration, weights, vocabulary and provenance."""
        # without the head, keys are those of ProteinBertModel
        prefix = "" if "mlm.bias" in state else "bert."
        named = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
        provenance = {"written_by": "converter/megatron-converter.py", "source": dict(source)}
        save_model_directory(folder, named, config, weights=self.weights, provenance=provenance)
