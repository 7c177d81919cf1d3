"""A rank that dies, freezes, hangs or fails ends the run on all ranks, by name."""

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

from pretrain.monitor.heartbeats import Heartbeat, has_ended, kill_processes, start_of, this_machine
from pretrain.monitor.watchdog import effective_timeout, heartbeat_interval
from tests.support.ranks import Rank, start_ranks, wait_for

Flags = Callable[..., list[str]]


def test_a_process_that_is_gone_is_known_at_once() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    heartbeat = Heartbeat(1, machine=this_machine(), process=child.pid, started=start_of(child.pid) or "")
    assert not has_ended(heartbeat, this_machine())
    assert not has_ended(heartbeat, "another machine")
    assert has_ended(replace(heartbeat, started="1"), this_machine())  # its number went to another process
    kill_processes([replace(heartbeat, machine="another machine"), replace(heartbeat, started="1")], this_machine())
    time.sleep(0.05)
    assert child.poll() is None
    kill_processes([heartbeat], this_machine())
    wait_for(lambda: has_ended(heartbeat, this_machine()), "a zombie", 5)
    assert child.wait() == -signal.SIGKILL


def test_beats_of_thousands_of_ranks_are_rare_and_waited_for() -> None:
    assert [effective_timeout(seconds, 8) for seconds in (45.0, 4.0, 0.0)] == [45.0, 4.0, float("inf")]
    assert effective_timeout(45.0, 4096) >= 3 * heartbeat_interval(4096) > 100.0


def start(tmp_path: Path, flags: Flags, spoil: str | None = None, extra: Sequence[object] = ()) -> list[Rank]:
    """Two ranks without torchrun that would run for hours."""
    options = ("--eval-iters", 0, "--log-interval", 1, "--hang-timeout-seconds", 4, "--save", tmp_path / "run", *extra)
    return start_ranks(flags(*options, train_iters=10**6), tmp_path, 2, spoil)


def ends(ranks: list[Rank]) -> list[int]:
    began = time.monotonic()
    codes = [rank.end(30) for rank in ranks]
    assert time.monotonic() - began < 30
    return codes


def suspend(ranks: list[Rank]) -> None:
    """All stand still for longer than the patience, as when a scheduler lets another job run first; and go on."""
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
    """Rank 0 holds the store of the heartbeats: frozen, it is the harder case."""
    ranks = start(tmp_path, flags)
    wait_for(lambda: "iteration 12/" in ranks[0].text, "the first steps")
    if number == signal.SIGKILL:
        suspend(ranks)
    time.sleep(1.0)  # a few heartbeats: the first steps may take less than one, which then still tells of the start
    os.kill(ranks[victim].pid, number)
    codes = ends(ranks)
    assert codes[victim] == -signal.SIGKILL  # the frozen one, too: the other one sees to it
    assert codes[1 - victim] == 1
    (line,) = errors(ranks[1 - victim])
    assert line.startswith(f"error: rank {victim}")
    assert words in line
    assert "last operation: 'iteration " in line


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        ("error_on_rank_1", "failed at 'iteration 4: a spoiled step': corpus.bin: record 17 is damaged"),
        ("fault_on_rank_1", "failed at 'iteration 4: a spoiled step': KeyError: 'nowhere'"),
    ],
)
def test_a_rank_that_fails_ends_the_other(tmp_path: Path, flags: Flags, spoil: str, words: str) -> None:
    ranks = start(tmp_path, flags, f"tests.support.fault_injection:{spoil}")
    codes = ends_with_codes(ranks)
    assert codes[0] == 1
    assert codes[1] == 1
    (line,) = errors(ranks[0])
    assert line.startswith("error: rank 1 ")
    assert words in line
    assert errors(ranks[1]) == []
    assert ("Traceback" in ranks[1].text) == (spoil == "fault_on_rank_1")


def ends_with_codes(ranks: list[Rank]) -> list[int]:
    return [rank.end(60) for rank in ranks]


@dataclass(frozen=True)
class Hang:
    """A layout, who hangs in it and where, and where the message says so."""

    flags: tuple[object, ...]
    spoil: str
    victim: int
    words: str


_STEP = "iteration 4: forward and backward pass of micro-batch 1"
# The other rank mostly waits inside the same operation: only exchanges within it tell the two apart.
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
    # The first stage has sent all, and waits for nothing but the sum of the losses.
    "last stage, evaluation": Hang(
        ("--pipeline-model-parallel-size", 2, "--global-batch-size", 2, "--eval-iters", 1, "--eval-interval", 3),
        "stuck_in_evaluation_on_rank_1",
        1,
        "iteration 6: evaluation on valid: forward pass of micro-batch 1",
    ),
}
# Both ranks' checkpoint takes longer than the patience, and one of them fails meanwhile.
SLOW_CHECKPOINT = Hang(("--save-interval", 2), "error_while_slowly_saving_on_rank_1", 1, "")


@pytest.fixture(scope="module")
def hung(tmp_path_factory: pytest.TempPathFactory, flags: Flags) -> dict[str, tuple[list[Rank], list[int]]]:
    """All of them at the same time: they mostly wait."""
    folder = tmp_path_factory.mktemp("hung")
    cases = HANGS | {"slow checkpoint": SLOW_CHECKPOINT}
    runs = {
        name: start(folder / str(number), flags, f"tests.support.fault_injection:{hang.spoil}", hang.flags)
        for number, (name, hang) in enumerate(cases.items())
    }
    try:
        return {name: (ranks, ends_with_codes(ranks)) for name, ranks in runs.items()}
    finally:
        for rank in (rank for ranks in runs.values() for rank in ranks):
            rank.process.kill()  # where one run didn't end, the others have nobody to see to them


@pytest.mark.distributed
@pytest.mark.slow
@pytest.mark.parametrize("name", HANGS)
def test_a_rank_that_hangs_ends_the_other(hung: dict[str, tuple[list[Rank], list[int]]], name: str) -> None:
    (ranks, codes), hang = hung[name], HANGS[name]
    victim, other = hang.victim, 1 - hang.victim
    assert codes[other] == 1
    assert codes[victim] in (1, -signal.SIGKILL)  # whoever is quicker
    (line,) = errors(ranks[other])
    assert line.startswith(f"error: rank {victim} hangs: at {hang.words!r} for ")
    assert " in _hang (tests/support/fault_injection.py:" in line
    assert f", while rank {other} waits at 'iteration " in line
    assert errors(ranks[victim]) == []


@pytest.mark.distributed
@pytest.mark.slow
def test_a_slow_step_is_no_hang(hung: dict[str, tuple[list[Rank], list[int]]]) -> None:
    """Both ranks compute for longer than the patience of 4 s, and rank 0 then waits for rank 1 for 2 s more."""
    ranks, _ = hung["slow, then hanging in an evaluation"]
    assert "iteration 5/" in ranks[0].text


@pytest.mark.distributed
@pytest.mark.slow
def test_a_rank_that_fails_finishes_its_checkpoint_first(hung: dict[str, tuple[list[Rank], list[int]]]) -> None:
    """That takes longer than the patience, while rank 0 waits for it in the next step."""
    ranks, codes = hung["slow checkpoint"]
    assert codes == [1, 1]
    (line,) = errors(ranks[0])
    assert line == "error: rank 1 failed at 'iteration 4: a spoiled step': corpus.bin: record 17 is damaged"
    assert (ranks[0].log.parent / "run" / "latest_checkpointed_iteration.txt").read_text().strip() == "2"
