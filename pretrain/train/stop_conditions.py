"""Conditions to stop a run, on which all ranks agree after each step: signals, elapsed time, failed checkpoints."""

from __future__ import annotations

import signal
import time

from pretrain.checkpointing import AsyncCheckpointWriter
from pretrain.parallel import ControlGroup
from tape.errors import CheckpointError
from tape.runtime.stop_signals import StopSignals


class StopConditions:
    """Decides together with all ranks whether to stop; a rank that stopped alone would leave the others waiting.

    Args:
        signals: stop signals received by this process, such as those of a preemption.
        writer: the checkpoint writer.
        control_group: a control process group for the main thread.
        minutes: maximum duration of the run; None for no limit.
        began: start of the run, from time.monotonic().
    """

    def __init__(
        self,
        signals: StopSignals,
        writer: AsyncCheckpointWriter,
        control_group: ControlGroup,
        minutes: float | None = None,
        began: float = 0.0,
    ) -> None:
        self._signals = signals
        self._writer = writer
        self._control_group = control_group
        self._minutes = minutes
        self._began = began

    def reason(self, at_start: bool = False) -> str | None:
        """The reason to stop, the same on all ranks, or None. Called by all ranks after the same step.

        Args:
            at_start: whether this is before the first step, which is done however long the start took, so that a job
                that is requeued repeatedly makes progress.

        Raises:
            CheckpointError: on all ranks, if a checkpoint could not be written.
        """
        over = not at_start and self._minutes is not None and time.monotonic() - self._began >= 60.0 * self._minutes
        number, is_over, failed = self._control_group.max([self._signals.received, over, self._writer.failed])
        if failed:
            self._writer.wait()
            raise CheckpointError("another rank could not write its shards of a checkpoint")
        if number:
            return signal.Signals(number).name
        return f"--exit-duration-in-mins {self._minutes:g}" if is_over else None
