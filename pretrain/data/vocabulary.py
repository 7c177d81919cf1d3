"""Translation of the ids of a vocabulary file to TAPE's ids, and a test of whether ids belong to a vocabulary.

Megatron's ``iupac_vocab.txt`` has 31 lines: ``[PAD]`` for ``<pad>`` and so on, and one unused token that shifts every
residue by one. Ids are translated by token name, so any file with these names is understood, whatever its order.
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

# Percentage of each residue in UniProtKB/Swiss-Prot (release statistics). Residues rarer than 0.1 % are set to at
# least that, so that a single rare residue cannot decide the comparison.
_RESIDUE_PERCENT = {
    **dict(zip("ARNDCQEGHI", (8.25, 5.53, 4.06, 5.46, 1.38, 3.93, 6.72, 7.07, 2.27, 5.91), strict=True)),
    **dict(zip("LKMFPSTWYV", (9.65, 5.80, 2.41, 3.86, 4.74, 6.65, 5.36, 1.10, 2.92, 6.86), strict=True)),
    **dict(zip("BOUZX", (0.1, 0.1, 0.1, 0.1, 0.5), strict=True)),
}


def id_translation_table(tokens: tuple[str, ...], tokenizer: TAPETokenizer, source: object) -> np.ndarray:
    """Map each id of a vocabulary to the id that ``tokenizer`` has for the token of the same name.

    Args:
        tokens: the tokens of the vocabulary in the order of their ids.
        tokenizer: the target vocabulary.
        source: file of the vocabulary, for the error message.

    Returns:
        (len(tokens),) int64; :data:`UNMAPPED` for tokens that ``tokenizer`` does not have.

    Raises:
        VocabularyMismatchError: if ``tokens`` lacks one of the 20 amino acids.
    """
    names = [MEGATRON_SPECIAL_TOKENS.get(token, token) for token in tokens]
    missing = [residue for residue in "ACDEFGHIKLMNPQRSTVWY" if residue not in names]
    if missing:
        raise VocabularyMismatchError(f"{source}: not a protein vocabulary: it lacks {' '.join(missing)}")
    return np.array([tokenizer.vocab.get(name, UNMAPPED) for name in names], dtype=np.int64)


def log_likelihood(ids: np.ndarray, tokens: Sequence[str]) -> float:
    """Natural log-likelihood of residue ids under the residue frequencies of Swiss-Prot.

    A run of equal residues counts once, because stretches of X or of glutamine carry little information about the
    vocabulary.

    Args:
        ids: (n,) residue ids of concatenated proteins.
        tokens: the tokens of the vocabulary in the order of their ids.

    Returns:
        The log-likelihood; minus infinity if an id is outside ``tokens`` or does not represent a residue.
    """
    if not len(ids) or int(ids.min()) < 0:
        return -math.inf if len(ids) else 0.0
    counts = np.bincount(ids[np.concatenate([[True], ids[1:] != ids[:-1]])], minlength=len(tokens))
    frequencies = np.array([_RESIDUE_PERCENT.get(token, 0.0) / 100 for token in tokens])
    seen = np.flatnonzero(counts)
    if seen[-1] >= len(tokens) or not frequencies[seen].all():
        return -math.inf
    return float(counts[seen] @ np.log(frequencies[seen]))
