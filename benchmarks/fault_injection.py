#!/usr/bin/env python
"""Interrupt commands by signals or a full disk, start them again, and compare the result with an undisturbed one.

    python benchmarks/fault_injection.py kill --kills 20               every command, 20 times kill -9 each
    python benchmarks/fault_injection.py kill --signals TERM INT HUP --kills 10
    python benchmarks/fault_injection.py kill --commands train embed --kills 5 --seed 7
    python benchmarks/fault_injection.py disk-full --trials 8

The commands run on the packaged sample with tiny models: ``prepare``, ``preprocess``, ``download`` (from a local web
server), ``pretrain``, ``convert`` (to a new directory), ``replace`` (over another model), ``train``, ``embed``,
``predict``, ``score``, ``contacts``, ``evaluate`` and ``report``; ``quickstart`` only if it is named, since it takes
minutes. Each command runs once without interruption. Then:

- ``kill``: it gets a signal, half of the times at a random moment, half of the times right after a temporary file has
  appeared, and the same command is started again (for ``train`` with ``--resume_from_checkpoint`` once an epoch has
  been saved). When a run ends by itself, its result is compared, and the next run starts from nothing. ``kill -9``
  goes to the process and all its descendants. Another signal goes to the process alone, as a scheduler's, or to its
  process group, as a terminal's; the command must end with the exit code 128 + the signal's number (0 if it has saved
  its state or finished; by the signal itself while Python starts or exits), one line, no traceback, no temporary file
  and no process that outlives it.
- ``disk-full``: it runs where only a random part of its output fits: on a tmpfs of that size with root, else with a
  limit on the size of files (``RLIMIT_FSIZE``). It must end with one ``error:`` line that names a file and the free
  space. Then it is started again with enough space.

Every result must have the same files with the same weights, data, metrics and losses as the undisturbed one. Nothing
else may remain: no temporary file, journal or lock. Prints a table, and exits with 1 if a result differs, a command
refuses to start again, or something is left behind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from mmap import PAGESIZE
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

from benchmarks.faults.commands import COMMANDS, DEFAULT, Command, local_site, make_inputs
from benchmarks.faults.runs import Run, check, temporary_files
from benchmarks.loss_compare import leaves, load
from tape.cli.parser import ArgumentParser
from tape.errors import run_cli

SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT, "HUP": signal.SIGHUP}
_DELAYS = (0.0, 0.0, 0.001, 0.003, 0.01, 0.03, 0.1)  # seconds from a new temporary file to the interruption
_MOST_RESTARTS = 3

Files = dict[str, str]  # name -> SHA-256 of what is compared


@dataclass
class Tally:
    """Counts of one command, and descriptions of its problems."""

    command: str
    interrupted: int = 0
    writing: int = 0
    finished: int = 0
    problems: list[str] = field(default_factory=list)

    def row(self) -> str:
        verdict = "equal, nothing left" if not self.problems else f"{len(self.problems)} problems"
        return f"| {self.command} | {self.interrupted} | {self.writing} | {self.finished} | {verdict} |"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fault_injection_") as scratch, _working_directory(scratch):
        chosen = [COMMANDS[name] for name in options.commands]
        with local_site() as url:
            if any(command.needs_inputs for command in chosen):
                make_inputs(url)
            tallies = [options.run(command, options) for command in chosen]
    print(f"\n| command | {options.title} | while writing | ended by itself | results |\n|:--|--:|--:|--:|:--|")
    for tally in tallies:
        print(tally.row())
    problems = [f"{tally.command}: {problem}" for tally in tallies for problem in tally.problems]
    print("\n".join(["", *problems] if problems else ["", "all results are equal, nothing is left behind"]))
    return 1 if problems else 0


def inject_kills(command: Command, options: argparse.Namespace) -> Tally:
    """Send signals to a command ``options.kills`` times, each time in a run that continues the one before."""
    tally, chance = Tally(command.name), random.Random(f"{command.name} {options.seed}")
    signals = random.Random(f"signals of {command.name} {options.seed}")  # moments don't depend on --signals
    out = Path(command.name)
    began = time.monotonic()
    expected = _undisturbed(command, out)
    seconds = time.monotonic() - began
    _start_over(command, out)
    while tally.interrupted < options.kills:
        moment = chance.uniform(0.1, 1.05 * seconds) if chance.random() < 0.5 else None
        number, to_group = SIGNALS[signals.choice(options.signals)], signals.random() < 0.5
        run = Run(command.words(out))
        if run.wait_for(moment, out, chance.choice(_DELAYS)):
            tally.interrupted += 1
            tally.writing += moment is None
            if number == signal.SIGKILL:
                run.kill()
            else:
                when = "while writing" if moment is None else f"after {moment:.2f} s"
                problems = run.stop(number, to_group) + [f"{path} is left" for path in temporary_files(out)]
                tally.problems += [f"{number.name} {when}: {problem}" for problem in problems]
            continue
        tally.finished += 1
        tally.problems += _examine(run, out, expected)
        _start_over(command, out)
    tally.problems += _finish(command, out, expected)
    print(f"{command.name}: {tally.interrupted} signals, {len(tally.problems)} problems", flush=True)
    return tally


def inject_full_disks(command: Command, options: argparse.Namespace) -> Tally:
    """Run a command ``options.trials`` times with too little space, and again with enough."""
    tally, chance = Tally(command.name), random.Random(f"{command.name} {options.seed}")
    out = Path(command.name)
    expected = _undisturbed(command, out)
    sizes = [path.stat().st_size for path in out.rglob("*") if path.is_file()]
    pages = sum(math.ceil(size / PAGESIZE) for size in sizes)
    for _ in range(options.trials):
        share = chance.uniform(0, 0.95)
        shutil.rmtree(out)
        with _SmallDisk(out) as disk:
            command.prepare(out)
            disk.limit(int(share * pages))
            run = Run(command.words(out), None if disk.is_mounted else int(share * max(sizes)))
            if run.wait() == 0:
                tally.finished += 1
                tally.problems += _examine(run, out, expected)
                continue
            tally.interrupted += 1
            if not _is_one_line(run.output()):
                tally.problems.append(f"with {share:.0%} of the space: {run.output()[-400:]!r}")
            disk.enlarge()
            tally.problems += _finish(command, out, expected)
    print(f"{command.name}: {tally.interrupted} full disks, {len(tally.problems)} problems", flush=True)
    return tally


def _is_one_line(output: str) -> bool:
    """Whether the output of a failed command has one error with the free space, and no traceback."""
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    return len(errors) == 1 and "Traceback" not in output and ("are free" in errors[0] or "No space" in errors[0])


class _SmallDisk:
    """A tmpfs at a directory inside the block, if it can be mounted; otherwise the directory as it is."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.is_mounted = folder, False

    def __enter__(self) -> _SmallDisk:
        self._folder.mkdir()
        self.is_mounted = shutil.which("mount") is not None and self._mount("size=1g")
        if self.is_mounted:
            self._used = tempfile.TemporaryFile(dir=self._folder, buffering=0)  # an empty tmpfs can't be full
            self._used.write(bytes(PAGESIZE))
        return self

    def limit(self, pages: int) -> None:
        """Leave space for so many pages beside the present content."""
        if self.is_mounted:
            self._mount(f"remount,size={shutil.disk_usage(self._folder).used + pages * PAGESIZE}")

    def enlarge(self) -> None:
        """Give the disk enough space."""
        if self.is_mounted:
            self._mount("remount,size=1g")

    def _mount(self, options: str) -> bool:
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._folder)]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def __exit__(self, *_: object) -> None:
        if self.is_mounted:
            self._used.close()
            subprocess.run(["umount", "-l", str(self._folder)], check=True)


