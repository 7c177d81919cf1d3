"""A tokenized corpus, ``PREFIX.bin``, ``PREFIX.idx`` and the sidecar ``PREFIX.json``, in the model's vocabulary.

The sidecar records the vocabulary of the ids and the input files. A corpus with another vocabulary is an error that
names both vocabularies. A corpus without sidecar, as Megatron-LM writes it, requires its vocabulary file; its ids are
then translated by token name.
"""

from __future__ import annotations

import logging
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tape.errors import DataError, VocabularyMismatchError
from tape.io.json_files import read_json_object
from tape.io.sampled_digest import describe_file
from tape.io.vocabulary_files import read_vocabulary_file
from tape.tokenizers import TAPETokenizer

from .indexed_dataset import IndexedDataset, description_path
from .vocabulary import checked_translation_table, id_translation_table

FORMAT = "proteinlm-corpus"
VERSION = 1
logger = logging.getLogger(__name__)
_CHECKED_TOKENS = 200_000  # read from a corpus without sidecar, to check the vocabulary declared for it


@dataclass(frozen=True)
class CorpusSource:
    """One input file of a corpus."""

    path: str
    sha256: str
    sequences: int


@dataclass(frozen=True)
class CorpusDescription:
    """Content of the sidecar.

    Attributes:
        documents: number of documents (proteins).
        tokens: number of tokens; every token is a residue, special tokens are not stored.
        tokenizer: name of the vocabulary.
        vocabulary_fingerprint: :attr:`TAPETokenizer.fingerprint` of the vocabulary of the ids.
        sources: the input files in order.
        substitutions: residues that ``normalize_sequence`` changed, by kind of change.
        filtered: number of omitted records, by reason.
        unknown: ``residues``, the number of unknown residues, and ``meaning``, the definition of unknown; empty in
            older corpora.
        sha256: SHA-256 of the files ``bin`` and ``idx``; empty in older corpora.
    """

    documents: int
    tokens: int
    tokenizer: str
    vocabulary_fingerprint: str
    sources: tuple[CorpusSource, ...]
    substitutions: dict[str, int] = field(default_factory=dict)
    filtered: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, Any] = field(default_factory=dict)
    sha256: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION, **asdict(self)}


def read_description(prefix: str | os.PathLike[str]) -> CorpusDescription | None:
    """Read the sidecar of a corpus; None if the corpus has none.

    Raises:
        DataError: if the sidecar is damaged or has an unknown version.
    """
    path = description_path(prefix)
    if not path.exists():
        return None
    values = read_json_object(path, DataError)
    try:
        if values["format"] != FORMAT or values["version"] != VERSION:
            raise DataError(
                f"{path}: {values['format']} version {values['version']} is not supported, only {FORMAT} {VERSION}"
            )
        sources = tuple(CorpusSource(**source) for source in values["sources"])
        names = ("documents", "tokens", "tokenizer", "vocabulary_fingerprint", "substitutions", "filtered")
        fields = {name: values[name] for name in names}
        sha256 = {str(name): str(digest) for name, digest in values.get("sha256", {}).items()}
        return CorpusDescription(sources=sources, unknown=values.get("unknown", {}), sha256=sha256, **fields)
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{path}: damaged corpus description ({type(error).__name__}: {error})") from error


