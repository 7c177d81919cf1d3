"""The parity certificate: source and result compute the same, or the result is not written.

The written directory is read again from the disk as any user would read it. Fixed and random proteins go through it
and through an evaluator of the source's own files. Every block and its keys, the final layer norm and the logits are
compared, and the embeddings on a protein as long as the position table. Both sides compute in double precision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tape.errors import CheckpointError
from tape.models.model_directory import load_state_dict
from tape.models.modeling_bert import ProteinBertForMaskedLM, ProteinBertModel
from tape.tokenizers import TAPETokenizer

from .evaluation import Evaluator, ModelEvaluator
from .sources import Source

TOLERANCE = 1e-5

# What rounding the weights to half precision may change, as a fraction of a stage's largest value. Rounding alone is
# 2^-11 (fp16) or 2^-8 (bf16) a weight; the bounds leave a factor of about 40 for its growth through the layers.
ROUNDING_BOUNDS = {torch.float16: 2e-2, torch.bfloat16: 1.5e-1}

# Human ubiquitin, insulin's A chain, crambin, and one with every letter of the vocabulary.
FIXED_PROTEINS = (
    "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG",
    "GIVEQCCTSICSLYQLENYCN",
    "TTCCPSIVARSNFNVCRLPGTPEALCATYTGCIIIPGATCPGDYAN",
    "ABCDEFGHIKLMNOPQRSTUVWXYZ",
)
RANDOM_PROTEINS = 4
RANDOM_SEED = 20210816
LONGEST_RANDOM = 256


class ParityError(CheckpointError):
    """The written model does not compute what its source computes."""


@dataclass(frozen=True)
class Comparison:
    """Largest differences by stage, and what is allowed.

    Args:
        relative: differences are fractions of the stage's largest value.
    """

    differences: dict[str, float]
    bound: float
    relative: bool

    @property
    def worst(self) -> tuple[str, float]:
        """Stage with the largest difference (a NaN counts as the largest)."""
        return max(self.differences.items(), key=lambda item: (item[1] != item[1], item[1]))

    @property
    def passed(self) -> bool:
        return all(difference <= self.bound for difference in self.differences.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "largest_difference": self.worst[1],
            "stages": [{"name": name, "largest_difference": value} for name, value in self.differences.items()],
            "tolerance": self.bound,
            "tolerance_is": "relative to the stage's largest value" if self.relative else "absolute",
        }


@dataclass(frozen=True)
class Certificate:
    """``parity`` has the source's weights rounded to the result's dtype; ``rounding`` compares with them unrounded."""

    parity: Comparison
    rounding: Comparison | None
    proteins: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "parity": self.parity.as_json(),
            "rounding": None if self.rounding is None else self.rounding.as_json(),
            "arithmetic": "float64 on both sides",
            "proteins": {
                "fixed": len(FIXED_PROTEINS),
                "random": len(self.proteins) - len(FIXED_PROTEINS),
                "random_seed": RANDOM_SEED,
                "residues": sum(map(len, self.proteins)),
                "embeddings_compared_on_all_positions": True,
            },
        }


def certify(source: Source, directory: Path, dtype: torch.dtype, weights: Path | None = None) -> Certificate:
    """Compare a source with the model directory written from it.

    Args:
        dtype: of the written weights.
        weights: the weights file, when the directory has it under a name of the user's.

    Raises:
        ParityError: names the stage with the largest difference; nothing of ``directory`` should be kept.
    """
    result = load_result(weights or directory, source.has_head)
    positions = source.config.max_position_embeddings
    proteins = certificate_proteins(positions - 2)
    longest = random_protein(np.random.default_rng(RANDOM_SEED + 1), positions - 2)
    parity = Comparison(compare(source.evaluator(dtype), result, proteins, longest, False), TOLERANCE, False)
    if not parity.passed:
        raise ParityError(_refusal(parity, "weights"))
    rounding = None
    if dtype in ROUNDING_BOUNDS:
        differences = compare(source.evaluator(None), result, proteins, longest, True)
        rounding = Comparison(differences, ROUNDING_BOUNDS[dtype], True)
        if not rounding.passed:
            raise ParityError(_refusal(rounding, f"weights rounded to {dtype}"))
    return Certificate(parity, rounding, proteins)


def _refusal(comparison: Comparison, what: str) -> str:
    stage, difference = comparison.worst
    return (
        f"the converted {what} don't compute what the source computes: {stage} differs by {difference:.3g}"
        f" (allowed {comparison.bound:g}); nothing was written"
    )


def load_result(path: Path, has_head: bool) -> ModelEvaluator:
    """The written model as ``from_pretrained`` reads it.

    Raises:
        ParityError: weights are missing or left over.
    """
    cls = ProteinBertForMaskedLM if has_head else ProteinBertModel
    model, report = cls.from_pretrained(path, output_loading_info=True)
    for kind in ("missing_keys", "unexpected_keys"):
        if report[kind]:
            raise ParityError(f"{path}: {kind.replace('_', ' ')} on reading it back: {', '.join(report[kind][:5])}")
    if has_head:
        _check_tied(path)
    return ModelEvaluator(model, token_rows=range(TAPETokenizer().vocab_size))


def _check_tied(path: Path) -> None:
    """The decoder's stored copy is not read back (it is tied), but other programs may read it (defect 5)."""
    state = load_state_dict(path)
    if not torch.equal(state["mlm.decoder.weight"], state["bert.embeddings.word_embeddings.weight"]):
        raise ParityError(f"{path}: mlm.decoder.weight differs from the word embeddings, to which it is tied")


def compare(
    source: Evaluator, result: Evaluator, proteins: Sequence[str], longest: str, relative: bool
) -> dict[str, float]:
    """Largest difference of each stage over all proteins and positions."""
    differences: dict[str, float] = {}
    _note(differences, "embeddings", source.embeddings(longest), result.embeddings(longest), relative)
    for batch in _batches(proteins):
        for expected, found in zip(source.states(batch), result.states(batch), strict=True):
            if expected.keys() != found.keys():
                raise ParityError(f"source and result differ in their stages: {sorted(expected.keys() ^ found.keys())}")
            for name in expected:
                _note(differences, name, expected[name], found[name], relative)
    return differences


def _note(differences: dict[str, float], name: str, expected: Tensor, found: Tensor, relative: bool) -> None:
    difference = (expected - found).abs().max()
    if relative:
        difference = difference / expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    # torch.maximum keeps a NaN, where max() of Python may lose it
    previous = torch.tensor(differences.get(name, 0.0), dtype=torch.float64)
    differences[name] = float(torch.maximum(previous, difference.double()))


def _batches(proteins: Sequence[str], size: int = 4) -> list[Sequence[str]]:
    return [proteins[start : start + size] for start in range(0, len(proteins), size)]


def certificate_proteins(longest: int) -> tuple[str, ...]:
    """The fixed proteins and a few random ones, cut to what the position table allows."""
    rng = np.random.default_rng(RANDOM_SEED)
    lengths = rng.integers(1, min(longest, LONGEST_RANDOM) + 1, size=RANDOM_PROTEINS - 1)
    chosen = [random_protein(rng, int(length)) for length in (*lengths, min(longest, LONGEST_RANDOM))]
    return tuple(protein[:longest] for protein in (*FIXED_PROTEINS, *chosen))


def random_protein(rng: np.random.Generator, length: int) -> str:
    letters = [token for token in TAPETokenizer().tokens if len(token) == 1]
    return "".join(rng.choice(letters, size=length))
