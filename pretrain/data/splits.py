"""Training, validation and test samples: shares of the same corpora, or separate corpora."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from tape.errors import ConfigError, DataError, quoted
from tape.tokenizers import TAPETokenizer

from .blending import Blend, BlendedProteins
from .corpus import Corpus, open_corpus
from .samples import PackedProteins, SampleConfig, Samples

DEFAULT_SPLIT = "969,30,1"  # Megatron's
# The largest difference of two cumulative distributions of lengths (the Kolmogorov-Smirnov statistic) that is not
# announced. It must also be significant, with the second number, which is that of a level of 0.001.
_LENGTH_DIFFERENCE = 0.25
_SIGNIFICANT = 1.95


@dataclass(frozen=True)
class DataConfig:
    """The corpora of a run.

    Attributes:
        corpora: corpora divided by ``split``, or used for training entirely if ``valid`` or ``test`` are given.
        train, valid, test: corpora for one purpose; ``train`` replaces ``corpora``.
        split: proportions of training, validation and test documents in each of ``corpora``; None for 969,30,1.
        vocabulary_file: vocabulary of corpora without a sidecar file.
        workers: data loader processes.
        verify: when the corpora are compared with their digests: background, start or never.
        evaluation_only: whether nothing is trained, so that training corpora may be missing.
    """

    corpora: Blend | None = None
    train: Blend | None = None
    valid: Blend | None = None
    test: Blend | None = None
    split: str | None = None
    vocabulary_file: str | None = None
    workers: int = 2
    verify: str = "background"
    evaluation_only: bool = False

    def __post_init__(self) -> None:
        if self.evaluation_only and self.corpora is self.valid is self.test is None:
            raise ConfigError("give the corpus to evaluate as --valid-data-path, --test-data-path or --data-path")
        if not self.evaluation_only and (self.corpora is None) == (self.train is None):
            raise ConfigError("give the training corpus as either --data-path or --train-data-path")
        for purpose, name in (("train", "train on"), ("valid", "validate on"), ("test", "test on")):
            if getattr(self, purpose) is not None and self.split is not None:
                raise ConfigError(f"--{purpose}-data-path and --split both determine what to {name}; give one of them")

    @property
    def divided(self) -> bool:
        """Whether validation and test samples are shares of the training corpora."""
        return self.train is self.valid is self.test is None


@dataclass(frozen=True, kw_only=True)
class EvaluationSplits:
    """The samples of the splits to evaluate; None for an empty split."""

    valid: Samples | None
    test: Samples | None

    @property
    def samples(self) -> dict[str, Samples]:
        """The samples of each split that is not empty, by its name."""
        splits = {"valid": self.valid, "test": self.test}
        return {name: samples for name, samples in splits.items() if samples is not None}

    @property
    def corpora(self) -> list[str]:
        """Path prefixes of all corpora, each once."""
        return list(dict.fromkeys(part.corpus.prefix for split in self.samples.values() for part in split.parts))


@dataclass(frozen=True, kw_only=True)
class Splits(EvaluationSplits):
    """The samples of all splits of a training run."""

    train: Samples

    @property
    def samples(self) -> dict[str, Samples]:
        """The samples of each split that is not empty, by its name."""
        return {"train": self.train, **super().samples}


@dataclass(frozen=True)
class _Part:
    """The documents of a corpus, ``first`` to ``end`` (exclusive), that belong to a split; ``weight`` in its blend."""

    corpus: Corpus
    first: int
    end: int
    weight: float | None

    @property
    def is_empty(self) -> bool:
        """Whether the documents have no protein."""
        return bool(self.corpus.document_index[self.first] >= self.corpus.document_index[self.end])


def open_splits(config: DataConfig, samples: SampleConfig) -> Splits:
    """Open the corpora and divide their documents into splits.

    Raises:
        DataError: if a corpus is damaged, has another vocabulary, or has no document to train on.
        ConfigError: for an invalid split, or a weight that is too small.
    """
    train, *evaluated = _documents(config)
    for part in train:
        if part.is_empty:
            raise DataError(f"{part.corpus.prefix}: its training split contains no document; check --split")
    return Splits(train=_pack(train, samples, repeat=True), **_evaluated(evaluated, samples))


def open_evaluation_splits(config: DataConfig, samples: SampleConfig) -> EvaluationSplits:
    """Open the corpora to evaluate, with the samples that a training run would evaluate.

    Raises:
        DataError: if a corpus is damaged or has another vocabulary.
        ConfigError: for an invalid split, or if there is nothing to evaluate.
    """
    _, *evaluated = _documents(config)
    splits = EvaluationSplits(**_evaluated(evaluated, samples))
    if not splits.samples:
        raise ConfigError(f"--split {config.split or DEFAULT_SPLIT} leaves no protein to evaluate")
    return splits


def _documents(config: DataConfig) -> tuple[list[_Part], ...]:
    """The documents of training, validation and test split."""
    if config.divided:
        return _divide(_open(config.corpora, config.vocabulary_file), config.split or DEFAULT_SPLIT)
    train = None if config.evaluation_only else config.corpora or config.train
    return tuple(_open(blend, config.vocabulary_file) for blend in (train, config.valid, config.test))


def length_warnings(splits: Splits) -> list[str]:
    """One line per corpus whose documents for evaluation have other lengths than those for training.

    ``--split`` takes documents in their order. In a corpus that is sorted by length or by family, as databases of
    clusters are, the last documents do not represent the others.
    """
    trained = {part.corpus.prefix: _some(part.planner.sizes) for part in splits.train.parts}
    lines = []
    for name, samples in (("valid", splits.valid), ("test", splits.test)):
        for part in [] if samples is None else samples.parts:
            train, evaluated = trained.get(part.corpus.prefix), _some(part.planner.sizes)
            if train is not None and _lengths_differ(train, evaluated):
                lines.append(
                    f"WARNING: {part.corpus.prefix}: --split takes proteins in the order of the corpus, and those of "
                    f"{name} have a median of {np.median(evaluated):,.0f} residues, those of train "
                    f"{np.median(train):,.0f}; unless that is intended, shuffle the records before preprocessing "
                    f"(seqkit shuffle), or give a corpus to --{name}-data-path"
                )
    return lines


def _some(lengths: np.ndarray) -> np.ndarray:
    """The sorted lengths of at most 100,000 proteins, which are evenly spaced in the order of the corpus."""
    return np.sort(lengths[:: -(-len(lengths) // 100_000)])


def _lengths_differ(first: np.ndarray, second: np.ndarray) -> bool:
    """Whether two sorted samples of lengths are from different distributions (Kolmogorov-Smirnov test).

    ``scipy.stats.ks_2samp`` computes the same, but its import takes a third of the time in which a run starts.
    """
    values = np.union1d(first, second)
    difference = np.abs(
        np.searchsorted(first, values, "right") / len(first) - np.searchsorted(second, values, "right") / len(second)
    ).max()
    noise = math.sqrt(1 / len(first) + 1 / len(second))
    return bool(difference > max(_LENGTH_DIFFERENCE, _SIGNIFICANT * noise))


def _open(blend: Blend | None, vocabulary_file: str | None) -> list[_Part]:
    """All documents of the corpora of a blend."""
    if blend is None:
        return []
    tokenizer = TAPETokenizer()
    corpora = [open_corpus(prefix, tokenizer, vocabulary_file) for prefix in blend.prefixes]
    weights = blend.weights or [None] * len(corpora)
    return [
        _Part(corpus, 0, len(corpus.document_index) - 1, weight)
        for corpus, weight in zip(corpora, weights, strict=True)
    ]


def _divide(whole: Sequence[_Part], split: str) -> tuple[list[_Part], ...]:
    """Training, validation and test documents; without the corpora that have nothing to validate or test on."""
    ranges = [split_by_documents(split, part.end) for part in whole]
    train, valid, test = (
        [replace(part, first=first, end=end) for part, (first, end) in zip(whole, parts, strict=True)]
        for parts in zip(*ranges, strict=True)
    )
    return train, [part for part in valid if not part.is_empty], [part for part in test if not part.is_empty]


def split_by_documents(split: str, documents: int) -> list[tuple[int, int]]:
    """Divide documents into training, validation and test ranges, with Megatron-LM's cumulative rounding.

    Args:
        split: up to three proportions, separated by ``,`` or ``/``; missing ones are 0.
        documents: number of documents.

    Returns:
        (first, end) of the three ranges; ``end`` is exclusive.

    Raises:
        ConfigError: if the proportions are not finite numbers, if one is negative, or if all are 0.
    """
    try:
        weights = [float(part) for part in split.replace("/", ",").split(",")]
    except ValueError:
        raise ConfigError(f"--split takes numbers such as 969,30,1, not {quoted(split)}") from None
    weights = [*weights, 0.0, 0.0][:3]
    if not math.isfinite(sum(weights)):
        raise ConfigError(f"--split takes finite numbers such as 969,30,1, not {quoted(split)}")
    if min(weights) < 0 or sum(weights) <= 0:
        raise ConfigError(f"--split takes proportions, at least one above 0, not {quoted(split)}")
    bounds = [0]
    for weight in weights:
        bounds.append(bounds[-1] + round(weight / sum(weights) * documents))
    surplus = bounds[-1] - documents
    bounds = [0] + [bound - surplus for bound in bounds[1:]]
    return [(max(0, first), max(0, last)) for first, last in pairwise(bounds)]


def _pack(parts: Sequence[_Part], samples: SampleConfig, repeat: bool) -> Samples:
    packed = [
        PackedProteins(part.corpus, samples.for_corpus(number), (part.first, part.end), repeat)
        for number, part in enumerate(parts)
    ]
    if len(packed) == 1:
        return packed[0]
    return BlendedProteins(packed, [part.weight for part in parts if part.weight is not None] or None)


def _evaluated(splits: Iterable[Sequence[_Part]], samples: SampleConfig) -> dict[str, Samples | None]:
    """The samples of validation and test split, each once."""
    packed = (_pack(parts, samples, repeat=False) if parts else None for parts in splits)
    return dict(zip(("valid", "test"), packed, strict=True))
