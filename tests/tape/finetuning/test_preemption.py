"""Preemption: a stop signal leads to a saved state and exit code 0, and the command that is logged resumes exactly."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tape.finetuning.run_directory import read_history
from tape.io.run_layout import LATEST_NAME, resolve_model_directory
from tape.models.model_directory import load_state_dict
from tests.support.ranks import wait_for

TORCHRUN = (sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
EPOCHS = 60


@pytest.fixture
def options(small_data: Path, small_config: Path, tmp_path: Path) -> list[str]:
    """The options of a run of 60 epochs of five steps, with dropout, that saves only its last epoch."""
    return [
        *("transformer", "secondary_structure", "--data_dir", str(small_data), "--output_dir", str(tmp_path)),
        *("--log_dir", str(tmp_path / "logs"), "--model_config_file", str(small_config), "--no_cuda"),
        *("--config", "hidden_dropout_prob=0.2", "--num_train_epochs", str(EPOCHS), "--save_freq", "1000"),
        *("--batch_size", "2", "--num_log_iter", "3", "--num_workers", "0"),
    ]


@contextmanager
def started(launcher: Sequence[str], root: Path, words: Sequence[str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [*launcher, str(root / "tape_train.py"), *words]
    with log.open("w") as stream, subprocess.Popen(command, stdout=stream, stderr=stream, env=environment) as process:
        try:
            yield process
        finally:
            process.kill()


def trained(launcher: Sequence[str], root: Path, words: Sequence[str], log: Path) -> None:
    with started(launcher, root, words, log) as process:
        assert process.wait(180) == 0, log.read_text()


def interrupted(
    launcher: Sequence[str], root: Path, words: list[str], run: Path, sent: signal.Signals
) -> tuple[int, str]:
    """Send a signal after the second epoch; returns exit code and log."""
    log = run.with_suffix(".log")
    with started(launcher, root, [*words, "--exp_name", run.name], log) as process:
        history = run / "metrics.jsonl"
        wait_for(lambda: history.is_file() and history.read_text().count("\n") >= 2, "two epochs", 120)
        process.send_signal(sent)
        status = process.wait(60)
    return status, log.read_text()


def resume_words(log: str) -> list[str]:
    (command,) = re.findall(r"resume with: tape-train (.*)", log)
    return shlex.split(command)


def history_of(run: Path) -> list[dict[str, Any]]:
    return [{**record, "seconds": 0} for record in read_history(run)]


def check_equal(run: Path, straight: Path) -> None:
    assert history_of(run) == history_of(straight)
    assert len(history_of(run)) == EPOCHS
    one, other = (load_state_dict(path / str(EPOCHS - 1)) for path in (run, straight))
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    assert not list(run.glob("step_*"))


@pytest.mark.slow
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGINT])
def test_an_interrupted_run_resumes_exactly(
    sent: signal.Signals, options: list[str], tmp_path: Path, repository_root: Path
) -> None:
    python = (sys.executable,)
    run = tmp_path / "run"
    status, log = interrupted(python, repository_root, options, run, sent)
    assert status == 0, log
    state = resolve_model_directory(run, (LATEST_NAME,))
    step = json.loads((state / "provenance.json").read_text())["step"]
    assert state.name == f"step_{step}"
    assert f"{sent.name}: exiting after step {step} of {5 * EPOCHS}; resume with: tape-train" in log
    trained(python, repository_root, resume_words(log), tmp_path / "resumed.log")
    trained(python, repository_root, [*options, "--exp_name", "straight"], tmp_path / "straight.log")
    check_equal(run, tmp_path / "straight")
    assert sorted(path.name for path in (tmp_path / "logs").iterdir()) == ["run", "straight"]


@pytest.mark.slow
@pytest.mark.distributed
def test_torchrun_forwards_the_signal_and_the_ranks_resume_exactly(
    options: list[str], tmp_path: Path, repository_root: Path
) -> None:
    run = tmp_path / "run"
    _, log = interrupted(TORCHRUN, repository_root, options, run, signal.SIGTERM)
    assert log.count("resume with: tape-train") == 1
    assert "FAILED" not in log  # torchrun prints it if a rank has another exit code than 0
    trained(TORCHRUN, repository_root, resume_words(log), tmp_path / "resumed.log")
    trained(TORCHRUN, repository_root, [*options, "--exp_name", "straight"], tmp_path / "straight.log")
    check_equal(run, tmp_path / "straight")


@pytest.mark.slow
def test_the_next_seed_is_not_trained(options: list[str], tmp_path: Path, repository_root: Path) -> None:
    words = [*options, "--seeds", "2", "--exp_name", "seeds"]
    log = tmp_path / "log"
    with started((sys.executable,), repository_root, words, log) as process:
        history = tmp_path / "seeds" / "seed_42" / "metrics.jsonl"
        wait_for(lambda: history.is_file() and history.read_text() != "", "an epoch", 120)
        process.terminate()
        assert process.wait(60) == 0
    resume = resume_words(log.read_text())
    assert resume[2:4] == ["--from_pretrained", str(tmp_path / "seeds" / "seed_42")]
    assert resume[-4:] == ["--output_dir", str(tmp_path), "--num_workers", "0"]
    assert not (tmp_path / "seeds" / "seed_43").exists()


@pytest.mark.slow
@pytest.mark.distributed
def test_tape_train_distributed_passes_the_signal_on(
    options: list[str], free_port: int, tmp_path: Path, repository_root: Path
) -> None:
    run, log = tmp_path / "run", tmp_path / "log"
    code = "import sys; from tape.commands import train_distributed_command; sys.exit(train_distributed_command())"
    words = [*options, "--exp_name", "run", "--nproc_per_node", "2", "--master_port", str(free_port)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "PYTHONPATH": str(repository_root)}
    with log.open("w") as stream:
        process = subprocess.Popen([sys.executable, "-c", code, *words], stdout=stream, stderr=stream, env=environment)
    try:
        history = run / "metrics.jsonl"
        wait_for(lambda: history.is_file() and history.read_text().count("\n") >= 2, "two epochs", 120)
        process.terminate()
        assert process.wait(60) == 143
    finally:
        process.kill()
    assert resolve_model_directory(run, (LATEST_NAME,)).name.startswith("step_")
    assert "Traceback" not in log.read_text()
