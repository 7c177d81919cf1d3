"""Vocabularies, encoding and normalization of sequences."""

from __future__ import annotations

import numpy as np
import pandas
import pytest

from tape.errors import ConfigError, DataError, UnknownResidueError
from tape.tokenizers import IUPAC_VOCAB, TAPETokenizer, normalize_sequence


def test_iupac_ids_are_those_of_tape():
    tokenizer = TAPETokenizer()
    assert tokenizer.vocab_size == 30
    assert (tokenizer.pad_id, tokenizer.mask_id, tokenizer.cls_id, tokenizer.sep_id, tokenizer.unk_id) == (
        0,
        1,
        2,
        3,
        4,
    )
    letters = "A5 B6 C7 D8 E9 F10 G11 H12 I13 K14 L15 M16 N17 O18 P19 Q20 R21 S22 T23 U24 V25 W26 X27 Y28 Z29"
    for entry in letters.split():
        assert IUPAC_VOCAB[entry[0]] == int(entry[1:])


def test_encode_adds_special_tokens_and_decode_drops_them():
    tokenizer = TAPETokenizer()
    ids = tokenizer.encode("GCTV")
    assert ids.dtype == np.int64
    assert ids.tolist() == [2, 11, 7, 23, 25, 3]
    assert tokenizer.decode(ids) == "GCTV"
    assert tokenizer.encode_residues("").size == 0


def test_method_names_are_those_of_tape():
    tokenizer = TAPETokenizer.from_pretrained("iupac")
    tokens = tokenizer.add_special_tokens(tokenizer.tokenize("AC"))
    assert tokens == ["<cls>", "A", "C", "<sep>"]
    assert tokenizer.convert_ids_to_tokens(tokenizer.convert_tokens_to_ids(tokens)) == tokens
    assert tokenizer.convert_tokens_to_string(["A", "C"]) == "AC"
    assert (tokenizer.start_token, tokenizer.stop_token, tokenizer.mask_token) == ("<cls>", "<sep>", "<mask>")


@pytest.mark.parametrize("text", ["AC-", "AC*", "AC D", "ACé", "acß", "AC\u4e2d", ["A", "C", "1"]])
def test_unknown_residue_names_character_and_position(text):
    with pytest.raises(UnknownResidueError) as caught:
        TAPETokenizer().encode(text)
    assert isinstance(caught.value, KeyError)
    assert isinstance(caught.value, DataError)
    message = str(caught.value)
    assert repr(text[2]) in message
    assert "position 3" in message


@pytest.mark.parametrize("text", ["acJ", ["a", "C", "J"], ("A", "c", "j"), np.array(["a", "c", "J"])])
def test_what_the_commands_replace_is_encoded_with_a_warning(text):
    tokenizer = TAPETokenizer()
    with pytest.warns(UserWarning, match="read as upper case, and J .* as X"):
        ids = tokenizer.encode(text)
    assert tokenizer.decode(ids) == "ACX"
    assert tokenizer.encode(tokenizer.tokenize("ACX")).tolist() == ids.tolist()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (["MKV", "LLA"], "takes one protein, .* has 'MKV'"),
        (b"MKV", "not bytes"),
        (5, "not int"),
        ([5], "list"),
        (np.array([5]), "list"),
        (np.array([["A"], ["C"]]), "not ndarray"),
    ],
)
def test_what_is_no_protein_is_named(text, message):
    with pytest.raises(ConfigError, match=message):
        TAPETokenizer().encode(text)


@pytest.mark.parametrize("kind", [list, tuple, np.array])
def test_lists_may_have_special_tokens(kind):
    """As in scripts that mask residues, and pad, before they encode."""
    tokenizer = TAPETokenizer()
    tokens = ["M", "<mask>", "V", "<pad>", "<pad>"]
    assert tokenizer.encode(kind(tokens)).tolist() == [2, 16, 1, 25, 0, 0, 3]
    assert tokenizer.encode(kind(tokens)).tolist() == tokenizer.convert_tokens_to_ids(["<cls>", *tokens, "<sep>"])
    with pytest.raises(ConfigError, match="has '<mask>' as a residue"):
        TAPETokenizer("unirep").encode(kind(tokens))
    with pytest.raises(UnknownResidueError, match="position 2"):
        tokenizer.encode("M<mask>V")


def test_unirep_ids_are_those_of_tape():  # bug 39 in docs/compatibility.md
    tokenizer = TAPETokenizer("unirep")
    assert tokenizer.vocab_size == 29
    assert tokenizer.encode("MOJ").tolist() == [24, 1, 22, 23, 25]
    assert tokenizer.convert_ids_to_tokens([24, 25]) == ["<cls>", "<sep>"]
    assert tokenizer.mask_id is None
    with pytest.raises(ConfigError, match="no mask token"):
        _ = tokenizer.mask_token


