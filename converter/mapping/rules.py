"""Applies rule tables: which tensor of one form becomes which of another, in either direction.

A table is total both ways. A key that no rule consumes and no drop lists, and a key that no rule produces, are errors
that name it. Nothing is read here: tensors stay lazy, and the transforms are run without data for the shapes alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

import torch
from torch import Tensor

from converter.formats.tensor_files import LazyState
from tape.errors import CheckpointError, VocabularyMismatchError
from tape.models.lazy_tensors import LazyTensor
from tape.tokenizers import IUPAC_VOCAB, MEGATRON_SPECIAL_TOKENS

from .transforms import TRANSFORMS, Layout, Tensors, Transform

Shards = tuple[LazyTensor, ...]


@dataclass(frozen=True)
class Rule:
    """``{i}`` in a name stands for every layer's number.

    Args:
        source: the form's key.
        transform: see :mod:`converter.mapping.transforms`.
        targets: keys of the model in TAPE's names.
        group: marks rules that a source may lack as a whole.
    """

    source: str
    transform: str
    targets: tuple[str, ...]
    group: str = ""


@dataclass(frozen=True)
class Mapped:
    """A model's state dict with the record of what became of the rest."""

    state: LazyState
    dropped: dict[str, str] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)


def _numbered(rule: Rule, layers: int) -> list[tuple[str, tuple[str, ...]]]:
    """The rule's keys for every layer."""
    if "{i}" not in rule.source:
        return [(rule.source, rule.targets)]
    numbers = [str(number) for number in range(layers)]
    return [
        (rule.source.replace("{i}", number), tuple(target.replace("{i}", number) for target in rule.targets))
        for number in numbers
    ]


def _steps(rules: Sequence[Rule], present: Set[str], layers: int) -> Iterator[tuple[Transform, str, tuple[str, ...]]]:
    """(transform, the form's key, the model's keys) of every layer, without groups that aren't ``present``."""
    for rule in rules:
        if not rule.group or rule.group in present:
            for source, targets in _numbered(rule, layers):
                yield TRANSFORMS[rule.transform], source, targets


def apply_rules(
    rules: Sequence[Rule],
    drops: Mapping[str, str],
    shards: Mapping[str, Shards],
    layers: int,
    layout: Layout,
) -> Mapped:
    """Consume every source key and produce the model's tensors (in the source's dtypes).

    Args:
        shards: each source key's tensors by tensor-parallel rank.

    Raises:
        CheckpointError: a key is unknown or missing, or a tensor doesn't fit its transform; names it.
    """
    always = {rule.source for rule in rules if not rule.group}
    present = {rule.group for rule in rules if rule.source in shards and rule.source not in always}
    state: LazyState = {}
    consumed: set[str] = set()
    for transform, source, targets in _steps(rules, present, layers):
        if source not in shards:
            raise CheckpointError(f"{source} is missing (it would become {', '.join(targets)})")
        state |= zip(targets, _lazily(transform.merge, source, targets[0], shards[source], layout), strict=True)
        consumed.add(source)
    return Mapped(state, _drop(drops, [key for key in shards if key not in consumed]))


def invert_rules(
    rules: Sequence[Rule], state: Mapping[str, LazyTensor], layers: int, layout: Layout
) -> dict[str, Shards]:
    """The same tables backwards: a model's tensors to the form's, one for each rank.

    Raises:
        CheckpointError: the model has a tensor that no rule knows, lacks one, or one can't be divided; names it.
    """
    present = {rule.group for rule in rules if any(target in state for target in rule.targets)}
    produced: dict[str, Shards] = {}
    consumed: set[str] = set()
    for transform, source, targets in _steps(rules, present, layers):
        missing = [target for target in targets if target not in state]
        if missing:
            raise CheckpointError(f"{missing[0]} is missing (it would become {source})")
        consumed |= set(targets)
        if source not in produced:  # two rules with one source: the second is the tied copy
            tensors = tuple(state[target] for target in targets)
            produced[source] = _lazily(transform.split, targets[0], source, tensors, layout)
    unknown = sorted(state.keys() - consumed)
    if unknown:
        raise CheckpointError(f"{unknown[0]}: no rule of the form to write knows this key")
    return produced


