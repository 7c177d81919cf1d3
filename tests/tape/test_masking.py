"""Masking: rates, special tokens, and dependence on the random number generator alone."""

from __future__ import annotations

import numpy as np
import pytest

from tape.errors import ConfigError
from tape.masking import mask_tokens
from tape.tokenizers import TAPETokenizer

TOKENIZER = TAPETokenizer()


def protein(length: int, seed: int = 0) -> np.ndarray:
    letters = np.random.default_rng(seed).choice(list("ACDEFGHIKLMNPQRSTVWY"), size=length)
    return TOKENIZER.encode("".join(letters))


def test_special_tokens_are_never_masked_nor_inserted():  # bugs 8 and 29 in docs/compatibility.md
    special = {0, 2, 3, 4}
    for seed in range(300):
        ids = protein(60, seed)
        corrupted, labels = mask_tokens(ids, TOKENIZER, np.random.default_rng(seed))
        assert labels[0] == labels[-1] == -1
        assert (corrupted[0], corrupted[-1]) == (2, 3)
        assert not special & set(corrupted[1:-1].tolist())
        assert (labels[labels >= 0] == ids[labels >= 0]).all()
        assert (corrupted[labels < 0] == ids[labels < 0]).all()


def test_masking_rates_are_those_of_bert():
    rng = np.random.default_rng(1)
    ids = protein(20_000)
    corrupted, labels = mask_tokens(ids, TOKENIZER, rng)
    chosen = labels >= 0
    assert chosen.sum() == 3000
    masked = (corrupted == TOKENIZER.mask_id)[chosen].mean()
    changed = (corrupted != ids)[chosen].mean()
    assert masked == pytest.approx(0.80, abs=0.03)
    assert changed == pytest.approx(0.80 + 0.10 * 24 / 25, abs=0.03)


@pytest.mark.parametrize("length", [1, 2, 5, 6])
def test_every_protein_has_a_prediction(length):  # bug 31 in docs/compatibility.md
    for seed in range(50):
        _, labels = mask_tokens(protein(length), TOKENIZER, np.random.default_rng(seed))
        assert (labels >= 0).sum() == 1


def test_masks_are_a_pure_function_of_the_generator():
    ids = protein(100)
    before = ids.copy()
    first = mask_tokens(ids, TOKENIZER, np.random.default_rng(7))
    second = mask_tokens(ids, TOKENIZER, np.random.default_rng(7))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert np.array_equal(ids, before)
    assert not np.array_equal(first[0], mask_tokens(ids, TOKENIZER, np.random.default_rng(8))[0])


def test_bad_arguments_are_refused():
    with pytest.raises(ConfigError, match="mask_prob"):
        mask_tokens(protein(5), TOKENIZER, np.random.default_rng(0), mask_prob=0.0)
    with pytest.raises(ConfigError, match="no mask token"):
        mask_tokens(protein(5), TAPETokenizer("unirep"), np.random.default_rng(0))
