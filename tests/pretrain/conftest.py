"""A tiny corpus, and fixtures that run pretraining on it: in this process, or on several over gloo."""

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

from pretrain.config.arguments import parse_arguments
from pretrain.data.preprocessing import preprocess
from pretrain.pretrain_tape import run_pretraining
from tape.runtime.launch import Launch

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"
TIMEOUT_SECONDS = 480


def random_proteins(number: int, seed: int = 0, longest: int = 120) -> list[str]:
    """Proteins of 5 to `longest` residues with a skewed composition, so that there is something to learn."""
    generator = np.random.default_rng(seed)
    weights = generator.dirichlet(np.ones(len(RESIDUES)) * 0.5)
    lengths = generator.integers(5, longest, size=number)
    return ["".join(generator.choice(list(RESIDUES), size=length, p=weights)) for length in lengths]


def write_fasta(path: Path, proteins: list[str]) -> Path:
    path.write_text("".join(f">p{i}\n{protein}\n" for i, protein in enumerate(proteins)), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def proteins() -> list[str]:
    return random_proteins(300)


@pytest.fixture(scope="session")
def corpus_prefix(tmp_path_factory: pytest.TempPathFactory, proteins: list[str]) -> Path:
    """300 proteins, some longer than the 64 tokens of a row in most tests."""
    folder = tmp_path_factory.mktemp("corpus")
    return preprocess([write_fasta(folder / "proteins.fasta", proteins)], folder / "tiny").prefix


@pytest.fixture(scope="session")
def second_prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 other proteins."""
    folder = tmp_path_factory.mktemp("second")
    return preprocess([write_fasta(folder / "others.fasta", random_proteins(40, seed=1))], folder / "other").prefix


@pytest.fixture(scope="session")
def flags(corpus_prefix: Path) -> Callable[..., list[str]]:
    """`flags(train_iters=20, dropout=0.0, *extra)`: a command line of a tiny model on the tiny corpus."""

    def make(*extra: object, train_iters: int = 20, dropout: float = 0.0) -> list[str]:
        options: dict[str, object] = {
            "--num-layers": 2,
            "--hidden-size": 32,
            "--num-attention-heads": 4,
            "--seq-length": 64,
            "--max-position-embeddings": 64,
            "--micro-batch-size": 2,
            "--global-batch-size": 8,
            "--train-iters": train_iters,
            "--lr": 1e-2,
            "--attention-dropout": dropout,
            "--hidden-dropout": dropout,
            "--data-path": corpus_prefix,
            "--split": "90,10,0",
            "--eval-iters": 2,
            "--log-interval": 5,
            "--num-workers": 0,
            "--peak-tflops": 1,  # otherwise every run measures it, which takes a second
        }
        return [str(word) for item in options.items() for word in item] + [str(word) for word in extra]

    return make


@pytest.fixture(scope="session")
def pretrain_here() -> Callable[[list[str]], None]:
    """Run pretraining on a single rank, in this process."""
    return lambda arguments: run_pretraining(parse_arguments(arguments), Launch())


@pytest.fixture(scope="session")
def torchrun(repository_root: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`torchrun(2, script, *arguments)`: run a script on several processes over gloo."""

    def run(processes: int, script: Path, *arguments: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        result = subprocess.run(
            [*launcher, str(script), *map(str, arguments)],
            env=environment,
            cwd=repository_root.parent,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_SECONDS,
            check=False,
        )
        if check and result.returncode != 0:
            pytest.fail(f"{result.args}\n{result.stdout}\n{result.stderr}")
        return result

    return run


@pytest.fixture(scope="session")
def records() -> Callable[..., list[dict[str, Any]]]:
    """`records(save_directory, kind="train")`: the records of metrics.jsonl."""

    def read(directory: Path, kind: str = "train") -> list[dict[str, Any]]:
        lines = (directory / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return [record for record in map(json.loads, lines) if record["kind"] == kind]

    return read
