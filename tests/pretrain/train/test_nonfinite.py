"""Non-finite steps are skipped and counted, their proteins are reported, and too many in a row end the run."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from pretrain.checkpointing import find_checkpoint
from pretrain.config.arguments import parse_arguments
from pretrain.data.samples import MicroBatch
from pretrain.data.splits import open_splits
from pretrain.pretrain_tape import main
from pretrain.train.masked_lm import MaskedLMObjective

Flags = Callable[..., list[str]]
Run = Callable[[list[str]], None]
Records = Callable[..., list[dict[str, Any]]]


def inject_nan_losses(monkeypatch: pytest.MonkeyPatch, bad: Callable[[int], bool]) -> None:
    """Make the losses of some micro-batches NaN; micro-batches are numbered from 0 since the start."""
    forward, seen = MaskedLMObjective.forward, iter(range(10**6))

    def faulty(self: MaskedLMObjective, micro_batch: MicroBatch) -> Tensor:
        loss = forward(self, micro_batch)
        return loss * math.nan if bad(next(seen)) else loss

    monkeypatch.setattr(MaskedLMObjective, "forward", faulty)


def test_the_run_ends_and_names_the_proteins(
    tmp_path: Path, flags: Flags, fails: Callable[..., str], records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Steps have four micro-batches of two rows; from the fifth step on, the loss of the third one is NaN."""
    inject_nan_losses(monkeypatch, lambda number: number >= 16 and number % 4 == 2)
    command = flags("--save", tmp_path, "--max-skipped-steps", 3, "--save-interval", 4, "--eval-iters", 0)
    line = fails(main, *command)
    assert "3 consecutive steps were skipped (--max-skipped-steps); iteration 7: the loss is not finite" in line
    rows = [6 * 8 + 4, 6 * 8 + 5]
    arguments = parse_arguments(command)
    samples = open_splits(arguments.data, arguments.samples).train
    assert [int(row) for row in re.findall(r"row (\d+) contains", line)] == rows
    for row in rows:
        part, number = samples.source(row)
        proteins = ", ".join(str(piece.protein) for piece in part.proteins(number))
        assert f"row {row} contains proteins {proteins} of {part.corpus.prefix}" in line
    assert [record["skipped"] for record in records(tmp_path)] == [False] * 4 + [True] * 3
    assert find_checkpoint(tmp_path) == tmp_path / "iter_0000004"


def test_a_finite_step_resets_the_count(
    tmp_path: Path,
    flags: Flags,
    pretrain_here: Run,
    records: Records,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    inject_nan_losses(monkeypatch, lambda number: number // 4 % 3 != 0)
    pretrain_here(flags("--save", tmp_path, "--max-skipped-steps", 3, "--eval-iters", 0, train_iters=9))
    assert records(tmp_path)[-1]["skipped_steps"] == 6
    assert capsys.readouterr().out.count("is not finite, so the update is skipped; row") == 6


def test_the_count_survives_a_restart(
    tmp_path: Path, flags: Flags, fails: Callable[..., str], pretrain_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject_nan_losses(monkeypatch, lambda number: True)
    command = flags("--save", tmp_path, "--load", tmp_path, "--max-skipped-steps", 3, "--eval-iters", 0)
    pretrain_here([*command, "--exit-interval", "2"])
    assert "iteration 3: " in fails(main, *command)


def test_0_disables_the_limit(
    tmp_path: Path, flags: Flags, pretrain_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject_nan_losses(monkeypatch, lambda number: True)
    pretrain_here(flags("--save", tmp_path, "--max-skipped-steps", 0, "--eval-iters", 0, train_iters=25))


def test_the_search_for_a_loss_scale_is_not_counted(
    tmp_path: Path, flags: Flags, pretrain_here: Run, records: Records, fails: Callable[..., str]
) -> None:
    """The search for a dynamic loss scale may take more overflows in a row than are allowed with a fixed one."""
    extra = ("--fp16", "--max-skipped-steps", 2, "--eval-iters", 0)
    dynamic = ("--save", tmp_path, "--initial-loss-scale", 2.0**28, "--hysteresis", 1)
    pretrain_here(flags(*extra, *dynamic, train_iters=24))
    skipped = [record["skipped"] for record in records(tmp_path)]
    assert skipped.count(True) > 2
    assert not skipped[-1]
    line = fails(main, *flags(*extra, "--loss-scale", 2.0**40))
    assert "iteration 2: the gradient is not finite" in line


@pytest.mark.parametrize("unit", ["iters", "samples"])
def test_the_learning_rate_waits_for_the_first_update(
    tmp_path: Path, flags: Flags, pretrain_here: Run, records: Records, monkeypatch: pytest.MonkeyPatch, unit: str
) -> None:
    """As in Megatron-LM, the scheduler steps only after an update; also across a restart and during batch ramp-up."""
    bad = {0, 1, 5}  # steps of 4, 4, 4, 8, 8, ... rows when counted in samples, else of 8
    if unit == "iters":
        sizes, extra = [8] * 10, ["--lr-warmup-iters", "4", "--lr-decay-iters", "10"]
    else:
        sizes, extra = [4] * 3 + [8] * 7, ["--lr-warmup-samples", "16", "--lr-decay-samples", "80"]
        extra += ["--rampup-batch-size", "4", "4", "12", "--train-samples", "68"]
    firsts = [sum(sizes[:step]) // 2 for step in range(len(sizes))]  # micro-batches of two rows
    inject_nan_losses(monkeypatch, lambda number: any(firsts[step] == number for step in bad))
    command = flags("--save", tmp_path, "--load", tmp_path, "--eval-iters", 0, *extra, train_iters=10)
    if unit == "samples":
        del command[command.index("--train-iters") : command.index("--train-iters") + 2]
    pretrain_here([*command, "--exit-interval", "4"])
    pretrain_here(command)
    curve = records(tmp_path)
    assert [number for number, record in enumerate(curve) if record["skipped"]] == sorted(bad)
    done, decay, warmup = (0, 10, 4) if unit == "iters" else (0, 80, 16)
    for number, record in enumerate(curve):
        expected = done / warmup if done <= warmup else 1 - (done - warmup) / (decay - warmup)
        assert record["learning_rate"] == pytest.approx(1e-2 * expected)
        done += 0 if number in bad else 1 if unit == "iters" else sizes[number]
