"""A profile of some iterations of a run, by torch.profiler: which operations take the time of a step.

The flags and their meaning are Megatron-LM's: with ``--profile-step-start 10`` and ``--profile-step-end 12``, it covers
iterations 11 and 12, and what happens between them, such as an evaluation. Each chosen rank writes a trace for
TensorBoard's profiler plugin, Perfetto or chrome://tracing, and a table of the operations.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.profiler import ProfilerAction, ProfilerActivity, profile

from pretrain import trace
from pretrain.trace import SpanTimeout
from tape.errors import ProteinLMError
from tape.io.writing import output_errors, temporary_directory, write_text

logger = logging.getLogger(__name__)

_TABLE_ROWS = 40
_NAME_WIDTH = 60
_SUMMARIZED = 5  # operations on the console


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
    """Profiles the chosen iterations of a run.

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
        self._last = 0

    @contextmanager
    def iteration(self, number: int) -> Iterator[None]:
        """Profile iteration ``number`` if it is one of the chosen ones; called by all ranks for all iterations.

        After an error, nothing is written.
        """
        config = self._config
        if config is None or not config.start <= number <= config.end:
            yield
            return
        chosen = self._rank in config.ranks
        if chosen and self._profile is None:
            self._profile = self._started(max(number, config.start + 1), is_early=number == config.start)
        try:
            yield
        except BaseException:
            self._last = 0  # nothing is written
            with suppress(Exception):  # the first error is reported
                self._finish()
            raise
        if chosen:
            self._last = number
        # a trace of a large model takes longer than a step, and the other ranks wait meanwhile
        with trace.span("write the profile", SpanTimeout.COLLECTIVE, profiled=False):
            if number == config.end:
                self._finish()
            elif self._profile is not None:
                self._profile.step()

    def close(self) -> None:
        """Write the iterations so far, if the run ends before the last one that was chosen."""
        if self._config is not None:
            with trace.span("write the profile", SpanTimeout.COLLECTIVE, profiled=False):
                if self._last > self._config.start:
                    self._finish()

    def _started(self, first: int, is_early: bool) -> profile:
        """A running profiler, which records from the next call of ``step`` on, or at once."""
        activities = [ProfilerActivity.CPU]
        if self._device.type == "cuda":
            activities.append(ProfilerActivity.CUDA)

        def action(step: int) -> ProfilerAction:
            return ProfilerAction.WARMUP if is_early and step == 0 else ProfilerAction.RECORD

        started = profile(activities=activities, schedule=action, on_trace_ready=lambda done: self._write(done, first))
        started.start()
        return started

    def _finish(self) -> None:
        if self._profile is not None:
            finished, self._profile = self._profile, None
            finished.stop()

    def _write(self, done: profile, first: int) -> None:
        """Write trace and table; an error does not end the run."""
        if self._config is None or self._last < first:
            return
        name = f"rank{self._rank}_iterations_{first}-{self._last}"
        directory = self._config.directory
        events = done.key_averages()
        kind = "device" if self._device.type == "cuda" else "cpu"
        times = {event.key: getattr(event, f"self_{kind}_time_total") for event in events}
        try:
            with output_errors(directory):
                directory.mkdir(parents=True, exist_ok=True)
                trace_name = f"{name}.pt.trace.json.gz"  # the ending that TensorBoard's plugin looks for
                with temporary_directory(directory, name) as temporary:
                    done.export_chrome_trace(str(temporary / trace_name))
                    os.replace(temporary / trace_name, directory / trace_name)
            text = events.table(
                sort_by=f"self_{kind}_time_total", row_limit=_TABLE_ROWS, max_name_column_width=_NAME_WIDTH
            )
            write_text(directory / f"{name}.txt", f"{text}\n")
        except (ProteinLMError, OSError) as error:
            logger.warning("rank %d: no profile of iterations %d to %d: %s", self._rank, first, self._last, error)
            return
        operations = {event.key: times[event.key] for event in events if not event.is_user_annotation}
        total = (
            sum((operations if kind == "device" else times).values()) or 1.0
        )  # ranges have no device time of their own
        most = sorted(operations, key=lambda key: -operations[key])[:_SUMMARIZED]
        shares = ", ".join(f"{key} {operations[key] / total:.0%}" for key in most)
        covered = f"iteration {first}" if first == self._last else f"iterations {first} to {self._last}"
        self._note(f"profile of {covered}: {directory / name}.*; own time: {shares}")
