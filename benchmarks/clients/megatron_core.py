"""Megatron Core: its BERT loads what the converter writes, and the converter reads its distributed checkpoints."""

from __future__ import annotations

from pathlib import Path

from converter.convert import ConversionRequest, convert
from tape.models.modeling_bert import ProteinBertForMaskedLM

from .client import Check, Client, largest_difference, outputs_of, random_model
from .inputs import SIZES, Outputs, read_inputs


def prepare(folder: Path) -> None:
    """A model, converted with ``--to megatron-core``."""
    model = random_model("transformer", "masked_language_modeling", type_vocab_size=2, **SIZES)
    model.save_pretrained(folder / "tape")
    convert(ConversionRequest(folder / "tape", folder / "core", "megatron-core"), _silent)


def _silent(line: str) -> None:
    """Discard a progress line."""


def _logits(model: Path, name: str, folder: Path, outputs: Outputs) -> float:
    """The largest difference of the logits of TAPE's tokens, which the worker has put into TAPE's order."""
    ours = outputs_of(ProteinBertForMaskedLM.from_pretrained(model).double(), folder)[0]
    return largest_difference(ours, outputs[name], read_inputs(folder, "iupac")[1])


def _converted_here(folder: Path, outputs: Outputs) -> float:
    return _logits(folder / "tape", "converted", folder, outputs)


def _saved_there(folder: Path, outputs: Outputs) -> float:
    convert(ConversionRequest(folder / "distributed", folder / "back"), _silent)
    return _logits(folder / "back", "saved", folder, outputs)


MEGATRON_CORE = Client(
    name="megatron-core 0.16.1",
    worker="benchmarks.clients.megatron_core_worker",
    requirements="clients_requirements.txt",
    prepare=prepare,
    checks=(
        Check("`--to megatron-core`, `load_state_dict(strict=True)` there", "logits, float64", _converted_here),
        Check("their `torch_dist` checkpoint, converted to TAPE", "logits, float64", _saved_there),
    ),
)
