"""Runs the steps of a workflow: commands that are printed as typed and repeated only if something has changed.

A step has a name, a command, the steps it depends on and the files it makes. Its stamp file holds a fingerprint of the
command, its inputs and its dependencies; while the fingerprint agrees and the files exist, the step is not run again.
Environment variables are not part of it: they determine the speed and, at most, the last digits. Independent steps run
at the same time. All commands end with the runner, also after ``kill -9`` (on Linux). A step that was interrupted
continues from the state that its command has saved, or else starts again. Results of steps that are not in the plan, or
that the plan would make anew but can't within a time limit, are set aside, so that no step reads them as current.
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
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from tqdm.auto import tqdm

from proteinlm.workflow.step_records import InputSums, StepRecords
from tape.errors import ConfigError, ProteinLMError, listed
from tape.runtime.cpu import allocator_variables
from tape.runtime.run_lock import lock_in, run_lock

# Time for a command to save and clean up after SIGTERM; torchrun gives its ranks 30 seconds.
_GRACE_SECONDS = 60.0
_DEVICES = "CUDA_VISIBLE_DEVICES"
_RUN_WITH_PARENT = Path(__file__).with_name("run_with_parent.py")


class StepError(ProteinLMError):
    """A command failed, did not write its files, or was stopped before its end."""


def start_again() -> None:
    """The ``resume`` of a step whose command saves no state."""


@dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
        name: unique name, also that of the stamp and log files.
        command: program and arguments, run in the runner's ``directory``.
        makes: files or directories that exist when the step has finished; they are removed before it runs again.
        after: names of the steps whose results it reads.
        inputs: files and directories that no step makes; the step runs again if their content or names change.
        title: text shown in the progress; empty: the name.
        live: show the output on the terminal instead of writing it to a log; the step then runs alone.
        weight: expected share of the total time, for the estimate of the remaining time.
        environment: environment variables to set, such as a number of threads.
        missing: what the results lack after exit code 0, as text, for a command that saves its state and ends with it
            after a stop signal; empty: they are complete.
        resume: options to add to the command after an interruption, so that it continues from its saved state; None:
            there is no such state, and the command starts again.
        stage: name of the group of steps that can be chosen, and that a time limit applies to.
        recorded_as: words that stand for the command in the fingerprint, without those that depend on the machine;
            empty: the command itself.
        is_partial: runs even if steps of ``after`` were not finished within their time limit.
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
    resume: Callable[[], Sequence[str] | None] = start_again
    stage: str = ""
    recorded_as: tuple[str, ...] = ()
    is_partial: bool = False


@dataclass
class StepRunner:
    """Runs steps in the order of their dependencies, up to ``jobs`` at the same time.

    Args:
        steps: all steps, each after those it depends on.
        records: directory of the stamp and log files.
        directory: working directory of the commands.
        jobs: maximum number of steps at the same time.
        time_limits: stage -> seconds after the start of its first step, at which its commands get SIGTERM and no
            further one of them is started.
        devices: values of ``CUDA_VISIBLE_DEVICES``, divided among steps at the same time; empty: all see all GPUs.

    Raises:
        ConfigError: a step would overwrite an input of a step.
    """

    steps: Sequence[Step]
    records: Path
    directory: Path
    jobs: int = 1
    time_limits: Mapping[str, float] = field(default_factory=dict)
    devices: Sequence[str] = ()

    def __post_init__(self) -> None:
        self._kept = StepRecords(self.records)
        self._sums = InputSums(self.records / "inputs.json")
        self._fingerprints: dict[str, str] = {}
        for step in self.steps:
            self._fingerprints[step.name] = self._fingerprint(step)
        self._check_inputs()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self._stopping = False
        self._resumed: dict[str, tuple[str, ...]] = {}  # options by the name of the step
        self._stage_starts: dict[str, float] = {}
        self._ended_stages: set[str] = set()
        self._unfinished: dict[str, str] = {}  # why, by the name of the step
        self._allocator = allocator_variables()

    def run(self, stages: Collection[str] = ()) -> dict[str, float]:
        """Run the steps that are not up to date; returns the duration of each in seconds.

        Args:
            stages: run only the steps of these stages and those that they depend on; empty: all.

        Raises:
            ConfigError: a step would overwrite a file that it has not made, or another runner is at work on these
                records; no step has run.
            StepError: a command failed, and the other commands were terminated. The message has the command and the
                end of its log. Or steps were not finished within the time limit of their stage.
        """
        with run_lock(lock_in(self.records), self.records, "choose another output directory"):
            return self._run(stages)

    def _run(self, stages: Collection[str]) -> dict[str, float]:
        self._set_aside_unplanned()
        outdated = self._outdated()
        wanted = self._with_dependencies(stages)
        todo = {name: step for name, step in outdated.items() if name in wanted}
        for step in todo.values():
            self._check_overwriting(step)
        self._resumed = self._resumable(todo.values(), outdated)
        again = [name for name in todo if self._kept.has_finished(name)]
        if again:
            print(
                f"their command, input or results have changed, so these steps run again: {listed(again)}", flush=True
            )
        self._sums.save()
        stale = set(todo)
        for name, step in outdated.items():  # they stay outdated if this run is interrupted
            follows = any(before in stale for before in step.after)
            if follows or name in todo:
                stale.add(name)
                self._kept.invalidate(name, keep_start=not follows)
            if follows and name not in todo:  # of a stage that was not chosen
                self._set_aside_outdated(name)
        skipped = len(wanted) - len(todo)
        if skipped:
            print(f"{skipped} of {len(wanted)} steps are up to date (stamps in {self.records})", flush=True)
        if todo and self._allocator:
            print(f"memory of the steps is allocated by {self._allocator['LD_PRELOAD']} (LD_PRELOAD)", flush=True)
        seconds: dict[str, float] = {}
        total = sum(step.weight for step in todo.values())
        layout = "all steps {percentage:3.0f}%|{bar:24}| {elapsed} elapsed, about {remaining} left"
        # A progress bar in a terminal; in a log file, one line per finished step.
        with tqdm(
            total=total, bar_format=layout, disable=not (todo and sys.stderr.isatty()), dynamic_ncols=True
        ) as bar:
            self._run_all(todo, seconds, bar)
        if self._unfinished:
            raise StepError(
                "not finished within the time limit of their stage (the same command continues them):",
                details=[f"  {s.name}: {self._unfinished[s.name]}" for s in self.steps if s.name in self._unfinished],
            )
        return seconds

    # --- what runs --------------------------------------------------------------------------------------------------

    def _outdated(self) -> dict[str, Step]:
        """The steps that are not up to date, and those that depend on them.

        Results that were set aside come back if their step is in the plan again, with the command, the inputs and the
        results of other steps that they were made from.
        """
        outdated: dict[str, Step] = {}
        back = []
        for step in self.steps:
            follows = any(before in outdated for before in step.after)
            if not follows and self._is_aside(step) and self._kept.bring_back(step.name):
                back.append(step.name)
            if follows or not self._up_to_date(step):
                outdated[step.name] = step
        if back:
            print(f"part of the plan again, so their results are back: {listed(back)}", flush=True)
        return outdated

    def _set_aside_unplanned(self) -> None:
        """Move results of steps that are not in the plan out of the way."""
        moved = [n for n in self._kept.names() if n not in self._fingerprints and self._kept.set_aside(n)]
        if moved:
            print(
                f"not part of the plan any more, so their results are set aside in {self._kept.directory}:"
                f" {listed(moved)}. The earlier settings bring them back",
                flush=True,
            )

    def _is_aside(self, step: Step) -> bool:
        fingerprint = self._fingerprints[step.name]
        known = self._kept.is_stamped(step.name, fingerprint) or self._kept.was_started(step.name, fingerprint)
        return known and not all(path.exists() for path in step.makes)

    def _with_dependencies(self, stages: Collection[str]) -> set[str]:
        """Names of the steps of these stages, or of all, and of the steps that they depend on."""
        found = {step.name for step in self.steps if not stages or step.stage in stages}
        for step in reversed(self.steps):
            if step.name in found:
                found.update(step.after)
        return found

    def _resumable(self, steps: Collection[Step], outdated: Collection[str]) -> dict[str, tuple[str, ...]]:
        """The options of the interrupted steps that continue from a saved state.

        Their last start was with the same command, and the steps that they depend on have not run since.
        """
        found = {}
        for step in steps:
            is_same = self._kept.was_started(step.name, self._fingerprints[step.name])
            options = step.resume() if is_same and not any(before in outdated for before in step.after) else None
            if options is not None:
                found[step.name] = tuple(options)
        return found

    def _run_all(self, todo: dict[str, Step], seconds: dict[str, float], bar: tqdm) -> None:
        waiting = dict(todo)
        running: dict[Future[float], Step] = {}
        start = time.monotonic()
        with ThreadPoolExecutor(self.jobs) as pool:
            try:
                while waiting or running:
                    self._apply_time_limits(waiting, running)
                    for step in self._startable(waiting, running, seconds, todo):
                        del waiting[step.name]
                        self._stage_starts.setdefault(step.stage, time.monotonic())
                        step = self._as_run(step, running.values())
                        tqdm.write(f"\n[{len(todo) - len(waiting)}/{len(todo)}] {step.title or step.name}")
                        tqdm.write(f"  $ {command_line(step)}")
                        running[pool.submit(self._run_one, step)] = step
                    done, _ = wait(running, return_when=FIRST_COMPLETED, timeout=1.0)
                    bar.refresh()  # updates the elapsed time while a step runs
                    for future in done:
                        step = running.pop(future)
                        bar.update(step.weight)
                        if self._is_cut_off(step, future):
                            continue
                        seconds[step.name] = future.result()
                        if bar.disable:
                            print(_finished(step, seconds, todo, time.monotonic() - start), flush=True)
            except BaseException:
                self._terminate_all()
                with suppress(ConfigError):  # that is no reason of the end
                    for name in waiting:
                        self._set_aside_outdated(name)
                raise

    # --- time limits ------------------------------------------------------------------------------------------------

    def _apply_time_limits(self, waiting: dict[str, Step], running: Mapping[Future[float], Step]) -> None:
        """Terminate the steps of stages at their limit; drop those that wait, and what depends on unfinished ones."""
        for stage, began in self._stage_starts.items():
            limit = self.time_limits.get(stage)
            if limit is not None and stage not in self._ended_stages and time.monotonic() - began >= limit:
                self._end_stage(stage, [step for step in running.values() if step.stage == stage])
        for name, step in list(waiting.items()):
            lost = [before for before in step.after if before in self._unfinished]
            if step.stage in self._ended_stages:
                self._unfinished[name] = "not started"
            elif lost and not step.is_partial:
                self._unfinished[name] = f"needs {lost[0]}"
            else:
                continue
            del waiting[name]
            self._set_aside_outdated(name)

    def _set_aside_outdated(self, name: str) -> None:
        """Move results of earlier settings, which a report or a user would read, out of the way of a step to run."""
        if name not in self._resumed and self._kept.set_aside(name):
            print(f"{name}: its results of earlier settings are set aside in {self._kept.directory}", flush=True)

    def _end_stage(self, stage: str, running: Sequence[Step]) -> None:
        self._ended_stages.add(stage)
        if running:
            print(f"{stage}: at its time limit of {self.time_limits[stage]:g} seconds", flush=True)
        with self._lock:
            for step in running:
                if step.name in self._processes:
                    self._processes[step.name].terminate()

    def _is_cut_off(self, step: Step, future: Future[float]) -> bool:
        """Whether a step has ended before its end because of the time limit of its stage."""
        if step.stage not in self._ended_stages or not isinstance(future.exception(), StepError):
            return False
        self._unfinished[step.name] = "interrupted"
        return True

    # --- one step ---------------------------------------------------------------------------------------------------

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
        ended = {*finished, *self._unfinished}
        ready = [step for step in waiting.values() if all(name in ended or name not in todo for name in step.after)]
        if ready and ready[0].live:
            return ready[:1] if not running else []
        return [step for step in ready if not step.live][: self.jobs - len(running)]

    def _as_run(self, step: Step, running: Collection[Step]) -> Step:
        """The step with the options that continue it, and the GPU that the fewest running steps have."""
        environment = dict(step.environment)
        if self.devices and not step.live:
            used = [other.environment.get(_DEVICES) for other in running]
            environment.setdefault(_DEVICES, min(self.devices, key=used.count))
        command = (*step.command, *self._resumed.get(step.name, ()))
        return replace(step, command=command, environment=environment)

    def _run_one(self, step: Step) -> float:
        start = time.monotonic()
        if step.name not in self._resumed:
            self._kept.invalidate(step.name, keep_start=False)
            self._kept.forget_inside(step.makes)
            _remove(step.makes)
            self._kept.discard(step.name)
            self._kept.start(step.name, self._fingerprints[step.name], step.makes)
        self._execute(step)
        _check_results(step)
        if not any(before in self._unfinished for before in step.after):
            self._kept.stamp(step.name, self._fingerprints[step.name])
        return time.monotonic() - start

    def _execute(self, step: Step) -> None:
        """Run the command of a step, with its output on the terminal or in the log."""
        log = self._kept.log(step.name)
        with log.open("ab" if step.name in self._resumed else "wb") as stream:
            output = None if step.live else stream
            process = subprocess.Popen(
                _with_parent(step.command),
                cwd=self.directory,
                env={**os.environ, **self._allocator, **step.environment},
                stdout=output,
                stderr=output,
                stdin=subprocess.DEVNULL,
            )
            self._wait_for(step, process)
        if process.returncode:
            text = f"this command failed (exit code {process.returncode}):"
            raise StepError(text, details=[f"  {command_line(step)}", *_end_of(log)])

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
            if path.exists() and not empty and not self._kept.has_made(step.name, path):
                raise ConfigError(
                    f"{path} exists and was not made by this program; choose another output directory, or move it"
                )

    def _wait_for(self, step: Step, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._processes[step.name] = process
            if self._stopping or step.stage in self._ended_stages:
                process.terminate()
        process.wait()
        with self._lock:
            del self._processes[step.name]

    def _terminate_all(self) -> None:
        with self._lock:
            self._stopping = True
            for process in self._processes.values():
                process.terminate()
        timer = threading.Timer(_GRACE_SECONDS, self._kill_all)
        timer.daemon = True
        timer.start()

    def _kill_all(self) -> None:
        with self._lock:
            for process in self._processes.values():
                process.kill()

    def _up_to_date(self, step: Step) -> bool:
        made = all(path.exists() for path in step.makes)
        return made and self._kept.is_stamped(step.name, self._fingerprints[step.name])

    def _fingerprint(self, step: Step) -> str:
        words = ["python" if word == sys.executable else word for word in step.recorded_as or step.command]
        digest = hashlib.sha256(repr(words).encode())
        for path in step.inputs:
            for file in [path, *sorted(path.rglob("*"))] if path.is_dir() else [path]:
                if file.is_file():
                    digest.update(f"{file} {self._sums.of(file)}\n".encode())
        for name in step.after:
            digest.update(self._fingerprints[name].encode())
        return digest.hexdigest()


def _remove(paths: Sequence[Path]) -> None:
    """Remove the results of an earlier run."""
    for path in paths:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def _check_results(step: Step) -> None:
    """Check that the command has finished; some save their state after a stop signal and end with exit code 0.

    Raises:
        StepError: files are missing, or the results are not complete.
    """
    missing = [str(path) for path in step.makes if not path.exists()]
    if missing:
        text = f"this command succeeded but did not write {', '.join(missing)}:"
        raise StepError(text, details=[f"  {command_line(step)}"])
    lacking = step.missing()
    if lacking:
        next_run = "starts it again" if step.resume() is None else "continues it"
        text = f"this command was stopped before its end ({lacking}):"
        raise StepError(text, details=[f"  {command_line(step)}", f"  the next run {next_run}"])


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
    words = list(step.command)
    if tuple(words[:3]) == (sys.executable, "-m", "proteinlm"):
        words[:3] = ["proteinlm"]
    command = ["python" if word == sys.executable else word for word in words]
    return " ".join([*variables, shlex.join(command)])


def _end_of(log: Path, lines: int = 15) -> list[str]:
    text = log.read_text(errors="replace").splitlines()
    return [*(f"  | {line.expandtabs()}" for line in text[-lines:]), *([f"  full log: {log}"] if text else [])]
