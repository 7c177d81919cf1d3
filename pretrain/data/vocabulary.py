"""How the ids of a vocabulary file become TAPE's.

Megatron's ``iupac_vocab.txt`` has 31 lines: ``[PAD]`` for ``<pad>`` and so on, and one unused token that shifts every
residue by one. Ids are translated by token name, so any file with these names in any order is understood.
"""

from __future__ import annotations

import numpy as np

from tape.errors import VocabularyMismatchError
from tape.tokenizers import MEGATRON_SPECIAL_TOKENS, TAPETokenizer

UNMAPPED = -1


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
