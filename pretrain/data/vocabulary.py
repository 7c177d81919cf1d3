"""How the ids of a vocabulary file become TAPE's, and whether ids can be of the vocabulary that they are said to be of.

Megatron's ``iupac_vocab.txt`` has 31 lines: ``[PAD]`` for ``<pad>`` and so on, and one unused token that shifts every
residue by one. Ids are translated by token name, so any file with these names in any order is understood.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tape.errors import VocabularyMismatchError
from tape.tokenizers import IUPAC_VOCAB, MEGATRON_SPECIAL_TOKENS, SPECIAL_TOKENS, TAPETokenizer

UNMAPPED = -1
TAPE_TOKENS = tuple(IUPAC_VOCAB)
MEGATRON_TOKENS = (*MEGATRON_SPECIAL_TOKENS, "[unused1]", *TAPE_TOKENS[len(SPECIAL_TOKENS) :])

# Percent of residues in UniProtKB/Swiss-Prot (its release statistics); what is rarer there than 0.1 % gets more, so
# that no single residue proves anything.
_PERCENT = {
    **dict(zip("ARNDCQEGHI", (8.25, 5.53, 4.06, 5.46, 1.38, 3.93, 6.72, 7.07, 2.27, 5.91), strict=True)),
    **dict(zip("LKMFPSTWYV", (9.65, 5.80, 2.41, 3.86, 4.74, 6.65, 5.36, 1.10, 2.92, 6.86), strict=True)),
    **dict(zip("BOUZX", (0.1, 0.1, 0.1, 0.1, 0.5), strict=True)),
}


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


def log_likelihood(ids: np.ndarray, tokens: Sequence[str]) -> float:
    """Natural logarithm of the probability of proteins with these ids, by the frequencies of residues alone.

    A run of one residue counts once: stretches of X or of glutamine say little about the vocabulary.

    Args:
        ids: (n,) residues of proteins, one after another.
        tokens: what the ids stand for.

    Returns:
        Minus infinity where an id is none of ``tokens`` or no residue.
    """
    if not len(ids) or int(ids.min()) < 0:
        return -math.inf if len(ids) else 0.0
    counts = np.bincount(ids[np.concatenate([[True], ids[1:] != ids[:-1]])], minlength=len(tokens))
    shares = np.array([_PERCENT.get(token, 0.0) / 100 for token in tokens])
    seen = np.flatnonzero(counts)
    if seen[-1] >= len(tokens) or not shares[seen].all():
        return -math.inf
    return float(counts[seen] @ np.log(shares[seen]))
