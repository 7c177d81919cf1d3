"""A rank that dies, freezes, hangs or fails ends the run on all ranks, by name."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pretrain.operations import Operations
from pretrain.parallel.heartbeats import Beat, has_ended, kill_all, start_of, this_machine
from pretrain.parallel.watchdog import Heard, judge
from tests.pretrain.ranks import Rank, start_ranks, wait_for

Flags = Callable[..., list[str]]
PATIENCE = 30.0


def heard(*beats: Beat, silence: float = 0.0) -> list[Heard]:
    return [Heard(beat, silence) for beat in beats]


def at(rank: int, number: int, seconds: float, long: bool = False) -> Beat:
    return Beat(rank, 1, f"operation {number}", number, seconds, long)


def verdict(items: list[Heard], rank: int = 0) -> str | None:
    found = judge(items, rank, "here", PATIENCE)
    return None if found is None else found.text


def test_ranks_at_work_are_left_alone() -> None:
    assert verdict(heard(at(0, 5, 1.0), at(1, 5, 1.0))) is None
    # all of them wait for a slow disk, or compute for long: nobody is behind
    assert verdict(heard(at(0, 5, 500.0), at(1, 5, 500.0))) is None
    # one is late, but not for as long as that
    assert verdict(heard(at(0, 6, 29.0), at(1, 5, 31.0))) is None
    assert verdict(heard(at(0, 6, 31.0), at(1, 5, 29.0))) is None
    # or does what may take long
    assert verdict(heard(at(0, 6, 500.0), at(1, 5, 500.0, long=True))) is None


def test_the_rank_that_the_others_wait_for_is_named() -> None:
    text = verdict(heard(at(0, 6, 31.0), at(1, 5, 40.0), at(2, 6, 33.0)))
    assert text == "rank 1 hangs: at 'operation 5' for 40 s, while ranks 0, 2 waits at 'operation 6'"
    assert judge(heard(at(0, 6, 31.0), at(1, 5, 40.0)), 0, "here", float("inf")) is None


def test_silence_is_named_but_not_ones_own() -> None:
    items = [*heard(at(0, 5, 1.0)), *heard(at(1, 5, 1.0), silence=31.0)]
    assert verdict(items) == (
        "rank 1: not heard of for 31 s (frozen, dead, or its machine cannot be reached); last operation: 'operation 5'"
    )
    assert verdict(items, rank=1) is None


def test_a_failure_comes_first() -> None:
    items = [*heard(replace(at(2, 5, 1.0), failure="no room")), *heard(at(1, 5, 1.0), silence=31.0)]
    assert verdict(items) == "rank 2 failed at 'operation 5': no room"


def test_a_process_that_is_gone_is_known_at_once() -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    beat = Beat(1, machine=this_machine(), process=child.pid, started=start_of(child.pid) or "")
    assert not has_ended(beat, this_machine())
    assert not has_ended(beat, "another machine")
    assert has_ended(replace(beat, started="1"), this_machine())  # its number went to another process
    kill_all([replace(beat, machine="another machine"), replace(beat, started="1")], this_machine())
    time.sleep(0.05)
    assert child.poll() is None
    kill_all([beat], this_machine())
    wait_for(lambda: has_ended(beat, this_machine()), "a zombie", 5)
    assert child.wait() == -signal.SIGKILL


def test_operations_count() -> None:
    operations = Operations()
    operations.iteration(12, lenient=True)
    operations.at("forward pass")
    first = operations.current
    assert (first.name, first.number, first.may_take_long) == ("iteration 12: forward pass", 1, True)
    operations.iteration(13, lenient=False)
    operations.at("forward pass")
    assert (operations.current.number, operations.current.may_take_long) == (2, False)
    time.sleep(0.02)
    assert operations.current.seconds > 0.01
    operations.goes_on()
    assert operations.current.seconds < 0.01
    assert operations.current.number == 2


def start(tmp_path: Path, flags: Flags, spoil: str | None = None) -> list[Rank]:
    """Two ranks without torchrun that would run for hours."""
    # a step is one micro-batch: a rank that hangs in it is found while the other waits in the sum of gradients
    options = ("--global-batch-size", 4, "--eval-iters", 0, "--log-interval", 1)
    options += ("--hang-timeout-seconds", 4, "--save", tmp_path / "run")
    return start_ranks(flags(*options, train_iters=10**6), tmp_path, 2, spoil)


def ends(ranks: list[Rank]) -> list[int]:
    began = time.monotonic()
    codes = [rank.end(30) for rank in ranks]
    assert time.monotonic() - began < 30
    return codes


def errors(rank: Rank) -> list[str]:
    return [line for line in rank.text.splitlines() if line.startswith("error: ")]


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("number", "victim", "words"),
    [(signal.SIGKILL, 1, "ended without a word"), (signal.SIGSTOP, 0, "not heard of for")],
    ids=["killed", "frozen"],
)
def test_a_lost_rank_ends_the_other(
    tmp_path: Path, flags: Flags, number: signal.Signals, victim: int, words: str
) -> None:
    """Rank 0 holds the store of the heartbeats: frozen, it is the harder case."""
    ranks = start(tmp_path, flags)
    wait_for(lambda: "iteration 12/" in ranks[0].text, "the first steps")
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
        ("stuck_on_rank_1", "hangs: at 'iteration 4: forward and backward pass of micro-batch 1' for"),
    ],
)
def test_a_rank_that_fails_or_hangs_ends_the_other(tmp_path: Path, flags: Flags, spoil: str, words: str) -> None:
    ranks = start(tmp_path, flags, f"tests.pretrain.spoilers:{spoil}")
    codes = ends_with_codes(ranks)
    assert codes[0] == 1
    assert codes[1] in ((1, -signal.SIGKILL) if spoil == "stuck_on_rank_1" else (1,))  # whoever is quicker
    (line,) = errors(ranks[0])
    assert line.startswith("error: rank 1 ")
    assert words in line
    assert errors(ranks[1]) == []
    assert ("Traceback" in ranks[1].text) == (spoil == "fault_on_rank_1")


def ends_with_codes(ranks: list[Rank]) -> list[int]:
    return [rank.end(60) for rank in ranks]
