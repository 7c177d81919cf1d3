"""Samples: positions and segments of the uncorrupted proteins, masks as pure functions.

In the original, masking may insert special tokens that cut a protein (bug 29 in docs/compatibility.md), and short
proteins may have no prediction (bug 31).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from pretrain.data.batch_schedule import BatchConfig, Rampup
from pretrain.data.corpus import Corpus, open_corpus
from pretrain.data.preprocessing import preprocess
from pretrain.data.samples import (
    EvaluationOrder,
    GlobalBatches,
    MicroBatch,
    MicroBatches,
    PackedProteins,
    PackedRow,
    SampleConfig,
    TrainingOrder,
    join_rows,
)
from tape.errors import ConfigError, DataError
from tape.tokenizers import TAPETokenizer

TOKENIZER = TAPETokenizer()
CONFIG = SampleConfig(seq_length=64, seed=5)


@pytest.fixture(scope="module")
def corpus(corpus_prefix: Path) -> Corpus:
    return open_corpus(corpus_prefix, TOKENIZER)


@pytest.fixture(scope="module")
def samples(corpus: Corpus) -> PackedProteins:
    return PackedProteins(corpus, CONFIG)


def restored(row) -> np.ndarray:
    return np.where(row.labels >= 0, row.labels, row.input_ids)


def test_row_consists_of_proteins_with_special_tokens(samples: PackedProteins, proteins: list[str]) -> None:
    for sample in range(10):
        row, pieces = samples[sample], samples.proteins(sample)
        texts = [proteins[piece.protein][piece.start : piece.start + piece.length] for piece in pieces]
        assert restored(row).tolist() == [token for text in texts for token in TOKENIZER.encode(text).tolist()]
        assert row.lengths == [len(text) + 2 for text in texts]


def test_segments_depend_on_lengths_not_on_tokens(samples: PackedProteins) -> None:  # bug 29
    """Masking inserts no special token except the mask, and neither boundaries nor positions depend on it."""
    for sample in range(len(samples)):
        row = samples[sample]
        starts = np.cumsum([0, *row.lengths])
        specials = np.flatnonzero(np.isin(row.input_ids, [TOKENIZER.cls_id, TOKENIZER.sep_id]))
        assert specials.tolist() == sorted([*starts[:-1].tolist(), *(starts[1:] - 1).tolist()])
        assert not np.isin(row.input_ids, [TOKENIZER.pad_id, TOKENIZER.unk_id]).any()
        layout = join_rows([row]).layout
        expected = np.concatenate([np.arange(length) for length in row.lengths])
        assert layout.positions.tolist() == expected.tolist()


def test_special_tokens_are_never_predicted(samples: PackedProteins) -> None:  # bug 29
    for sample in range(20):
        row = samples[sample]
        assert np.isin(row.labels[row.labels >= 0], TOKENIZER.residue_ids).all()


def test_every_protein_has_a_prediction(tmp_path: Path) -> None:  # bug 31
    path = tmp_path / "short.txt"
    path.write_text("M\nAC\nMKV\nACDEF\n")
    samples = PackedProteins(open_corpus(preprocess([path], tmp_path / "short").prefix, TOKENIZER), CONFIG)
    for sample in range(20):
        row = samples[sample]
        start = 0
        for length in row.lengths:
            assert (row.labels[start : start + length] >= 0).sum() >= 1
            start += length


def test_masks_are_a_function_of_seed_epoch_and_protein(corpus: Corpus) -> None:
    def mask(seed: int, epoch: int, protein: int) -> np.ndarray:
        samples = PackedProteins(corpus, SampleConfig(seq_length=64, seed=seed))
        plan = samples.plan(epoch)
        offset = sum(samples.planner.rows(earlier) for earlier in range(epoch))
        for number in range(plan.rows):
            pieces = plan.row(number)
            if protein in [piece.protein for piece in pieces]:
                row = samples[offset + number]
                index = [piece.protein for piece in pieces].index(protein)
                begin = sum(row.lengths[:index])
                return row.labels[begin : begin + row.lengths[index]]
        raise AssertionError

    short = int(np.flatnonzero((corpus.sizes > 40) & (corpus.sizes < 60))[0])
    assert mask(5, 1, short).tolist() == mask(5, 1, short).tolist()
    assert mask(5, 1, short).tolist() != mask(5, 0, short).tolist()
    assert mask(5, 1, short).tolist() != mask(6, 1, short).tolist()


def test_validation_masks_never_change(corpus: Corpus) -> None:  # bug 21 in docs/compatibility.md
    samples = PackedProteins(corpus, CONFIG, (0, 50), repeat=False)
    order = EvaluationOrder(len(samples), 3, 0, 1)
    first, again = (list(MicroBatches(samples, order)) for _ in range(2))
    assert len(first) == -(-len(samples) // 3)
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.input_ids, two.input_ids)
        assert torch.equal(one.labels, two.labels)
    with pytest.raises(IndexError):
        samples[len(samples)]


def test_micro_batch_has_no_padding(samples: PackedProteins) -> None:
    rows = [samples[i] for i in range(3)]
    batch = join_rows(rows)
    assert batch.tokens == sum(len(row.input_ids) for row in rows)
    assert batch.input_ids.shape == (1, batch.tokens)
    assert batch.layout.lengths == tuple(length for row in rows for length in row.lengths)
    labels = np.concatenate([row.labels for row in rows])
    assert batch.labels.tolist() == labels[batch.predicted].tolist()
    assert batch.predictions == (labels >= 0).sum()
    assert batch.rows == 3
    assert not (batch.input_ids == TOKENIZER.pad_id).any()


def test_without_sep_a_protein_has_one_token_less(corpus: Corpus, proteins: list[str]) -> None:
    samples = PackedProteins(corpus, SampleConfig(seq_length=64, append_sep=False))
    row = samples[0]
    assert TOKENIZER.sep_id not in row.input_ids
    assert row.lengths == [piece.length + 1 for piece in samples.proteins(0)]


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_global_batch_is_divided_among_the_ranks(ranks: int) -> None:
    batch = BatchConfig(micro_batch=2, global_batch=8)
    orders = [list(TrainingOrder(batch, 16, 3, rank, ranks)) for rank in range(ranks)]
    assert all(len(order) == 3 * 4 // ranks for order in orders)
    for step in range(3):
        per_rank = 4 // ranks
        rows = [row for order in orders for micro in order[step * per_rank : (step + 1) * per_rank] for row in micro]
        assert sorted(rows) == list(range(16 + 8 * step, 24 + 8 * step))


def test_position_of_a_micro_batch_is_the_same_in_every_layout() -> None:
    batch = BatchConfig(2, 8)
    alone = TrainingOrder(batch, 0, 1, 0, 1)
    for rank in range(2):
        order = TrainingOrder(batch, 0, 1, rank, 2)
        for micro, rows in enumerate(order):
            assert rows == list(alone)[order.position(micro)]


def test_global_batch_must_divide() -> None:
    with pytest.raises(ConfigError, match="--global-batch-size 8 is not a multiple"):
        BatchConfig(3, 8).micro_batches(2)


def test_evaluation_rows_are_divided_among_the_ranks() -> None:
    orders = [list(EvaluationOrder(11, 2, rank, 2)) for rank in range(2)]
    assert sorted(row for order in orders for micro in order for row in micro) == list(range(11))
    assert [len(order) for order in orders] == [3, 3]


def test_workers_do_not_change_batches(samples: PackedProteins) -> None:
    order = TrainingOrder(BatchConfig(2, 4), len(samples) - 5, 4, 0, 1)  # crosses into the second epoch
    alone, with_workers = (list(MicroBatches(samples, order, workers)) for workers in (0, 2))
    for one, two in zip(alone, with_workers, strict=True):
        assert torch.equal(one.input_ids, two.input_ids)
        assert torch.equal(one.predicted, two.predicted)
        assert one.layout.lengths == two.layout.lengths


def test_error_of_a_worker_is_one_line(samples: PackedProteins, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*arguments: object) -> None:
        raise DataError("x.bin: protein 3 is broken")

    monkeypatch.setattr(Corpus, "residues", broken)
    batches = MicroBatches(samples, EvaluationOrder(2, 1, 0, 1), workers=1)
    with pytest.raises(DataError) as caught:
        list(batches)
    assert str(caught.value) == "x.bin: protein 3 is broken"


def test_padding_is_no_token_of_a_row() -> None:
    row = PackedRow(np.arange(5, 15), np.where(np.arange(10) % 3 == 1, 7, -1), [4, 6])
    batch = join_rows([row])
    padded = batch.padded(23)
    assert padded.input_ids.shape == (1, 23)
    assert (padded.tokens, padded.predictions, padded.padding) == (10, batch.predictions, 13)
    assert padded.layout.lengths == (4, 6, 6, 6, 1)
    assert torch.equal(padded.predicted, batch.predicted)
    assert batch.padded(10) is batch
    assert (MicroBatch.empty().tokens, MicroBatch.empty().predictions) == (0, 0)


def test_orders_and_masks_of_two_corpora_are_independent() -> None:
    seeds = {SampleConfig(seed=7).for_corpus(number).seed for number in range(5)}
    assert SampleConfig(seed=7).for_corpus(0).seed == 7
    assert len(seeds | {SampleConfig(seed=8).for_corpus(1).seed}) == 6


def test_global_batches_grow_with_the_ramp_up_and_consist_of_consecutive_rows(samples: PackedProteins) -> None:
    order = TrainingOrder(BatchConfig(2, 8, Rampup(4, 4, 8)), consumed=4, steps=3, rank=1, ranks=2)
    batches = list(GlobalBatches(samples, order))
    assert [batch.rows for batch in batches] == [4, 8, 8]
    assert [len(batch.micro_batches) for batch in batches] == [1, 2, 2]
    first = [batch.micro_batches[0].input_ids for batch in batches]
    expected = [join_rows([samples[row], samples[row + 1]]).input_ids for row in (4 + 2, 8 + 2, 16 + 2)]
    assert all(torch.equal(*pair) for pair in zip(first, expected, strict=True))
