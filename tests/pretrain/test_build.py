"""One run at a time writes a directory of checkpoints, and names the command that resumes it."""

from __future__ import annotations

import os
import shlex
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain import build
from pretrain.checkpointing import RunState, find_checkpoint
from pretrain.config.arguments import parse_arguments
from tape.runtime.launch import Launch
from tape.runtime.run_lock import lock_in
from tests.support.ranks import start_ranks, wait_for

Flags = Callable[..., list[str]]


def test_a_run_that_is_started_twice_is_refused_the_second_time(tmp_path: Path, flags: Flags) -> None:
    """The first one, stopped in the meantime, goes on undisturbed."""
    save = tmp_path / "run"
    command = flags("--save", save, "--load", save, "--save-interval", 5, train_iters=10)
    (first,) = start_ranks(command, tmp_path / "first")
    wait_for(lock_in(save).exists, "the lock of the first run")
    os.kill(first.pid, signal.SIGSTOP)
    (second,) = start_ranks(command, tmp_path / "second")
    assert second.end() == 1
    assert f"error: {save}: in use by process {first.pid} on" in second.text
    assert "choose another --save" in second.text
    os.kill(first.pid, signal.SIGCONT)
    assert first.end() == 0, first.text
    assert find_checkpoint(save) == save / "iter_0000010"
    assert not lock_in(save).exists()


def test_of_two_resumes_at_once_one_is_refused(tmp_path: Path, flags: Flags) -> None:
    save = tmp_path / "run"
    (first,) = start_ranks(flags("--save", save, "--save-interval", 5, train_iters=5), tmp_path / "first")
    assert first.end() == 0, first.text
    resume = flags("--save", save, "--load", save, "--override-lr-scheduler", train_iters=100_000)
    ranks = [*start_ranks(resume, tmp_path / "second"), *start_ranks(resume, tmp_path / "third")]
    wait_for(lambda: any(not rank.process.is_alive() for rank in ranks), "the end of one of them")
    refused, running = sorted(ranks, key=lambda rank: rank.process.is_alive())
    assert refused.end() == 1, refused.text
    assert f"error: {save}: in use by process {running.pid} on" in refused.text
    wait_for(lambda: "resuming from iteration 5" in running.text, "the other one trains")
    os.kill(running.pid, signal.SIGTERM)
    assert running.end() == 0, running.text


def test_a_run_after_a_killed_one_takes_over_its_lock(tmp_path: Path, flags: Flags) -> None:
    save = tmp_path / "run"
    command = flags("--save", save, "--load", save, "--save-interval", 5, train_iters=10)
    (first,) = start_ranks(command, tmp_path / "first")
    wait_for(lock_in(save).exists, "the lock of the first run")
    os.kill(first.pid, signal.SIGKILL)
    assert first.end() == -signal.SIGKILL
    (second,) = start_ranks(command, tmp_path / "second")
    assert second.end() == 0, second.text
    assert f"process {first.pid} on" in second.text
    assert "ended without removing its lock; taken over" in second.text


def resume_notice(flags: list[str], state: RunState, world_size: int = 1, program: str = "a b.py") -> str:
    words = [str(flag) for flag in flags]
    config = parse_arguments([word for word in words if word != "--finetune"], world_size)  # which opens a model
    return "".join(build.resume_notice(config, state, Launch(world_size=world_size), [program, *words]))


def test_an_unfinished_run_names_the_command_that_resumes_it(tmp_path: Path, flags: Flags) -> None:
    words = flags("--save", tmp_path / "run", train_iters=10)
    line = resume_notice(words, RunState(iteration=4))
    assert line == f"resume with: python 'a b.py' {shlex.join(map(str, words))} --load {tmp_path / 'run'}"


def test_a_run_that_resumes_itself_has_the_same_command(tmp_path: Path, flags: Flags) -> None:
    words = flags("--save", tmp_path / "run", "--load", tmp_path / "run", train_iters=10)
    line = resume_notice(words, RunState(iteration=4), program="proteinlm pretrain")
    assert line == f"resume with: proteinlm pretrain {shlex.join(map(str, words))}"


def test_a_run_from_other_weights_is_resumed_without_them(tmp_path: Path, flags: Flags) -> None:
    words = flags("--save", tmp_path / "run", "--load", tmp_path / "model", "--finetune", train_iters=10)
    line = resume_notice(words, RunState(iteration=4))
    assert line.endswith(f" --load {tmp_path / 'model'} --load {tmp_path / 'run'}")
    assert "--finetune" not in line


@pytest.mark.parametrize("step", [("--ckpt-step", "2"), ("--ckpt-step=2",)])
def test_a_run_from_a_chosen_step_is_resumed_from_its_last(step: tuple[str, ...], tmp_path: Path, flags: Flags) -> None:
    (tmp_path / "run" / "iter_0000002").mkdir(parents=True)
    (tmp_path / "run" / "iter_0000002" / "metadata.json").write_text("{}")
    load = ("--load", tmp_path / "run", "--save", tmp_path / "run")
    line = resume_notice(flags(*step, *load, train_iters=10), RunState(iteration=4))
    words = flags(*load, train_iters=10)
    assert line == f"resume with: python 'a b.py' {shlex.join(map(str, words))} --load {tmp_path / 'run'}"
    (tmp_path / "chosen.txt").write_text("--ckpt-step 2\n")
    line = resume_notice(flags(f"@{tmp_path / 'chosen.txt'}", *load, train_iters=10), RunState(iteration=4))
    assert "(--finetune, --no-load-optim, --ckpt-step must not be in '" in line


def test_several_processes_are_resumed_with_their_launcher(tmp_path: Path, flags: Flags) -> None:
    words = flags("--save", tmp_path / "run", train_iters=10)
    line = resume_notice(words, RunState(iteration=4), world_size=2)
    assert line.startswith("resume with the same launcher and a b.py ")


@pytest.mark.parametrize(("save", "iteration"), [(True, 10), (False, 4)])
def test_a_finished_run_and_one_that_saves_nothing_name_none(
    tmp_path: Path, flags: Flags, save: bool, iteration: int
) -> None:
    words = flags(*(("--save", tmp_path / "run") if save else ()), train_iters=10)
    assert resume_notice(words, RunState(iteration=iteration)) == ""


def test_a_run_whose_last_evaluation_is_due_is_unfinished(tmp_path: Path, flags: Flags) -> None:
    words = flags("--save", tmp_path / "run", train_iters=10)
    assert resume_notice(words, RunState(iteration=10, evaluation_due=True)).startswith("resume with: ")
