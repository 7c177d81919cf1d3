"""The benchmark of interrupted commands: it finds what it is for, and preprocessing passes it."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from benchmarks import fault_injection
from benchmarks.fault_injection import Command, compared_files


def test_preprocessing_survives_kills_and_full_disks(capsys: pytest.CaptureFixture[str]) -> None:
    assert fault_injection.main(["kill", "--commands", "preprocess", "--kills", "1"]) == 0
    assert fault_injection.main(["disk-full", "--commands", "preprocess", "--trials", "1"]) == 0
    assert "| preprocess | 1 |" in capsys.readouterr().out


def command_of(program: str) -> Command:
    """A command `faulty` that runs a Python program, whose argument is the output directory."""
    program = f"import pathlib, sys, time\nout = pathlib.Path(sys.argv[1])\n{program}"
    return Command("faulty", lambda out: [sys.executable, "-c", program, str(out)], needs_inputs=False)


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        ("(out / f'.{time.time()}.tmp').touch()\ntime.sleep(.5)", r"faulty: \.\d.*tmp is left behind"),
        ("(out / '.tmp').touch()\ntime.sleep(.2)\n(out / 'x.bin').write_text(str(time.time()))", "x.bin differs"),
        (
            "(out / 'x').mkdir()\n(out / '.tmp').touch()\ntime.sleep(1)\n(out / '.tmp').unlink()\n(out / 'x').rmdir()",
            "faulty: .*FileExistsError",
        ),
    ],
)
def test_commands_that_do_not_survive_a_kill_are_reported(
    program: str, problem: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(fault_injection.COMMANDS, "faulty", command_of(program))
    # with this seed, the first kill follows a new hidden file, at whatever speed the program starts
    assert fault_injection.main(["kill", "--commands", "faulty", "--kills", "2", "--seed", "1"]) == 1
    assert re.search(problem, capsys.readouterr().out)


@pytest.mark.parametrize("size", [1 << 20, 10])
def test_an_error_without_the_name_of_the_file_is_reported(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], size: int
) -> None:
    program = f"(out / 'x.bin').write_bytes(bytes({size}))"
    monkeypatch.setitem(fault_injection.COMMANDS, "faulty", command_of(program))
    assert fault_injection.main(["disk-full", "--commands", "faulty", "--trials", "1"]) == 1
    assert "Traceback" in capsys.readouterr().out


def test_logs_of_single_starts_are_not_compared(tmp_path: Path) -> None:
    for name in ("events.out.tfevents.1.host", "metrics.1.jsonl", "x.bin"):
        (tmp_path / name).write_bytes(b"1")
    assert list(compared_files(tmp_path)) == ["x.bin"]
