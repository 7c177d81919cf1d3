"""Blends: exact shares at every row, complete epochs of every corpus, a pure function of the row number."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.data.blending import Blend, BlendedProteins, describe, whole_shares
from pretrain.data.corpus import open_corpus
from pretrain.data.samples import (
    BatchConfig,
    EvaluationOrder,
    MicroBatches,
    PackedProteins,
    SampleConfig,
    TrainingOrder,
)
from tape.errors import ConfigError
from tape.tokenizers import TAPETokenizer

TOKENIZER = TAPETokenizer()


@pytest.fixture(scope="module")
def prefixes(corpus_prefix: Path, second_prefix: Path) -> list[Path]:
    return [corpus_prefix, second_prefix]


def parts(prefixes: list[Path], repeat: bool = True) -> list[PackedProteins]:
    return [
        PackedProteins(open_corpus(prefix, TOKENIZER), SampleConfig(64, seed=5).for_corpus(number), repeat=repeat)
        for number, prefix in enumerate(prefixes)
    ]


@pytest.fixture(scope="module")
def blend(prefixes: list[Path]) -> BlendedProteins:
    return BlendedProteins(parts(prefixes), (0.7, 0.3))


def drawn(blend: BlendedProteins, rows: int) -> list[tuple[int, int]]:
    """(corpus, row within it) of the first rows."""
    sources = [blend.source(sample) for sample in range(rows)]
    return [(blend.parts.index(part), index) for part, index in sources]


def test_shares_are_exact_at_every_row(blend: BlendedProteins) -> None:
    corpora = np.array([corpus for corpus, _ in drawn(blend, 1000)])
    first = np.cumsum(corpora == 0)
    assert (abs(first - 0.7 * np.arange(1, 1001)) <= 1.0).all()
    assert first[-1] == 700


def test_rows_of_every_corpus_are_in_order(blend: BlendedProteins) -> None:
    for corpus in range(2):
        indices = [index for number, index in drawn(blend, 500) if number == corpus]
        assert indices == list(range(len(indices)))


def test_each_protein_once_per_epoch_of_its_corpus(blend: BlendedProteins) -> None:  # bug 30 in docs/compatibility.md
    seen: list[Counter[tuple[int, int]]] = [Counter(), Counter()]
    for corpus, index in drawn(blend, len(blend)):
        part = blend.parts[corpus]
        if part.planner.locate(index)[0] == 0:
            seen[corpus].update((piece.protein, piece.number) for piece in part.proteins(index))
    assert [len({protein for protein, _ in counter}) for counter in seen] == [300, 40]
    assert {count for counter in seen for count in counter.values()} == {1}


def test_length_is_the_first_complete_epoch_of_all_corpora(blend: BlendedProteins) -> None:
    last = drawn(blend, len(blend))[-1]
    assert last[1] == len(blend.parts[last[0]]) - 1
    assert all(
        index < len(blend.parts[last[0]]) - 1 for corpus, index in drawn(blend, len(blend) - 1) if corpus == last[0]
    )


def test_blend_of_one_corpus_equals_the_corpus(prefixes: list[Path]) -> None:
    alone = parts(prefixes)[0]
    blended = BlendedProteins([alone], (1.0,))
    assert all(np.array_equal(blended[i].input_ids, alone[i].input_ids) for i in range(5))
    assert len(blended) == len(alone)


def test_resume_has_the_same_rows(blend: BlendedProteins, prefixes: list[Path]) -> None:
    """A resume at row 96 with two workers against one process from the beginning."""
    batch = BatchConfig(2, 4)
    uninterrupted = list(MicroBatches(blend, TrainingOrder(batch, 0, 30, 0, 1)))[48:]
    reopened = BlendedProteins(parts(prefixes), (0.7, 0.3))
    resumed = list(MicroBatches(reopened, TrainingOrder(batch, 96, 6, 0, 1), workers=2))
    for one, two in zip(uninterrupted, resumed, strict=True):
        assert torch.equal(one.input_ids, two.input_ids)
        assert torch.equal(one.labels, two.labels)


def test_default_weights_are_proportional_to_rows(prefixes: list[Path]) -> None:
    blended = BlendedProteins(parts(prefixes))
    assert len(blended) == sum(map(len, blended.parts))
    assert sorted(drawn(blended, len(blended))) == [
        (corpus, row) for corpus, part in enumerate(blended.parts) for row in range(len(part))
    ]


def test_evaluation_sees_every_row_once(prefixes: list[Path]) -> None:
    blended = BlendedProteins(parts(prefixes, repeat=False), (0.5, 0.5))
    everything = drawn(blended, len(blended))
    assert len(set(everything)) == len(everything) == sum(map(len, blended.parts))
    assert Counter(corpus for corpus, _ in everything[:20]) == {0: 10, 1: 10}
    batches = [list(MicroBatches(blended, EvaluationOrder(len(blended), 4, rank, 2))) for rank in range(2)]
    assert sum(batch.rows for rank in batches for batch in rank) == len(blended)
    with pytest.raises(IndexError):
        blended[len(blended)]


@pytest.mark.parametrize(
    ("weights", "expected"),
    [((0.7, 0.3), [7, 3]), ((1, 2), [1, 2]), ((50, 25, 25), [2, 1, 1]), ((0.1, 0.2, 0.7), [1, 2, 7])],
)
def test_weights_are_reduced_to_small_integers(weights: tuple[float, ...], expected: list[int]) -> None:
    assert whole_shares(weights) == expected


def test_other_weights_are_rounded_to_a_millionth() -> None:
    shares = whole_shares((12345678.9, 98765432.1))
    assert shares[0] / sum(shares) == pytest.approx(12345678.9 / 111111111.0, abs=1e-6)
    with pytest.raises(ConfigError, match="too small"):
        whole_shares((1e-9, 1.0))


def test_weights_and_prefixes_are_parsed() -> None:
    assert Blend.parse(["a"], "--data-path") == Blend(("a",))
    assert Blend.parse(["a", "b"], "--data-path") == Blend(("a", "b"))
    assert Blend.parse(["0.7", "a", "3e-1", "b"], "--data-path") == Blend(("a", "b"), (0.7, 0.3))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("0.7 a 0.3", "WEIGHT PREFIX for each"),
        ("a 0.3", "WEIGHT PREFIX for each"),
        ("0.5 a 0.5 a", "names a twice"),
        ("0 a 1 b", "above 0"),
        ("-1 a 1 b", "above 0"),
        ("nan a 1 b", "above 0"),
    ],
)
def test_invalid_weights_and_prefixes_are_errors(words: str, message: str) -> None:
    with pytest.raises(ConfigError, match=f"--valid-data-path.*{message}"):
        Blend.parse(words.split(), "--valid-data-path")


def test_description_of_a_blend_has_shares_proteins_and_rows_until_seen(blend: BlendedProteins) -> None:
    first, second = describe(blend)
    assert "70.00% of the rows; 300 proteins" in first
    assert "30.00% of the rows; 40 proteins" in second
    assert f"seen after {blend.rows_until_seen(1):,} rows" in second
    assert describe(blend.parts[1])[0].startswith("40 proteins in")


def test_attended_length_is_the_token_weighted_mean(blend: BlendedProteins) -> None:
    """The token-weighted mean length, computed from all rows of an epoch."""
    part = blend.parts[1]
    lengths = np.array([length for row in range(len(part)) for length in part[row].lengths], dtype=float)
    assert part.attended_length == pytest.approx((lengths**2).sum() / lengths.sum())
    expected = 0.7 * blend.parts[0].attended_length + 0.3 * part.attended_length
    assert blend.attended_length == pytest.approx(expected)
