"""Training, validation and test samples out of one corpus or two."""

from __future__ import annotations

from dataclasses import dataclass

from tape.errors import ConfigError
from tape.tokenizers import TAPETokenizer

from .corpus import Corpus, open_corpus
from .packing import split_by_documents
from .samples import PackedProteins, SampleConfig

DEFAULT_SPLIT = "969,30,1"  # Megatron's


@dataclass(frozen=True)
class DataConfig:
    """Where the proteins are.

    Attributes:
        path: prefix of the corpus to train on.
        valid_path: prefix of a corpus to validate on; ``path`` is then trained on as a whole.
        split: proportions of training, validation and test documents of ``path``; None for 969,30,1, or all for
            training with ``valid_path``.
        vocabulary_file: declares the ids of a corpus without sidecar.
        workers: processes that prepare batches.
    """

    path: str
    valid_path: str | None = None
    split: str | None = None
    vocabulary_file: str | None = None
    workers: int = 2

    def __post_init__(self) -> None:
        if self.valid_path is not None and self.split is not None:
            raise ConfigError("--valid-data-path and --split both say what to validate on; give one of them")


@dataclass(frozen=True)
class Splits:
    """Samples by purpose; None where the split holds nothing."""

    train: PackedProteins
    valid: PackedProteins | None
    test: PackedProteins | None


def open_splits(config: DataConfig, samples: SampleConfig) -> Splits:
    """Open the corpora and divide their documents.

    Raises:
        DataError: a corpus is damaged, of another vocabulary, or has no document to train on.
        ConfigError: a bad split.
    """
    tokenizer = TAPETokenizer()
    corpus = open_corpus(config.path, tokenizer, config.vocabulary_file)
    documents = len(corpus.document_index) - 1
    if config.valid_path is not None:
        valid = open_corpus(config.valid_path, tokenizer, config.vocabulary_file)
        return Splits(PackedProteins(corpus, samples), PackedProteins(valid, samples, repeat=False), None)
    train, validation, test = split_by_documents(config.split or DEFAULT_SPLIT, documents)
    return Splits(
        PackedProteins(corpus, samples, train), _fixed(corpus, samples, validation), _fixed(corpus, samples, test)
    )


def _fixed(corpus: Corpus, samples: SampleConfig, documents: tuple[int, int]) -> PackedProteins | None:
    first, last = documents
    if corpus.document_index[first] == corpus.document_index[last]:
        return None
    return PackedProteins(corpus, samples, documents, repeat=False)
