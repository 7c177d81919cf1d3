"""Proteins that are given in Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas
import pytest

from tape.datasets.sequence_list import given_proteins
from tape.errors import ConfigError, DataError
from tape.tokenizers import TAPETokenizer

TOKENIZER = TAPETokenizer()


def identifiers(proteins: object) -> list[str]:
    return list(given_proteins(proteins, TOKENIZER).dataset.build_index().identifiers)


def test_ids_are_those_of_the_form(tmp_path: Path) -> None:
    (tmp_path / "p.fasta").write_text(">one\nMKV\n")
    assert identifiers("MKV") == ["0"]
    assert identifiers(["MKV", "MKVL"]) == ["0", "1"]
    assert identifiers(np.array(["MKV", "MKVL"])) == ["0", "1"]
    assert identifiers({"x": "MKV", 7: "MKVL"}) == ["x", "7"]
    assert identifiers(pandas.DataFrame({"name": ["x", "y"], "primary": ["MKV", "MKVL"]})) == ["x", "y"]
    assert identifiers(pandas.DataFrame({"sequence": ["MKV"]}, index=["x"])) == ["x"]
    assert identifiers(tmp_path / "p.fasta") == identifiers(str(tmp_path / "p.fasta")) == ["one"]


def test_sequences_are_read_as_in_files() -> None:
    _, ids, mask = given_proteins("mk jv*", TOKENIZER).dataset[0]
    np.testing.assert_array_equal(ids, TOKENIZER.encode("MKXV"))
    assert mask.sum() == len(ids)


def test_results_have_the_form_of_the_proteins() -> None:
    assert given_proteins("MKV", TOKENIZER).arrange({0: 5}) == 5
    assert given_proteins(["MKV", "MK"], TOKENIZER).arrange({1: 6, 0: 5}) == [5, 6]
    assert given_proteins({"x": "MKV", "y": "MK"}, TOKENIZER).arrange({1: 6, 0: 5}) == {"x": 5, "y": 6}


def test_equal_ids_are_refused_where_they_name_results() -> None:
    table = pandas.DataFrame({"id": ["x", "x"], "sequence": ["MKV", "MK"]})
    with pytest.raises(DataError, match="two proteins with the id 'x'; give them as a list"):
        given_proteins(table, TOKENIZER).arrange({0: 5, 1: 6})


@pytest.mark.parametrize(
    ("proteins", "message"),
    [
        (None, "proteins are text, .*, not NoneType"),
        (b"MKV", "not bytes"),
        ({}, "there are no proteins"),
        (["MKV", None], "protein 2: 'primary' must be text, not NoneType"),
        ("", "protein 1: 'primary' is empty"),
        (pandas.DataFrame({"protein": ["MKV"]}), "the DataFrame has no column of sequences: it has protein"),
    ],
)
def test_mistakes_are_named(proteins: object, message: str) -> None:
    with pytest.raises((ConfigError, DataError), match=message):
        identifiers(proteins)


def test_ids_of_a_data_frame_are_those_of_a_file() -> None:
    frame = pandas.DataFrame({"Id": [None, "a", "b"], "Entry": ["P1", "P2", None], "Sequence": ["MKV", "AC", "ACD"]})
    assert identifiers(frame) == ["P1", "a", "b"]
