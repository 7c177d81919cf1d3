"""Whether to go on, agreed on by all ranks after each step: a rank that left alone would leave the others waiting."""

from __future__ import annotations

import signal
import time

from pretrain.checkpointing import AsyncCheckpointWriter
from pretrain.parallel import ControlGroup
from pretrain.preemption import StopSignals
from tape.errors import CheckpointError


class StopConditions:
    """Asks all ranks: did one receive a signal, is the time over, could a checkpoint not be written?

    Args:
        requests: signals that this process has received.
        writer: of checkpoints in the background.
        ranks: a group for the main thread.
        minutes: how long the run may take; None: any time.
        began: when it began, of time.monotonic().
    """

    def __init__(
        self,
        requests: StopSignals,
        writer: AsyncCheckpointWriter,
        ranks: ControlGroup,
        minutes: float | None = None,
        began: float = 0.0,
    ) -> None:
        self._requests = requests
        self._writer = writer
        self._ranks = ranks
        self._minutes = minutes
        self._began = began

    def reason(self, at_start: bool = False) -> str | None:
        """Why to stop, the same on all ranks; None: go on. Called by all ranks after the same step.

        Args:
            at_start: before the first step, which is done however long the start took: a job that is queued again and
                again must get on.

        Raises:
            CheckpointError: on all ranks, when the checkpoint in flight couldn't be written.
        """
        over = not at_start and self._minutes is not None and time.monotonic() - self._began >= 60.0 * self._minutes
        number, is_over, failed = self._ranks.largest([self._requests.received, over, self._writer.failed])
        if failed:
            self._writer.wait()
            raise CheckpointError("another rank couldn't write its part of a checkpoint")
        if number:
            return signal.Signals(number).name
        return f"--exit-duration-in-mins {self._minutes:g}" if is_over else None
