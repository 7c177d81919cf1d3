"""A tokenised corpus in the model's vocabulary: ``PREFIX.bin`` + ``.idx`` + the sidecar ``PREFIX.json``.

The sidecar says what the ids mean and where they come from. A corpus of another vocabulary is refused by name, and one
without sidecar (written by Megatron) is read only when its vocabulary file is given; its ids are then translated.
"""

from __future__ import annotations

import logging
import math
import os
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tape.errors import DataError, VocabularyMismatchError
from tape.io.json_files import read_json_object
from tape.io.vocabulary_files import VocabularyFile, read_vocabulary_file
from tape.tokenizers import TAPETokenizer

from .indexed_dataset import IndexedDataset, description_path
from .vocabulary import MEGATRON_TOKENS, TAPE_TOKENS, ids_by_name, log_likelihood

FORMAT = "proteinlm-corpus"
VERSION = 1
_PROBED_TOKENS = 200_000  # of a corpus without sidecar, to see whether the vocabulary declared for it can be right
_DECISIVE = math.log(1000)  # how much likelier a vocabulary must be to count as shown

logger = logging.getLogger(__name__)


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
        documents, tokens: counts; a token is a residue, special tokens are not stored.
        tokenizer: name of the vocabulary.
        vocabulary_fingerprint: TAPETokenizer.fingerprint of the ids.
        sources: the input files in order.
        substitutions: what normalize_sequence changed, by kind.
        filtered: records left out, by reason.
        unknown: ``residues``, how many are unknown, and ``meaning``, what that is; empty in older corpora.
    """

    documents: int
    tokens: int
    tokenizer: str
    vocabulary_fingerprint: str
    sources: tuple[CorpusSource, ...]
    substitutions: dict[str, int] = field(default_factory=dict)
    filtered: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {"format": FORMAT, "version": VERSION, **asdict(self)}


def read_description(prefix: str | os.PathLike[str]) -> CorpusDescription | None:
    """The sidecar of a corpus, None when it has none.

    Raises:
        DataError: the sidecar is damaged or of an unknown version.
    """
    path = description_path(prefix)
    if not path.exists():
        return None
    values = read_json_object(path, DataError)
    try:
        if values["format"] != FORMAT or values["version"] != VERSION:
            raise DataError(f"{path}: {values['format']} version {values['version']}; known is {FORMAT} {VERSION}")
        sources = tuple(CorpusSource(**source) for source in values["sources"])
        names = ("documents", "tokens", "tokenizer", "vocabulary_fingerprint", "substitutions", "filtered")
        fields = {name: values[name] for name in names}
        return CorpusDescription(sources=sources, unknown=values.get("unknown", {}), **fields)
    except (KeyError, TypeError) as error:
        raise DataError(f"{path}: damaged description of the corpus ({type(error).__name__}: {error})") from error


class Corpus:
    """Proteins of one corpus as TAPE ids. Made by :func:`open_corpus`; cheap to pickle.

    Args:
        dataset: the files.
        table: file id -> TAPE id, or None when they are the same.
    """

    def __init__(self, dataset: IndexedDataset, table: np.ndarray | None = None) -> None:
        self.dataset = dataset
        self._table = table

    def __len__(self) -> int:
        """Number of sequences (proteins)."""
        return len(self.dataset)

    @property
    def prefix(self) -> str:
        return self.dataset.prefix

    @property
    def sizes(self) -> np.ndarray:
        """(n,) residues of each protein."""
        return self.dataset.sizes

    @property
    def document_index(self) -> np.ndarray:
        return self.dataset.document_index

    def residues(self, protein: int, start: int = 0, length: int | None = None) -> np.ndarray:
        """Residue ids of a protein, or of ``length`` residues from ``start``; int64.

        Raises:
            DataError: an id stands for no residue of the vocabulary; names file and protein.
        """
        ids = self.dataset.read(protein, start, length)
        if self._table is None:
            return ids.astype(np.int64)
        known = len(self._table)
        mapped = self._table[np.minimum(ids.astype(np.int64), known - 1)]
        if ids.size and (int(ids.max()) >= known or mapped.min() < 0):
            raise DataError(f"{self.prefix}.bin: protein {protein} holds an id that is no residue of its vocabulary")
        return mapped


def open_corpus(
    prefix: str | os.PathLike[str],
    tokenizer: TAPETokenizer,
    vocabulary_file: str | os.PathLike[str] | None = None,
) -> Corpus:
    """Open a corpus and make sure of its vocabulary.

    Args:
        prefix: path without suffix (one with ``.bin`` or ``.idx`` is understood).
        tokenizer: the model's vocabulary.
        vocabulary_file: declares the ids of a corpus without sidecar, or with another vocabulary.

    Raises:
        VocabularyMismatchError: the corpus is of another vocabulary, or doesn't say which.
        DataError: a file is missing or damaged.
    """
    name = os.fspath(prefix)
    name = name[:-4] if name.endswith((".bin", ".idx")) else name
    dataset = IndexedDataset(name)
    _ = dataset.sizes  # opens it: a damaged file is reported here, not in a worker
    declared = read_vocabulary_file(vocabulary_file) if vocabulary_file is not None else None
    description = read_description(name)
    if description is None:
        return _corpus_without_sidecar(dataset, tokenizer, declared)
    if description.tokens != dataset.tokens:
        raise DataError(
            f"{description_path(name)}: counts {description.tokens} tokens, the corpus has {dataset.tokens}"
        )
    if description.vocabulary_fingerprint == tokenizer.fingerprint:
        return Corpus(dataset)
    if declared is not None and description.vocabulary_fingerprint == declared.fingerprint:
        return Corpus(dataset, ids_by_name(declared.tokens, tokenizer, declared.path))
    raise VocabularyMismatchError(
        f"{name}: written with vocabulary {description.tokenizer} ({description.vocabulary_fingerprint}), the model "
        f"uses {tokenizer.name} ({tokenizer.fingerprint}); tokenise it again with preprocess_data.py"
    )


def _corpus_without_sidecar(
    dataset: IndexedDataset, tokenizer: TAPETokenizer, declared: VocabularyFile | None
) -> Corpus:
    if declared is None:
        raise VocabularyMismatchError(
            f"{dataset.prefix}: no {description_path(dataset.prefix).name} beside it says which vocabulary its ids are "
            "of; give the vocabulary file that it was written with as --vocab-file "
            "(Megatron's: pretrain/protein_tools/megatron_iupac_vocab.txt)"
        )
    table = ids_by_name(declared.tokens, tokenizer, declared.path)
    table[np.isin(table, tokenizer.residue_ids, invert=True)] = -1  # a corpus stores residues only
    _probe(dataset, table, declared)
    return Corpus(dataset, table)


def _probe(dataset: IndexedDataset, table: np.ndarray, declared: VocabularyFile) -> None:
    """Refuse a declared vocabulary that the first tokens contradict.

    They do with ids of no residue, with no alanine among many, and where the other of the two vocabularies in use (the
    residues' ids differ by one) makes far likelier proteins of them. Few residues may leave it open: that is logged.
    """
    ids = _first_ids(dataset)
    wrong = ids[(ids < 0) | (ids >= len(table))]
    wrong = wrong if wrong.size else ids[table[ids] < 0]
    if wrong.size:
        problem = f"id {int(wrong[0])} occurs, which is no residue there"
    elif len(ids) > 2000 and not (ids == declared.tokens.index("A")).any():
        problem = f"its first {len(ids)} residues have no alanine then"
    else:
        problem = _likelier_vocabulary(dataset.prefix, ids, declared)
    if problem:
        raise VocabularyMismatchError(f"{dataset.prefix}: not written with {declared.path}: {problem}")


def _first_ids(dataset: IndexedDataset) -> np.ndarray:
    pieces, seen = [], 0
    for sequence in dataset:
        pieces.append(np.asarray(sequence, dtype=np.int64))
        seen += len(pieces[-1])
        if seen >= _PROBED_TOKENS:
            break
    return np.concatenate(pieces)


def _likelier_vocabulary(prefix: str, ids: np.ndarray, declared: VocabularyFile) -> str:
    """What speaks against the declared vocabulary, by the frequencies of residues; empty when nothing does."""
    likelihood = log_likelihood(ids, declared.tokens)
    for name, tokens in (("TAPE's 30", TAPE_TOKENS), ("Megatron's 31", MEGATRON_TOKENS)):
        if all(declared.tokens[i : i + 1] == tokens[i : i + 1] for i in np.unique(ids)):
            continue  # says the same of these ids
        advantage = likelihood - log_likelihood(ids, tokens)
        if advantage < -_DECISIVE:
            return f"by the frequencies of its residues it is of {name} tokens"
        if advantage < _DECISIVE:
            logger.warning("%s: too few residues to tell %s from %s tokens", prefix, declared.path, name)
    return ""
