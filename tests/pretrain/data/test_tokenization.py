"""Filters, normalization and tokenization of batches of records."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pretrain.data.deduplication import DigestSet
from pretrain.data.tokenization import Filters, replaced_in, tokenize_batch, tokenize_block
from tape.errors import ConfigError
from tape.io.records import Record, ResidueBlock, open_blocks
from tape.tokenizers import TAPETokenizer, normalize_sequence


def records(*sequences: str) -> list[Record]:
    return [Record(str(i), sequence, f"x, record {i}") for i, sequence in enumerate(sequences)]


@pytest.mark.parametrize("fraction", [-1.0, 1.1, float("nan")])
def test_max_unknown_fraction_must_be_a_fraction(fraction: float) -> None:
    with pytest.raises(ConfigError, match=r"\[0, 1\]"):
        Filters(max_unknown_fraction=fraction)
    with pytest.raises(ConfigError, match="--max-x-fraction"):
        Filters(max_x_fraction=fraction)


def test_max_length_below_min_length_is_an_error() -> None:
    with pytest.raises(ConfigError, match="--max-length 3 is less than --min-length 5"):
        Filters(min_length=5, max_length=3)


def test_removing_duplicates_keeps_ids_and_sizes_consistent() -> None:
    batch = tokenize_batch(records("MKV", "AC", "MKV", "GGGG"), Filters(deduplicate=True))
    kept = batch.without_duplicates(DigestSet())
    assert kept.sizes.tolist() == [3, 2, 4]
    assert TAPETokenizer().decode(kept.ids.astype(np.int64)) == "MKVACGGGG"
    assert kept.filtered == {"duplicate": 1}


def test_digests_are_computed_only_for_deduplication() -> None:
    assert tokenize_batch(records("MKV"), Filters()).digests == b""


def test_lookup_of_a_batch_equals_normalizing_every_record() -> None:
    """Records of upper-case residues next to records with lower case, gaps, stops and ambiguous residues."""
    sequences = ["ACDEFGHIKLMNPQRSTVWYBOUXZ", "mkv", "M-K.V*", "J", "ACD", "ACDJ", "GG"]
    batch = tokenize_batch(records(*sequences), Filters())
    expected = [normalize_sequence(sequence, drop_gaps=True)[0] for sequence in sequences]
    assert batch.sizes.tolist() == [len(sequence) for sequence in expected]
    assert TAPETokenizer().decode(batch.ids.astype(np.int64)) == "".join(expected)
    assert batch.changes == {"lower_case": 3, "gap_removed": 2, "stop_removed": 1, "J_to_X": 2}


def test_invalid_characters_become_x_and_the_first_is_recorded() -> None:
    batch = tokenize_batch(records("MKV", "A-c\u4e001", "GX?", "GG"), Filters())
    assert TAPETokenizer().decode(batch.ids.astype(np.int64)) == "MKVACXXGXXGG"
    assert batch.sizes.tolist() == [3, 4, 3, 2]
    assert batch.changes == {"lower_case": 1, "gap_removed": 1, "other_to_X": 3}
    assert (batch.unknown, replaced_in(batch.changes)) == (4, 3)
    assert batch.first_x == "x, record 2: 'X' at position 2"
    assert batch.first_replaced == "x, record 1: '\u4e00' at position 4"


def test_unknown_residues_of_omitted_proteins_are_not_recorded() -> None:
    batch = tokenize_batch(records("J", "X", "MK", "GAX"), Filters(min_length=2))
    assert (batch.unknown, replaced_in(batch.changes), batch.first_replaced) == (1, 0, "")
    assert batch.first_x == "x, record 3: 'X' at position 3"


def test_a_batch_without_unknown_residues_has_no_first_one() -> None:
    batch = tokenize_batch(records("MKV"), Filters())
    assert (batch.first_x, batch.first_replaced) == ("", "")


def test_unknown_residues_of_duplicates_are_not_counted() -> None:
    batch = tokenize_batch(records("MXV", "MXV", "GG"), Filters(deduplicate=True))
    assert (batch.unknown, batch.without_duplicates(DigestSet()).unknown) == (2, 1)


@pytest.mark.parametrize("sequences", [["MKV", "ACX", "MKV", "G"], ["MKV", "acd", "GX-"], ["A"]])
@pytest.mark.parametrize("filters", [Filters(), Filters(2, 3, deduplicate=True)], ids=["all", "filtered"])
def test_a_block_is_tokenized_as_its_records(tmp_path: Path, sequences: list[str], filters: Filters) -> None:
    records = "".join(f">{number}\n{text}\n" for number, text in enumerate(sequences))
    (tmp_path / "x.fasta").write_text(f"{records}>last\nA\n")
    block = next(open_blocks(tmp_path / "x.fasta"))
    assert isinstance(block, ResidueBlock)
    one, other = tokenize_block(block, filters), tokenize_batch(list(block.records()), filters)
    assert (one.ids.tolist(), one.sizes.tolist()) == (other.ids.tolist(), other.sizes.tolist())
    assert (one.changes, one.filtered, one.digests) == (other.changes, other.filtered, other.digests)
    assert (one.first_x, one.first_replaced) == (other.first_x, other.first_replaced)


@pytest.mark.parametrize("letter", [chr(code) for code in range(ord("!"), 127) if chr(code) != ">"])
def test_every_character_of_a_block_is_tokenized_as_in_a_record(tmp_path: Path, letter: str) -> None:
    (tmp_path / "x.fasta").write_text(f">a\nM{letter}K\n")
    block = next(open_blocks(tmp_path / "x.fasta"))
    assert isinstance(block, ResidueBlock)
    one, other = tokenize_block(block, Filters()), tokenize_batch(list(block.records()), Filters())
    assert (one.ids.tolist(), one.changes) == (other.ids.tolist(), other.changes)
