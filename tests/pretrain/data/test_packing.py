"""Packing: each protein once per epoch, nearly full rows, a pure function of seed and epoch.

The original packs by next fit and loses or repeats proteins (bug 30 in docs/compatibility.md).
"""

from __future__ import annotations

import numpy as np
import pytest

from pretrain.data.packing import EpochPlan, EpochPlanner, PackingConfig
from tape.errors import ConfigError, DataError


def skewed_sizes(number: int, seed: int = 0) -> np.ndarray:
    """Lengths with the distribution of natural proteins: log-normal, median about 290."""
    return np.random.default_rng(seed).lognormal(5.67, 0.65, number).astype(np.int32) + 20


def pieces_by_protein(plan: EpochPlan) -> dict[int, list[tuple[int, int, int]]]:
    found: dict[int, list[tuple[int, int, int]]] = {}
    for row in range(plan.rows):
        for piece in plan.row(row):
            found.setdefault(piece.protein, []).append((piece.number, piece.start, piece.length))
    return {protein: sorted(pieces) for protein, pieces in found.items()}


@pytest.mark.parametrize("seq_length", [64, 512, 2176])
def test_every_protein_appears_once_per_epoch(seq_length: int) -> None:
    sizes = skewed_sizes(2000)
    planner = EpochPlanner(sizes, PackingConfig(seq_length))
    for epoch in (0, 3):
        plan = planner.plan(epoch)
        found = pieces_by_protein(plan)
        assert sorted(found) == list(range(2000))
        for protein, pieces in found.items():
            assert [number for number, _, _ in pieces] == list(range(len(pieces)))
            ends = np.cumsum([length for _, _, length in pieces])
            assert [start for _, start, _ in pieces] == [0, *ends[:-1].tolist()]
            assert ends[-1] == sizes[protein]
            assert len(pieces) == -(-sizes[protein] // (seq_length - 2))
        assert plan.rows == planner.rows(epoch)


def test_rows_never_overflow_and_are_nearly_full() -> None:  # the original's next fit leaves 6 to 21 % padding
    planner = EpochPlanner(skewed_sizes(5000), PackingConfig(2176))
    plan = planner.plan(0)
    used = [sum(piece.length + 2 for piece in plan.row(row)) for row in range(plan.rows)]
    assert max(used) <= 2176
    assert sum(used) / (2176 * plan.rows) >= 0.98


def test_protein_of_exactly_one_row_has_its_own_row() -> None:
    plan = EpochPlanner(np.array([62, 62, 30, 30]), PackingConfig(64)).plan(0)
    assert plan.rows == 3
    assert sorted(len(plan.row(row)) for row in range(3)) == [1, 1, 2]


@pytest.mark.parametrize("rule", ["split", "truncate"])
def test_corpus_with_only_long_proteins(rule: str) -> None:
    planner = EpochPlanner(np.array([40_000, 100, 63]), PackingConfig(64, long_documents=rule))
    found = pieces_by_protein(planner.plan(0))
    assert planner.long_documents == 3
    if rule == "truncate":
        assert found == {protein: [(0, 0, 62)] for protein in range(3)}
    else:
        assert [sum(length for _, _, length in found[protein]) for protein in range(3)] == [40_000, 100, 63]
        assert len(found[0]) == 646


def test_cut_positions_of_long_proteins_vary_between_epochs() -> None:
    planner = EpochPlanner(np.array([150]), PackingConfig(64))
    cuts = {pieces_by_protein(planner.plan(epoch))[0][1][1] for epoch in range(20)}
    assert len(cuts) > 5
    assert all(26 <= cut <= 62 for cut in cuts)


def test_plan_is_a_function_of_seed_and_epoch() -> None:
    sizes = skewed_sizes(500)

    def rows(seed: int, epoch: int) -> list[list[tuple[int, int]]]:
        plan = EpochPlanner(sizes, PackingConfig(512, seed=seed)).plan(epoch)
        return [[(piece.protein, piece.start) for piece in plan.row(row)] for row in range(plan.rows)]

    assert rows(1, 2) == rows(1, 2)
    assert rows(1, 2) != rows(1, 3)
    assert rows(1, 2) != rows(2, 2)


def test_proteins_that_share_a_row_change_between_epochs() -> None:
    planner = EpochPlanner(skewed_sizes(1000) // 50 * 50 + 20, PackingConfig(2176))  # several proteins per length

    def row_mates(epoch: int) -> frozenset[int]:
        plan = planner.plan(epoch)
        rows = ([piece.protein for piece in plan.row(row)] for row in range(plan.rows))
        return frozenset(next(row for row in rows if 7 in row)) - {7}

    assert len({row_mates(epoch) for epoch in range(5)}) > 1


def test_locate_returns_epoch_and_row() -> None:
    planner = EpochPlanner(np.array([150, 90, 30, 30, 10]), PackingConfig(64))
    first, second = planner.rows(0), planner.rows(1)
    assert planner.locate(0) == (0, 0)
    assert planner.locate(first) == (1, 0)
    assert planner.locate(first + second + 1) == (2, 1)


def test_proteins_without_residues_are_skipped() -> None:
    plan = EpochPlanner(np.array([0, 10, 0, 20]), PackingConfig(64)).plan(0)
    assert sorted(pieces_by_protein(plan)) == [1, 3]
    with pytest.raises(DataError, match="no protein"):
        EpochPlanner(np.array([0, 0]), PackingConfig(64))


def test_protein_without_sep_costs_one_token_less() -> None:
    assert EpochPlanner(np.array([31, 31]), PackingConfig(64, special_tokens=1)).rows(0) == 1
    assert EpochPlanner(np.array([31, 32]), PackingConfig(64, special_tokens=2)).rows(0) == 2


@pytest.mark.parametrize("values", [{"seq_length": 2}, {"seq_length": 64, "long_documents": "drop"}])
def test_invalid_settings_are_errors(values: dict) -> None:
    with pytest.raises(ConfigError):
        PackingConfig(**values)
