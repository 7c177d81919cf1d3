"""Applies the rule tables that map the tensors of one checkpoint format to another, in either direction.

Tables are complete in both directions: a key that no rule consumes and no drop list names, or a key that no rule
produces, is an error that names it. No data is read here: tensors stay lazy, and transforms run on the meta device to
determine shapes.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from torch import Tensor

from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, VocabularyMismatchError
from tape.models.lazy_tensors import LazyState, LazyTensor
from tape.tokenizers import IUPAC_VOCAB, MEGATRON_SPECIAL_TOKENS

from .transforms import TRANSFORMS, Tensors, Transform, TransformSettings

Shards = tuple[LazyTensor, ...]
_SHOWN = 10  # tokens listed in a message
_HEAD_NAMES = ("mlm.", "word_embeddings_for_head.")  # of the model, and of what Megatron-LM has beside it
_LAYER = re.compile(r"\.layers?\.(\d+)\.")
POOLER_WEIGHT, POOLER_BIAS = "bert.pooler.dense.weight", "bert.pooler.dense.bias"


@dataclass(frozen=True)
class Rule:
    """Maps one key of a format; ``{i}`` in names is replaced by every layer number.

    Args:
        source: the key in the format.
        transform: name of a transform in :mod:`converter.mapping.transforms`.
        targets: the model's keys, in TAPE's names.
        group: name of a group of rules that a source may lack together; empty if required.
    """

    source: str
    transform: str
    targets: tuple[str, ...]
    group: str = ""


@dataclass(frozen=True)
class Mapped:
    """A model's state dict, with the keys that were dropped or filled in, and the reasons."""

    state: LazyState
    dropped: dict[str, str] = field(default_factory=dict)
    filled: dict[str, str] = field(default_factory=dict)

    def summary(self) -> Iterator[str]:
        """A line for each reason for which keys were dropped or filled in."""
        for action, keys in (("dropped", self.dropped), ("filled in", self.filled)):
            for reason in dict.fromkeys(keys.values()):
                names = [name for name in keys if keys[name] == reason]
                more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
                yield f"{action}: {', '.join(names[:_SHOWN])}{more} ({reason})"

    def without_head(self) -> Mapped:
        """The encoder alone."""
        head = [name for name in (*self.state, *self.dropped) if name.startswith(_HEAD_NAMES)]
        state = {name: tensor for name, tensor in self.state.items() if name not in head}
        return Mapped(state, self.dropped | dict.fromkeys(head, "requested by --lm-head drop"), self.filled)

    def with_pooler(self, config: ProteinBertConfig) -> Mapped:
        """The model with a new pooler, if it is post-layer-norm and has none, as transformers' ``BertForMaskedLM``."""
        if config.layer_norm_position != "post" or POOLER_WEIGHT in self.state:
            return self
        size = config.hidden_size

        def weight() -> Tensor:
            generator = torch.Generator().manual_seed(0)
            return torch.empty(size, size).normal_(0.0, config.initializer_range, generator=generator)

        pooler = {
            POOLER_WEIGHT: LazyTensor((size, size), torch.float32, weight),
            POOLER_BIAS: LazyTensor((size,), torch.float32, lambda: torch.zeros(size)),
        }
        reasons = dict.fromkeys(pooler, "initial values as of a new model: the source has no pooler")
        return Mapped({**self.state, **pooler}, self.dropped, self.filled | reasons)


def _numbered(rule: Rule, layers: int) -> list[tuple[str, tuple[str, ...]]]:
    """The keys of a rule for every layer."""
    if "{i}" not in rule.source:
        return [(rule.source, rule.targets)]
    numbers = [str(number) for number in range(layers)]
    return [
        (rule.source.replace("{i}", number), tuple(target.replace("{i}", number) for target in rule.targets))
        for number in numbers
    ]


def _steps(rules: Sequence[Rule], present: Set[str], layers: int) -> Iterator[tuple[Transform, str, tuple[str, ...]]]:
    """(transform, the format's key, the model's keys) for every layer, without groups that are not ``present``."""
    for rule in rules:
        if not rule.group or rule.group in present:
            for source, targets in _numbered(rule, layers):
                yield TRANSFORMS[rule.transform], source, targets


def apply_rules(
    rules: Sequence[Rule],
    drops: Mapping[str, str],
    shards: Mapping[str, Shards],
    layers: int,
    layout: TransformSettings,
    path: Path,
    own_names: Mapping[str, str] | None = None,
) -> Mapped:
    """Map a checkpoint to the model's state dict, in the source's data types.

    Args:
        rules: the rule table of the format.
        drops: patterns of keys that are dropped, with the reasons.
        shards: the tensors of each key by tensor-parallel rank.
        layers: number of layers.
        layout: settings of the transforms.
        path: the checkpoint, for messages.
        own_names: names in the file of keys that have others here, for messages.

    Raises:
        CheckpointError: if a key is unknown or missing, or a tensor doesn't fit its transform; the message names it.
    """
    always = {rule.source for rule in rules if not rule.group}
    present = {rule.group for rule in rules if rule.source in shards and rule.source not in always}
    state: LazyState = {}
    consumed: set[str] = set()
    for transform, source, targets in _steps(rules, present, layers):
        if source not in shards:
            raise CheckpointError(f"{path}: {source} is missing; it would become {', '.join(targets)}")
        merged = _lazily(transform.merge, f"{path}: {source}", targets[0], shards[source], layout)
        state |= zip(targets, merged, strict=True)
        consumed.add(source)
    return Mapped(state, _drop(drops, [key for key in shards if key not in consumed], layers, path, own_names or {}))


