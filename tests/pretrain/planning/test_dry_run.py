"""--dry-run prints the plan of a run and whether it fits into memory, and starts nothing."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.build import print_plan
from pretrain.config.arguments import parse_arguments
from pretrain.data.splits import open_splits
from pretrain.planning.dry_run import DryRunConfig, available_memory
from pretrain.pretrain_tape import main
from tape.errors import ConfigError, run_cli

Flags = Callable[..., list[str]]


def test_plan_is_printed(flags: Flags, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    extra = ("--dry-run", "--world-size", 4, "--tensor-model-parallel-size", 2, "--save", tmp_path / "save")
    arguments = parse_arguments(flags(*extra, "--device-memory-gib", 1))
    assert arguments.dry_run is not None
    print_plan(arguments, arguments.dry_run)
    printed = capsys.readouterr().out
    rows = len(open_splits(arguments.data, arguments.samples).train)
    assert f"270 proteins in {rows:,} rows per epoch" in printed
    assert "4 processes = data 2 x tensor 2" in printed
    assert "1.00 GiB (stated)" in printed
    assert f"epoch: {rows:,} rows, {rows / 8:,.1f} steps; run: 20 steps, {160 / rows:,.2f} epochs" in printed
    assert "step: 8 rows of 64" in printed
    assert "2 micro-batches per rank" in printed
    assert "with --checkpoint-activations" in printed
    assert "it fits" in printed
    assert not list(tmp_path.iterdir())


def test_only_the_main_process_prints_the_plan(
    flags: Flags, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["pretrain_tape.py", *flags("--dry-run")])
    for name, value in (("RANK", "1"), ("LOCAL_RANK", "1"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    main()
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
def test_run_that_does_not_fit_is_an_error(
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


def test_number_of_tokens_is_exact(flags: Flags) -> None:
    arguments = parse_arguments(flags("--split", "1,0,0"))
    (part,) = open_splits(arguments.data, arguments.samples).train.parts
    assert part.planner.tokens == sum(len(part[row].input_ids) for row in range(len(part)))


def test_memory_is_detected_or_taken_from_the_option() -> None:
    alone, source = available_memory(DryRunConfig(), 1)
    shared, _ = available_memory(DryRunConfig(), 4)
    assert source.startswith("detected")
    assert alone >= shared > 0
    assert available_memory(DryRunConfig(2.0), 4) == (2.0 * (1 << 30), "stated")


def test_device_memory_must_be_above_zero() -> None:
    with pytest.raises(ConfigError, match="--device-memory-gib"):
        DryRunConfig(0.0)
