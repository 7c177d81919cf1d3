"""BERT's masking (Devlin et al. 2018, section 3.1, Task 1) of 15 % of the residues of a protein.

Of these, 80 % become ``<mask>``, 10 % a random residue, and 10 % stay. The result is a pure function of the random
number generator: if it is seeded by (seed, epoch, document), masks do not depend on the number of workers and ranks.
"""

from __future__ import annotations

import numpy as np

from .errors import ConfigError
from .tokenizers import TAPETokenizer

IGNORED = -1  # label of a position that is not predicted


def mask_tokens(
    ids: np.ndarray, tokenizer: TAPETokenizer, rng: np.random.Generator, mask_prob: float = 0.15
) -> tuple[np.ndarray, np.ndarray]:
    """Mask one protein.

    Special tokens are never masked, and random replacements are always residues. At least one residue of a protein is
    predicted, so that the mean loss is defined.

    Args:
        ids: (L,) token ids of one protein, with or without ``<cls>`` and ``<sep>``; not modified.
        tokenizer: tokenizer of ``ids``, with a mask token.
        rng: random number generator.
        mask_prob: fraction of residues to predict, in (0, 1].

    Returns:
        (masked ids, labels), both (L,) int64. Labels are the original ids at predicted positions and -1 elsewhere.

    Raises:
        ConfigError: ``mask_prob`` is out of range, or the vocabulary has no mask token.
    """
    if not 0.0 < mask_prob <= 1.0:
        raise ConfigError(f"mask_prob must be in (0, 1], not {mask_prob}")
    if tokenizer.mask_id is None:
        raise ConfigError(f"the {tokenizer.name} vocabulary has no mask token; use iupac for masked language modeling")
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