def invert_rules(
    rules: Sequence[Rule], state: Mapping[str, LazyTensor], layers: int, layout: TransformSettings
) -> dict[str, Shards]:
    """Map a model's state dict to the tensors of a format, one shard per tensor-parallel rank.

    Raises:
        CheckpointError: if a tensor is unknown, missing, or can't be sharded; the message names it.
    """
    present = {rule.group for rule in rules if any(target in state for target in rule.targets)}
    produced: dict[str, Shards] = {}
    consumed: set[str] = set()
    for transform, source, targets in _steps(rules, present, layers):
        missing = [target for target in targets if target not in state]
        if missing:
            raise CheckpointError(f"{missing[0]} is missing; it would become {source}")
        consumed |= set(targets)
        if source not in produced:  # if two rules have the same source, the second is the tied copy
            tensors = tuple(state[target] for target in targets)
            produced[source] = _lazily(transform.split, targets[0], source, tensors, layout)
    unknown = sorted(state.keys() - consumed)
    if unknown:
        raise CheckpointError(f"{unknown[0]}: unknown key: the format to write has no rule for it")
    return produced


def _lazily(
    transform: Callable[[Tensors, TransformSettings], Tensors],
    name: str,
    becomes: str,
    tensors: Shards,
    layout: TransformSettings,
) -> Shards:
    """The results of a transform; shapes are computed now, values when they are loaded."""

    def run(inputs: Tensors) -> Tensors:
        try:
            return transform(inputs, layout)
        except CheckpointError as error:
            raise CheckpointError(f"{name}: {error}") from None
        except (IndexError, RuntimeError) as error:  # raised by torch if a tensor lacks a dimension
            shapes = [tensor.shape for tensor in tensors]
            raise CheckpointError(f"{name}: has shapes {shapes}, which cannot become {becomes}") from error

    def load(number: int) -> Callable[[], Tensor]:
        return lambda: run(tuple(tensor.load() for tensor in tensors))[number]

    dtype = tensors[0].dtype
    outlines = run(tuple(torch.empty(tensor.shape, dtype=dtype, device="meta") for tensor in tensors))
    return tuple(LazyTensor(tuple(outline.shape), dtype, load(number)) for number, outline in enumerate(outlines))


def _drop(
    drops: Mapping[str, str], keys: Sequence[str], layers: int, path: Path, own_names: Mapping[str, str]
) -> dict[str, str]:
    """The reason for each dropped key.

    Raises:
        CheckpointError: if a key is not in the drop list.
    """
    dropped = {}
    for key in keys:
        reason = next((reason for pattern, reason in drops.items() if fnmatchcase(key, pattern)), None)
        if reason is None:
            number = _LAYER.search(key)
            cause = (
                f"the settings state another number of layers, {layers}"
                if number and int(number[1]) >= layers
                else "the model may compute more than TAPE's; if it does not need this tensor, remove it from the file"
            )
            raise CheckpointError(
                f"{path}: {own_names.get(key, key)}: unknown key: there is no rule for it, and it is not in the drop"
                f" list; {cause}"
            )
        dropped[key] = reason
    return dropped


def as_single_rank(state: Mapping[str, LazyTensor]) -> dict[str, Shards]:
    """The shards of a format without tensor parallelism."""
    return {key: (tensor,) for key, tensor in state.items()}


def check_tied(
    state: Mapping[str, Shards], copy: str, original: str, path: Path, own_names: Mapping[str, str] | None = None
) -> None:
    """Check that a tied copy, if present, has the same values as the original on every rank.

    Args:
        state: the tensors of each key by tensor-parallel rank.
        copy, original: the keys.
        path, own_names: for messages, as in :func:`apply_rules`.

    Raises:
        CheckpointError: if they differ; the message names both, and the checkpoint at ``path``.
    """
    for rank, (one, other) in enumerate(zip(state.get(copy, ()), state.get(original, ()), strict=False)):
        if one.shape != other.shape or not torch.equal(one.load(), other.load()):
            names = own_names or {}
            raise CheckpointError(
                f"{path}: {names.get(copy, copy)}: rank {rank} differs from {names.get(original, original)}, to which"
                " it is tied in TAPE's model; --lm-head drop converts the encoder alone"
            )


def token_rows_by_name(source_tokens: Sequence[str], path: Path) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The embedding row of each TAPE token in a source with these tokens; and the source's unused tokens, to be
    dropped.

    Args:
        source_tokens: tokens by embedding row; "" is a row without a token.
        path: the checkpoint, for messages.

    Raises:
        VocabularyMismatchError: if a TAPE token is missing, a token occurs twice, or one has no counterpart in TAPE.
    """
    names = [MEGATRON_SPECIAL_TOKENS.get(token, token) for token in source_tokens]
    counts = Counter(name for name in names if name)
    unused = tuple(name for name in names if _is_unused(name))
    unknown = [name for name in names if name not in IUPAC_VOCAB and not _is_unused(name)]
    missing = [token for token in IUPAC_VOCAB if token not in counts]
    doubled = sorted(name for name, count in counts.items() if count > 1)
    for problem, tokens in (("lacks", missing), ("has tokens that TAPE lacks", unknown), ("has twice", doubled)):
        if tokens:
            more = f" and {len(tokens) - _SHOWN} more" if len(tokens) > _SHOWN else ""
            shown = ", ".join(token[:40] for token in tokens[:_SHOWN])
            raise VocabularyMismatchError(f"{path}: its vocabulary {problem}: {shown}{more}")
    return tuple(names.index(token) for token in IUPAC_VOCAB), unused


def _is_unused(name: str) -> bool:
    return not name or name.startswith("[unused")
