"""The forms that are written: TAPE's, Megatron-LM's, Hugging Face's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from tape.configs import ProteinBertConfig
from tape.models.model_directory import SAFETENSORS_NAME, save_model_directory

from .tensor_files import LazyState

FORMS = ("tape", "megatron", "huggingface")


class Target(Protocol):
    """A form, with what the user chose of it."""

    def check(self, config: ProteinBertConfig, has_head: bool) -> None:
        """Refuse a model that the form can't hold.

        Raises:
            ConfigError: says why.
        """

    def write(self, folder: Path, state: LazyState, config: ProteinBertConfig, source: Mapping[str, Any]) -> None:
        """Write everything but the record of the conversion.

        Args:
            state: of ProteinBertForMaskedLM, in one dtype; without ``mlm.`` the encoder alone.
            source: its provenance.
        """


@dataclass(frozen=True)
class TapeTarget:
    """A TAPE model directory; ``weights`` is the weights file's name, which decides the format."""

    weights: str = SAFETENSORS_NAME

    def check(self, config: ProteinBertConfig, has_head: bool) -> None:
        """Our own form holds every model of ours."""

    def write(self, folder: Path, state: LazyState, config: ProteinBertConfig, source: Mapping[str, Any]) -> None:
        # An encoder alone has the names of ProteinBertModel.
        prefix = "" if "mlm.bias" in state else "bert."
        named = {key.removeprefix(prefix): tensor for key, tensor in state.items()}
        provenance = {"written_by": "converter/megatron-converter.py", "source": dict(source)}
        save_model_directory(folder, named, config, weights=self.weights, provenance=provenance)
