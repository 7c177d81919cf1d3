"""The edges of the bins."""

from __future__ import annotations

import numpy as np

from tape.leakage.bins import BINS, bin_numbers


def test_a_bin_includes_its_lower_edge_and_proteins_without_a_hit_are_in_the_lowest() -> None:
    identities = np.asarray([np.nan, 0.0, 19.99, 20.0, 29.99, 30.0, 49.99, 50.0, 100.0])
    assert bin_numbers(identities).tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]


def test_bins_are_named_by_their_edges() -> None:
    assert [one.label for one in BINS] == ["< 20 %", "20 to 30 %", "30 to 50 %", ">= 50 %"]
