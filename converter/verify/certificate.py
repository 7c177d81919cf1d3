"""The parity certificate: source and result compute the same, or the result is not written.

What was written is opened again from the disk like any source. Fixed and random proteins go through it and through an
evaluator of the source's own files. Every block and its keys, the final layer norm and the logits are compared, and the
embeddings on a protein as long as the position table. Both sides compute in double precision.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from converter.formats.sources import Source
from tape.errors import CheckpointError
from tape.tokenizers import TAPETokenizer

from .reference_forward import LOGITS, ReferenceForward

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
# Of a head with the blocks' activation in place of its own, as a fraction of the largest logit: the two forms of GELU
# differ by 5e-4 at most, which a matrix and a layer norm of unit variance enlarge a little.
APPROXIMATION_BOUND = 2e-2

RANDOM_PROTEINS = 4
RANDOM_SEED = 20210816
LONGEST_RANDOM = 128


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
    """What was compared.

    Args:
        parity: with the source's weights rounded to the result's dtype.
        rounding: with the source's weights as they are, where the result's are half precision.
        approximation: logits of a head that was written with another activation, on request.
        not_compared: stages that only one side has.
        evaluators: what computed source and result.
    """

    parity: Comparison
    rounding: Comparison | None
    approximation: Comparison | None
    not_compared: tuple[str, ...]
    proteins: tuple[str, ...]
    evaluators: tuple[str, str]

    def as_json(self) -> dict[str, Any]:
        comparisons = {"parity": self.parity, "rounding": self.rounding, "approximation": self.approximation}
        return {
            **{name: None if value is None else value.as_json() for name, value in comparisons.items()},
            "not_compared": list(self.not_compared),
            "source_computed_by": self.evaluators[0],
            "result_computed_by": self.evaluators[1],
            "arithmetic": "float64 on both sides",
            "proteins": {
                "fixed": len(FIXED_PROTEINS),
                "random": len(self.proteins) - len(FIXED_PROTEINS),
                "random_seed": RANDOM_SEED,
                "residues": sum(map(len, self.proteins)),
                "embeddings_compared_on_all_positions": True,
            },
        }


def certify(
    source: Source,
    result: Source,
    dtype: torch.dtype,
    *,
    approximate_head: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> Certificate:
    """Compare a source with what was made of it.

    Args:
        dtype: of the result's weights.
        approximate_head: hold the logits against the looser bound for a head with another activation.
        advance: called after each of :func:`certificate_steps`.

    Raises:
        ParityError: names the stage with the largest difference; nothing of the result should be kept.
    """
    _check_sizes(source, result)
    positions = source.config.max_position_embeddings
    proteins = certificate_proteins(positions - 2)
    longest = random_protein(np.random.default_rng(RANDOM_SEED + 1), positions - 2)
    right = result.evaluator(None)

    def differences(left: ReferenceForward, relative: bool) -> tuple[dict[str, float], tuple[str, ...]]:
        return compare(left, right, proteins, longest, relative, advance)

    half = dtype in ROUNDING_BOUNDS
    left = source.evaluator(dtype if half else None)
    found, not_compared = differences(left, False)
    evaluators = (left.description, right.description)
    approximation = None
    if approximate_head and LOGITS in found:
        del found[LOGITS]
        apart = differences(source.evaluator(None), True)[0][LOGITS]
        approximation = Comparison({LOGITS: apart}, APPROXIMATION_BOUND, True)
    parity = Comparison(found, TOLERANCE, False)
    rounding = None
    if half:
        found = differences(source.evaluator(None), True)[0]
        rounding = Comparison(found, ROUNDING_BOUNDS[dtype], True)
    for comparison, what in ((parity, "weights"), (approximation, "LM head"), (rounding, f"weights, now {dtype},")):
        if comparison is not None and not comparison.passed:
            raise ParityError(_refusal(comparison, what, result))
    return Certificate(parity, rounding, approximation, not_compared, proteins, evaluators)


def certificate_steps(dtype: torch.dtype, approximate_head: bool) -> int:
    """How often :func:`certify` calls ``advance``."""
    batches = 1 + len(_batches(range(len(FIXED_PROTEINS) + RANDOM_PROTEINS)))
    return 2 * batches * (1 + (dtype in ROUNDING_BOUNDS) + approximate_head)


def _refusal(comparison: Comparison, what: str, result: Source) -> str:
    stage, difference = comparison.worst
    return (
        f"{result.path}: the converted {what} don't compute what the source computes: {stage} differs by"
        f" {difference:.3g} (allowed {comparison.bound:g})"
    )


_SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "layer_norm_position",
)


def _check_sizes(source: Source, result: Source) -> None:
    for name in _SIZES:
        one, other = getattr(source.config, name), getattr(result.config, name)
        if one != other:
            raise ParityError(f"{name} is {one} in {source.path}, but {other} in {result.path}")


def compare(
    source: ReferenceForward,
    result: ReferenceForward,
    proteins: Sequence[str],
    longest: str,
    relative: bool,
    advance: Callable[[], None] = lambda: None,
) -> tuple[dict[str, float], tuple[str, ...]]:
    """Largest difference of each stage over all proteins and positions; and the stages that only one side has."""
    differences: dict[str, float] = {}

    def both(function: Callable[[ReferenceForward], Any]) -> tuple[Any, Any]:
        values = []
        for side in (source, result):
            values.append(function(side))
            advance()
        return values[0], values[1]

    _note(differences, "embeddings", *both(lambda side: side.embeddings(longest)), relative)
    alone: set[str] = set()
    for batch in _batches(proteins):
        left, right = both(partial(_states, batch))
        for expected, found in zip(left, right, strict=True):
            alone |= expected.keys() ^ found.keys()
            for name in (name for name in expected if name in found):
                _note(differences, name, expected[name], found[name], relative)
    return differences, tuple(sorted(alone))


def _states(batch: Sequence[str], side: ReferenceForward) -> list[dict[str, Tensor]]:
    return side.states(batch)


def _note(differences: dict[str, float], name: str, expected: Tensor, found: Tensor, relative: bool) -> None:
    if expected.shape != found.shape:
        raise ParityError(f"{name}: shape {tuple(expected.shape)} in the source, {tuple(found.shape)} in the result")
    difference = (expected - found).abs().max()
    if relative:
        difference = difference / expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    # torch.maximum keeps a NaN, where max() of Python may lose it
    previous = torch.tensor(differences.get(name, 0.0), dtype=torch.float64)
    differences[name] = float(torch.maximum(previous, difference.double()))


def _batches(proteins: Sequence[Any], size: int = 4) -> list[Sequence[Any]]:
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
