"""--dry-run says what a run would be and whether it fits, and starts nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.config.arguments import parse_arguments
from pretrain.data.splits import open_splits
from pretrain.planning.dry_run import DryRunConfig, available_memory
from pretrain.pretrain_tape import main, show_plan
from tape.errors import ConfigError, run_cli
from tape.runtime.launch import Launch

Flags = Callable[..., list[str]]


def test_what_it_says(flags: Flags, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    extra = ("--dry-run", "--world-size", 4, "--tensor-model-parallel-size", 2, "--save", tmp_path / "save")
    arguments = parse_arguments(flags(*extra, "--device-memory-gib", 1))
    assert arguments.dry_run is not None
    show_plan(arguments, arguments.dry_run, Launch())
    said = capsys.readouterr().out
    rows = len(open_splits(arguments.data, arguments.samples).train)
    assert f"270 proteins in {rows:,} rows per epoch" in said
    assert "4 processes = data 2 x tensor 2" in said
    assert "1.00 GiB (stated)" in said
    assert f"an epoch: {rows:,} rows, {rows / 8:,.1f} steps; the run: 20 steps, {160 / rows:,.2f} epochs" in said
    assert "a step: 8 rows of 64" in said
    assert "2 micro-batches a rank" in said
    assert "with --checkpoint-activations" in said
    assert "it fits" in said
    assert not list(tmp_path.iterdir())


def test_one_rank_speaks(flags: Flags, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = parse_arguments(flags("--dry-run"), 2)
    assert arguments.dry_run is not None
    show_plan(arguments, arguments.dry_run, Launch(1, 2, 1))
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("extra", "gib", "words"),
    [
        ((), 1e-5, ["does not fit", "--tensor-model-parallel-size", "--micro-batch-size"]),
        (
            ("--num-layers", 12, "--seq-length", 512, "--max-position-embeddings", 512),
            0.012,
            ["--checkpoint-activations"],
        ),
    ],
)
def test_what_does_not_fit_is_an_error(
    flags: Flags,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    extra: tuple[object, ...],
    gib: float,
    words: list[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["x", *flags(*extra, "--dry-run", "--device-memory-gib", gib)])
    assert run_cli(main) == 1
    error = capsys.readouterr().err
    assert all(word in error for word in words)


def test_tokens_a_row_are_counted(flags: Flags) -> None:
    arguments = parse_arguments(flags("--split", "1,0,0"))
    (part,) = open_splits(arguments.data, arguments.samples).train.parts
    assert part.planner.tokens == sum(len(part[row].input_ids) for row in range(len(part)))


def test_memory_of_this_machine() -> None:
    alone, source = available_memory(DryRunConfig(), 1)
    shared, _ = available_memory(DryRunConfig(), 4)
    assert source.startswith("detected")
    assert alone >= shared > 0
    assert available_memory(DryRunConfig(2.0), 4) == (2.0 * (1 << 30), "stated")


def test_memory_is_above_zero() -> None:
    with pytest.raises(ConfigError, match="--device-memory-gib"):
        DryRunConfig(0.0)
