"""Pretraining with a corpus whose files are shortened, before the run or during it: one error, which names the file."""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.ranks import Rank, start_ranks, wait_for

Flags = Callable[..., list[str]]


@pytest.fixture
def copied_prefix(corpus_prefix: Path, tmp_path: Path) -> Path:
    for file in corpus_prefix.parent.glob(f"{corpus_prefix.name}.*"):
        shutil.copy(file, tmp_path)
    return tmp_path / corpus_prefix.name


def shorten(prefix: Path, suffix: str) -> Path:
    file = Path(f"{prefix}{suffix}")
    os.truncate(file, file.stat().st_size // 2)
    return file


def training_run(flags: Flags, prefix: Path, workers: int) -> Rank:
    """A long run after its first steps; without the comparison of digests, so that only reading can find a change."""
    options = ("--data-path", prefix, "--num-workers", workers, "--verify-data", "never", "--log-interval", 1)
    (run,) = start_ranks(flags(*options, train_iters=100_000), prefix.parent / "logs")
    wait_for(lambda: "iteration 4/" in run.text, "the first steps", 120)
    return run


def assert_error_names(file: Path, run: Rank) -> None:
    assert run.end(120) == 1, run.text
    (line,) = re.findall(r"^error: .*", run.text, re.MULTILINE)
    assert str(file) in line
    assert re.search("truncated|damaged", line)
    assert "Traceback" not in run.text
    assert run.text.rstrip().endswith(line)


@pytest.mark.parametrize("suffix", [".idx", ".bin"])
def test_a_shortened_file_is_named_at_the_start(copied_prefix: Path, tmp_path: Path, flags: Flags, suffix: str) -> None:
    file = shorten(copied_prefix, suffix)
    (run,) = start_ranks(flags("--data-path", copied_prefix), tmp_path / "logs")
    assert_error_names(file, run)


@pytest.mark.parametrize("workers", [0, 2])
def test_tokens_that_are_shortened_under_a_run_are_named(copied_prefix: Path, flags: Flags, workers: int) -> None:
    run = training_run(flags, copied_prefix, workers)
    assert_error_names(shorten(copied_prefix, ".bin"), run)


@pytest.mark.parametrize("workers", [0, 2])
def test_an_index_that_is_shortened_under_a_run_has_been_loaded(
    copied_prefix: Path, flags: Flags, workers: int
) -> None:
    run = training_run(flags, copied_prefix, workers)
    shorten(copied_prefix, ".idx")
    last = max(map(int, re.findall(r"iteration (\d+)/", run.text)))
    wait_for(lambda: f"iteration {last + 40}/" in run.text, "more steps than were prepared", 120)
    os.kill(run.pid, signal.SIGTERM)
    assert run.end(120) == 0, run.text
