"""Differences of two models on the same proteins, with the interval of a paired bootstrap."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from tape.errors import DataError
from tape.metrics import TASK_TYPE_METRICS, Bootstrap
from tape.metrics.bootstrap import resampled_counts
from tape.metrics.classes import ResidueCounts
from tape.metrics.paired import Difference, differences_within_groups, paired_differences
from tape.tasks import TaskType

RESIDUES = TASK_TYPE_METRICS[TaskType.RESIDUE_CLASS]
VALUES = TASK_TYPE_METRICS[TaskType.VALUE]


def test_an_equal_difference_on_all_proteins_has_an_interval_of_width_0() -> None:
    """However much the proteins differ from each other, which is the purpose of pairing."""
    correct = np.random.default_rng(1).integers(20, 90, 40).tolist()
    first = [ResidueCounts(count + 1, 100) for count in correct]
    second = [ResidueCounts(count, 100) for count in correct]
    accuracy = paired_differences([first], [second], RESIDUES, Bootstrap(200))[0]
    assert accuracy.name == "accuracy"
    assert accuracy.value == pytest.approx(0.01)
    assert accuracy.interval == pytest.approx((0.01, 0.01))
    alone = RESIDUES.summarize(first, Bootstrap(200))[0].interval
    assert alone is not None
    assert alone[1] - alone[0] > 0.05


def test_exchanging_the_models_changes_the_sign() -> None:
    rng = np.random.default_rng(2)
    rows = [[ResidueCounts(int(count), 50) for count in rng.integers(0, 50, 30)] for _ in range(2)]
    there = paired_differences([rows[0]], [rows[1]], RESIDUES, Bootstrap(100))[0]
    back = paired_differences([rows[1]], [rows[0]], RESIDUES, Bootstrap(100))[0]
    assert (back.first, back.second) == (there.second, there.first)
    assert there.interval is not None
    assert back.interval == pytest.approx((-there.interval[1], -there.interval[0]))
    assert there.interval[0] < there.value < there.interval[1]


def test_a_resample_draws_the_same_proteins_for_both() -> None:
    """Spearman's rho, which no sum over proteins gives."""
    rng = np.random.default_rng(3)
    true = rng.normal(size=25)
    predicted = [true + rng.normal(size=25) * noise for noise in (0.5, 2.0)]
    rows = [list(zip(values.tolist(), true.tolist(), strict=True)) for values in predicted]
    once = Bootstrap(resamples=1, seed=7)
    found = next(d for d in paired_differences([rows[0]], [rows[1]], VALUES, once) if d.name == "spearmanr")
    (counts,) = next(resampled_counts(25, once))
    drawn = np.repeat(np.arange(25), counts.astype(int))
    rhos = [stats.spearmanr(values[drawn], true[drawn]).statistic for values in predicted]
    assert found.interval == pytest.approx((rhos[0] - rhos[1],) * 2)


def test_seeds_are_averaged_inside_each_resample() -> None:
    """Two seeds that err on other proteins: their mean is the same on all, and has no width."""
    first = [[ResidueCounts(9 if index % 2 == seed else 5, 10) for index in range(20)] for seed in range(2)]
    second = [[ResidueCounts(4, 10)] * 20]
    accuracy = paired_differences(first, second, RESIDUES, Bootstrap(100))[0]
    assert (accuracy.first, accuracy.second) == (pytest.approx(0.7), pytest.approx(0.4))
    assert accuracy.interval == pytest.approx((0.3, 0.3))


def test_contact_metrics_of_two_models_are_compared() -> None:
    contacts = TASK_TYPE_METRICS[TaskType.RESIDUE_PAIR]
    rng = np.random.default_rng(4)
    targets = [rng.integers(0, 2, (30, 30)) for _ in range(6)]
    good = [contacts.measure(np.stack([1 - target, target], -1).astype(float), target) for target in targets]
    bad = [contacts.measure(np.stack([target, 1 - target], -1).astype(float), target) for target in targets]
    found = next(d for d in paired_differences([good], [bad], contacts, Bootstrap(20)) if d.name == "precision_at_l5")
    assert found.value == 1.0
    assert found.interval == (1.0, 1.0)


