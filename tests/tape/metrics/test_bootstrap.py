"""Bootstrap intervals: against plain loops, against scipy, and the cases that have none."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from tape.errors import ConfigError
from tape.metrics import Bootstrap, metrics_of
from tape.metrics.bootstrap import bootstrap_intervals, resampled_counts
from tape.metrics.classes import ClassRank, ResidueCounts, summarize_proteins, summarize_residues
from tape.metrics.values import summarize_values
from tape.tasks import TaskType


def drawn_proteins(proteins: int, bootstrap: Bootstrap) -> list[np.ndarray]:
    """The proteins of each resample, one by one."""
    counts = np.concatenate(list(resampled_counts(proteins, bootstrap))).astype(int)
    return [np.repeat(np.arange(proteins), row) for row in counts]


def test_a_resample_draws_as_many_proteins_as_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    bootstrap = Bootstrap(50, seed=3)
    counts = np.concatenate(list(resampled_counts(7, bootstrap)))
    assert counts.shape == (50, 7)
    assert (counts.sum(axis=1) == 7).all()
    assert counts.mean() == 1.0
    assert 0.7 < counts.var() < 1.0  # binomial: 7 * 1/7 * 6/7 = 0.857
    monkeypatch.setattr("tape.metrics.bootstrap._BLOCK", 20)  # the size of a block changes nothing
    np.testing.assert_array_equal(np.concatenate(list(resampled_counts(7, bootstrap))), counts)


def test_a_resample_of_groups_draws_whole_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = np.array([0, 1, 0, 2, 2, 2, 1])
    seen: list[np.ndarray] = []

    def sums(counts: np.ndarray) -> np.ndarray:
        seen.append(counts)
        return counts.sum(axis=1, keepdims=True)

    bootstrap = Bootstrap(200, seed=3, groups=groups)
    intervals = bootstrap_intervals(sums, 7, bootstrap)
    counts = np.concatenate(seen)
    drawn = np.stack([counts[:, 0], counts[:, 1], counts[:, 3]], axis=1)
    np.testing.assert_array_equal(counts, drawn[:, groups])
    assert (drawn.sum(axis=1) == 3).all()
    assert intervals == [(6.0, 9.0)]  # three groups of two and three proteins
    monkeypatch.setattr("tape.metrics.bootstrap._BLOCK", 20)
    assert bootstrap_intervals(sums, 7, bootstrap) == intervals
    assert len(seen) == 1 + 100  # a block is bounded by the proteins, not by the groups
    assert bootstrap_intervals(sums, 7, replace(bootstrap, groups=np.zeros(7, dtype=int))) == []


def test_some_proteins_of_a_bootstrap_of_groups_have_the_groups_that_are_left() -> None:
    inside = np.array([1, 3, 4, 6])
    among = Bootstrap(300, groups=np.array([0, 1, 0, 2, 2, 2, 1])).among(inside)
    assert among.groups is not None
    assert among.groups.tolist() == [1, 2, 2, 1]
    sums = bootstrap_intervals(lambda counts: counts @ np.array([[1.0], [0.0], [0.0], [1.0]]), 4, among)
    assert sums == [(0.0, 4.0)]  # the two proteins of group 1 are drawn together: 0, 1 or 2 times
    assert Bootstrap(300).among(inside) == Bootstrap(300)


@pytest.mark.parametrize("task_type", [TaskType.VALUE, TaskType.SEQUENCE_CLASS, TaskType.RESIDUE_PAIR])
def test_metrics_of_every_kind_have_intervals_over_groups(task_type: TaskType) -> None:
    """Two groups of copies of one protein each: a resample has both or one of them, never a value in between."""
    rng = np.random.default_rng(1)
    scores = {
        TaskType.VALUE: lambda: (rng.normal(size=1), rng.normal(size=1)),
        TaskType.SEQUENCE_CLASS: lambda: (rng.normal(size=4), np.array(1)),
        TaskType.RESIDUE_PAIR: lambda: (rng.normal(size=(30, 30, 2)), rng.integers(0, 2, (30, 30))),
    }[task_type]
    name = {TaskType.VALUE: "mse", TaskType.SEQUENCE_CLASS: "accuracy"}.get(task_type, "precision_at_l5")
    of_type = metrics_of(task_type)
    one, other = of_type.measure(*scores()), of_type.measure(*scores())
    rows = [one, other, one, other, one, one]
    groups = np.array([0, 1, 0, 1, 0, 0])
    values = [
        next(metric.value for metric in of_type.summarize(chosen) if metric.name == name)
        for chosen in ([one], rows, [other])
    ]
    metrics = of_type.summarize(rows, Bootstrap(200, groups=groups))
    assert next(metric.interval for metric in metrics if metric.name == name) == pytest.approx(
        (min(values), max(values))
    )


def test_correlations_of_resamples_agree_with_scipy_draw_by_draw() -> None:
    rng = np.random.default_rng(0)
    true, predicted = np.round(rng.normal(size=(2, 40)), 1)  # with ties, and each resample has more
    bootstrap = Bootstrap(100, seed=5)
    table: dict[str, list[float]] = {"spearmanr": [], "pearsonr": [], "mse": [], "mae": [], "rmse": [], "r2": []}
    for chosen in drawn_proteins(40, bootstrap):
        t, p = true[chosen], predicted[chosen]
        table["spearmanr"].append(scipy.stats.spearmanr(t, p).statistic)
        table["pearsonr"].append(scipy.stats.pearsonr(t, p).statistic)
        table["mse"].append(np.mean((t - p) ** 2))
        table["mae"].append(np.mean(abs(t - p)))
        table["rmse"].append(np.sqrt(np.mean((t - p) ** 2)))
        table["r2"].append(sklearn.metrics.r2_score(t, p))
    for metric in summarize_values(list(zip(predicted, true, strict=True)), bootstrap):
        assert metric.interval == pytest.approx(np.quantile(table[metric.name], [0.025, 0.975]), abs=1e-12), metric.name


def test_ratios_are_ratios_of_sums() -> None:
    rows = [ResidueCounts(3, 4), ResidueCounts(1, 10), ResidueCounts(0, 0), ResidueCounts(9, 9)]
    bootstrap = Bootstrap(200, seed=1)
    pooled, mean = [], []
    for chosen in drawn_proteins(4, bootstrap):
        picked = [rows[index] for index in chosen if rows[index].counted]
        if picked:
            pooled.append(sum(row.correct for row in picked) / sum(row.counted for row in picked))
            mean.append(np.mean([row.correct / row.counted for row in picked]))
    metrics = {metric.name: metric for metric in summarize_residues(rows, bootstrap)}
    assert metrics["accuracy"].interval == pytest.approx(np.quantile(pooled, [0.025, 0.975]))
    assert metrics["accuracy_per_protein"].interval == pytest.approx(np.quantile(mean, [0.025, 0.975]))


def test_the_interval_has_its_nominal_coverage() -> None:
    # 200 sets of 60 proteins, correct with probability 0.3: about 95 % of their intervals hold 0.3
    rng = np.random.default_rng(2)
    held = 0
    for seed in range(200):
        ranks = [ClassRank(rank, 1) for rank in np.where(rng.random(60) < 0.3, 0, 20).tolist()]
        interval = summarize_proteins(ranks, Bootstrap(300, seed=seed))[0].interval
        assert interval is not None
        held += interval[0] <= 0.3 <= interval[1]
    assert 0.90 <= held / 200 <= 0.99


def test_the_interval_is_determined_by_the_seed() -> None:
    rows = [ResidueCounts(int(correct), 10) for correct in np.random.default_rng(4).integers(0, 10, 30)]
    first, again, other = (summarize_residues(rows, Bootstrap(50, seed))[0].interval for seed in (1, 1, 2))
    assert first == again != other


def test_single_proteins_and_undefined_metrics_have_no_interval() -> None:
    assert summarize_proteins([ClassRank(0, 1)], Bootstrap(10))[0].interval is None  # one protein does not vary
    constant = summarize_values([(1.0, 2.0)] * 5, Bootstrap(10))
    assert constant[0].interval is None
    assert constant[2].interval == (1.0, 1.0)
    assert summarize_values([(math.nan, 2.0)] * 5, Bootstrap(10))[2].interval is None
    assert bootstrap_intervals(lambda counts: counts, 0, Bootstrap(10)) == []
    for wrong in ({"resamples": 0}, {"level": 1.0}):
        with pytest.raises(ConfigError, match="bootstrap"):
            Bootstrap(**wrong)
