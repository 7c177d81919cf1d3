"""Vocabulary files: one token per line, whose id is the line number from 0. A blank line is an id without a token."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tape.errors import DataError
from tape.tokenizers import vocabulary_fingerprint


@dataclass(frozen=True)
class VocabularyFile:
    """The tokens of a vocabulary file, in the order of their ids."""

    path: Path
    tokens: tuple[str, ...]

    @property
    def fingerprint(self) -> str:
        return vocabulary_fingerprint({token: index for index, token in enumerate(self.tokens)})


def read_vocabulary_file(path: str | os.PathLike[str]) -> VocabularyFile:
    """Read a vocabulary file.

    Raises:
        DataError: the file is missing, empty, or contains a token twice.
    """
    path = Path(path)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a vocabulary ({error})") from error
    tokens = tuple(line.strip() for line in lines)
    while tokens and not tokens[-1]:
        tokens = tokens[:-1]
    repeated = sorted({token for token in tokens if token and tokens.count(token) > 1})
    if not tokens or repeated:
        raise DataError(f"{path}: not a vocabulary: " + (f"{repeated} occur twice" if repeated else "it is empty"))
    return VocabularyFile(path, tokens)