def test_undefined_differences_have_no_interval() -> None:
    single = [ResidueCounts(3, 4)]
    assert paired_differences([single], [single], RESIDUES, Bootstrap(10))[0].interval is None
    with pytest.raises(DataError, match=r"not \[1, 2\] of them"):
        paired_differences([single], [single * 2], RESIDUES, Bootstrap(10))
    # a resample without the protein that has no finite prediction would have one
    rows = [(float(value), float(value)) for value in range(9)]
    infinite = [(math.inf, 0.0), *rows[1:]]
    for difference in paired_differences([infinite], [rows], VALUES, Bootstrap(50)):
        assert math.isnan(difference.value) or math.isinf(difference.value)
        assert difference.interval is None


def grouped_values(seed: int) -> tuple[list[list[tuple[float, float]]], np.ndarray, np.ndarray]:
    """Two models' (prediction, target) pairs of six groups with offsets of their own, and the groups."""
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(6), [5, 9, 7, 12, 2, 10])
    true = rng.normal(size=groups.size) + 5 * rng.normal(size=6)[groups]
    predicted = [true + rng.normal(size=true.size) * noise for noise in (0.5, 3.0)]
    return [list(zip(values.tolist(), true.tolist(), strict=True)) for values in predicted], groups, true


def mse_difference(first: Any, second: Any, groups: np.ndarray | None) -> Difference:
    found = paired_differences([first], [second], VALUES, Bootstrap(300, groups=groups))
    return next(difference for difference in found if difference.name == "mse")


def test_groups_that_are_drawn_widen_the_interval_and_leave_the_values() -> None:
    rows, groups, _ = grouped_values(4)
    single, whole = (mse_difference(*rows, given) for given in (None, np.arange(groups.size)))
    assert whole.interval == pytest.approx(single.interval)  # a group for each protein
    # all errors of a group are alike: the groups are the sample, not their proteins
    alike = [[(float(g in (1, 3)), 0.0) for g in groups], [(0.0, 0.0)] * groups.size]
    single, whole = (mse_difference(*alike, given) for given in (None, groups))
    assert (whole.first, whole.second) == (single.first, single.second)
    assert single.interval is not None
    assert whole.interval is not None
    assert whole.interval[1] - whole.interval[0] > 2 * (single.interval[1] - single.interval[0])


def test_metrics_within_groups_are_means_of_those_of_each_group() -> None:
    rows, groups, true = grouped_values(5)
    found = differences_within_groups([rows[0]], [rows[1]], VALUES, Bootstrap(400, seed=1, groups=groups))
    rho = next(difference for difference in found if difference.name == "spearmanr")
    of_groups = np.array(
        [
            [
                stats.spearmanr([rows[m][k][0] for k in np.flatnonzero(groups == g)], true[groups == g])[0]
                for m in (0, 1)
            ]
            for g in range(6)
        ]
    )
    assert (rho.first, rho.second) == pytest.approx(tuple(of_groups.mean(axis=0)))
    (counts,) = resampled_counts(6, Bootstrap(400, seed=1))
    differences = (counts @ (of_groups[:, 0] - of_groups[:, 1])) / 6
    assert rho.interval == pytest.approx(tuple(np.quantile(differences, [0.025, 0.975])))


def test_groups_in_which_a_metric_is_undefined_do_not_count() -> None:
    rows, groups, true = grouped_values(6)
    constant = [
        (1.0, target) if group == 4 else pair for pair, target, group in zip(rows[0], true, groups, strict=True)
    ]
    here = differences_within_groups([constant], [rows[1]], VALUES, Bootstrap(50, groups=groups))
    kept = np.flatnonzero(groups != 4)
    without = [[own[k] for k in kept] for own in rows]
    numbers = np.unique(groups[kept], return_inverse=True)[1]
    there = differences_within_groups([without[0]], [without[1]], VALUES, Bootstrap(50, groups=numbers))
    for name in ("spearmanr", "pearsonr"):
        one, other = (next(d for d in found if d.name == name) for found in (here, there))
        assert (one.first, one.second) == pytest.approx((other.first, other.second))
        assert one.interval is not None
        assert (one.groups, other.groups) == (5, 5)
    single = np.minimum(np.arange(groups.size), 5)  # a large group, and proteins alone, which have no correlation
    found = differences_within_groups([rows[0]], [rows[1]], VALUES, Bootstrap(50, groups=single))
    rho, mse = (next(d for d in found if d.name == name) for name in ("spearmanr", "mse"))
    assert (rho.groups, rho.interval) == (1, None)
    assert math.isfinite(rho.value)
    assert mse.groups == 6
    assert mse.interval is not None
