"""Filters of preprocessing."""

from __future__ import annotations

import numpy as np
import pytest

from pretrain.data.deduplication import DigestSet
from pretrain.data.tokenization import Filters, tokenise_batch
from tape.errors import ConfigError
from tape.io.sequences import SequenceRecord
from tape.tokenizers import TAPETokenizer, normalize_sequence


def records(*sequences: str) -> list[SequenceRecord]:
    return [SequenceRecord(str(i), sequence, f"x, record {i}") for i, sequence in enumerate(sequences)]


@pytest.mark.parametrize("fraction", [-1.0, 1.1, float("nan")])
def test_an_unknown_fraction_is_a_fraction(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"\[0, 1\]"):
        Filters(max_unknown_fraction=fraction)


def test_lengths_that_leave_nothing_are_refused() -> None:
    with pytest.raises(ConfigError, match="--max-length 3 is less than --min-length 5"):
        Filters(min_length=5, max_length=3)


def test_a_batch_without_duplicates_keeps_ids_and_sizes_together() -> None:
    batch = tokenise_batch(records("MKV", "AC", "MKV", "GGGG"), Filters(deduplicate=True))
    kept = batch.without_seen(DigestSet())
    assert kept.sizes.tolist() == [3, 2, 4]
    assert TAPETokenizer().decode(kept.ids.astype(np.int64)) == "MKVACGGGG"
    assert kept.filtered == {"duplicate": 1}


def test_no_digest_is_computed_for_nothing() -> None:
    assert tokenise_batch(records("MKV"), Filters()).digests == b""


def test_looking_up_a_batch_equals_taking_every_record_apart() -> None:
    """Usual and unusual records beside each other: letters of every kind, lower case, gaps, stops, beyond ASCII."""
    sequences = ["ACDEFGHIKLMNPQRSTVWYBOUXZ", "mkv", "M-K.V*", "J", "ACD", "ACDJ", "GG"]
    batch = tokenise_batch(records(*sequences), Filters())
    expected = [normalize_sequence(sequence, drop_gaps=True)[0] for sequence in sequences]
    assert batch.sizes.tolist() == [len(sequence) for sequence in expected]
    assert TAPETokenizer().decode(batch.ids.astype(np.int64)) == "".join(expected)
    assert batch.changes == {"lower_case": 3, "gap_removed": 2, "stop_removed": 1, "J_to_X": 2}


def test_what_is_no_residue_becomes_x_and_the_first_is_named() -> None:
    batch = tokenise_batch(records("MKV", "A-c\u4e001", "GX?", "GG"), Filters())
    assert TAPETokenizer().decode(batch.ids.astype(np.int64)) == "MKVACXXGXXGG"
    assert batch.sizes.tolist() == [3, 4, 3, 2]
    assert batch.changes == {"lower_case": 1, "gap_removed": 1, "other_to_X": 3}
    assert (batch.unknown, batch.first_unknown) == (4, "x, record 1: '\u4e00' at position 4")
    batch = tokenise_batch(records("J", "MK", "GAX"), Filters(min_length=2))
    assert (batch.unknown, batch.first_unknown) == (1, "x, record 2: 'X' at position 3")
    assert tokenise_batch(records("MKV"), Filters()).first_unknown == ""


def test_duplicates_that_are_left_out_are_not_counted_as_unknown() -> None:
    batch = tokenise_batch(records("MXV", "MXV", "GG"), Filters(deduplicate=True))
    assert (batch.unknown, batch.without_seen(DigestSet()).unknown) == (2, 1)