def _start_over(command: Command, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    command.prepare(out)


def _undisturbed(command: Command, out: Path) -> Files:
    _start_over(command, out)
    check(command.words(out))
    return compared_files(out)


def _finish(command: Command, out: Path, expected: Files) -> list[str]:
    """Run a command until it ends, and compare its result; descriptions of problems."""
    for _ in range(_MOST_RESTARTS):
        run = Run(command.words(out))
        if run.wait() == 0:
            return _examine(run, out, expected)
    return [f"can't be finished: {run.output()[-400:]!r}"]


def _examine(run: Run, out: Path, expected: Files) -> list[str]:
    if run.wait() != 0:
        return [f"does not start again: {run.output()[-400:]!r}"]
    found = compared_files(out)
    problems = [f"{name} differs" for name in expected if name in found and found[name] != expected[name]]
    problems += [f"{name} is missing" for name in expected.keys() - found.keys()]
    return problems + [f"{name} is left behind" for name in sorted(found.keys() - expected.keys())]


def compared_files(out: Path) -> Files:
    """All files below a directory, with a sum of the numbers that must not depend on interruptions.

    Not listed are TensorBoard's files, of which each start of a command writes one, and the records of an earlier start
    of pretraining that had not saved a checkpoint.
    """
    paths = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {
        path.relative_to(out).as_posix(): _digest(path)
        for path in paths
        if not path.match("events.*") and not path.match("metrics.[0-9]*.jsonl")
    }


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for name, value in _values(path):
        digest.update(name.encode())
        digest.update(value if isinstance(value, bytes) else repr(value).encode())
    return digest.hexdigest()


def _values(path: Path) -> Iterator[tuple[str, bytes | float]]:
    """Named numbers and bytes of a file; nothing for a file of logs, times or paths."""
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:  # whose own bytes contain times
            yield from ((name, archive.read(name)) for name in sorted(archive.namelist()))
    elif path.name == "metrics.jsonl":
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record.get("kind") != "start":  # each start of pretraining writes one
                yield from leaves(record, "metrics")
    elif path.match("conversion.json"):
        yield from leaves(json.loads(path.read_text(encoding="utf-8"))["certificate"], "certificate")
    elif path.suffix in (".csv", ".md") or path.name == "regression.json":
        yield path.name, path.read_bytes()
    elif path.name == "data.mdb":
        yield from leaves(load(path.parent), path.parent.name)
    else:
        yield from leaves(load(path), path.name)


@contextmanager
def _working_directory(path: str) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    kill = commands.add_parser("kill", help="signals at random moments")
    kill.add_argument("--kills", type=int, default=20, metavar="N", help="signals per command (default %(default)s)")
    kill.add_argument(
        "--signals",
        nargs="+",
        choices=SIGNALS,
        default=["KILL"],
        metavar="SIGNAL",
        help=f"signals to choose from: {', '.join(SIGNALS)} (default KILL)",
    )
    kill.set_defaults(run=inject_kills, title="signals")
    disk = commands.add_parser("disk-full", help="too little space on the disk")
    disk.add_argument("--trials", type=int, default=8, metavar="N", help="runs per command (default %(default)s)")
    disk.set_defaults(run=inject_full_disks, title="full disks")
    for subparser in (kill, disk):
        subparser.add_argument(
            "--commands", nargs="+", choices=COMMANDS, default=DEFAULT, metavar="COMMAND", help=f"{', '.join(COMMANDS)}"
        )
        subparser.add_argument("--seed", type=int, default=0, help="seed of the moments and sizes (default 0)")
    return parser


if __name__ == "__main__":
    sys.exit(run_cli(main))
