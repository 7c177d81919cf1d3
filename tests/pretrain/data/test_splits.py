"""Training, validation and test sets from one corpus, from several, or from separate corpora."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pretrain.data import splits as splits_module
from pretrain.data.blending import Blend, BlendedProteins
from pretrain.data.preprocessing import preprocess
from pretrain.data.samples import PackedProteins, SampleConfig
from pretrain.data.splits import DataConfig, length_warnings, open_splits, split_by_documents
from tape.errors import ConfigError, DataError
from tests.pretrain.conftest import random_proteins, write_fasta

CONFIG = SampleConfig(seq_length=64, seed=5)


@pytest.fixture
def corpus(corpus_prefix: Path) -> Blend:
    return Blend((str(corpus_prefix),))


def test_split_divides_documents(corpus: Blend) -> None:
    splits = open_splits(DataConfig(corpus, split="80,15,5"), CONFIG)
    assert isinstance(splits.valid, PackedProteins)
    assert isinstance(splits.test, PackedProteins)
    parts = (*splits.train.parts, splits.valid, splits.test)
    assert [len(part.planner.sizes) for part in parts] == [240, 45, 15]
    assert splits.valid.first_protein == 240
    assert {piece.protein for row in range(len(splits.test)) for piece in splits.test.proteins(row)} == set(
        range(285, 300)
    )
    assert splits.valid.repeat is False


@pytest.mark.parametrize("name", ["corpora", "train"])
def test_separate_corpora_per_split(corpus: Blend, name: str) -> None:
    splits = open_splits(DataConfig(**{name: corpus}, valid=corpus, test=corpus), CONFIG)
    for samples in (splits.train, splits.valid, splits.test):
        assert samples is not None
        (part,) = samples.parts
        assert len(part.planner.sizes) == 300
        assert part.repeat == (samples is splits.train)
    assert open_splits(DataConfig(corpus, valid=corpus), CONFIG).test is None


@pytest.mark.parametrize("purpose", ["train", "valid", "test"])
def test_separate_corpora_and_a_split_are_an_error(purpose: str) -> None:
    with pytest.raises(ConfigError, match=f"--{purpose}-data-path and --split both"):
        DataConfig(None if purpose == "train" else Blend(("a",)), **{purpose: Blend(("b",))}, split="1,1,1")


def test_exactly_one_training_corpus_option_is_required() -> None:
    with pytest.raises(ConfigError, match="--data-path or --train-data-path"):
        DataConfig()
    with pytest.raises(ConfigError, match="--data-path or --train-data-path"):
        DataConfig(Blend(("a",)), Blend(("b",)))


def test_empty_training_split_is_an_error(corpus: Blend) -> None:
    with pytest.raises(DataError, match="contains no document; check --split"):
        open_splits(DataConfig(corpus, split="0,1,0"), CONFIG)


def test_each_corpus_of_a_blend_is_split(corpus: Blend, second_prefix: Path) -> None:
    blend = Blend((*corpus.prefixes, str(second_prefix)), (3.0, 1.0))
    splits = open_splits(DataConfig(blend, split="90,10,0"), CONFIG)
    assert isinstance(splits.train, BlendedProteins)
    assert isinstance(splits.valid, BlendedProteins)
    assert [len(part.planner.sizes) for part in splits.train.parts] == [270, 36]
    assert [len(part.planner.sizes) for part in splits.valid.parts] == [30, 4]
    assert splits.train.shares == (3, 1)
    assert splits.test is None


def test_corpus_without_validation_documents_is_omitted_from_validation(corpus: Blend, second_prefix: Path) -> None:
    blend = Blend((*corpus.prefixes, str(second_prefix)), (3.0, 1.0))
    splits = open_splits(DataConfig(blend, split="99,1,0"), CONFIG)
    assert splits.valid is not None
    assert [part.corpus.prefix for part in splits.valid.parts] == list(corpus.prefixes)


def test_split_reproduces_pfam() -> None:
    """Proportions that are counts give exactly these counts."""
    ranges = split_by_documents("32593668,1715454,44311", 32593668 + 1715454 + 44311)
    assert ranges == [(0, 32593668), (32593668, 34309122), (34309122, 34353433)]


@pytest.mark.parametrize(
    ("split", "documents", "expected"),
    [
        ("969,30,1", 1000, [(0, 969), (969, 999), (999, 1000)]),
        ("90/10", 10, [(0, 9), (9, 10), (10, 10)]),
        ("1", 7, [(0, 7), (7, 7), (7, 7)]),
        ("1,1,1", 10, [(0, 4), (4, 7), (7, 10)]),
    ],
)
def test_split_rounds_like_megatron(split: str, documents: int, expected: list[tuple[int, int]]) -> None:
    assert split_by_documents(split, documents) == expected


@pytest.mark.parametrize("split", ["a,b", "0,0,0", "-1,2,3", "nan,1,1", "1,inf,1", "inf,-inf", "1e308,1e308"])
def test_invalid_splits_are_errors(split: str) -> None:
    with pytest.raises(ConfigError, match="--split"):
        split_by_documents(split, 10)


@pytest.fixture(scope="module")
def sorted_corpus(tmp_path_factory: pytest.TempPathFactory) -> Blend:
    """A corpus with the shortest proteins first."""
    directory = tmp_path_factory.mktemp("sorted")
    fasta = write_fasta(directory / "sorted.fasta", sorted(random_proteins(300, longest=400), key=len))
    return Blend((str(preprocess([fasta], directory / "sorted").prefix),))


def test_splits_with_other_lengths_are_announced(corpus: Blend, sorted_corpus: Blend) -> None:
    blend = Blend((*corpus.prefixes, *sorted_corpus.prefixes), (3.0, 1.0))
    lines = length_warnings(open_splits(DataConfig(blend, split="80,10,10"), CONFIG))
    assert len(lines) == 2
    for line, name in zip(lines, ("valid", "test"), strict=True):
        assert line.startswith(f"WARNING: {sorted_corpus.prefixes[0]}: --split takes proteins in the order")
        assert f"those of {name} have a median of" in line
        assert f"--{name}-data-path" in line


@pytest.mark.parametrize("split", ["80,10,10", "1,1,1"])
def test_splits_of_a_corpus_in_random_order_are_not_announced(corpus: Blend, split: str) -> None:
    assert length_warnings(open_splits(DataConfig(corpus, split=split), CONFIG)) == []


def test_a_few_documents_do_not_show_that_a_corpus_is_sorted(sorted_corpus: Blend) -> None:
    """The longest of 300 proteins is that of any order with a probability of 1/300."""
    assert length_warnings(open_splits(DataConfig(sorted_corpus, split="299,1,0"), CONFIG)) == []


def test_the_order_of_a_large_corpus_is_seen_in_a_part_of_its_proteins() -> None:
    lengths = np.arange(1, 3_000_001, dtype=np.int32)
    some = splits_module._some(lengths)
    assert len(some) == 100_000
    assert some[0] == 1
    assert some[-1] > 2_999_000
    assert splits_module._lengths_differ(some, splits_module._some(lengths[2_900_000:]))
    assert not splits_module._lengths_differ(some, splits_module._some(lengths[::7]))


def test_separate_corpora_may_have_other_lengths(corpus: Blend, sorted_corpus: Blend) -> None:
    assert length_warnings(open_splits(DataConfig(corpus, valid=sorted_corpus), CONFIG)) == []
