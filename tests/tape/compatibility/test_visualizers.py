"""``tape.visualization`` in the loop of a script."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from tape import visualization


def test_the_first_process_writes_an_event_file(tmp_path: Path) -> None:
    viz = visualization.get(tmp_path, "run", -1, debug=False)
    viz.log_config({"seed": 42})
    viz.watch(nn.Linear(1, 1))
    viz.log_metrics({"loss": 1.5}, "train", 3)
    del viz
    (file,) = (tmp_path / "run").iterdir()
    assert b"train/loss" in file.read_bytes()
    other = visualization.get(tmp_path, "other", 1)
    other.log_metrics({"loss": 1.5}, "train", 3)
    assert not (tmp_path / "other").exists()
    assert isinstance(other, visualization.DummyVisualizer)
