"""Stages of a pipeline: plain commands that run once, are shown as typed, and are left alone while nothing changes.

A stage has a name, a command, the stages it builds on and the files it makes. Its stamp holds a fingerprint of the
command and of everything before it; while the stamp agrees and the files are there, the stage is not run again. Stages
that don't build on each other run side by side.
"""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from tape.errors import ConfigError, ProteinLMError
from tape.io.atomic import atomic_write


class StageError(ProteinLMError):
    """A command ended with an exit code other than 0."""


@dataclass(frozen=True)
class Stage:
    """One command.

    Attributes:
        name: unique; the stamp's and the log's file name.
        command: as it would be typed in ``directory``.
        makes: files or directories that exist when it is done; its own old ones are removed before it runs again.
        after: stages whose results it reads.
        inputs: files and directories from outside the pipeline; a change of size or time runs it again.
        title: what the progress shows; the name when empty.
        live: show its output instead of collecting it in a log (it runs alone then).
        weight: expected share of the time, for the ETA.
        environment: variables to set.
    """

    name: str
    command: tuple[str, ...]
    makes: tuple[Path, ...]
    after: tuple[str, ...] = ()
    inputs: tuple[Path, ...] = ()
    title: str = ""
    live: bool = False
    weight: float = 1.0
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass
class Pipeline:
    """Runs stages in order of what they build on, up to ``jobs`` at once.

    Args:
        stages: each after the stages that it names.
        records: directory of stamps and logs.
        directory: where the commands run.
        jobs: how many at once.

    Raises:
        ConfigError: a stage would write over what one of them reads.
    """

    stages: Sequence[Stage]
    records: Path
    directory: Path
    jobs: int = 1

    def __post_init__(self) -> None:
        self._fingerprints: dict[str, str] = {}
        for stage in self.stages:
            self._fingerprints[stage.name] = self._fingerprint(stage)
        self._check_inputs()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopping = False

    def run(self) -> dict[str, float]:
        """Run what is not up to date; returns the seconds of each stage that ran.

        Raises:
            ConfigError: where a stage writes, there is something that it has not made; nothing has run or changed.
            StageError: a command failed; the others are ended. Its text holds the command and the end of its log.
        """
        todo = {stage.name: stage for stage in self.stages if not self._up_to_date(stage)}
        for stage in self.stages:  # what builds on something that runs again runs again too
            if any(before in todo for before in stage.after):
                todo.setdefault(stage.name, stage)
        for stage in todo.values():
            self._check_places(stage)
        skipped = len(self.stages) - len(todo)
        if skipped:
            print(f"{skipped} of {len(self.stages)} stages are up to date (stamps in {self.records})", flush=True)
        seconds: dict[str, float] = {}
        total = sum(stage.weight for stage in todo.values())
        layout = "all stages {percentage:3.0f}%|{bar:24}| {elapsed} elapsed, about {remaining} left"
        # A bar that moves needs a terminal; a file gets one line a finished stage.
        with tqdm(
            total=total, bar_format=layout, disable=not (todo and sys.stderr.isatty()), dynamic_ncols=True
        ) as bar:
            self._run_all(todo, seconds, bar)
        return seconds

    def _run_all(self, todo: dict[str, Stage], seconds: dict[str, float], bar: tqdm) -> None:
        waiting = dict(todo)
        running: dict[Future[float], Stage] = {}
        start = time.monotonic()
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                while waiting or running:
                    for stage in self._startable(waiting, running, seconds, todo):
                        del waiting[stage.name]
                        tqdm.write(f"\n[{len(todo) - len(waiting)}/{len(todo)}] {stage.title or stage.name}")
                        tqdm.write(f"  $ {shown(stage)}")
                        running[pool.submit(self._run_one, stage)] = stage
                    done, _ = wait(running, return_when=FIRST_COMPLETED, timeout=1.0)
                    bar.refresh()  # the clock goes on while a stage runs
                    for future in done:
                        stage = running.pop(future)
                        seconds[stage.name] = future.result()
                        bar.update(stage.weight)
                        if bar.disable:
                            print(_finished(stage, seconds, todo, time.monotonic() - start), flush=True)
            except BaseException:
                self._stop()
                raise

    def _startable(
        self,
        waiting: dict[str, Stage],
        running: dict[Future[float], Stage],
        finished: Mapping[str, float],
        todo: Mapping[str, Stage],
    ) -> list[Stage]:
        """Stages that may start now, as many as there is room for."""
        if any(stage.live for stage in running.values()):
            return []
        ready = [
            stage for stage in waiting.values() if all(name in finished or name not in todo for name in stage.after)
        ]
        if ready and ready[0].live:
            return ready[:1] if not running else []
        return [stage for stage in ready if not stage.live][: self.jobs - len(running)]

    def _run_one(self, stage: Stage) -> float:
        self._stamp(stage).unlink(missing_ok=True)
        self._clear(stage)
        log = self.records / f"{stage.name}.log"
        start = time.monotonic()
        environment = {**os.environ, **stage.environment}
        with log.open("wb") as stream:
            output = None if stage.live else stream
            process = subprocess.Popen(
                stage.command,
                cwd=self.directory,
                env=environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )
            self._follow(process)
        if process.returncode:
            raise StageError(f"this command failed (exit code {process.returncode}):\n  {shown(stage)}{_tail(log)}")
        missing = [str(path) for path in stage.makes if not path.exists()]
        if missing:
            raise StageError(f"{shown(stage)}\n  ended without an error but did not write {', '.join(missing)}")
        with atomic_write(self._stamp(stage), "w") as stamp:
            stamp.write(self._fingerprints[stage.name])
        return time.monotonic() - start

    def _check_inputs(self) -> None:
        inputs = {path.resolve() for stage in self.stages for path in stage.inputs}
        for made in (path.resolve() for stage in self.stages for path in stage.makes):
            for path in inputs:
                if made == path or made in path.parents:
                    raise ConfigError(f"{path} is to be read, but {made} to be written; choose another place for one")

    def _check_places(self, stage: Stage) -> None:
        """Nothing is removed but what a record says this stage has made."""
        for path in stage.makes:
            empty = path.is_dir() and not any(path.iterdir())
            if path.exists() and not empty and self._place(path) not in self._recorded_places(stage):
                raise ConfigError(
                    f"{path} exists and was not made here; choose another place for the output, or move it"
                )

    def _clear(self, stage: Stage) -> None:
        """Remove what an earlier run has made, and record what this one will make."""
        for path in stage.makes:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        with atomic_write(self._places_record(stage), "w") as stream:
            stream.writelines(f"{self._place(path)}\n" for path in stage.makes)

    def _recorded_places(self, stage: Stage) -> list[str]:
        record = self._places_record(stage)
        return record.read_text(encoding="utf-8").splitlines() if record.is_file() else []

    def _places_record(self, stage: Stage) -> Path:
        return self.records / f"{stage.name}.makes"

    def _place(self, path: Path) -> str:
        """As seen from the records, so that all of it may be moved."""
        return os.path.relpath(path, self.records)

    def _follow(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes.add(process)
            if self._stopping:
                process.terminate()
        process.wait()
        with self._lock:
            self._processes.discard(process)

    def _stop(self) -> None:
        with self._lock:
            self._stopping = True
            for process in self._processes:
                process.terminate()

    def _stamp(self, stage: Stage) -> Path:
        return self.records / f"{stage.name}.stamp"

    def _up_to_date(self, stage: Stage) -> bool:
        stamp = self._stamp(stage)
        made = all(path.exists() for path in stage.makes)
        return made and stamp.is_file() and stamp.read_text() == self._fingerprints[stage.name]

    def _fingerprint(self, stage: Stage) -> str:
        digest = hashlib.sha256(repr((stage.command, sorted(stage.environment.items()))).encode())
        for path in stage.inputs:
            for file in [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]:
                if file.is_file():
                    status = file.stat()
                    digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
        for name in stage.after:
            digest.update(self._fingerprints[name].encode())
        return digest.hexdigest()


def _finished(stage: Stage, seconds: Mapping[str, float], todo: Mapping[str, Stage], elapsed: float) -> str:
    """A line for the log: what ended, and how long the rest will take if it goes on like this."""
    done = sum(todo[name].weight for name in seconds)
    left = elapsed * (sum(other.weight for other in todo.values()) - done) / done
    minutes, rest = divmod(round(left), 60)
    return f"  {stage.title or stage.name}: {seconds[stage.name]:.0f} s; about {minutes}:{rest:02d} left"


def shown(stage: Stage) -> str:
    """The command as a user would type it."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in stage.environment.items()]
    command = ["python" if word == sys.executable else word for word in stage.command]
    return " ".join([*variables, shlex.join(command)])


def _tail(log: Path, lines: int = 15) -> str:
    text = log.read_text(errors="replace").splitlines()
    return "".join(f"\n  | {line}" for line in text[-lines:]) + (f"\n  whole log: {log}" if text else "")
