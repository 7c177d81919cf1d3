"""Vocabulary files: one token per line, whose id is the line number from 0. A blank line is an id without a token."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from tape.errors import DataError, quoted
from tape.tokenizers import vocabulary_fingerprint

_LARGEST_BYTES = 1 << 26


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
        if path.stat().st_size > _LARGEST_BYTES:
            raise DataError(f"{path}: larger than {_LARGEST_BYTES:,} bytes, so not a vocabulary")
        lines = path.read_text(encoding="utf-8").rstrip().splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a vocabulary ({error})") from error
    tokens = tuple(line.strip() for line in lines)
    repeated = sorted(token for token, number in Counter(tokens).items() if token and number > 1)
    if not tokens or repeated:
        problem = f"{quoted(repeated)} occur twice" if repeated else "it is empty"
        raise DataError(f"{path}: not a vocabulary: {problem}")
    return VocabularyFile(path, tokens)
