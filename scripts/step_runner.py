"""Runs the steps of a workflow: commands that are printed as typed and repeated only if something has changed.

A step has a name, a command, the steps it depends on and the files it makes. Its stamp file holds a fingerprint of the
command, its inputs and its dependencies; while the fingerprint agrees and the files exist, the step is not run again.
Independent steps run at the same time. All commands end with the runner, also after ``kill -9`` (on Linux).
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
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path

from tqdm import tqdm

from tape.errors import ConfigError, ProteinLMError
from tape.io.writing import atomic_write

# Time for a command to save and clean up after SIGTERM; torchrun gives its ranks 30 seconds.
_GRACE_SECONDS = 60.0
_RUN_WITH_PARENT = Path(__file__).with_name("run_with_parent.py")


class StepError(ProteinLMError):
    """A command failed, or did not write its files."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: unique name, also that of the stamp and log files.
        command: program and arguments, run in the runner's ``directory``.
        makes: files or directories that exist when the step has finished; they are removed before it runs again.
        after: names of the steps whose results it reads.
        inputs: files and directories that no step makes; the step runs again if their size or time changes.
        title: text shown in the progress; empty: the name.
        live: show the output on the terminal instead of writing it to a log; the step then runs alone.
        weight: expected share of the total time, for the estimate of the remaining time.
        environment: environment variables to set.
        missing: what the results lack after exit code 0, as text, for a command that saves its state and ends with it
            after a stop signal; empty: they are complete.
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
    missing: Callable[[], str] = str


