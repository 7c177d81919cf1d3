"""Vocabulary files (one token a line, its id the line's number from 0) and how their ids become TAPE's.

Megatron's ``iupac_vocab.txt`` has 31 lines: ``[PAD]`` for ``<pad>`` and so on, and one unused token that shifts every
residue by one. Ids are translated by token name, so any file with these names in any order is understood.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from tape.errors import DataError, VocabularyMismatchError
from tape.tokenizers import MEGATRON_SPECIAL_TOKENS, TAPETokenizer, vocabulary_fingerprint

UNMAPPED = -1


@dataclass(frozen=True)
class VocabularyFile:
    """Tokens of a vocabulary file, in the order of their ids."""

    path: Path
    tokens: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        return vocabulary_fingerprint({token: index for index, token in enumerate(self.tokens)})


def read_vocabulary_file(path: str | os.PathLike[str]) -> VocabularyFile:
    """Read one token a line.

    Raises:
        DataError: the file is missing, empty, or names a token twice.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a vocabulary ({error})") from error
    tokens = tuple(line.strip() for line in lines)
    while tokens and not tokens[-1]:
        tokens = tokens[:-1]
    repeated = sorted({token for token in tokens if tokens.count(token) > 1})
    if not tokens or repeated:
        raise DataError(f"{path}: not a vocabulary: " + (f"{repeated} stand twice" if repeated else "it is empty"))
    return VocabularyFile(path, tokens)


def ids_by_name(tokens: tuple[str, ...], tokenizer: TAPETokenizer, source: object) -> np.ndarray:
    """Table from ids of ``tokens`` to those of ``tokenizer``, shape (len(tokens),) int64; -1 for unknown tokens.

    Raises:
        VocabularyMismatchError: ``tokens`` lacks one of the 20 amino acids; ``source`` is named.
    """
    names = [MEGATRON_SPECIAL_TOKENS.get(token, token) for token in tokens]
    missing = [residue for residue in "ACDEFGHIKLMNPQRSTVWY" if residue not in names]
    if missing:
        raise VocabularyMismatchError(f"{source}: not a protein vocabulary: it lacks {' '.join(missing)}")
    return np.array([tokenizer.vocab.get(name, UNMAPPED) for name in names], dtype=np.int64)
