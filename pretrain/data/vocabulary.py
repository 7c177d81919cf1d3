"""Translation of the ids of a vocabulary file to TAPE's ids, and a check of whether a corpus has that vocabulary.

Megatron's ``iupac_vocab.txt`` has 31 lines: ``[PAD]`` for ``<pad>`` and so on, and one unused token that shifts every
residue by one. Ids are translated by token name, so any file with these names is understood, whatever its order.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence

import numpy as np

from tape.errors import VocabularyMismatchError
from tape.io.vocabulary_files import VocabularyFile
from tape.tokenizers import IUPAC_VOCAB, MEGATRON_SPECIAL_TOKENS, SPECIAL_TOKENS, TAPETokenizer

UNMAPPED = -1
_DECISIVE_LOG_RATIO = math.log(1000)  # a vocabulary must be this much likelier than another to be preferred
TAPE_TOKENS = tuple(IUPAC_VOCAB)
MEGATRON_TOKENS = (*MEGATRON_SPECIAL_TOKENS, "[unused1]", *TAPE_TOKENS[len(SPECIAL_TOKENS) :])

# Percentage of each residue in UniProtKB/Swiss-Prot (release statistics). Residues rarer than 0.1 % are set to at
# least that, so that a single rare residue cannot decide the comparison.
_RESIDUE_PERCENT = {
    **dict(zip("ARNDCQEGHI", (8.25, 5.53, 4.06, 5.46, 1.38, 3.93, 6.72, 7.07, 2.27, 5.91), strict=True)),
    **dict(zip("LKMFPSTWYV", (9.65, 5.80, 2.41, 3.86, 4.74, 6.65, 5.36, 1.10, 2.92, 6.86), strict=True)),
    **dict(zip("BOUZX", (0.1, 0.1, 0.1, 0.1, 0.5), strict=True)),
}


logger = logging.getLogger(__name__)


def id_translation_table(declared: VocabularyFile, tokenizer: TAPETokenizer) -> np.ndarray:
    """Map each id of a vocabulary to the id that ``tokenizer`` has for the token of the same name.

    Args:
        declared: the vocabulary.
        tokenizer: the target vocabulary.

    Returns:
        (number of tokens,) int64; :data:`UNMAPPED` for tokens that ``tokenizer`` does not have.

    Raises:
        VocabularyMismatchError: if ``declared`` lacks one of the 20 amino acids.
    """
    names = [MEGATRON_SPECIAL_TOKENS.get(token, token) for token in declared.tokens]
    missing = [residue for residue in "ACDEFGHIKLMNPQRSTVWY" if residue not in names]
    if missing:
        raise VocabularyMismatchError(f"{declared.path}: not a protein vocabulary: it lacks {' '.join(missing)}")
    return np.array([tokenizer.vocab.get(name, UNMAPPED) for name in names], dtype=np.int64)


def id_output_table(declared: VocabularyFile, tokenizer: TAPETokenizer) -> np.ndarray:
    """Map each residue id of ``tokenizer`` to the id of the token of the same name in another vocabulary.

    Args:
        declared: the vocabulary of the ids to write.
        tokenizer: the vocabulary of the ids that are mapped.

    Returns:
        (largest residue id + 1,) int64; :data:`UNMAPPED` for ids that represent no residue.

    Raises:
        VocabularyMismatchError: if ``declared`` lacks a residue of ``tokenizer``.
    """
    names = {index: name for name, index in tokenizer.vocab.items()}
    missing = [names[index] for index in tokenizer.residue_ids if names[index] not in declared.tokens]
    if missing:
        raise VocabularyMismatchError(f"{declared.path}: lacks the residues {' '.join(missing)}")
    table = np.full(max(tokenizer.residue_ids) + 1, UNMAPPED, dtype=np.int64)
    for index in tokenizer.residue_ids:
        table[index] = declared.tokens.index(names[index])
    return table


def checked_translation_table(
    declared: VocabularyFile, tokenizer: TAPETokenizer, prefix: str, ids: np.ndarray
) -> np.ndarray:
    """The translation of a corpus that doesn't record its vocabulary, if its first ids can belong to the declared one.

    They cannot if an id does not represent a residue, if alanine is absent from many residues, or if the other of the
    two vocabularies in use, whose residue ids differ by one, is far likelier by the residue frequencies. If there are
    too few residues to decide, a warning is logged.

    Args:
        declared: the vocabulary declared for the corpus.
        tokenizer: the target vocabulary.
        prefix: the corpus, for messages.
        ids: (n,) int64, the first ids of the corpus.

    Returns:
        (number of tokens,) int64; :data:`UNMAPPED` for all but residues, because a corpus stores nothing else.

    Raises:
        VocabularyMismatchError: if the ids contradict the vocabulary, or it lacks one of the 20 amino acids.
    """
    table = id_translation_table(declared, tokenizer)
    table[np.isin(table, tokenizer.residue_ids, invert=True)] = UNMAPPED
    invalid = ids[(ids < 0) | (ids >= len(table))]
    invalid = invalid if invalid.size else ids[table[ids] < 0]
    if invalid.size:
        problem = f"the corpus has id {int(invalid[0])}, which is not a residue of that vocabulary"
    elif len(ids) > 2000 and not (ids == declared.tokens.index("A")).any():
        problem = f"its first {len(ids)} residues would have no alanine"
    else:
        problem = _likelier_vocabulary(prefix, ids, declared)
    if problem:
        raise VocabularyMismatchError(f"{prefix}: not written with {declared.path}: {problem}")
    return table


def _likelier_vocabulary(prefix: str, ids: np.ndarray, declared: VocabularyFile) -> str:
    """Compare vocabularies by the residue frequencies.

    Returns:
        A sentence that names a vocabulary likelier than the declared one; empty if there is none.
    """
    likelihood = _log_likelihood(ids, declared.tokens)
    for name, tokens in (("TAPE's 30", TAPE_TOKENS), ("Megatron's 31", MEGATRON_TOKENS)):
        if all(declared.tokens[i : i + 1] == tokens[i : i + 1] for i in np.unique(ids)):
            continue  # both vocabularies have the same tokens for these ids
        log_ratio = likelihood - _log_likelihood(ids, tokens)
        if log_ratio < -_DECISIVE_LOG_RATIO:
            return f"by its residue frequencies it was written with {name} tokens"
        if log_ratio < _DECISIVE_LOG_RATIO:
            logger.warning("%s: too few residues to distinguish %s from %s tokens", prefix, declared.path, name)
    return ""


def _log_likelihood(ids: np.ndarray, tokens: Sequence[str]) -> float:
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
