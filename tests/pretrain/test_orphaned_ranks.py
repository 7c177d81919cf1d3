"""kill -9 of torchrun: its ranks save and end, and the same command, started again at once, resumes the run."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pretrain.checkpointing import find_checkpoint
from tape.runtime.process_identity import ProcessIdentity, identify
from tape.runtime.run_lock import lock_in, read_owner
from tests.support.ranks import wait_for

Flags = Callable[..., list[str]]
Records = Callable[..., list[dict[str, Any]]]

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc"),
]


def children_of(process: int) -> list[ProcessIdentity]:
    lists = Path(f"/proc/{process}/task").glob("*/children")
    return [identify(int(number)) for path in lists for number in path.read_text(encoding="ascii").split()]


def test_ranks_end_with_torchrun_and_the_restarted_run_goes_on(
    tmp_path: Path, flags: Flags, records: Records, repository_root: Path
) -> None:
    save, log = tmp_path / "run", tmp_path / "log"
    words = flags("--save", save, "--load", save, "--save-interval", 10, "--eval-iters", 0, train_iters=200)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, str(repository_root / "pretrain" / "pretrain_tape.py"), *words]
    environment = os.environ | {"CUDA_VISIBLE_DEVICES": ""}
    with log.open("w") as stream, subprocess.Popen(command, env=environment, stdout=stream, stderr=stream) as first:
        wait_for(lambda: find_checkpoint(save) is not None, "a checkpoint", 120)
        ranks, owner = children_of(first.pid), read_owner(lock_in(save))
        first.kill()
    assert len(ranks) == 2
    assert owner is not None
    assert owner.process in ranks
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    shown = again.stdout + again.stderr
    assert again.returncode == 0, shown
    assert all(rank.has_ended() for rank in ranks)
    # The rank that notices first stops all ranks after the current step, so that the other may end without a message.
    assert f"error: torchrun (process {first.pid}) has ended" in log.read_text()
    assert "resuming from iteration" in shown
    assert find_checkpoint(save) == save / "iter_0000200"
    iterations = [record["iteration"] for record in records(save)]
    assert iterations == sorted(set(iterations))
    assert not lock_in(save).exists()