def _lazily(
    transform: Callable[[Tensors, Layout], Tensors], name: str, becomes: str, tensors: Shards, layout: Layout
) -> Shards:
    """The transform's results, shapes now and values when they are asked for."""

    def run(inputs: Tensors) -> Tensors:
        try:
            return transform(inputs, layout)
        except CheckpointError as error:
            raise CheckpointError(f"{name}: {error}") from None
        except (IndexError, RuntimeError) as error:  # what torch raises on a tensor without the dimensions needed
            shapes = [tensor.shape for tensor in tensors]
            raise CheckpointError(f"{name}: has shapes {shapes}, which can't become {becomes}") from error

    def load(number: int) -> Callable[[], Tensor]:
        return lambda: run(tuple(tensor.load() for tensor in tensors))[number]

    dtype = tensors[0].dtype
    outlines = run(tuple(torch.empty(tensor.shape, dtype=dtype, device="meta") for tensor in tensors))
    return tuple(LazyTensor(tuple(outline.shape), dtype, load(number)) for number, outline in enumerate(outlines))


def _drop(drops: Mapping[str, str], keys: Sequence[str]) -> dict[str, str]:
    """Reason for each key that stays behind.

    Raises:
        CheckpointError: a key isn't in the list of drops.
    """
    dropped = {}
    for key in keys:
        reason = next((reason for pattern, reason in drops.items() if fnmatchcase(key, pattern)), None)
        if reason is None:
            raise CheckpointError(f"{key}: no rule knows this key, and it isn't among the deliberate drops")
        dropped[key] = reason
    return dropped


def single(state: Mapping[str, LazyTensor]) -> dict[str, Shards]:
    """Shards of a form that has one rank."""
    return {key: (tensor,) for key, tensor in state.items()}


def check_tied(state: Mapping[str, Shards], copy: str, original: str) -> None:
    """Two names of one matrix hold the same values on every rank, if the copy is there.

    Raises:
        CheckpointError: they differ; names both.
    """
    for rank, (one, other) in enumerate(zip(state.get(copy, ()), state.get(original, ()), strict=False)):
        if one.shape != other.shape or not torch.equal(one.load(), other.load()):
            raise CheckpointError(f"{copy}: rank {rank} differs from {original}, to which it is tied")


def check_total(state: Mapping[str, LazyTensor], expected: Mapping[str, Sequence[int]]) -> None:
    """Every parameter of the model is produced, none beside, each with its shape.

    Raises:
        CheckpointError: names the first key that is missing, unknown or of another shape.
    """
    for key in expected:
        if key not in state:
            raise CheckpointError(f"{key}: the model needs it, but the source doesn't produce it")
    for key, tensor in state.items():
        if key not in expected:
            raise CheckpointError(f"{key}: the source has it, but the model has no such parameter")
        if tuple(tensor.shape) != tuple(expected[key]):
            raise CheckpointError(f"{key}: has shape {tuple(tensor.shape)}, the model's is {tuple(expected[key])}")


def token_rows_by_name(source_tokens: Sequence[str]) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """For each TAPE token its row in a source with these tokens; and the source's unused tokens, which stay behind.

    Raises:
        VocabularyMismatchError: a TAPE token is missing, a token is there twice, or one has no counterpart in TAPE.
    """
    names = [MEGATRON_SPECIAL_TOKENS.get(token, token) for token in source_tokens]
    unused = tuple(token for token in names if token.startswith("[unused") or not token)  # "": a blank line
    foreign = [token for token in names if token not in IUPAC_VOCAB and token not in unused]
    missing = [token for token in IUPAC_VOCAB if token not in names]
    doubled = sorted({token for token in names if token and names.count(token) > 1})
    for problem, tokens in (("lacks", missing), ("has without a counterpart", foreign), ("has twice", doubled)):
        if tokens:
            raise VocabularyMismatchError(f"the source's vocabulary {problem}: {', '.join(tokens)}")
    return tuple(names.index(token) for token in IUPAC_VOCAB), unused
