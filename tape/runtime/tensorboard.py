"""Scalars for TensorBoard, written with tensorboardX in the calling thread.

tensorboardX's SummaryWriter leaves the writing to a thread. An error of a full disk ends this thread, and the program
then waits for it forever.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path
from typing import Any

from tape.io.writing import output_errors

_FILE_VERSION = "brain.Event:2"


class TensorBoardWriter:
    """Writes a new event file.

    Args:
        directory: directory of the file, created if it does not exist.
        purge_step: TensorBoard hides earlier files' scalars from this step on, which a resumed run writes again.

    Raises:
        OutputError: the disk is full, read-only or failing; all methods raise it.
    """

    def __init__(self, directory: str | os.PathLike[str], purge_step: int | None = None) -> None:
        from tensorboardX.proto.event_pb2 import Event, SessionLog  # imported here because it takes a second
        from tensorboardX.record_writer import RecordWriter, directory_check

        self._path = Path(directory)
        name = f"events.out.tfevents.{int(time.time())}.{socket.gethostname()}"  # as TensorBoard expects it
        with output_errors(self._path):
            directory_check(os.fspath(directory))
            self._file = RecordWriter(os.path.join(directory, name))
            self._write(Event(wall_time=time.time(), file_version=_FILE_VERSION))
            if purge_step is not None:
                self._write(Event(step=purge_step, file_version=_FILE_VERSION))
                self._write(Event(step=purge_step, session_log=SessionLog(status=SessionLog.START)))
            self._file.flush()

    def _write(self, event: Any) -> None:
        self._file.write(event.SerializeToString())

    def add_scalars(self, group: str, values: dict[str, float], step: int) -> None:
        """Write the values of a step as ``group/name``."""
        from tensorboardX.proto.event_pb2 import Event
        from tensorboardX.summary import scalar

        with output_errors(self._path):
            for name, value in values.items():
                summary = scalar(f"{group}/{name}", value)
                self._write(Event(wall_time=time.time(), step=step, summary=summary))
            self._file.flush()

    def close(self) -> None:
        """Close the file."""
        with output_errors(self._path):
            self._file.close()