@dataclass
class StepRunner:
    """Runs steps in the order of their dependencies, up to ``jobs`` at the same time.

    Args:
        steps: all steps, each after those it depends on.
        records: directory of the stamp and log files.
        directory: working directory of the commands.
        jobs: maximum number of steps at the same time.

    Raises:
        ConfigError: a step would overwrite an input of a step.
    """

    steps: Sequence[Step]
    records: Path
    directory: Path
    jobs: int = 1

    def __post_init__(self) -> None:
        self._fingerprints: dict[str, str] = {}
        for step in self.steps:
            self._fingerprints[step.name] = self._fingerprint(step)
        self._check_inputs()
        self._processes: set[subprocess.Popen[bytes]] = set()
        self._lock = threading.Lock()
        self._stopping = False

    def run(self) -> dict[str, float]:
        """Run the steps that are not up to date; returns the duration of each in seconds.

        Raises:
            ConfigError: a step would overwrite a file that it has not made; no step has run.
            StepError: a command failed, and the other commands were terminated. The message has the command and the
                end of its log.
        """
        todo = {step.name: step for step in self.steps if not self._up_to_date(step)}
        for step in self.steps:  # the dependents of a step that runs run again too
            if any(before in todo for before in step.after):
                todo.setdefault(step.name, step)
        for step in todo.values():
            self._check_overwriting(step)
        skipped = len(self.steps) - len(todo)
        if skipped:
            print(f"{skipped} of {len(self.steps)} steps are up to date (stamps in {self.records})", flush=True)
        seconds: dict[str, float] = {}
        total = sum(step.weight for step in todo.values())
        layout = "all steps {percentage:3.0f}%|{bar:24}| {elapsed} elapsed, about {remaining} left"
        # A progress bar in a terminal; in a log file, one line per finished step.
        with tqdm(
            total=total, bar_format=layout, disable=not (todo and sys.stderr.isatty()), dynamic_ncols=True
        ) as bar:
            self._run_all(todo, seconds, bar)
        return seconds

    def _run_all(self, todo: dict[str, Step], seconds: dict[str, float], bar: tqdm) -> None:
        waiting = dict(todo)
        running: dict[Future[float], Step] = {}
        start = time.monotonic()
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                while waiting or running:
                    for step in self._startable(waiting, running, seconds, todo):
                        del waiting[step.name]
                        tqdm.write(f"\n[{len(todo) - len(waiting)}/{len(todo)}] {step.title or step.name}")
                        tqdm.write(f"  $ {command_line(step)}")
                        running[pool.submit(self._run_one, step)] = step
                    done, _ = wait(running, return_when=FIRST_COMPLETED, timeout=1.0)
                    bar.refresh()  # updates the elapsed time while a step runs
                    for future in done:
                        step = running.pop(future)
                        seconds[step.name] = future.result()
                        bar.update(step.weight)
                        if bar.disable:
                            print(_finished(step, seconds, todo, time.monotonic() - start), flush=True)
            except BaseException:
                self._terminate_all()
                raise

    def _startable(
        self,
        waiting: dict[str, Step],
        running: dict[Future[float], Step],
        finished: Mapping[str, float],
        todo: Mapping[str, Step],
    ) -> list[Step]:
        """Steps whose dependencies have finished, as many as may start now."""
        if any(step.live for step in running.values()):
            return []
        ready = [step for step in waiting.values() if all(name in finished or name not in todo for name in step.after)]
        if ready and ready[0].live:
            return ready[:1] if not running else []
        return [step for step in ready if not step.live][: self.jobs - len(running)]

    def _run_one(self, step: Step) -> float:
        self._stamp(step).unlink(missing_ok=True)
        self._remove_results(step)
        log = self.records / f"{step.name}.log"
        start = time.monotonic()
        environment = {**os.environ, **step.environment}
        with log.open("wb") as stream:
            output = None if step.live else stream
            process = subprocess.Popen(
                _with_parent(step.command),
                cwd=self.directory,
                env=environment,
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )
            self._wait_for(process)
        if process.returncode:
            text = f"this command failed (exit code {process.returncode}):"
            raise StepError(text, details=[f"  {command_line(step)}", *_end_of(log)])
        missing = [str(path) for path in step.makes if not path.exists()]
        if missing:
            text = f"this command succeeded but did not write {', '.join(missing)}:"
            raise StepError(text, details=[f"  {command_line(step)}"])
        lacking = step.missing()
        if lacking:
            text = f"this command was stopped before its end ({lacking}):"
            raise StepError(text, details=[f"  {command_line(step)}", "  the next run starts it again"])
        with atomic_write(self._stamp(step), "w") as stamp:
            stamp.write(self._fingerprints[step.name])
        return time.monotonic() - start

    def _check_inputs(self) -> None:
        inputs = {path.resolve() for step in self.steps for path in step.inputs}
        for made in (path.resolve() for step in self.steps for path in step.makes):
            for path in inputs:
                if made == path or made in path.parents:
                    raise ConfigError(
                        f"{path} is an input, but {made} would be overwritten; choose another path for one"
                    )

    def _check_overwriting(self, step: Step) -> None:
        """Refuse to remove files that, according to the records, this step has not made."""
        for path in step.makes:
            empty = path.is_dir() and not any(path.iterdir())
            if path.exists() and not empty and self._relative(path) not in self._recorded_paths(step):
                raise ConfigError(
                    f"{path} exists and was not made by this program; choose another output directory, or move it"
                )

    def _remove_results(self, step: Step) -> None:
        """Remove the results of an earlier run, and record the paths that this one will make."""
        for path in step.makes:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        with atomic_write(self._paths_record(step), "w") as stream:
            stream.writelines(f"{self._relative(path)}\n" for path in step.makes)

    def _recorded_paths(self, step: Step) -> list[str]:
        record = self._paths_record(step)
        return record.read_text(encoding="utf-8", errors="replace").splitlines() if record.is_file() else []

    def _paths_record(self, step: Step) -> Path:
        return self.records / f"{step.name}.makes"

    def _relative(self, path: Path) -> str:
        """The path relative to the records, so that results and records can be moved together."""
        return os.path.relpath(path, self.records)

    def _wait_for(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes.add(process)
            if self._stopping:
                process.terminate()
        process.wait()
        with self._lock:
            self._processes.discard(process)

    def _terminate_all(self) -> None:
        with self._lock:
            self._stopping = True
            for process in self._processes:
                process.terminate()
        timer = threading.Timer(_GRACE_SECONDS, self._kill_all)
        timer.daemon = True
        timer.start()

    def _kill_all(self) -> None:
        with self._lock:
            for process in self._processes:
                process.kill()

    def _stamp(self, step: Step) -> Path:
        return self.records / f"{step.name}.stamp"

    def _up_to_date(self, step: Step) -> bool:
        stamp = self._stamp(step)
        made = all(path.exists() for path in step.makes)
        return made and stamp.is_file() and stamp.read_bytes() == self._fingerprints[step.name].encode()

    def _fingerprint(self, step: Step) -> str:
        digest = hashlib.sha256(repr((step.command, sorted(step.environment.items()))).encode())
        for path in step.inputs:
            for file in [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]:
                if file.is_file():
                    status = file.stat()
                    digest.update(f"{file} {status.st_size} {status.st_mtime_ns}\n".encode())
        for name in step.after:
            digest.update(self._fingerprints[name].encode())
        return digest.hexdigest()


def _with_parent(command: Sequence[str]) -> list[str]:
    """The command, for Popen: it gets SIGTERM when this process ends."""
    if sys.platform != "linux":
        return list(command)
    return [sys.executable, str(_RUN_WITH_PARENT), str(os.getpid()), *command]


def _finished(step: Step, seconds: Mapping[str, float], todo: Mapping[str, Step], elapsed: float) -> str:
    """A line for the log: the finished step, and the estimated time left at the present rate."""
    done = sum(todo[name].weight for name in seconds)
    left = elapsed * (sum(other.weight for other in todo.values()) - done) / done
    minutes, rest = divmod(round(left), 60)
    return f"  {step.title or step.name}: {seconds[step.name]:.0f} s; about {minutes}:{rest:02d} left"


def command_line(step: Step) -> str:
    """The command as a user would type it, with its environment variables."""
    variables = [f"{name}={shlex.quote(value)}" for name, value in step.environment.items()]
    command = ["python" if word == sys.executable else word for word in step.command]
    return " ".join([*variables, shlex.join(command)])


def _end_of(log: Path, lines: int = 15) -> list[str]:
    text = log.read_text(errors="replace").splitlines()
    return [*(f"  | {line.expandtabs()}" for line in text[-lines:]), *([f"  full log: {log}"] if text else [])]
