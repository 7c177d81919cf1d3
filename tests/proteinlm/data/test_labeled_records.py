"""Rows of labeled files become TAPE's records, and bad rows are named."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from proteinlm.data.labeled_records import chain_record, make_record
from proteinlm.data.structure_files import Chain
from tape.errors import DataError
from tape.io.records import Record

WHERE = "file.csv, record 4"


def make(folder: str, **fields: Any) -> dict[str, Any]:
    sequence = fields.pop("primary", fields.pop("sequence", ""))
    return make_record(folder, Record(fields.pop("id", None), sequence, WHERE, fields=fields), Counter())


def test_secondary_structure_from_letters_numbers_and_eight_states() -> None:
    record = make("secondary_structure", id="1abc-A", primary="MKVL", ss3="C HHE", valid_mask="0111")
    assert (record["id"], record["primary"], record["protein_length"]) == ("1abc-A", "MKVL", 4)
    np.testing.assert_array_equal(record["ss3"], [2, 0, 0, 1])
    np.testing.assert_array_equal(record["valid_mask"], [False, True, True, True])
    np.testing.assert_array_equal(make("secondary_structure", primary="MKV", ss3="[0, 1, 2]")["ss3"], [0, 1, 2])
    np.testing.assert_array_equal(make("secondary_structure", sequence="MKV", ss3=["H", "E", "C"])["ss3"], [0, 1, 2])
    eight = make("secondary_structure", primary="MKVLACDE", ss8="GHIBESTC", valid_mask=[True] * 8)
    np.testing.assert_array_equal(eight["ss8"], range(8))
    np.testing.assert_array_equal(eight["ss3"], [0, 0, 0, 1, 1, 2, 2, 2])


def test_unresolved_residues_of_contact_records_are_masked() -> None:
    points = [[0, 0, 0], None, [1.5, 2, 3], [None, None, None]]
    record = make("proteinnet", primary="MKVL", tertiary=points, valid_mask="0111")
    assert record["tertiary"].dtype == np.float32
    assert record["tertiary"].shape == (4, 3)
    assert np.isfinite(record["tertiary"]).all()
    np.testing.assert_array_equal(record["valid_mask"], [False, False, True, False])
    assert record["valid_mask"].dtype == bool
    assert "ss3" not in record
    np.testing.assert_array_equal(make("proteinnet", primary="A", tertiary="[[1, 2, 3]]")["tertiary"], [[1, 2, 3]])


def test_scores_and_folds_become_numbers() -> None:
    assert make("fluorescence", primary="MK", log_fluorescence="3.5", num_mutations="2") == {
        "primary": "MK",
        "protein_length": 2,
        "log_fluorescence": [3.5],
        "num_mutations": 2,
    }
    assert make("stability", primary="MK", stability_score=[-0.25])["stability_score"] == [-0.25]
    record = make("remote_homology", primary="MK", fold_label="1194", family_label=7)
    assert (record["fold_label"], record["family_label"]) == (1194, 7)


def test_a_chain_becomes_a_structure_record() -> None:
    chain = Chain("1ABC_A", "MKV", "HTE", np.ones((3, 3), dtype=np.float32), "x.tsv, record 1")
    record = chain_record("proteinnet", chain, Counter())
    np.testing.assert_array_equal(record["ss3"], [0, 2, 1])
    np.testing.assert_array_equal(record["tertiary"], chain.tertiary)
    assert "tertiary" not in chain_record("secondary_structure", chain, Counter())


def test_substitutions_are_counted() -> None:
    changes: Counter[str] = Counter()
    record = make_record("stability", Record(None, "mkJ", WHERE, fields={"stability_score": 1}), changes)
    assert record["primary"] == "MKX"
    assert changes == {"lower_case": 2, "J_to_X": 1}


@pytest.mark.parametrize(
    ("folder", "fields", "message"),
    [
        ("secondary_structure", {"primary": "MKV", "ss3": "HH"}, "field 'ss3' has 2 entries for 3 residues"),
        (
            "secondary_structure",
            {"primary": "MKV", "ss3": "HHQ"},
            "field 'ss3' has 'Q' at residue 3; allowed are G H I B E S T C L P, 0 to 2",
        ),
        ("secondary_structure", {"primary": "MKV"}, "missing column ss3 or ss8; the columns are none"),
        ("secondary_structure", {"primary": "MKV", "ss3": 5}, "field 'ss3' has a single value for 3 residues"),
        (
            "secondary_structure",
            {"primary": "MK", "ss3": "HH", "valid_mask": "1"},
            "field 'valid_mask' has 1 entries for 2 residues",
        ),
        (
            "secondary_structure",
            {"primary": "MK", "ss3": "HH", "valid_mask": "12"},
            "field 'valid_mask' has entries other than 0 and 1",
        ),
        ("proteinnet", {"primary": "MK"}, "missing column tertiary"),
        ("proteinnet", {"primary": "MK", "tertiary": [[1, 2, 3]]}, "field 'tertiary' has 1 entries for 2 residues"),
        ("proteinnet", {"primary": "M", "tertiary": [[1, 2]]}, r"field 'tertiary' has shape \(1, 2\), not \(1, 3\)"),
        ("proteinnet", {"primary": "M", "tertiary": [["a", "b", "c"]]}, r"does not contain 1 points \[x, y, z\]"),
        (
            "remote_homology",
            {"primary": "MK", "fold_label": "1195"},
            "field 'fold_label' has class 1195; allowed are 0 to 1194",
        ),
        ("remote_homology", {"primary": "MK", "fold_label": 1.5}, "field 'fold_label' is not an integer, but 1.5"),
        ("fluorescence", {"primary": "MK", "log_fluorescence": "bright"}, "does not contain a number, but 'bright'"),
        ("fluorescence", {"primary": "MK", "log_fluorescence": "nan"}, "is 'nan', not a finite number"),
        (
            "fluorescence",
            {"primary": "MK", "score": 1},
            "missing column log_fluorescence; the columns are score",
        ),
        ("stability", {"primary": "MK", "stability_score": ""}, "column stability_score has no value"),
        ("secondary_structure", {"primary": "MK", "ss3": None}, "column ss3 or ss8 has no value"),
        ("stability", {"primary": "MK", "stability_score": [1, 2]}, "has 2 values, where one is meant"),
        ("stability", {"primary": "M-K", "stability_score": 1}, "unknown residue '-' at position 2"),
        ("stability", {"primary": "M1K", "stability_score": 1}, "unknown residue '1' at position 2"),
    ],
)
def test_bad_rows_are_named(folder: str, fields: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=rf"^file\.csv, record 4: .*{message}"):
        make(folder, **fields)
