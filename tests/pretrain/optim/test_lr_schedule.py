"""Learning rates by Megatron-LM's formulas, at points computed by hand."""

from __future__ import annotations

import math

import pytest

from pretrain.optim.lr_schedule import SampleScheduleConfig, ScheduleConfig, SkippedCounts, WSDDecay
from tape.errors import ConfigError


@pytest.mark.parametrize(
    ("style", "expected"),
    [
        ("constant", [0.0, 0.5, 1.0, 1.0, 1.0]),
        ("linear", [0.0, 0.5, 1.0, 0.55, 0.1]),
        ("cosine", [0.0, 0.5, 1.0, 0.55, 0.1]),
    ],
)
def test_warmup_and_decay_of_each_style(style: str, expected: list[float]) -> None:
    schedule = ScheduleConfig(lr=1.0, min_lr=0.1, style=style, decay_iters=100, warmup_iters=10)
    rates = [schedule.rate(iteration) for iteration in (1, 6, 11, 56, 101)]
    assert rates == pytest.approx(expected)
    assert schedule.rate(10_000) == (1.0 if style == "constant" else 0.1)


def test_cosine_decay_is_half_a_cosine() -> None:
    schedule = ScheduleConfig(lr=1.0, style="cosine", decay_iters=100)
    assert schedule.rate(26) == pytest.approx(0.5 * (1 + math.cos(math.pi / 4)))


@pytest.mark.parametrize(
    ("style", "half", "quarter"),
    [
        ("linear", 0.5, 0.75),
        ("cosine", 0.5, (1 + math.sqrt(0.5)) / 2),
        ("exponential", math.sqrt(2) - 1, 2 ** (3 / 4) - 1),
        ("minus_sqrt", 1 - math.sqrt(0.5), 0.5),
    ],
)
def test_warmup_stable_decay(style: str, half: float, quarter: float) -> None:
    """Constant from the end of the warm-up until 20 iterations before the end, then decay to the minimum."""
    schedule = ScheduleConfig(1.0, 0.1, "WSD", 100, 10, WSDDecay(20, style))
    assert [schedule.rate(done + 1) for done in (5, 10, 11, 50, 80)] == [0.5, 1.0, 1.0, 1.0, 1.0]
    left = [(schedule.rate(done + 1) - 0.1) / 0.9 for done in (85, 90, 100, 101)]
    assert left == pytest.approx([quarter, half, 0.0, 0.0])


def test_inverse_square_root_continues_the_warmup_until_the_minimum() -> None:
    schedule = ScheduleConfig(1.0, 0.2, "inverse-square-root", 10_000, 16)
    assert [schedule.rate(done + 1) for done in (8, 16, 64, 256, 1000, 10_001)] == [0.5, 1.0, 0.5, 0.25, 0.2, 0.2]
    assert ScheduleConfig(1.0, 0.0, "inverse-square-root", 100).rate(5) == 0.5  # as if after a step of warm-up


@pytest.mark.parametrize(
    ("style", "warmup", "wsd", "message"),
    [
        ("WSD", 0, None, "--lr-decay-style WSD and the length of its decay, --lr-wsd-decay-iters, need each other"),
        ("linear", 0, WSDDecay(5), "need each other"),
        ("WSD", 60, WSDDecay(50), "--lr-wsd-decay-iters 50 does not fit between the warm-up and --lr-decay-iters 100"),
    ],
)
def test_contradicting_warmup_stable_decay_is_refused(
    style: str, warmup: int, wsd: WSDDecay | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ScheduleConfig(1.0, 0.0, style, 100, warmup, wsd)
    with pytest.raises(ConfigError, match=message.replace("iters", "samples")):
        SampleScheduleConfig(1.0, 0.0, style, 100, warmup, int, wsd)


def test_without_warmup_the_first_learning_rate_is_the_maximum() -> None:
    assert ScheduleConfig(lr=1.0, decay_iters=10).rate(1) == 1.0


def test_bad_schedules_are_refused() -> None:
    for values in ({"style": "step"}, {"min_lr": 2.0}, {"warmup_iters": 10.0}):
        with pytest.raises(ConfigError):
            ScheduleConfig(**{"lr": 1.0, "decay_iters": 10, **values})


def test_a_schedule_in_samples_follows_the_consumed_samples() -> None:
    """Batches of 8, 8, 16, 16, ...: warm-up over 16 samples, decay from 16 to 80."""
    consumed = [0, 8, 16, 32, 48, 64, 80, 96]
    schedule = SampleScheduleConfig(1.0, 0.2, "linear", 80, 16, consumed.__getitem__)
    rates = [schedule.rate(iteration) for iteration in range(1, 9)]
    assert rates == pytest.approx([0.0, 0.5, 1.0, 0.8, 0.6, 0.4, 0.2, 0.2])


@pytest.mark.parametrize("style", ["constant", "linear", "cosine"])
def test_samples_and_iterations_agree_for_a_constant_batch_size(style: str) -> None:
    iterations = ScheduleConfig(3e-4, 1e-5, style, 990, 9.9)
    samples = SampleScheduleConfig(3e-4, 1e-5, style, 990 * 32, 9.9 * 32, lambda iteration: 32 * iteration)
    for iteration in (1, 2, 10, 11, 500, 990, 991, 992, 5000):
        assert samples.rate(iteration) == pytest.approx(iterations.rate(iteration), rel=1e-12)


def test_a_bad_schedule_in_samples_is_refused() -> None:
    with pytest.raises(ConfigError, match="warm-up of 100 samples does not fit into --lr-decay-samples 100"):
        SampleScheduleConfig(1.0, 0.0, "linear", 100, 100, int)


def test_skipped_steps_do_not_advance_the_schedule() -> None:
    """After 3 skipped steps iteration 9 has the learning rate of iteration 6; in samples, theirs are subtracted."""
    iterations = ScheduleConfig(1.0, 0.0, "linear", 100, 10)
    assert iterations.rate(9, SkippedCounts(3, 24)) == iterations.rate(6) == 0.5
    samples = SampleScheduleConfig(1.0, 0.0, "linear", 800, 80, [0, 4, 8, 16, 24, 32].__getitem__)
    assert samples.rate(6, SkippedCounts(2, 12)) == pytest.approx(20 / 80)
