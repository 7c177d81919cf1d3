"""BERT's masking of one protein: 15 % of residues, of these 80 % masked, 10 % replaced, 10 % kept.

Devlin et al. 2018, section 3.1 (Task 1). A pure function of the generator handed in, so that callers who derive it from
(seed, epoch, document) see the same masks on any number of workers and ranks.
"""

from __future__ import annotations

import numpy as np

from .errors import ConfigError
from .tokenizers import TAPETokenizer

IGNORED = -1  # label of a position that is not predicted


def mask_tokens(
    ids: np.ndarray, tokenizer: TAPETokenizer, rng: np.random.Generator, mask_prob: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    """Corrupt one protein and say what to predict.

    Special tokens are never masked, and none but ``<mask>`` is ever inserted: a random replacement is a residue. A
    protein with any residue has at least one prediction, so that no loss is a mean over nothing.

    Args:
        ids: (L,) token ids of one protein, with or without ``<cls>`` and ``<sep>``; not changed.
        tokenizer: owner of the vocabulary; it must have a mask token.
        rng: source of all randomness.
        mask_prob: fraction of residues to predict, in (0, 1].

    Returns:
        (corrupted ids, labels), both (L,) int64; a label is the true id where predicted and -1 elsewhere.

    Raises:
        ConfigError: ``mask_prob`` out of range, or a vocabulary without a mask token.
    """
    if not 0.0 < mask_prob <= 1.0:
        raise ConfigError(f"mask_prob must lie in (0, 1], not {mask_prob}")
    if tokenizer.mask_id is None:
        raise ConfigError(f"the {tokenizer.name} vocabulary has no mask token; use iupac for masked language modelling")
    corrupted = np.array(ids, dtype=np.int64)
    labels = np.full(corrupted.shape, IGNORED, dtype=np.int64)
    residues = tokenizer.residue_ids
    candidates = np.flatnonzero(np.isin(corrupted, residues))
    if candidates.size == 0:
        return corrupted, labels
    count = max(1, round(mask_prob * candidates.size))
    chosen = rng.choice(candidates, size=count, replace=False)
    labels[chosen] = corrupted[chosen]
    fate = rng.random(count)
    replacement = residues[rng.integers(residues.size, size=count)]
    corrupted[chosen[fate < 0.8]] = tokenizer.mask_id
    random = (fate >= 0.8) & (fate < 0.9)
    corrupted[chosen[random]] = replacement[random]
    return corrupted, labels
