"""Training, validation and test samples: shares of the same corpora, or separate corpora."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from tape.errors import ConfigError, DataError
from tape.tokenizers import TAPETokenizer

from .blending import Blend, BlendedProteins, blend_seed
from .corpus import Corpus, open_corpus
from .packing import split_by_documents
from .samples import PackedProteins, SampleConfig, Samples

DEFAULT_SPLIT = "969,30,1"  # Megatron's


@dataclass(frozen=True)
class DataConfig:
    """The corpora of a run.

    Attributes:
        corpora: corpora divided by ``split``, or used for training entirely if ``valid`` or ``test`` are given.
        train, valid, test: corpora for one purpose; ``train`` replaces ``corpora``.
        split: proportions of training, validation and test documents in each of ``corpora``; None for 969,30,1.
        vocabulary_file: vocabulary of corpora without a sidecar file.
        workers: data loader processes.
    """

    corpora: Blend | None = None
    train: Blend | None = None
    valid: Blend | None = None
    test: Blend | None = None
    split: str | None = None
    vocabulary_file: str | None = None
    workers: int = 2

    def __post_init__(self) -> None:
        if (self.corpora is None) == (self.train is None):
            raise ConfigError("give the training corpus as either --data-path or --train-data-path")
        for purpose, name in (("train", "train on"), ("valid", "validate on"), ("test", "test on")):
            if getattr(self, purpose) is not None and self.split is not None:
                raise ConfigError(f"--{purpose}-data-path and --split both determine what to {name}; give one of them")

    @property
    def divided(self) -> bool:
        """Whether validation and test samples are shares of the training corpora."""
        return self.train is self.valid is self.test is None


@dataclass(frozen=True)
class Splits:
    """The samples of each split; None for an empty split."""

    train: Samples
    valid: Samples | None
    test: Samples | None


Documents = tuple[int, int]  # first, last + 1


def open_splits(config: DataConfig, samples: SampleConfig) -> Splits:
    """Open the corpora and divide their documents into splits.

    Raises:
        DataError: if a corpus is damaged, has another vocabulary, or has no document to train on.
        ConfigError: for an invalid split, or a weight that is too small.
    """
    trained = config.corpora or config.train
    assert trained is not None, "checked by DataConfig"
    corpora = _open(trained, config)
    if config.divided:
        parts = [split_by_documents(config.split or DEFAULT_SPLIT, _documents(corpus)) for corpus in corpora]
        train, valid, test = ([part[purpose] for part in parts] for purpose in range(3))
        return Splits(
            _training(trained, corpora, train, samples),
            _fixed(trained, corpora, valid, samples),
            _fixed(trained, corpora, test, samples),
        )
    others = [_whole(blend, config, samples) for blend in (config.valid, config.test)]
    return Splits(_training(trained, corpora, list(map(_all, corpora)), samples), *others)


def _open(blend: Blend, config: DataConfig) -> list[Corpus]:
    tokenizer = TAPETokenizer()
    return [open_corpus(prefix, tokenizer, config.vocabulary_file) for prefix in blend.prefixes]


def _documents(corpus: Corpus) -> int:
    return len(corpus.document_index) - 1


def _all(corpus: Corpus) -> Documents:
    return 0, _documents(corpus)


def _holds(corpus: Corpus, documents: Documents) -> bool:
    return bool(corpus.document_index[documents[0]] < corpus.document_index[documents[1]])


def _training(
    blend: Blend, corpora: Sequence[Corpus], documents: Sequence[Documents], samples: SampleConfig
) -> Samples:
    for corpus, part in zip(corpora, documents, strict=True):
        if not _holds(corpus, part):
            raise DataError(f"{corpus.prefix}: its training split contains no document; check --split")
    return _joined(blend, corpora, documents, samples, repeat=True)


def _fixed(
    blend: Blend, corpora: Sequence[Corpus], documents: Sequence[Documents], samples: SampleConfig
) -> Samples | None:
    """Evaluation samples, without the corpora that have no document in this split."""
    kept = [number for number, corpus in enumerate(corpora) if _holds(corpus, documents[number])]
    if not kept:
        return None
    weights = None if blend.weights is None else tuple(blend.weights[number] for number in kept)
    rest = Blend(tuple(blend.prefixes[number] for number in kept), weights)
    return _joined(rest, [corpora[i] for i in kept], [documents[i] for i in kept], samples, repeat=False)


def _whole(blend: Blend | None, config: DataConfig, samples: SampleConfig) -> Samples | None:
    if blend is None:
        return None
    corpora = _open(blend, config)
    return _joined(blend, corpora, list(map(_all, corpora)), samples, repeat=False)


def _joined(
    blend: Blend, corpora: Sequence[Corpus], documents: Sequence[Documents], samples: SampleConfig, repeat: bool
) -> Samples:
    parts = [
        PackedProteins(corpus, replace(samples, seed=blend_seed(samples.seed, number)), part, repeat)
        for number, (corpus, part) in enumerate(zip(corpora, documents, strict=True))
    ]
    return parts[0] if len(parts) == 1 else BlendedProteins(parts, blend.weights)
