"""A client: what is compared with it, and how its worker is started."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.peers.protocol import ROOT
from tape.errors import ConfigError
from tape.registry import registry
from tape.tokenizers import TAPETokenizer

from .inputs import PROTEINS, Outputs, read_inputs, read_outputs, write_inputs

TOLERANCE = 1e-4  # of values of about 1, which two programs compute in fp32


@dataclass(frozen=True)
class Check:
    """A comparison of what a client and this project compute.

    Attributes:
        direction: whose file is read by whom.
        compared: the compared values.
        difference: the largest difference, from the folder of the files and the client's outputs.
        tolerance: the largest difference allowed.
    """

    direction: str
    compared: str
    difference: Callable[[Path, Outputs], float]
    tolerance: float = TOLERANCE


@dataclass(frozen=True)
class Client:
    """Another program.

    Attributes:
        name: the name and version of its package.
        worker: the module that runs in its environment, with a folder as its argument.
        requirements: name of the file of ``benchmarks/`` with the packages of its environment.
        prepare: writes the files of this project that it reads to the folder.
        checks: the comparisons, after the worker has run.
    """

    name: str
    worker: str
    requirements: str
    prepare: Callable[[Path], None]
    checks: tuple[Check, ...]


@dataclass(frozen=True)
class Result:
    """A line of the table.

    Attributes:
        difference: the largest difference; None if it was not computed.
        reason: why not.
    """

    client: str
    direction: str
    compared: str
    difference: float | None
    tolerance: float
    reason: str = ""

    @property
    def passed(self) -> bool:
        return self.difference is not None and self.difference <= self.tolerance


def run_client(client: Client, folder: Path, python: Callable[[str], Path]) -> Iterator[Result]:
    """Run a client and compare.

    Args:
        client: the client.
        folder: an empty folder for the files of both sides.
        python: the Python of the environment with the packages of a requirements file.
    """
    try:
        executable = python(client.requirements)
        write_inputs(folder, {name: _batch(TAPETokenizer(name)) for name in ("iupac", "unirep")})
        client.prepare(folder)
        _run_worker(executable, client.worker, folder)
        outputs = read_outputs(folder)
    except ConfigError as error:
        reason = str(error).splitlines()[0]
        for check in client.checks:
            yield Result(client.name, check.direction, check.compared, None, check.tolerance, reason)
        return
    for check in client.checks:
        difference = check.difference(folder, outputs)
        yield Result(client.name, check.direction, check.compared, difference, check.tolerance)


def _run_worker(python: Path, module: str, folder: Path) -> None:
    """Run a worker to its end.

    Raises:
        ConfigError: it has failed; the message has its last line.
    """
    inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    own = {"HF_HUB_OFFLINE": "1", "PYTHONWARNINGS": "ignore", "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run(
        [python, "-m", module, str(folder)], cwd=ROOT, env={**inherited, **own}, capture_output=True, text=True
    )
    if result.returncode:
        lines = result.stderr.strip().splitlines() or [f"ended with status {result.returncode}"]
        raise ConfigError(f"{module} failed: {lines[-1]}")


def _batch(tokenizer: TAPETokenizer) -> np.ndarray:
    rows = [tokenizer.encode(sequence) for sequence in PROTEINS.values()]
    ids = np.zeros((len(rows), max(map(len, rows))), dtype=np.int64)
    for row, tokens in zip(ids, rows, strict=True):
        row[: len(tokens)] = tokens
    return ids


def random_model(model_type: str, task: str, **settings: Any) -> torch.nn.Module:
    """A model of this project whose parameters are all random, also those of layer norms and biases."""
    torch.manual_seed(0)
    model: torch.nn.Module = registry.get_task_model(model_type, task, **settings)
    return with_random_parameters(model)


def with_random_parameters(model: torch.nn.Module) -> torch.nn.Module:
    """Add noise to all parameters, so that no two are equal."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


@torch.no_grad()
def outputs_of(model: torch.nn.Module, folder: Path, vocabulary: str = "iupac", **inputs: Any) -> list[np.ndarray]:
    """What a model of this project computes for the proteins: the tensors among its outputs."""
    ids, mask = (torch.from_numpy(values) for values in read_inputs(folder, vocabulary))
    return [value.numpy() for value in model(ids, mask, **inputs) if isinstance(value, torch.Tensor)]


def largest_difference(one: np.ndarray, other: np.ndarray, mask: np.ndarray | None = None) -> float:
    """The largest difference of two arrays; infinite if their shapes differ or one isn't finite where the other is.

    Args:
        one, other: the arrays.
        mask: (B, S), nonzero at the tokens to compare; None: all.
    """
    if one.shape != other.shape:
        return float("inf")
    difference = np.abs(one.astype(np.float64) - other.astype(np.float64))
    difference = difference if mask is None else difference[mask != 0]
    return float(difference.max()) if np.isfinite(difference).all() else float("inf")
