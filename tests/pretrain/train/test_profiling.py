"""--profile: the chosen iterations on the chosen ranks, the same training, and runs without these iterations."""

from __future__ import annotations

import gzip
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from pretrain.checkpointing import load_full_checkpoint
from pretrain.config.arguments import parse_arguments
from pretrain.pretrain_tape import run_pretraining
from pretrain.train.masked_lm import MaskedLMObjective
from pretrain.train.profiling import IterationProfiler, operations_by_time
from tape.errors import ConfigError
from tape.runtime.launch import Launch

Flags = Callable[..., list[str]]
Run = Callable[[list[str]], None]
SCRIPT = Path("pretrain") / "pretrain_tape.py"


def files(directory: Path) -> list[str]:
    return sorted(path.name for path in (directory / "profile").iterdir())


def ranges(trace: Path) -> set[str]:
    """The names of the ranges in a trace that are spans of the run."""
    with gzip.open(trace) as stream:
        events = json.load(stream)["traceEvents"]
    return {event["name"] for event in events if event.get("cat") == "user_annotation"}


def iterations(trace: Path) -> list[int]:
    return sorted(int(name.split()[1]) for name in ranges(trace) if name.startswith("iteration "))


def test_the_chosen_iterations_are_profiled_and_the_training_is_the_same(
    tmp_path: Path, flags: Flags, pretrain_here: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, words in {
        "plain": [],
        "profiled": ["--profile", "--profile-step-start", 3, "--profile-step-end", 5],
    }.items():
        pretrain_here(flags("--save", tmp_path / name, *words, train_iters=8))
    output, directory = capsys.readouterr().out, tmp_path / "profiled"
    assert not (tmp_path / "plain" / "profile").exists()
    assert files(directory) == ["rank0_iterations_4-5.pt.trace.json.gz", "rank0_iterations_4-5.txt"]
    trace = directory / "profile" / "rank0_iterations_4-5.pt.trace.json.gz"
    assert iterations(trace) == [4, 5]
    assert {"forward and backward pass of micro-batch 4", "optimizer step", "load micro-batches"} <= ranges(trace)
    table = (directory / "profile" / "rank0_iterations_4-5.txt").read_text()
    assert "aten::" in table
    assert "Self CPU time total" in table
    beginning = re.escape(f"profile of iterations 4 to 5: {directory}/profile/rank0_iterations_4-5.*; own time: ")
    assert re.search(rf"{beginning}\S+ \d+%, ", output)
    plain, profiled = (load_full_checkpoint(tmp_path / name).model for name in ("plain", "profiled"))
    assert all(torch.equal(plain[name], profiled[name]) for name in plain)


def test_a_run_that_ends_or_starts_within_the_chosen_iterations_profiles_those_that_it_has(
    tmp_path: Path, flags: Flags, pretrain_here: Run
) -> None:
    words = ["--save", tmp_path, "--load", tmp_path, "--profile", "--profile-step-start", 2, "--profile-step-end", 6]
    pretrain_here(flags(*words, "--exit-interval", 4, train_iters=8))
    pretrain_here(flags(*words, train_iters=8))
    traces = sorted((tmp_path / "profile").glob("*.gz"))
    assert [(trace.name.split(".")[0], iterations(trace)) for trace in traces] == [
        ("rank0_iterations_3-4", [3, 4]),
        ("rank0_iterations_5-6", [5, 6]),
    ]


def test_only_the_chosen_ranks_write(
    tmp_path: Path, repository_root: Path, flags: Flags, torchrun: Callable[..., Any]
) -> None:
    words = ["--profile", "--profile-ranks", 1, "--profile-step-start", 0, "--profile-step-end", 1]
    torchrun(2, repository_root / SCRIPT, *flags("--save", tmp_path, *words, train_iters=2))
    assert files(tmp_path) == ["rank1_iterations_1-1.pt.trace.json.gz", "rank1_iterations_1-1.txt"]
    assert iterations(next((tmp_path / "profile").glob("*.gz"))) == [1]


@pytest.mark.parametrize(
    ("start", "end", "reason"),
    [(9, 12, "the run ends with iteration 4"), (0, 2, "the run continues after iteration 2")],
)
def test_a_run_without_the_chosen_iterations_says_so(
    tmp_path: Path,
    flags: Flags,
    pretrain_here: Run,
    capsys: pytest.CaptureFixture[str],
    start: int,
    end: int,
    reason: str,
) -> None:
    pretrain_here(flags("--save", tmp_path, "--exit-interval", 2, train_iters=4))
    words = ["--profile", "--profile-step-start", start, "--profile-step-end", end]
    pretrain_here(flags("--save", tmp_path, "--load", tmp_path, *words, train_iters=4))
    expected = f"WARNING: --profile has no effect: iterations {start + 1} to {end} are chosen, and {reason}"
    assert expected in capsys.readouterr().out
    assert not (tmp_path / "profile").exists()


def test_a_directory_that_cannot_be_written_does_not_end_the_run(
    tmp_path: Path, flags: Flags, pretrain_here: Run, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "profile").write_text("a file")
    pretrain_here(
        flags("--save", tmp_path, "--profile", "--profile-step-start", 1, "--profile-step-end", 2, train_iters=3)
    )
    assert "rank 0: no profile of iterations from 2 on: " in caplog.text
    assert (tmp_path / "iter_0000003").is_dir()


def test_a_trace_that_is_not_complete_is_no_profile_and_leaves_no_file(
    tmp_path: Path, flags: Flags, pretrain_here: Run, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    # on a full disk, the profiler's library prints an error and leaves an empty or truncated file
    monkeypatch.setattr(torch.profiler.profile, "export_chrome_trace", lambda _, path: Path(path).write_text('{"a": ['))
    pretrain_here(
        flags("--save", tmp_path, "--profile", "--profile-step-start", 1, "--profile-step-end", 2, train_iters=3)
    )
    assert f"{tmp_path / 'profile'}: can't be written: the profiler could not write its trace" in caplog.text
    assert list((tmp_path / "profile").iterdir()) == []
    assert (tmp_path / "iter_0000003").is_dir()


@pytest.mark.parametrize("method", ["start", "step", "stop", "key_averages"])
def test_an_error_of_the_profiler_does_not_end_the_run(
    tmp_path: Path,
    flags: Flags,
    pretrain_here: Run,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
) -> None:
    real = getattr(torch.profiler.profile, method)

    def fail(self: torch.profiler.profile) -> None:
        if method in ("step", "stop"):  # otherwise the profiler of this process goes on
            real(self)
        raise RuntimeError("broken profiler")

    monkeypatch.setattr(torch.profiler.profile, method, fail)
    pretrain_here(
        flags("--save", tmp_path, "--profile", "--profile-step-start", 1, "--profile-step-end", 3, train_iters=4)
    )
    assert "rank 0: no profile of iterations from 2 on: broken profiler" in caplog.text
    assert (tmp_path / "iter_0000004").is_dir()


def test_the_checkpoint_is_complete_before_the_profile_of_a_run_that_stops(
    tmp_path: Path, flags: Flags, pretrain_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, seen = IterationProfiler.write, []

    def check(self: IterationProfiler) -> None:
        seen.append((tmp_path / "iter_0000003").is_dir())
        write(self)

    monkeypatch.setattr(IterationProfiler, "write", check)
    words = ["--profile", "--profile-step-start", 1, "--profile-step-end", 3, "--exit-interval", 3]
    pretrain_here(flags("--save", tmp_path, *words, train_iters=8))
    assert seen == [True]
    assert iterations(next((tmp_path / "profile").glob("*.gz"))) == [2, 3]


@pytest.mark.parametrize(("end_of_run", "train_iters"), [(["--exit-interval", 3], 8), ([], 3)])
def test_a_run_that_ends_before_the_first_recorded_iteration_ends_normally(
    tmp_path: Path, repository_root: Path, flags: Flags, end_of_run: list[Any], train_iters: int
) -> None:
    # in a process of its own: a profiler that is not stopped crashes it at its end
    words = ["--profile", "--profile-step-start", 3, "--profile-step-end", 5, *end_of_run]
    command = [repository_root / SCRIPT, *flags("--save", tmp_path, *words, train_iters=train_iters)]
    result = subprocess.run([sys.executable, *map(str, command)], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert (tmp_path / "iter_0000003").is_dir()
    assert not (tmp_path / "profile").exists()


def test_leftovers_of_a_killed_run_are_removed(tmp_path: Path, flags: Flags, pretrain_here: Run) -> None:
    left = tmp_path / "profile" / ".rank0_iterations_2-2.abcdefgh.tmp"
    left.mkdir(parents=True)
    (left / "trace.json").write_text("{")
    pretrain_here(
        flags("--save", tmp_path, "--profile", "--profile-step-start", 1, "--profile-step-end", 2, train_iters=3)
    )
    assert files(tmp_path) == ["rank0_iterations_2-2.pt.trace.json.gz", "rank0_iterations_2-2.txt"]


def test_options_without_the_switch_have_no_effect_and_are_named(flags: Flags) -> None:
    notices = parse_arguments(flags("--profile-step-end", 15, "--profile-ranks", 0)).notices
    assert [line for line in notices if "profile" in line] == ["--profile-step-end has no effect without --profile"]


def test_a_run_that_fails_writes_no_profile(tmp_path: Path, flags: Flags, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare, calls = MaskedLMObjective.prepare, []

    def fail(self: MaskedLMObjective, batch: Any) -> Any:
        calls.append(batch)
        if len(calls) > 12:  # four micro-batches a step
            raise RuntimeError("broken")
        return prepare(self, batch)

    monkeypatch.setattr(MaskedLMObjective, "prepare", fail)
    words = flags("--save", tmp_path, "--profile", "--profile-step-start", 1, "--profile-step-end", 6, train_iters=8)
    with pytest.raises(RuntimeError, match="broken"):
        run_pretraining(parse_arguments(words), Launch())
    assert not (tmp_path / "profile").exists()


def test_on_a_gpu_the_time_of_a_kernel_counts_once_and_ranges_do_not() -> None:
    def event(key: str, device: str, device_time: float, cpu_time: float, is_range: bool = False) -> SimpleNamespace:
        kind = getattr(torch.autograd.DeviceType, device)
        fields = {"self_device_time_total": device_time, "self_cpu_time_total": cpu_time}
        return SimpleNamespace(key=key, device_type=kind, is_user_annotation=is_range, **fields)

    events = [
        event("aten::mm", "CPU", 7.0, 1.0),
        event("aten::add", "CPU", 2.0, 3.0),
        event("add_kernel", "CUDA", 2.0, 0.0),
        event("mm_kernel", "CUDA", 7.0, 0.0),
        event("optimizer step", "CUDA", 9.0, 0.0, is_range=True),
        event("optimizer step", "CPU", 0.0, 5.0, is_range=True),
    ]
    kernels = operations_by_time(events, is_gpu=True)
    assert [(found.key, time) for found, time in kernels] == [("mm_kernel", 7.0), ("add_kernel", 2.0)]
    operators = [(found.key, time) for found, time in operations_by_time(events, is_gpu=False)]
    assert operators[:2] == [("aten::add", 3.0), ("aten::mm", 1.0)]
    assert "optimizer step" not in dict(operators)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--profile-step-start", 5, "--profile-step-end", 5],
            "--profile-step-end 5 must be after --profile-step-start 5",
        ),
        (
            ["--profile-step-end", 31],
            "--profile-step-start 10 and --profile-step-end 31 are 21 iterations, .* at most 20",
        ),
        (["--profile-ranks", 0, 2], "--profile-ranks 2: the ranks of this run are 0 to 1"),
        ([], "--profile writes to --tensorboard-dir or --save: give one of them"),
    ],
)
def test_options_that_contradict_the_run_are_refused(flags: Flags, words: list[Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_arguments(flags("--profile", *words, *(["--save", "x"] if words else [])), world_size=2)


def test_traces_are_beside_those_of_tensorboard_and_not_taken_without_the_switch(flags: Flags, tmp_path: Path) -> None:
    both = flags("--save", tmp_path / "save", "--tensorboard-dir", tmp_path / "board")
    profile = parse_arguments([*both, "--profile"]).profile
    assert profile is not None
    assert profile.directory == tmp_path / "board" / "profile"
    assert (profile.start, profile.end, profile.ranks) == (10, 12, (0,))
    assert parse_arguments(both).profile is None
