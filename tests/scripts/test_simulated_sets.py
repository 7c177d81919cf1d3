"""The generative models match their descriptions."""

from __future__ import annotations

import numpy as np
import pytest

from proteinlm.data.structure_files import Chain
from scripts.simulated_sets import (
    RESIDUES,
    simulate_fluorescence,
    simulate_remote_homology,
    simulate_stability,
    stability_score,
)

SIZES = {"train": 60, "valid": 20, "test": 40}


@pytest.fixture(scope="module")
def parent() -> Chain:
    rng = np.random.default_rng(1)
    sequence = "".join(rng.choice(list(RESIDUES), 60))
    return Chain("1ABC_A", sequence, "C" * 60, rng.normal(0, 8, (60, 3)).astype(np.float32))


def differences(first: str, second: str) -> list[int]:
    return [i for i, (a, b) in enumerate(zip(first, second, strict=True)) if a != b]


def test_fluorescence_mutates_twelve_sites_and_brightness_falls(parent: Chain) -> None:
    records = simulate_fluorescence(parent, SIZES, np.random.default_rng(0))
    sites: set[int] = set()
    for split, members in records.items():
        assert len(members) == SIZES[split]
        for record in members:
            changed = differences(parent.primary, record["primary"])
            assert len(changed) == record["num_mutations"]
            sites.update(changed)
    assert len(sites) == 12
    mutations = {split: {record["num_mutations"] for record in members} for split, members in records.items()}
    assert mutations["train"] == {1, 2, 3, 4}
    assert mutations["test"] == {3, 4, 5, 6, 7}
    everything = [record for members in records.values() for record in members]
    few = [record["log_fluorescence"][0] for record in everything if record["num_mutations"] == 1]
    many = [record["log_fluorescence"][0] for record in everything if record["num_mutations"] >= 6]
    assert np.mean(few) > np.mean(many) + 0.5
    assert len({record["primary"] for record in everything}) == len(everything)


def test_stability_rewards_a_helix_with_one_greasy_face() -> None:
    face = "".join("L" if np.cos(2 * np.pi / 3.6 * i) > 0.1 else "Q" for i in range(40))
    codes = np.array([RESIDUES.index(residue) for residue in face])
    shuffled = np.random.default_rng(0).permutation(codes)
    assert stability_score(codes) > stability_score(shuffled) + 0.5
    records = simulate_stability(SIZES, np.random.default_rng(0))
    assert all(40 <= len(record["primary"]) <= 45 for members in records.values() for record in members)
    assert np.std([record["stability_score"][0] for record in records["train"]]) > 0.3


def test_remote_homology_families_do_not_cross_splits() -> None:
    sizes = {"train": 120, "valid": 24, "test_fold_holdout": 48}
    records = simulate_remote_homology(sizes, np.random.default_rng(0))
    for split, members in records.items():
        assert len(members) == sizes[split]
        assert {record["fold_label"] for record in members} == set(range(12))
        assert all(46 <= len(record["primary"]) <= 50 for record in members)
    train = {record["primary"] for record in records["train"]}
    assert not train & {record["primary"] for record in records["test_fold_holdout"]}


def test_records_are_a_function_of_the_seed() -> None:
    first, second, other = (simulate_stability(SIZES, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert first == second != other
