#!/usr/bin/env python
"""Verify that a run resumes exactly: compare an uninterrupted run, bit for bit, with one that is killed repeatedly.

    python pretrain/tools/verify_resume.py --kills 20 --directory /scratch/verify -- \\
        --num-layers 2 --hidden-size 64 ... --train-iters 200 --save-interval 20
    python pretrain/tools/verify_resume.py --kills 5 -- \\
        torchrun --nproc-per-node 2 pretrain/pretrain_tape.py --num-layers 2 ...

The arguments after ``--`` are flags of pretrain_tape.py, or a complete command that ends with them. The command runs
twice, each time with its own directory for ``--save`` and ``--load``: once without interruption, and once with
``kill -9`` at random times between the start of the process and its last checkpoint. Then all records of the two
metrics.jsonl, except timings, and all weights of the last checkpoints must be bit-identical. The exit code is 0 if they
are, and 1 if not.

A process that is faster than expected is killed at a fixed fraction of the iterations, so that every kill finds a
running process. Choose a run of about a minute whose ``--save-interval`` is shorter than the time between kills.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[2])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

from pretrain.train.metrics_schema import METRICS_NAME, TIMING_FIELDS
from tape.cli.parser import ArgumentParser
from tape.errors import ConfigError, ProteinLMError, run_cli
from tape.io.json_files import parse_json
from tape.io.writing import scratch_directory

# The modules that use torch are imported where they are needed, so that --help takes a fraction of a second.

_SCRIPT = Path(__file__).resolve().parents[1] / "pretrain_tape.py"
_POLL_SECONDS = 0.01


@dataclass(frozen=True)
class Kill:
    """Observations of one killed process.

    Attributes:
        seconds: time from its start to the kill.
        started_from: iteration of the checkpoint that it resumed from.
        reached: last iteration in metrics.jsonl; None if the process had not written a record.
        saving: whether it was writing a checkpoint.
    """

    seconds: float
    started_from: int
    reached: int | None
    saving: bool


def main() -> int:
    options, command = _parse(sys.argv[1:])
    with scratch_directory("verify_resume_") as scratch:
        directory = Path(options.directory or scratch)
        return verify(command, directory, options.kills, options.seed)


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    own, separator, command = _divide(list(arguments))
    parser = ArgumentParser(
        prog="verify_resume.py",
        description="Verify that a pretraining run resumes exactly after kill -9.",
        usage="%(prog)s [--kills N] [--seed S] [--directory D] -- FLAGS or COMMAND",
    )
    parser.add_argument("--kills", type=int, default=5, help="number of kills (5)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the times of the kills (0)")
    parser.add_argument("--directory", help="directory of both runs, which is kept (default: a temporary one)")
    options = parser.parse_args(own)
    if not separator or not command:
        raise ConfigError("give the flags of pretrain_tape.py, or a command that ends with them, after --")
    if options.kills < 1:
        raise ConfigError(f"--kills must be at least 1, not {options.kills}")
    if command[0].startswith("-"):
        command = [sys.executable, str(_SCRIPT), *command]
    return options, command


def _divide(arguments: list[str]) -> tuple[list[str], str, list[str]]:
    if "--" not in arguments:
        return arguments, "", []
    at = arguments.index("--")
    return arguments[:at], "--", arguments[at + 1 :]


def verify(command: Sequence[str], directory: Path, kills: int, seed: int) -> int:
    """Run the command twice, kill the second run repeatedly, compare both and print a table.

    Returns:
        The exit code: 0 if both runs are identical.

    Raises:
        ProteinLMError: if a run fails by itself.
    """
    straight, killed = directory / "straight", directory / "killed"
    for path in (straight, killed):
        if path.exists():
            raise ConfigError(f"{path} exists already; choose another --directory")
        path.mkdir(parents=True)
    startup, seconds = _run_to_the_end(command, straight)
    iterations = _last_iteration(straight)
    if not iterations:
        raise ProteinLMError(f"the run left no records in {straight}: is what follows -- a run of pretrain_tape.py?")
    print(f"straight through: {seconds:.1f} s ({startup:.1f} s to start), {iterations} iterations", flush=True)
    print("kill | after s | began at | reached | while", flush=True)
    random_moment = random.Random(seed)
    for number in range(1, kills + 1):
        # Any time from the start on; on average early enough that iterations are left for the remaining kills.
        life = random_moment.uniform(0, startup + 2 * (seconds - startup) / (kills + 1))
        kill = _run_and_kill(command, killed, life, until=iterations * number // (kills + 1))
        if kill is None:
            print(f"{number:4} | the run was already complete: use a longer run or fewer --kills", flush=True)
            break
        print(_row(number, kill), flush=True)
    _, seconds = _run_to_the_end(command, killed)
    print(f"to the end: {seconds:.1f} s", flush=True)
    return _compare(straight, killed)


def _row(number: int, kill: Kill) -> str:
    doing = "saving" if kill.saving else "starting" if kill.reached is None else "training"
    reached = "-" if kill.reached is None else kill.reached
    return f"{number:4} | {kill.seconds:7.2f} | {kill.started_from:8} | {reached!s:>7} | {doing}"


def _start(command: Sequence[str], directory: Path) -> subprocess.Popen[bytes]:
    flags = ("--save", str(directory), "--load", str(directory))
    with (directory / "output.log").open("ab") as log:
        return subprocess.Popen([*command, *flags], stdout=log, stderr=log, start_new_session=True)


def _run_to_the_end(command: Sequence[str], directory: Path) -> tuple[float, float]:
    """Seconds until the first record and until the end."""
    began, startup = time.monotonic(), None
    process = _start(command, directory)
    while process.poll() is None:
        if startup is None and _text(directory / METRICS_NAME):
            startup = time.monotonic() - began
        time.sleep(_POLL_SECONDS)
    if process.returncode != 0:
        lines = (directory / "output.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        raise ProteinLMError(
            f"the run ended with exit code {process.returncode}: {lines[-1] if lines else 'no output'}"
        )
    seconds = time.monotonic() - began
    return startup or seconds, seconds


def _run_and_kill(command: Sequence[str], directory: Path, seconds: float, until: int) -> Kill | None:
    """Run for some seconds or until an iteration, and kill all processes of the run; None if it finished before."""
    from pretrain.checkpointing import find_checkpoint

    checkpoint = find_checkpoint(directory)
    began_at = int(checkpoint.name.removeprefix("iter_")) if checkpoint is not None else 0
    before = _last_written(directory)
    abandoned = set(directory.glob(".iter_*.tmp"))  # by an earlier process; the next save removes it
    process, began = _start(command, directory), time.monotonic()
    seen, reached_its_share = before, False
    while time.monotonic() - began < seconds and not reached_its_share:
        if process.poll() is not None:
            if process.returncode != 0:
                raise ProteinLMError(f"the run ended with exit code {process.returncode}; see {directory}/output.log")
            return None
        time.sleep(_POLL_SECONDS)
        if (written := _last_written(directory)) != seen:
            seen, reached_its_share = written, _last_iteration(directory) >= until
    kill_family(process.pid)
    process.wait()
    reached = _last_iteration(directory) if _last_written(directory) != before else None
    saving = bool(set(directory.glob(".iter_*.tmp")) - abandoned)
    return Kill(time.monotonic() - began, began_at, reached, saving)


def _last_written(directory: Path) -> int | None:
    """Modification time of metrics.jsonl in nanoseconds; None if it does not exist."""
    with suppress(FileNotFoundError):
        return (directory / METRICS_NAME).stat().st_mtime_ns
    return None


def kill_family(process: int) -> None:
    """Kill a process and all its descendants; a process group is not enough, because torchrun's ranks have sessions.

    Each process is stopped before its children are listed, so that it cannot start another one in between.
    """
    family = [process]
    for member in family:
        with suppress(ProcessLookupError):
            os.kill(member, signal.SIGSTOP)
        family.extend(_children_of(member))
    for member in family:
        with suppress(ProcessLookupError):
            os.kill(member, signal.SIGKILL)


def _children_of(process: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = path.read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[1]
            if int(parent) == process:
                found.append(int(path.parent.name))
    return found


def _records(directory: Path) -> list[dict[str, Any]]:
    """Records of steps and evaluations in metrics.jsonl without timings; incomplete lines of killed processes are
    skipped."""
    records = []
    for line in _text(directory / METRICS_NAME).splitlines():
        with suppress(ValueError):
            record = parse_json(line)
            if record["kind"] != "start":  # every start of the run writes one
                records.append({name: value for name, value in record.items() if name not in TIMING_FIELDS})
    return records


def _text(path: Path) -> str:
    """Content of a file, empty if it does not exist: a start without a checkpoint moves earlier records away."""

    with suppress(FileNotFoundError):
        return path.read_text(encoding="utf-8")
    return ""


def _last_iteration(directory: Path) -> int:
    return max((int(record.get("iteration", 0)) for record in _records(directory)), default=0)


def _compare(straight: Path, killed: Path) -> int:
    import torch

    from pretrain.checkpointing import find_checkpoint, load_full_checkpoint

    one, two = _records(straight), _records(killed)
    differing = [(a, b) for a, b in zip(one, two, strict=False) if a != b]
    weights = [path for path in (straight, killed) if find_checkpoint(path) is not None]
    first, second = (load_full_checkpoint(path).model for path in (straight, killed)) if len(weights) == 2 else ({}, {})
    changed = [name for name in first if not torch.equal(first[name], second[name])]
    print(
        f"records: {len(one)} and {len(two)}, {len(differing)} differ; weights: {len(changed)} of {len(first)} differ"
    )
    if differing:
        print(f"first difference:\n  {differing[0][0]}\n  {differing[0][1]}")
    same = one == two and not changed and first.keys() == second.keys()
    print("the same bits" if same else "NOT the same")
    return 0 if same else 1


if __name__ == "__main__":
    sys.exit(run_cli(main))
