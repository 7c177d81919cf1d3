"""The parity certificate: a result is published only if it computes the same as its source.

The result is read back from disk like any source. Fixed and random proteins pass through its reference forward pass and
through the source's, each computed in float64 from its own files. The certificate compares the output and the keys of
every block, the final layer norm, the logits and the loss over all rows of the output layer, and the embeddings of a
protein as long as the position table.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError
from tape.tokenizers import TAPETokenizer

from .reference_forward import LOGITS, LOSS, ReferenceForward, cross_entropy

TOLERANCE = 1e-5

# Allowed effect of rounding weights to half precision, relative to the largest value of an activation. Rounding changes
# each weight by up to 2^-11 (fp16) or 2^-8 (bf16); the bounds allow for a growth by a factor of about 40 over the
# layers.
ROUNDING_BOUNDS = {torch.float16: 2e-2, torch.bfloat16: 1.5e-1}

# human ubiquitin, the A chain of insulin, crambin, and a sequence with every letter of the vocabulary
FIXED_PROTEINS = (
    "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG",
    "GIVEQCCTSICSLYQLENYCN",
    "TTCCPSIVARSNFNVCRLPGTPEALCATYTGCIIIPGATCPGDYAN",
    "ABCDEFGHIKLMNOPQRSTUVWXYZ",
)
# Allowed effect of replacing the head's activation by the blocks', relative to the largest logit: the two forms of GELU
# differ by at most 5e-4, which a matrix and a layer norm of unit variance enlarge slightly.
APPROXIMATION_BOUND = 2e-2

RANDOM_PROTEINS = 4
RANDOM_SEED = 20210816
LONGEST_RANDOM = 128


class ComparedModel(Protocol):
    """A model that can be compared with another.

    Attributes:
        path: the checkpoint's path, for messages.
    """

    path: Path

    @property
    def config(self) -> ProteinBertConfig:
        """Configuration of the TAPE model."""

    def reference_forward(self, rounded_to: torch.dtype | None) -> ReferenceForward:
        """A forward pass computed from the checkpoint's own files, with weights rounded to ``rounded_to`` if given."""


class ParityError(CheckpointError):
    """Raised when a converted model does not compute the same as its source."""


