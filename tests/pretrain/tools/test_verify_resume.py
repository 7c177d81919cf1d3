"""verify_resume.py checks that a run resumes exactly, and reports differences."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from pretrain.tools import verify_resume
from tape.errors import run_cli
from tests.support.ranks import wait_for

Flags = Callable[..., list[str]]


@pytest.mark.slow
def test_exact_resuming_is_confirmed_and_a_difference_is_reported(
    tmp_path: Path, flags: Flags, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = flags("--save-interval", 5, "--eval-interval", 10, train_iters=30, dropout=0.1)
    monkeypatch.setattr(sys, "argv", ["verify_resume.py", "--kills", "2", "--directory", str(tmp_path), "--", *command])
    assert run_cli(verify_resume.main) == 0
    out = capsys.readouterr().out
    assert "straight through" in out
    assert out.endswith("the same bits\n")
    assert len([line for line in out.splitlines() if line.endswith(("saving", "training", "starting"))]) == 2

    metrics = tmp_path / "killed" / "metrics.jsonl"
    records = [json.loads(line) for line in metrics.read_text().splitlines()]
    next(record for record in records if "lm_loss" in record and record["iteration"] == 12)["lm_loss"] += 1e-7
    metrics.write_text("".join(json.dumps(record) + "\n" for record in records))
    assert verify_resume._compare(tmp_path / "straight", tmp_path / "killed") == 1
    assert "1 differ" in capsys.readouterr().out


def test_a_fast_run_is_killed_after_its_share_of_the_iterations(tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(
        "import json, sys, time\n"
        "for iteration in range(1, 201):\n"
        "    with open(sys.argv[2] + '/metrics.jsonl', 'a') as file:\n"
        "        file.write(json.dumps({'kind': 'train', 'iteration': iteration}) + '\\n')\n"
        "    time.sleep(0.05)\n"
    )
    kill = verify_resume._run_and_kill([sys.executable, str(script)], tmp_path, seconds=600, until=5)
    assert kill is not None
    assert kill.reached is not None
    assert 5 <= kill.reached < 200
    assert not kill.saving


def test_records_may_be_renamed_while_they_are_read(tmp_path: Path) -> None:
    metrics, aside = tmp_path / "metrics.jsonl", tmp_path / "metrics.1.jsonl"
    metrics.write_text('{"kind": "train", "iteration": 3}\n')
    code = "import os, sys\nwhile True: os.rename(*sys.argv[1:]); os.rename(*sys.argv[:0:-1])"
    mover = subprocess.Popen([sys.executable, "-c", code, str(metrics), str(aside)])
    try:
        wait_for(lambda: not metrics.exists(), "the first renaming", pause=0)
        seen = {verify_resume._last_iteration(tmp_path) for _ in range(5000)}
    finally:
        mover.kill()
        mover.wait()
    assert seen == {0, 3}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--kills", "3"], "after --"),
        (["--kills", "0", "--", "--num-layers", "2"], "--kills must be at least 1"),
        (["--", "--nonsense"], "the run ended with exit code 1: error: "),
        (["--", "true"], "the run left no records"),
    ],
)
def test_failing_runs_and_bad_arguments_are_errors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails: Callable[..., str], arguments: list[str], words: str
) -> None:
    monkeypatch.setattr(verify_resume, "_SCRIPT", tmp_path / "script.py")
    (tmp_path / "script.py").write_text("import sys; print('error: no such flag', file=sys.stderr); sys.exit(1)")
    assert words in fails(verify_resume.main, *arguments)