def test_unknown_vocabulary_is_refused():  # bug 39 in docs/compatibility.md
    with pytest.raises(ConfigError, match="iupac, unirep"):
        TAPETokenizer("x")


def test_vocabularies_have_different_fingerprints():
    assert TAPETokenizer().fingerprint == TAPETokenizer("iupac").fingerprint != TAPETokenizer("unirep").fingerprint


def test_residue_ids_exclude_special_tokens():
    assert TAPETokenizer().residue_ids.tolist() == list(range(5, 30))
    assert TAPETokenizer("unirep").residue_ids.tolist() == list(range(1, 24))


def test_normalization_counts_every_change():
    text, counts = normalize_sequence("ac-D.J eF*\n", drop_gaps=True)
    assert text == "ACDXEF"
    assert counts == {"lower_case": 3, "J_to_X": 1, "gap_removed": 2, "stop_removed": 1}
    assert normalize_sequence("MKV", drop_gaps=True) == ("MKV", {})


@pytest.mark.parametrize("letter", ["ß", "ŉ", "é"])  # upper() makes two letters of the first two
def test_other_alphabets_are_refused_not_upper_cased(letter: str) -> None:
    for drop_gaps in (True, False):
        with pytest.raises(UnknownResidueError, match=f"unknown residue '{letter}' at position 3"):
            normalize_sequence(f"mk{letter}V", drop_gaps=drop_gaps)


@pytest.mark.parametrize("text", ["AC-D", "AC.D", "ACD*"])
def test_characters_that_would_shift_labels_are_refused(text):
    with pytest.raises(UnknownResidueError, match="labeled record"):
        normalize_sequence(text, drop_gaps=False)


@pytest.mark.parametrize(("text", "stops"), [("AC*", 1), ("ac**", 2), ("AC * ", 1), ("AC", 0)])
def test_a_stop_at_the_end_of_an_unlabeled_protein_is_removed_and_counted(text, stops):
    sequence, changes = normalize_sequence(text, drop_gaps=False, drop_stop=True)
    assert sequence == "AC"
    assert changes["stop_removed"] == stops


@pytest.mark.parametrize(("text", "place"), [("A*C*", r"'\*' at position 2"), ("AC-*", "'-' at position 3")])
def test_stops_and_gaps_between_residues_are_refused(text, place):
    with pytest.raises(
        UnknownResidueError, match=place + r"; allowed are the letters A to Z and stops '\*' after"
    ) as e:
        normalize_sequence(text, drop_gaps=False, drop_stop=True)
    assert "labeled" not in str(e.value)


def test_characters_that_are_not_residues_are_refused():
    with pytest.raises(UnknownResidueError, match="'4' at position 3"):
        normalize_sequence("AC4", drop_gaps=True)


def test_several_proteins_are_a_padded_batch():
    tokenizer = TAPETokenizer()
    batch = tokenizer(["MKT", "MK"])
    np.testing.assert_array_equal(batch["input_ids"], [tokenizer.encode("MKT"), [*tokenizer.encode("MK"), 0]])
    np.testing.assert_array_equal(batch["input_mask"], [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0]])
    assert {array.dtype for array in batch.values()} == {np.dtype("int64")}


def test_one_protein_is_a_batch_of_one():
    tokenizer = TAPETokenizer("unirep")
    batch = tokenizer("MKT")
    np.testing.assert_array_equal(batch["input_ids"], tokenizer.encode("MKT")[None])
    np.testing.assert_array_equal(batch["input_mask"], [[1, 1, 1, 1, 1]])


@pytest.mark.parametrize(
    ("proteins", "message"),
    [
        (5, "takes the residues of a protein as text, or a list of these, not int"),
        (None, "not NoneType"),
        (b"MK", "not bytes"),
        ({"MK": "MKV"}, "takes text or a list of texts, not dict; give one of its columns, or its values"),
        (pandas.DataFrame({"sequence": ["MKV"]}), "takes text or a list of texts, not DataFrame"),
        (["MK", None], "not NoneType"),
        ([], "there are no proteins to encode"),
        (["MK", "M1"], "protein 2: unknown residue '1' at position 2"),
    ],
)
def test_a_batch_of_something_else_is_refused(proteins, message):
    with pytest.raises((ConfigError, UnknownResidueError), match=message):
        TAPETokenizer()(proteins)
