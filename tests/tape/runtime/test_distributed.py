"""Finetuning in two processes gives the same results as in one."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tape.errors import ConfigError
from tape.finetuning.run_directory import read_history
from tape.main import run_embed, run_eval, run_train
from tape.runtime.distributed import (
    DistributedContext,
    all_gather_lists,
    all_reduce_sum,
    broadcast_object,
    distributed_context,
)

ROOT = Path(__file__).resolve().parents[3]


def torchrun(processes: int, cwd: Path, *words: object, script: Path = ROOT / "tape_train.py") -> None:
    """Run a script under torchrun."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(script), *map(str, words)]
    result = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert result.returncode == 0, result.stderr


SEVERAL = """
import json, sys
from tape.main import run_embed, run_eval, run_train
for name, words in json.loads(sys.argv[1]):
    {"train": run_train, "embed": run_embed, "eval": run_eval}[name](words)
"""
FASTA = "".join(f">p{n}\n{'ACDEFGHIKLMNPQRSTVWY'[n:]}\n" for n in range(7))


@pytest.fixture(scope="module")
def outputs(small_data: Path, small_config: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The output of the same commands in one process and in two processes.

    ``plain`` is a run. ``seeds`` are two runs with a frozen encoder and learned pooling; the first one computes the
    embeddings ``e.npz`` and the predictions ``p.csv``.
    """
    folder = tmp_path_factory.mktemp("ranks")
    (folder / "several.py").write_text(SEVERAL)
    (folder / "a.fasta").write_text(FASTA)
    found = []
    for processes in (1, 2):
        out = folder / f"n{processes}"
        out.mkdir()
        model, fasta = str(out / "seeds" / "seed_42"), str(folder / "a.fasta")
        words = ["transformer", "stability", "--data_dir", small_data, "--model_config_file", small_config]
        words += ["--num_train_epochs", 2, "--batch_size", 3, "--warmup_steps", 0, "--num_log_iter", 1]
        words += ["--output_dir", out, "--log_dir", out / "logs"]
        seeds = ["--learning_rate", 1e-2, "--freeze", "--pooling", "attention", "--max_tokens", 64]
        seeds += ["--seeds", 2, "--eval_splits", "test", "--exp_name", "seeds"]
        commands = [
            ("train", [str(word) for word in (*words, "--learning_rate", 1e-3, "--exp_name", "plain")]),
            ("train", [str(word) for word in (*words, *seeds)]),
            ("embed", ["transformer", fasta, str(out / "e.npz"), model, "--batch_size", "2"]),
            ("eval", ["transformer", "stability", model, "--predict", fasta, "--predict_out", str(out / "p.csv")]),
        ]
        if processes == 1:
            for name, given in commands:
                {"train": run_train, "embed": run_embed, "eval": run_eval}[name](given)
        else:
            torchrun(processes, folder, json.dumps(commands), script=folder / "several.py")
        assert sorted(path.name for path in out.iterdir()) == ["e.npz", "logs", "p.csv", "plain", "seeds"]
        found.append(out)
    return found


@pytest.mark.distributed
@pytest.mark.slow
def test_two_ranks_train_and_validate_like_one_process(outputs: list[Path]) -> None:
    # bugs 12 and 20 in docs/compatibility.md: the same steps, each protein validated once, metrics over all ranks, and
    # only the main process writes
    runs = [out / "plain" for out in outputs]
    one, two = (read_history(run) for run in runs)
    for first, second in zip(one, two, strict=True):
        assert first["step"] == second["step"]
        for group in ("train", "valid"):
            assert second[group] == pytest.approx(first[group], rel=2e-3, abs=2e-4)
    weights = [torch.load(run / "1" / "pytorch_model.bin", weights_only=True) for run in runs]
    for name, value in weights[0].items():
        if not name.endswith("key.bias"):  # its gradient is zero except for rounding errors, which Adam amplifies
            torch.testing.assert_close(weights[1][name], value, rtol=1e-2, atol=3e-4, msg=name)
    log = (runs[1] / "log").read_text().splitlines()
    assert sum("step 1/4" in line for line in log) == 2  # one line per epoch: only one process writes


@pytest.mark.distributed
@pytest.mark.slow
def test_two_ranks_validate_the_model_that_is_saved(
    run_script: Callable[..., Any],
    launch_script: Path,
    small_data: Path,
    small_config: Path,
    tmp_path: Path,
    free_port: int,
) -> None:
    """Batch normalization's running statistics differ between ranks until they are shared. By the launcher."""
    words = ["transformer", "secondary_structure", "--data_dir", small_data, "--model_config_file", small_config]
    options = ["--num_train_epochs", 1, "--batch_size", 4, "--learning_rate", 1e-2, "--warmup_steps", 0]
    launcher = ["--nproc_per_node", 2, "--master_port", free_port, "--output_dir", tmp_path, "--exp_name", "run"]
    result = run_script(launch_script, *words, *options, *launcher, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    validated = read_history(tmp_path / "run")[0]["valid"]
    saved = ["transformer", "secondary_structure", str(tmp_path / "run" / "0"), "--data_dir", str(small_data)]
    assert run_eval([*saved, "--split", "valid"]) == pytest.approx(validated, rel=1e-4)


@pytest.mark.distributed
@pytest.mark.slow
def test_seeds_evaluation_embeddings_and_predictions_do_not_depend_on_ranks(outputs: list[Path]) -> None:
    found = []
    for out in outputs:
        summary = json.loads((out / "seeds" / "summary.json").read_text())["summary"]
        with np.load(out / "e.npz", allow_pickle=True) as arrays:
            vectors = np.stack([arrays[f"p{n}"].item()["avg"] for n in range(7)])
        rows = [row.split(",") for row in (out / "p.csv").read_text().splitlines()[1:]]
        found.append((summary, vectors, [row[:2] for row in rows], [float(row[2]) for row in rows]))
    (one, vectors, proteins, values), (other, *rest) = found
    for split in ("valid", "test"):
        for name, spread in one[split].items():
            assert other[split][name]["mean"] == pytest.approx(spread["mean"], rel=2e-3, abs=2e-4), (split, name)
    np.testing.assert_allclose(rest[0], vectors, atol=1e-5)
    assert rest[1] == proteins
    assert rest[2] == pytest.approx(values, rel=1e-2, abs=1e-3)


def test_only_one_process_of_all_machines_is_the_main_process() -> None:
    # bug 12 in docs/compatibility.md: the first process of every machine wrote
    contexts = [DistributedContext(rank, world_size=4, local_rank=rank % 2) for rank in range(4)]
    assert [context.is_main for context in contexts] == [True, False, False, False]


def test_one_process_needs_no_collectives() -> None:
    context = DistributedContext()
    assert (context.is_main, context.is_distributed) == (True, False)
    assert all_reduce_sum([1.0, 2.0], context) == [1.0, 2.0]
    assert all_gather_lists([1], context) == [1]
    assert broadcast_object("x", context) == "x"
    with distributed_context(no_cuda=True) as alone:
        assert alone == context


def test_a_world_size_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "many")
    with pytest.raises(ConfigError, match="WORLD_SIZE must be an integer, not 'many'"), distributed_context():
        pass


THREADS = """
from pathlib import Path
import torch
from tape.runtime.distributed import distributed_context

def train():
    model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(4, 4))
    model(torch.ones(2, 4)).sum().backward()

with distributed_context(no_cuda=True):
    train()
names = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
assert not [name for name in names if "gloo" in name], names
"""


@pytest.mark.distributed
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs /proc")
def test_no_thread_of_the_process_group_outlives_it(tmp_path: Path) -> None:
    """One that does may abort the process at exit."""
    script = tmp_path / "threads.py"
    script.write_text(THREADS, encoding="utf-8")
    torchrun(2, tmp_path, script=script)
