"""Finetuning in two processes gives what one process gives."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tape.distributed import LaunchPlan, Ranks, from_writer, gather_lists, sum_over_ranks, training_processes
from tape.errors import ConfigError
from tape.main import run_eval, run_train
from tape.run_directory import read_history

ROOT = Path(__file__).resolve().parents[2]


def torchrun(processes: int, cwd: Path, *words: object) -> None:
    """Run ``tape_train.py`` under torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(ROOT / "tape_train.py"), *map(str, words)]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stderr


@pytest.mark.distributed
@pytest.mark.slow
def test_two_ranks_train_and_validate_as_one(small_data: Path, small_config: Path, tmp_path: Path) -> None:
    # defect 12: the same steps, each protein validated once, metrics over all ranks (20), one writer
    words = ["transformer", "stability", "--data_dir", small_data, "--model_config_file", small_config]
    options = ["--num_train_epochs", 2, "--batch_size", 3, "--learning_rate", 1e-3, "--warmup_steps", 0]
    runs = []
    for processes in (1, 2):
        command = [
            *words,
            *options,
            "--output_dir",
            tmp_path / f"n{processes}",
            "--exp_name",
            "run",
            "--num_log_iter",
            1,
        ]
        if processes == 1:
            run_train([*map(str, command), "--log_dir", str(tmp_path / "logs")])
        else:
            torchrun(processes, tmp_path, *command)
        runs.append(tmp_path / f"n{processes}" / "run")
    one, two = (read_history(run) for run in runs)
    for first, second in zip(one, two, strict=True):
        assert first["step"] == second["step"]
        for group in ("train", "valid"):
            assert second[group] == pytest.approx(first[group], rel=2e-3, abs=2e-4)
    weights = [torch.load(run / "1" / "pytorch_model.bin", weights_only=True) for run in runs]
    for name, value in weights[0].items():
        if not name.endswith("key.bias"):  # its true gradient is 0, and Adam blows its rounding noise up
            torch.testing.assert_close(weights[1][name], value, rtol=1e-2, atol=3e-4, msg=name)
    log = (runs[1] / "log").read_text().splitlines()
    assert sum("step 1/4" in line for line in log) == 2  # one line an epoch: one process writes


@pytest.mark.distributed
@pytest.mark.slow
def test_two_ranks_validate_the_model_that_is_saved(small_data: Path, small_config: Path, tmp_path: Path) -> None:
    """Batch normalisation's running statistics differ between ranks until they are shared."""
    words = ["transformer", "secondary_structure", "--data_dir", small_data, "--model_config_file", small_config]
    options = ["--num_train_epochs", 1, "--batch_size", 4, "--learning_rate", 1e-2, "--warmup_steps", 0]
    torchrun(2, tmp_path, *words, *options, "--output_dir", tmp_path, "--exp_name", "run")
    validated = read_history(tmp_path / "run")[0]["valid"]
    saved = ["transformer", "secondary_structure", str(tmp_path / "run" / "0"), "--data_dir", str(small_data)]
    assert run_eval([*saved, "--split", "valid"]) == pytest.approx(validated, rel=1e-4)


@pytest.mark.distributed
@pytest.mark.slow
def test_the_launcher_reports_what_its_processes_say(
    run_script: Callable[..., Any],
    assert_clean_error: Callable[..., None],
    small_config: Path,
    write_split: Callable[..., Path],
    tmp_path: Path,
    free_port: int,
) -> None:
    script = tmp_path / "launch.py"
    script.write_text(
        "import sys\nfrom tape.main import train_distributed_command\n"
        "if __name__ == '__main__':\n    sys.exit(train_distributed_command())\n"
    )
    words = ["transformer", "masked_language_modeling", "--model_config_file", small_config, "--num_train_epochs", 1]
    launcher = ["--nproc_per_node", 2, "--master_port", free_port, "--time_or_name", "d", "--batch_size", 4]
    write_split("pfam", "train", [{"primary": "AC"}, {"primary": "A1"}])
    data = write_split("pfam", "valid", [{"primary": "AC"}])
    result = run_script(script, *words, *launcher, "--data_dir", data, cwd=tmp_path)
    assert_clean_error(result, "pfam_train.lmdb, record 1: unknown residue '1'", "training process")


def test_one_process_needs_no_exchange() -> None:
    ranks = Ranks()
    assert (ranks.is_writer, ranks.is_distributed) == (True, False)
    assert sum_over_ranks([1.0, 2.0], ranks) == [1.0, 2.0]
    assert gather_lists([1], ranks) == [1]
    assert from_writer("x", ranks) == "x"
    with training_processes(no_cuda=True) as alone:
        assert alone == ranks


def test_impossible_launches(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        LaunchPlan(nproc_per_node=0)
    with pytest.raises(ConfigError, match="--node_rank must lie in 0 to 1, not 2"):
        LaunchPlan(nnodes=2, node_rank=2)
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ConfigError, match="WORLD_SIZE is 'many'"), training_processes():
        pass