@dataclass(frozen=True)
class Comparison:
    """The largest difference of each activation, and the bound.

    Args:
        differences: largest difference by name of the activation.
        bound: largest difference allowed.
        relative: whether differences are relative to the activation's largest value.
    """

    differences: dict[str, float]
    bound: float
    relative: bool

    @property
    def worst(self) -> tuple[str, float]:
        """The activation with the largest difference; NaN counts as largest."""
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
    """The result of a comparison.

    Args:
        parity: comparison with the source's weights rounded to the result's data type.
        rounding: comparison with the source's unrounded weights, if the result is in half precision.
        approximation: comparison of the logits, if the head was written with another activation on request.
        dropped_rows: largest difference in nats between the source's loss over all rows of its output layer and that
            over the rows with tokens; rows without a token, such as padding, are dropped by the conversion.
        not_compared: activations that only one side has.
        proteins: the sequences that were used.
        computed_by: implementations of the forward passes of source and result.
    """

    parity: Comparison
    rounding: Comparison | None
    approximation: Comparison | None
    dropped_rows: float
    not_compared: tuple[str, ...]
    proteins: tuple[str, ...]
    computed_by: tuple[str, str]

    def summary(self) -> list[str]:
        """Lines that report what was compared and the largest differences."""
        stage, difference = self.parity.worst
        lines = [f"  largest difference {difference:.3g} ({stage}), allowed {self.parity.bound:g}"]
        for name, comparison in (("rounding", self.rounding), ("head", self.approximation)):
            if comparison is not None:
                stage, difference = comparison.worst
                lines.append(f"  {name}: {difference:.3g} of the largest value ({stage}), allowed {comparison.bound:g}")
        if self.dropped_rows > TOLERANCE:
            lines.append(
                f"  rows without a token (padding) raise the source's loss by up to {self.dropped_rows:.3g}; the"
                " result's loss is that over the tokens"
            )
        if self.not_compared:
            lines.append(f"  not compared, because only one side has it: {', '.join(self.not_compared)}")
        return lines

    def as_json(self) -> dict[str, Any]:
        comparisons = {"parity": self.parity, "rounding": self.rounding, "approximation": self.approximation}
        return {
            **{name: None if value is None else value.as_json() for name, value in comparisons.items()},
            "largest_effect_of_dropped_rows_on_loss": self.dropped_rows,
            "not_compared": list(self.not_compared),
            "source_computed_by": self.computed_by[0],
            "result_computed_by": self.computed_by[1],
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
    source: ComparedModel,
    result: ComparedModel,
    dtype: torch.dtype,
    *,
    approximate_head: bool = False,
    advance: Callable[[], None] = lambda: None,
) -> Certificate:
    """Compare a source with its converted result.

    Args:
        source: the source of the conversion.
        result: the written result.
        dtype: data type of the result's weights.
        approximate_head: apply the looser bound for a head with another activation to the logits.
        advance: called after each of :func:`certificate_steps` steps.

    Raises:
        ParityError: names the activation with the largest difference; the result must be discarded.
    """
    _check_sizes(source, result)
    positions = source.config.max_position_embeddings
    proteins = certificate_proteins(positions - 2)
    longest = random_protein(np.random.default_rng(RANDOM_SEED + 1), positions - 2)
    right = result.reference_forward(None)

    def differences(left: ReferenceForward, relative: bool) -> Differences:
        return compare(left, right, proteins, longest, relative, advance)

    half = dtype in ROUNDING_BOUNDS
    left = source.reference_forward(dtype if half else None)
    found = differences(left, False)
    computed_by = (left.description, right.description)
    approximation = None
    if approximate_head and LOGITS in found.stages:
        apart = differences(source.reference_forward(None), True).stages
        approximation = Comparison({name: apart[name] for name in (LOGITS, LOSS)}, APPROXIMATION_BOUND, True)
        for name in approximation.differences:
            del found.stages[name]
    parity = Comparison(found.stages, TOLERANCE, False)
    rounding = None
    if half:
        stages = differences(source.reference_forward(None), True).stages
        stages.pop(LOSS, None)  # a function of the logits, and compared exactly above
        rounding = Comparison(stages, ROUNDING_BOUNDS[dtype], True)
    for comparison, what in ((parity, "weights"), (approximation, "LM head"), (rounding, f"weights, now {dtype},")):
        if comparison is not None and not comparison.passed:
            raise ParityError(_parity_message(comparison, what, source))
    return Certificate(parity, rounding, approximation, found.dropped_rows, found.not_compared, proteins, computed_by)


def certificate_steps(dtype: torch.dtype, approximate_head: bool) -> int:
    """Number of times that :func:`certify` calls ``advance``."""
    batches = 1 + len(_batches(range(len(FIXED_PROTEINS) + RANDOM_PROTEINS)))
    return 2 * batches * (1 + (dtype in ROUNDING_BOUNDS) + approximate_head)


def _parity_message(comparison: Comparison, what: str, source: ComparedModel) -> str:
    # It names the source: the result is in a temporary directory, which is removed.
    rest = {name: difference for name, difference in comparison.differences.items() if name != LOSS}
    if rest and not (others := replace(comparison, differences=rest)).passed:
        (stage, difference), hint = others.worst, ""
    else:
        stage, difference = comparison.worst
        hint = "; its rows without a token (padding) have probability" if stage == LOSS else ""
    return (
        f"{source.path}: the converted {what} do not compute the same as the source: {stage} differs by"
        f" {difference:.3g} (allowed {comparison.bound:g}){hint}"
    )


