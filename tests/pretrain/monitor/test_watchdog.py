"""A rank that dies, freezes, hangs or fails ends the run on all ranks, with an error that names it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from pretrain.monitor.heartbeats import Heartbeat, has_ended, kill_processes
from pretrain.monitor.watchdog import effective_timeout, heartbeat_interval
from tape.runtime.process_identity import identify, this_machine
from tests.support.ranks import Rank, start_ranks, wait_for

Flags = Callable[..., list[str]]


def test_a_process_that_has_ended_is_detected_at_once() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    heartbeat = Heartbeat(1, machine=this_machine(), process=child.pid, started=identify(child.pid).started)
    assert not has_ended(heartbeat, this_machine())
    assert not has_ended(heartbeat, "another machine")
    assert has_ended(replace(heartbeat, started="1"), this_machine())  # another process has its id now
    kill_processes([replace(heartbeat, machine="another machine"), replace(heartbeat, started="1")], this_machine())
    time.sleep(0.05)
    assert child.poll() is None
    kill_processes([heartbeat], this_machine())
    wait_for(lambda: has_ended(heartbeat, this_machine()), "a zombie", 5)
    assert child.wait() == -signal.SIGKILL


def test_heartbeat_interval_and_timeout_grow_with_the_number_of_ranks() -> None:
    assert [effective_timeout(seconds, 8) for seconds in (45.0, 4.0, 0.0)] == [45.0, 4.0, float("inf")]
    assert effective_timeout(45.0, 4096) >= 3 * heartbeat_interval(4096) > 100.0


def start(tmp_path: Path, flags: Flags, fault: str | None = None, extra: Sequence[object] = ()) -> list[Rank]:
    """Start two ranks, without torchrun, that would run for hours."""
    options = ("--eval-iters", 0, "--log-interval", 1, "--hang-timeout-seconds", 4, "--save", tmp_path / "run", *extra)
    return start_ranks(flags(*options, train_iters=10**6), tmp_path, 2, fault)


def wait_for_prompt_end(ranks: list[Rank]) -> list[int]:
    """Exit codes of the ranks, which must end within 30 s."""
    began = time.monotonic()
    codes = [rank.end(30) for rank in ranks]
    assert time.monotonic() - began < 30
    return codes


def suspend_and_resume(ranks: list[Rank]) -> None:
    """Suspend all ranks for longer than the timeout, as a scheduler does that lets another job run first."""
    for number, seconds in ((signal.SIGSTOP, 5.0), (signal.SIGCONT, 0.0)):
        for rank in ranks:
            os.kill(rank.pid, number)
        time.sleep(seconds)
    reached = ranks[0].text.count("iteration ")
    wait_for(lambda: ranks[0].text.count("iteration ") > reached + 50, "steps after the suspension")


def errors(rank: Rank) -> list[str]:
    return [line for line in rank.text.splitlines() if line.startswith("error: ")]


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("number", "victim", "words"),
    [(signal.SIGKILL, 1, "exited without reporting an error"), (signal.SIGSTOP, 0, "no heartbeat for")],
    ids=["killed", "frozen"],
)
def test_a_lost_rank_ends_the_other(
    tmp_path: Path, flags: Flags, number: signal.Signals, victim: int, words: str
) -> None:
    """Freezing rank 0 is the harder case, because it serves the heartbeat store."""
    ranks = start(tmp_path, flags)
    wait_for(lambda: "iteration 12/" in ranks[0].text, "the first steps")
    if number == signal.SIGKILL:
        suspend_and_resume(ranks)
    time.sleep(
        1.0
    )  # a few heartbeats: the first steps may be faster than the first heartbeat, which still reports the start
    os.kill(ranks[victim].pid, number)
    codes = wait_for_prompt_end(ranks)
    assert codes[victim] == -signal.SIGKILL  # a frozen rank is killed by the other one
    assert codes[1 - victim] == 1
    (line,) = errors(ranks[1 - victim])
    assert line.startswith(f"error: rank {victim}")
    assert words in line
    assert "last operation: 'iteration " in line


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("error_on_rank_1", "failed at 'iteration 4: a faulty step': corpus.bin: record 17 is damaged"),
        ("bug_on_rank_1", "failed at 'iteration 4: a faulty step': KeyError: 'nowhere'"),
    ],
)
def test_a_rank_that_fails_ends_the_other(tmp_path: Path, flags: Flags, fault: str, words: str) -> None:
    ranks = start(tmp_path, flags, f"tests.support.fault_injection:{fault}")
    codes = exit_codes(ranks)
    assert codes[0] == 1
    assert codes[1] == 1
    (line,) = errors(ranks[0])
    assert line.startswith("error: rank 1 ")
    assert words in line
    assert errors(ranks[1]) == []
    assert ("Traceback" in ranks[1].text) == (fault == "bug_on_rank_1")


def exit_codes(ranks: list[Rank]) -> list[int]:
    return [rank.end(60) for rank in ranks]


@dataclass(frozen=True)
class Hang:
    """A layout, the injected fault, the rank that hangs, and the operation that the message must name."""

    flags: tuple[object, ...]
    fault: str
    victim: int
    operation: str


_STEP = "iteration 4: forward and backward pass of micro-batch 1"
# The other rank mostly waits inside the same operation; only the number of started collectives distinguishes the two.
HANGS = {
    "tensor": Hang(("--tensor-model-parallel-size", 2), "stuck_in_forward_on_rank_1", 1, _STEP),
    "sharded": Hang(("--data-parallel-sharding",), "stuck_in_backward_on_rank_1", 1, _STEP),
    "first stage": Hang(
        ("--pipeline-model-parallel-size", 2),
        "stuck_in_forward_on_rank_0",
        0,
        "iteration 4: pipeline: forward pass of micro-batch 1",
    ),
    "last stage": Hang(
        ("--pipeline-model-parallel-size", 2),
        "stuck_in_backward_on_rank_1",
        1,
        "iteration 4: pipeline: backward pass of micro-batch 1",
    ),
    "first step": Hang(
        (), "stuck_in_first_step_on_rank_1", 1, "iteration 1: forward and backward pass of micro-batch 1"
    ),
    "slow, then hanging in an evaluation": Hang(
        ("--eval-iters", 4, "--eval-interval", 3),
        "slow_then_stuck_in_evaluation_on_rank_1",
        1,
        "iteration 6: evaluation on valid: micro-batch 1",
    ),
    # The first stage has sent everything and waits only for the all-reduce of the losses.
    "last stage, evaluation": Hang(
        ("--pipeline-model-parallel-size", 2, "--global-batch-size", 2, "--eval-iters", 1, "--eval-interval", 3),
        "stuck_in_evaluation_on_rank_1",
        1,
        "iteration 6: evaluation on valid: forward pass of micro-batch 1",
    ),
}
# Saving takes both ranks longer than the timeout, and one of them fails in the meantime.
SLOW_CHECKPOINT = Hang(("--save-interval", 2), "error_while_slowly_saving_on_rank_1", 1, "")


@pytest.fixture(scope="module")
def hung(tmp_path_factory: pytest.TempPathFactory, flags: Flags) -> dict[str, tuple[list[Rank], list[int]]]:
    """Ranks and exit codes of all cases, which run at the same time because they mostly wait."""
    folder = tmp_path_factory.mktemp("hung")
    cases = HANGS | {"slow checkpoint": SLOW_CHECKPOINT}
    runs = {
        name: start(folder / str(number), flags, f"tests.support.fault_injection:{hang.fault}", hang.flags)
        for number, (name, hang) in enumerate(cases.items())
    }
    try:
        return {name: (ranks, exit_codes(ranks)) for name, ranks in runs.items()}
    finally:
        for rank in (rank for ranks in runs.values() for rank in ranks):
            rank.process.kill()  # of the other runs, if one did not end


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize("name", HANGS)
def test_a_rank_that_hangs_ends_the_other(hung: dict[str, tuple[list[Rank], list[int]]], name: str) -> None:
    (ranks, codes), hang = hung[name], HANGS[name]
    victim, other = hang.victim, 1 - hang.victim
    assert codes[other] == 1
    assert codes[victim] in (1, -signal.SIGKILL)  # it detects the hang itself, or the other rank kills it first
    (line,) = errors(ranks[other])
    assert line.startswith(f"error: rank {victim} hangs: at {hang.operation!r} for ")
    assert " in _hang (tests/support/fault_injection.py:" in line
    assert f", while rank {other} waits at 'iteration " in line
    assert errors(ranks[victim]) == []


@pytest.mark.distributed
@pytest.mark.slow
def test_a_slow_step_is_not_a_hang(hung: dict[str, tuple[list[Rank], list[int]]]) -> None:
    """Both ranks compute for longer than the timeout of 4 s, and rank 0 then waits for rank 1 for 2 s more."""
    ranks, _ = hung["slow, then hanging in an evaluation"]
    assert "iteration 5/" in ranks[0].text


@pytest.mark.distributed
@pytest.mark.slow
def test_a_rank_that_fails_finishes_its_checkpoint_first(hung: dict[str, tuple[list[Rank], list[int]]]) -> None:
    """Saving takes longer than the timeout, while rank 0 waits for rank 1 in the next step."""
    ranks, codes = hung["slow checkpoint"]
    assert codes == [1, 1]
    (line,) = errors(ranks[0])
    assert line == "error: rank 1 failed at 'iteration 4: a faulty step': corpus.bin: record 17 is damaged"
    assert (ranks[0].log.parent / "run" / "latest_checkpointed_iteration.txt").read_text().strip() == "2"
