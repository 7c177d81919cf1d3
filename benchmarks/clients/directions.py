"""All directions of the converter: from every format to every format, with the largest difference of each.

The difference is that of the converter's certificate: activations and logits in float64, computed from the files of
source and result by independent forward passes (:mod:`converter.verify`).
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from converter.convert import ConversionRequest, convert
from converter.verify.certificate import TOLERANCE

from .client import Result, random_model
from .inputs import SIZES

CONVERTER = "converter"
# name in the table -> the converter's --to, and the parallel sizes (tensor, pipeline) of what is written
PRE_LAYER_NORM = {
    "TAPE": ("tape", 1, 1),
    "Megatron-LM": ("megatron", 1, 1),
    "Megatron-LM, TP 2 x PP 2": ("megatron", 2, 2),
    "Megatron Core": ("megatron-core", 1, 1),
    "Megatron Core, TP 2": ("megatron-core", 2, 1),
    "MegatronBert of transformers": ("huggingface", 1, 1),
    "pretrain_tape.py": ("pretraining", 1, 1),
}
POST_LAYER_NORM = {"TAPE, post layer norm": ("tape", 1, 1), "Bert of transformers": ("huggingface", 1, 1)}


def conversions(folder: Path) -> Iterator[Result]:
    """Convert a random model from every format to every format.

    Args:
        folder: an empty folder.
    """
    for position, forms in (("pre", PRE_LAYER_NORM), ("post", POST_LAYER_NORM)):
        origin = folder / position
        # transformers has one activation for blocks and head, so that both have the erf GELU here
        model = random_model(
            "transformer", "masked_language_modeling", type_vocab_size=1, layer_norm_position=position, **SIZES
        )
        model.save_pretrained(origin)
        for source in forms:
            convert(_request(origin, folder / source, *forms[source]), _silent)
        for source in forms:
            for target in forms:
                certificate = convert(
                    _request(folder / source, folder / f"{source} to {target}", *forms[target]), _silent
                )
                yield Result(
                    CONVERTER,
                    f"{source} to {target}",
                    "all activations and logits, float64",
                    certificate.parity.worst[1],
                    TOLERANCE,
                )


def _request(source: Path, out: Path, form: str, tensor: int, pipeline: int) -> ConversionRequest:
    return ConversionRequest(source, out, form, tensor_parallel=tensor, pipeline_parallel=pipeline)


def _silent(line: str) -> None:
    """Discard a progress line."""


def matrix(results: list[Result]) -> list[str]:
    """The differences as Markdown tables with a row per source and a column per result."""
    found = {result.direction: result.difference for result in results}
    lines: list[str] = []
    for forms in (PRE_LAYER_NORM, POST_LAYER_NORM):
        lines += [f"| from / to | {' | '.join(forms)} |", "|:--|" + "--:|" * len(forms)]
        for source in forms:
            cells = [f"{found[f'{source} to {target}']:.0e}" for target in forms]
            lines.append(f"| {source} | {' | '.join(cells)} |")
        lines.append("")
    return lines