_SIZES = (
    "num_hidden_layers",
    "hidden_size",
    "num_attention_heads",
    "intermediate_size",
    "max_position_embeddings",
    "layer_norm_position",
)


def _check_sizes(source: ComparedModel, result: ComparedModel) -> None:
    for name in _SIZES:
        one, other = getattr(source.config, name), getattr(result.config, name)
        if one != other:
            raise ParityError(f"{name} is {one} in {source.path}, but {other} in {result.path}")


@dataclass
class Differences:
    """The differences of two forward passes.

    Args:
        stages: largest difference of each activation over all proteins.
        not_compared: activations that only one side has.
        dropped_rows: see :class:`Certificate`.
    """

    stages: dict[str, float]
    not_compared: tuple[str, ...] = ()
    dropped_rows: float = 0.0


def compare(
    source: ReferenceForward,
    result: ReferenceForward,
    proteins: Sequence[str],
    longest: str,
    relative: bool,
    advance: Callable[[], None] = lambda: None,
) -> Differences:
    """Compare the activations of two forward passes, and the loss over all rows of the result's output layer.

    The result's loss is compared with that over the tokens of the source: it must not depend on rows without a token,
    which a format may add as padding.
    """
    differences = Differences({})

    def both(function: Callable[[ReferenceForward], Any]) -> tuple[Any, Any]:
        values = []
        for side in (source, result):
            values.append(function(side))
            advance()
        return values[0], values[1]

    _update(differences.stages, "embeddings", *both(lambda side: side.embeddings(longest)), relative)
    alone: set[str] = set()
    for batch in _batches(proteins):
        left, right = both(partial(_states, batch))
        for protein, expected, found in zip(batch, left, right, strict=True):
            if LOSS in expected:
                tokens = torch.from_numpy(TAPETokenizer().encode(protein))
                over_tokens = cross_entropy(expected[LOGITS], tokens)
                effect = float((expected[LOSS] - over_tokens).abs().max())
                differences.dropped_rows = max(differences.dropped_rows, effect)
                expected[LOSS] = over_tokens
            alone |= (expected.keys() ^ found.keys()) - {LOSS}  # which is not compared only if the logits aren't either
            for name in (name for name in expected if name in found):
                _update(differences.stages, name, expected[name], found[name], relative)
    differences.not_compared = tuple(sorted(alone))
    return differences


def _states(batch: Sequence[str], side: ReferenceForward) -> list[dict[str, Tensor]]:
    return side.states(batch)


def _update(differences: dict[str, float], name: str, expected: Tensor, found: Tensor, relative: bool) -> None:
    if expected.shape != found.shape:
        raise ParityError(f"{name}: shape {tuple(expected.shape)} in the source, {tuple(found.shape)} in the result")
    difference = (expected - found).abs().max()
    if relative:
        difference = difference / expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    # torch.maximum propagates NaN, which Python's max() may not
    previous = torch.tensor(differences.get(name, 0.0), dtype=torch.float64)
    differences[name] = float(torch.maximum(previous, difference.double()))


def _batches(proteins: Sequence[Any], size: int = 4) -> list[Sequence[Any]]:
    return [proteins[start : start + size] for start in range(0, len(proteins), size)]


def certificate_proteins(longest: int) -> tuple[str, ...]:
    """The fixed proteins and a few random ones, truncated to the size of the position table."""
    rng = np.random.default_rng(RANDOM_SEED)
    lengths = rng.integers(1, min(longest, LONGEST_RANDOM) + 1, size=RANDOM_PROTEINS - 1)
    chosen = [random_protein(rng, int(length)) for length in (*lengths, min(longest, LONGEST_RANDOM))]
    return tuple(protein[:longest] for protein in (*FIXED_PROTEINS, *chosen))


def random_protein(rng: np.random.Generator, length: int) -> str:
    letters = [token for token in TAPETokenizer().tokens if len(token) == 1]
    return "".join(rng.choice(letters, size=length))
