"""Event files of TensorBoard."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event, SessionLog

from tape.errors import OutputError
from tape.runtime.tensorboard import TensorBoardWriter
from tests.support.small_disk import mounted_tmpfs


def events_in(folder: Path) -> list[Event]:
    (file,) = folder.iterdir()
    content, position, events = file.read_bytes(), 0, []
    while position < len(content):
        (length,) = struct.unpack_from("<Q", content, position)
        events.append(Event.FromString(content[position + 12 : position + 12 + length]))
        position += length + 16
    return events


def test_scalars_are_in_the_file_at_once(tmp_path: Path) -> None:
    writer = TensorBoardWriter(tmp_path / "new" / "run", purge_step=4)
    writer.add_scalars("train", {"loss": 0.5, "accuracy": 1.0}, 7)
    version, purge, start, *scalars = events_in(tmp_path / "new" / "run")
    assert version.file_version == purge.file_version == "brain.Event:2"
    assert (start.step, start.session_log.status) == (4, SessionLog.START)
    values = [(event.step, event.summary.value[0].tag, event.summary.value[0].simple_value) for event in scalars]
    assert values == [(7, "train/loss", 0.5), (7, "train/accuracy", 1.0)]
    writer.close()


def test_a_full_disk_is_an_error_that_names_the_directory() -> None:
    with mounted_tmpfs("size=8k") as disk:
        writer = TensorBoardWriter(disk / "run")
        with pytest.raises(OutputError, match=r"disk/run: can't be written: No space left on device; 0 bytes are free"):
            writer.add_scalars("train", {f"loss_{number}": 1.0 for number in range(1000)}, 1)
        with pytest.raises(OutputError):
            writer.close()