@dataclass(frozen=True, eq=False)
class Corpus:
    """Proteins of one corpus as TAPE ids. Created by :func:`open_corpus`; cheap to pickle.

    Attributes:
        dataset: reader of the ``.bin`` and ``.idx`` files.
        translation: (vocabulary size of the file,) the TAPE id of each id in the file; None if they are the same.
    """

    dataset: IndexedDataset
    translation: np.ndarray | None = None

    def __len__(self) -> int:
        """Number of sequences (proteins)."""
        return len(self.dataset)

    @property
    def prefix(self) -> str:
        return self.dataset.prefix

    @property
    def sizes(self) -> np.ndarray:
        """(n,) number of residues of each protein."""
        return self.dataset.sizes

    @property
    def document_index(self) -> np.ndarray:
        return self.dataset.document_index

    def residues(self, protein: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """TAPE ids of the residues ``start`` to ``start + length`` of a protein, by default of all; (n,) int64.

        Raises:
            DataError: if an id does not represent a residue in the vocabulary of the corpus.
        """
        ids = self.dataset.read(protein, start, length)
        if self.translation is None:
            return ids.astype(np.int64)
        known = len(self.translation)
        translated = self.translation[np.minimum(ids.astype(np.int64), known - 1)]
        if ids.size and (int(ids.max()) >= known or translated.min() < 0):
            raise DataError(f"{self.prefix}.bin: protein {protein} has an id that is not a residue of its vocabulary")
        return translated


def without_suffix(prefix: str | os.PathLike[str]) -> str:
    """The prefix of a corpus that may be given as the name of one of its files."""
    name = os.fspath(prefix)
    return name[:-4] if name.endswith((".bin", ".idx")) else name


def describe_corpus_files(prefix: str | os.PathLike[str]) -> str:
    """The files of a corpus, as text that is equal on ranks that see the same ones. Reads samples of them only."""
    name = without_suffix(prefix)
    return ", ".join(f"{suffix} {describe_file(Path(name + suffix))}" for suffix in (".bin", ".idx", ".json"))


def open_corpus(
    prefix: str | os.PathLike[str],
    tokenizer: TAPETokenizer,
    vocabulary_file: str | os.PathLike[str] | None = None,
) -> Corpus:
    """Open a corpus and check its vocabulary.

    Args:
        prefix: path without suffix; the suffixes ``.bin`` and ``.idx`` are removed.
        tokenizer: the model's vocabulary.
        vocabulary_file: vocabulary of a corpus that has no sidecar, or of one with another vocabulary.

    Raises:
        VocabularyMismatchError: if the vocabulary of the corpus is another one, or unknown.
        DataError: if a file is missing or damaged.
    """
    name = without_suffix(prefix)
    dataset = IndexedDataset(name)
    _ = dataset.sizes  # opens the files, so that a damaged one is reported here and not in a data loader worker
    if not dataset.states_documents:
        logger.warning(
            "%s.idx: has no document boundaries, as corpora that were merged by Megatron-LM before 2023: each of its %d"
            " sequences is a document",
            name,
            len(dataset),
        )
    declared = read_vocabulary_file(vocabulary_file) if vocabulary_file is not None else None
    description = read_description(name)
    if description is None:
        if declared is None:
            raise VocabularyMismatchError(
                f"{name}: the vocabulary of its ids is unknown, because {description_path(name).name} is missing; "
                "give the vocabulary file that it was written with as --vocab-file "
                "(Megatron's: pretrain/protein_tools/megatron_iupac_vocab.txt)"
            )
        return Corpus(dataset, checked_translation_table(declared, tokenizer, name, _first_ids(dataset)))
    if description.tokens != dataset.tokens:
        raise DataError(
            f"{description_path(name)}: records {description.tokens} tokens, but the corpus has {dataset.tokens}"
        )
    if description.vocabulary_fingerprint == tokenizer.fingerprint:
        return Corpus(dataset)
    if declared is not None and description.vocabulary_fingerprint == declared.fingerprint:
        return Corpus(dataset, id_translation_table(declared, tokenizer))
    raise VocabularyMismatchError(
        f"{name}: written with vocabulary {description.tokenizer} ({description.vocabulary_fingerprint}), the model "
        f"uses {tokenizer.name} ({tokenizer.fingerprint}); tokenize it again with preprocess_data.py"
    )


def _first_ids(dataset: IndexedDataset) -> np.ndarray:
    sequences, tokens = [], 0
    for sequence in dataset:
        sequences.append(np.asarray(sequence, dtype=np.int64))
        tokens += len(sequence)
        if tokens >= _CHECKED_TOKENS:
            break
    return np.concatenate(sequences)
