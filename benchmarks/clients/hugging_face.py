"""transformers: its BERTs are converted, its other encoders are loaded as they are, and it loads converted models."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from converter.convert import ConversionRequest, convert
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tape.models.modeling_huggingface import ProteinHuggingFaceForMaskedLM

from .client import Check, Client, largest_difference, outputs_of, random_model
from .inputs import SIZES, Outputs, read_inputs

OUR_MODELS = {"pre": "MegatronBertForMaskedLM", "post": "BertForMaskedLM"}  # by the place of layer norms


def prepare(folder: Path) -> None:
    """Two models, converted with ``--to huggingface``."""
    for position in OUR_MODELS:
        model = random_model(
            "transformer", "masked_language_modeling", type_vocab_size=1, layer_norm_position=position, **SIZES
        )
        model.save_pretrained(folder / f"tape_{position}")
        convert(ConversionRequest(folder / f"tape_{position}", folder / f"hf_{position}", "huggingface"), _silent)


def _silent(line: str) -> None:
    """Discard a progress line."""


def _logits(ours: np.ndarray, theirs: np.ndarray, folder: Path) -> float:
    """The largest difference of logits at tokens; theirs may have more columns, for tokens that are not TAPE's."""
    return largest_difference(ours, theirs[..., : ours.shape[-1]], read_inputs(folder, "iupac")[1])


def _converted_here(position: str, folder: Path, outputs: Outputs) -> float:
    model = ProteinBertForMaskedLM.from_pretrained(folder / f"tape_{position}")
    return _logits(outputs_of(model, folder)[0], outputs[f"hf_{position}"], folder)


def _tokens(folder: Path, outputs: Outputs) -> float:
    ids, mask = read_inputs(folder, "iupac")
    return largest_difference(outputs["tokens"], ids, mask)


def _saved_there(kind: str, folder: Path, outputs: Outputs) -> float:
    convert(ConversionRequest(folder / "theirs" / kind, folder / f"converted_{kind}"), _silent)
    model = ProteinBertForMaskedLM.from_pretrained(folder / f"converted_{kind}")
    return _logits(outputs_of(model, folder)[0], outputs[kind], folder)


def _encoder(kind: str, folder: Path, outputs: Outputs) -> float:
    model = ProteinHuggingFaceForMaskedLM.from_pretrained(folder / "theirs" / kind)
    ours = outputs_of(model, folder)[0]
    theirs = outputs[kind][..., model.huggingface.token_ids.numpy()]
    return largest_difference(ours, theirs, read_inputs(folder, "iupac")[1])


TRANSFORMERS = Client(
    name="transformers 5.24.0",
    worker="benchmarks.clients.hugging_face_worker",
    requirements="peers_requirements.txt",
    prepare=prepare,
    checks=(
        Check("`--to huggingface`, read there", "token ids of the tokenizer", _tokens, 0.0),
        *(
            Check(f"`--to huggingface` ({kind}), read there", "logits", partial(_converted_here, position))
            for position, kind in OUR_MODELS.items()
        ),
        *(
            Check(f"their {kind}, converted to TAPE", "logits", partial(_saved_there, kind))
            for kind in ("MegatronBertForMaskedLM", "BertForMaskedLM")
        ),
        *(
            Check(f"their {kind}, model type `huggingface`", "logits", partial(_encoder, kind))
            for kind in ("EsmForMaskedLM", "ProtBert")
        ),
    ),
)
