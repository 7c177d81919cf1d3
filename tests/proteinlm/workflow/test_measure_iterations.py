"""measure_iterations.py: the number of iterations in a time; a real run is in test_reproduce.py."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from proteinlm.workflow import measure_iterations
from proteinlm.workflow.run_progress import measured_iterations
from tape.errors import ConfigError

# Writes the log of a run whose iterations take half a second after a warm-up.
_COMMAND = """
import json, pathlib, sys
options = dict(zip(sys.argv[1::2], sys.argv[2::2]))
count = int(options["--exit-interval"])
records = [{"kind": "start", "iteration": 0}]
records += [{"kind": "train", "iteration": i + 1, "seconds": 9 if i < count // 2 else 0.5} for i in range(count)]
log = pathlib.Path(options["--save"], "metrics.jsonl")
log.write_text("".join(json.dumps(record) + chr(10) for record in records))
"""


def test_the_warm_up_is_not_counted() -> None:
    assert measure_iterations.iterations_in(10, [30, 9, 1, 1, 2]) == 570
    assert measure_iterations.iterations_in(0.001, [1, 1]) == 1


def test_the_option_is_written_for_the_command(tmp_path: Path) -> None:
    out = tmp_path / "train_iters.txt"
    options = ["--minutes", "1", "--steps", "8", "--out", str(out), "--", sys.executable, "-c", _COMMAND]
    measure_iterations.main(options)
    assert out.read_text() == "--train-iters 114\n"
    assert measured_iterations(out) == 114


def test_a_failing_command_is_reported(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="the command failed, so its speed can't be measured"):
        measure_iterations.main(["--minutes", "1", "--out", str(tmp_path / "x"), "--", "false"])
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("text", ["", "--train-iters", "--train-iters many", json.dumps([1, 2])])
def test_a_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "train_iters.txt").write_text(text)
    with pytest.raises(ConfigError, match=r"must contain --train-iters and a number"):
        measured_iterations(tmp_path / "train_iters.txt")
