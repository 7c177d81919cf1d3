"""A profile of some iterations of a run, by torch.profiler: which operations take the time of a step.

The flags and their meaning are Megatron-LM's: with ``--profile-step-start 10`` and ``--profile-step-end 12``, it covers
iterations 11 and 12, and what happens between them, such as an evaluation. Each chosen rank writes a trace for
TensorBoard's profiler plugin, Perfetto or chrome://tracing, and a table of the operations.
"""

from __future__ import annotations

import gzip
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerAction, ProfilerActivity, profile

from pretrain import trace
from pretrain.trace import SpanTimeout
from tape.errors import OutputError
from tape.io.writing import describe_space, output_errors, remove_leftovers, temporary_directory, write_text

logger = logging.getLogger(__name__)

_TABLE_ROWS = 40
_NAME_WIDTH = 60
_SUMMARIZED = 5  # operations on the console
_TAIL = 64  # bytes at the end of a trace that show whether it is complete

MOST_ITERATIONS = 20
"""Iterations of a profile. Even a tiny model needs 40 MB and two seconds for each."""


@dataclass(frozen=True)
class ProfileConfig:
    """Which iterations are profiled, and by whom.

    Attributes:
        start: the last iteration before the profile; it is profiled too, without being recorded, if it belongs to this
            process, because the first one after the profiler's start is slower.
        end: the last iteration of the profile.
        ranks: the ranks that profile.
        directory: of the traces.
    """

    start: int
    end: int
    ranks: tuple[int, ...]
    directory: Path

    def missed_by(self, iteration: int, iterations: int) -> str | None:
        """Why a process that goes on from ``iteration`` to ``iterations`` records nothing; None if it does."""
        if iteration >= self.end:
            return f"the run continues after iteration {iteration}"
        if iterations <= self.start:
            return f"the run ends with iteration {iterations}"
        return None


class IterationProfiler:
    """Profiles the chosen iterations of a run. Its errors are warnings, which do not end the run.

    Args:
        config: which ones; None profiles nothing.
        rank: this rank.
        device: its device, whose kernels are recorded too.
        note: prints a line on the console of the main rank.
    """

    def __init__(
        self, config: ProfileConfig | None, rank: int, device: torch.device, note: Callable[[str], None]
    ) -> None:
        self._config = config
        self._rank = rank
        self._device = device
        self._note = note
        self._profile: profile | None = None
        self._first = 0  # iteration that is recorded
        self._last = 0  # iteration that is complete, on all ranks

    @contextmanager
    def iteration(self, number: int) -> Iterator[None]:
        """Profile iteration ``number`` if it is one of the chosen ones; called for all iterations."""
        config = self._config
        if config is None or not config.start <= number <= config.end:
            yield
            return
        if self._rank in config.ranks and self._profile is None:
            with self._errors():
                self._start(max(number, config.start + 1), is_early=number == config.start)
        yield
        self._last = number
        if self._profile is not None and number < config.end:
            with self._errors():
                self._profile.step()

    def write_after(self, number: int) -> None:
        """Write the profile if iteration ``number`` is its last; called by all ranks together."""
        if self._config is not None and number == self._config.end:
            self.write()

    def write(self) -> None:
        """Write the iterations so far; called by all ranks together, at the latest when all checkpoints are complete.

        A run that is asked to stop may be killed soon, and the trace of a large model takes longer than a checkpoint.
        """
        if self._config is None:
            return
        with trace.span("write the profile", SpanTimeout.COLLECTIVE, profiled=False), self._errors():
            if self._profile is not None:
                done, self._profile = self._profile, None
                done.stop()
                if self._last >= self._first:
                    self._write(done, self._config.directory)

    def discard(self) -> None:
        """End a profile that is not to be written, such as that of a run that fails; otherwise nothing happens."""
        if self._profile is not None:
            discarded, self._profile = self._profile, None
            with self._errors():
                discarded.stop()

    def _start(self, first: int, is_early: bool) -> None:
        """Start a profiler that records from the next call of ``step`` on, or at once."""
        activities = [ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)

        def action(step: int) -> ProfilerAction:
            return ProfilerAction.WARMUP if is_early and step == 0 else ProfilerAction.RECORD

        self._first = first
        self._profile = profile(activities=activities, schedule=action)
        self._profile.start()

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Turn errors of the profiler and of the disk into a warning, and do without the profile."""
        try:
            yield
        except Exception as error:  # whatever it is, training can do without it
            self._profile = None
            reason = str(error) or type(error).__name__
            logger.warning("rank %d: no profile of iterations from %d on: %s", self._rank, self._first, reason)

    def _write(self, done: profile, directory: Path) -> None:
        """Write trace and table."""
        name = f"rank{self._rank}_iterations_{self._first}-{self._last}"
        with output_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
            remove_leftovers(directory)
            with temporary_directory(directory, name) as temporary:
                _export(done, temporary / "trace.json", directory)
                packed = temporary / f"{name}.pt.trace.json.gz"  # the ending that TensorBoard's plugin looks for
                with (temporary / "trace.json").open("rb") as source, gzip.open(packed, "wb", 6) as target:
                    shutil.copyfileobj(source, target, 1 << 20)
                os.replace(packed, directory / packed.name)
        events, is_gpu = done.key_averages(), self._device.type == "cuda"
        kind = "device" if is_gpu else "cpu"
        text = events.table(sort_by=f"self_{kind}_time_total", row_limit=_TABLE_ROWS, max_name_column_width=_NAME_WIDTH)
        write_text(directory / f"{name}.txt", f"{text}\n")
        operations = operations_by_time(events, is_gpu)
        # the time of a CPU outside of operations is that of the ranges
        counted = (time for _, time in operations) if is_gpu else (event.self_cpu_time_total for event in events)
        total = sum(counted) or 1.0
        shares = ", ".join(f"{event.key} {time / total:.0%}" for event, time in operations[:_SUMMARIZED])
        first, last = self._first, self._last
        covered = f"iteration {first}" if first == last else f"iterations {first} to {last}"
        self._note(f"profile of {covered}: {directory / name}.*; own time: {shares}")


def operations_by_time(events: Iterable[Any], is_gpu: bool) -> list[tuple[Any, float]]:
    """The operations of a profile with their own time in microseconds, the longest first.

    Args:
        events: the averages by name, ``profile.key_averages()``.
        is_gpu: take the kernels, not the operators that start them, whose device time is that of their kernels.
    """
    operations = [
        (event, float(event.self_device_time_total if is_gpu else event.self_cpu_time_total))
        for event in events
        # not named ranges, such as that of the optimizer's step
        if not event.is_user_annotation and (not is_gpu or event.device_type != torch.autograd.DeviceType.CPU)
    ]
    return sorted(operations, key=lambda operation: operation[1], reverse=True)


def _export(done: profile, path: Path, directory: Path) -> None:
    """Write the trace as JSON to ``path``, which is for the profile in ``directory``.

    The profiler's library only prints errors of the disk, and compresses by way of the system's temporary files.

    Raises:
        OutputError: the file is not complete.
    """
    done.export_chrome_trace(str(path))
    with suppress(OSError), path.open("rb") as stream:
        stream.seek(-min(_TAIL, path.stat().st_size), os.SEEK_END)
        if stream.read().rstrip().endswith(b"}"):
            return
    raise OutputError(directory, "the profiler could not write its trace", describe_space(directory))
