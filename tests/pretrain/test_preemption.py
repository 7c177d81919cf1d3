"""Preemption: a stop signal leads to a checkpoint and exit code 0, and the run resumes with the same losses."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tape.runtime.stop_signals import STOP_SIGNALS
from tests.support.ranks import start_ranks, wait_for

Flags = Callable[..., list[str]]


def children(process: int) -> list[int]:
    """The running children of a process, from /proc."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended in the meantime
            state, parent = status.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == process and state != "Z":
                found.append(int(status.parent.name))
    return found


def is_running(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc")
def test_workers_survive_a_signal_to_the_process_group_and_end_with_their_run(tmp_path: Path, flags: Flags) -> None:
    """Schedulers signal all processes, repeatedly. After kill -9 of the main process, its workers end by themselves."""
    options = flags("--num-workers", 2, "--log-interval", 1, "--eval-iters", 0, train_iters=5000)
    (killed,) = start_ranks(options, tmp_path / "killed")
    (signaled,) = start_ranks([*options, "--save", str(tmp_path / "run")], tmp_path / "signaled")
    for rank in (killed, signaled):
        wait_for(lambda rank=rank: "iteration 4/" in rank.text, "the first steps", 120)  # type: ignore[misc]
    orphans, workers = children(killed.pid), children(signaled.pid)
    assert len(orphans) == len(workers) == 2
    killed.process.kill()
    for number in STOP_SIGNALS:
        for process in (*workers, signaled.pid):
            with contextlib.suppress(ProcessLookupError):  # it has ended already
                os.kill(process, number)
    assert signaled.end(60) == 0, signaled.text
    assert "exiting after iteration" in signaled.text
    assert f"saved {tmp_path / 'run'}/iter_" in signaled.text
    wait_for(lambda: not any(map(is_running, (*orphans, *workers))), "the end of the workers", 30)


@pytest.mark.distributed
def test_torchrun_forwards_the_signal_and_the_run_resumes(
    tmp_path: Path, flags: Flags, repository_root: Path, records: Callable[..., list[dict[str, Any]]]
) -> None:
    """SIGTERM reaches torchrun, two ranks and their workers; the resumed run equals an uninterrupted one."""
    save, straight = tmp_path / "run", tmp_path / "straight"
    options = flags("--log-interval", 1, "--eval-interval", 3, train_iters=5000, dropout=0.1)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(repository_root / "pretrain" / "pretrain_tape.py")
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*launcher, script, *options, "--num-workers", "2", "--save", str(save), "--load", str(save)],
            stdout=log,
            stderr=log,
            env={**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        )
        wait_for(lambda: "iteration 4/" in (tmp_path / "log").read_text(), "the first steps", 120)
        process.terminate()
        process.wait(60)
    text = (tmp_path / "log").read_text()
    assert "SIGTERM: exiting after iteration" in text
    assert f"saved {save}/iter_" in text
    assert "FAILED" not in text  # torchrun prints it if a rank has another exit code than 0
    stopped = int((save / "latest_checkpointed_iteration.txt").read_text())
    assert records(save)[-1]["iteration"] == stopped
    for folder, load in ((save, ("--load", save)), (straight, ())):
        stop = ("--exit-interval", stopped + 2, "--eval-interval", 3)
        command = flags(*stop, "--save", folder, *load, train_iters=5000, dropout=0.1)
        codes = [rank.end(120) for rank in start_ranks(command, tmp_path / "logs", 2)]
        assert codes == [0, 0]
    for kind, value in (("train", "lm_loss"), ("evaluation", "validation_loss")):
        curves = [[(r["iteration"], r[value]) for r in records(folder, kind)] for folder in (save, straight)]
        assert curves[0] == curves[1]
        assert curves[0]


def test_exit_duration_saves_a_checkpoint_and_exits(
    tmp_path: Path, flags: Flags, pretrain_here: Callable[[list[str]], None], capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--save", tmp_path, "--load", tmp_path, "--exit-duration-in-mins", 0.01, "--eval-interval", 1)
    pretrain_here(flags(*options, train_iters=100_000))
    out = capsys.readouterr().out
    assert "--exit-duration-in-mins 0.01: exiting after iteration" in out
    last = (tmp_path / "latest_checkpointed_iteration.txt").read_text().strip().zfill(7)
    assert f"iter_{last}\n" in out[out.index("exiting after iteration") :]
