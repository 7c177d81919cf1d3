"""The proteins that all clients compute. Workers import this module, too, so it needs numpy alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

# human ubiquitin, the A chain of insulin, crambin; the first half of ubiquitin
PROTEINS = {
    "sp|P0CG48|UBC": "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPPDQQRLIFAGKQLEDGRTLSDYNIQKESTLHLVLRLRGG",
    "insulin/A": "GIVEQCCTSICSLYQLENYCN",
    ".": "TTCCPSIVARSNFNVCRLPGTPEALCATYTGCIIIPGATCPGDYAN",
    "half": "MQIFVKTLTGKTITLEVEPSDTIENVKAKIQDKEGIPP",
}
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 96,
}
# a run of tape-proteins 0.5, which is saved after RUN_STEPS of twice as many steps on one protein
RUN: dict[str, Any] = {
    "model_type": "transformer",
    "task": "secondary_structure",
    "learning_rate": 1e-3,
    "warmup_steps": 2,
    "num_train_epochs": 2,
}
RUN_STEPS = 4

Outputs = dict[str, np.ndarray]  # arrays that a worker has computed, by name


def write_inputs(folder: Path, ids: Mapping[str, np.ndarray]) -> None:
    """Write what a worker computes.

    Args:
        folder: the folder that the worker is given.
        ids: token ids (B, S) by vocabulary, padded with 0.
    """
    np.savez(folder / "inputs.npz", **ids)
    (folder / "proteins.json").write_text(json.dumps(PROTEINS), encoding="utf-8")
    (folder / "proteins.fasta").write_text("".join(f">{name}\n{sequence}\n" for name, sequence in PROTEINS.items()))


def read_inputs(folder: Path, vocabulary: str) -> tuple[np.ndarray, np.ndarray]:
    """Token ids (B, S) and their mask, 0 at padding."""
    with np.load(folder / "inputs.npz") as arrays:
        ids: np.ndarray = arrays[vocabulary]
    return ids, (ids != 0).astype(np.int64)


def single_proteins(folder: Path, vocabulary: str) -> list[np.ndarray]:
    """Token ids (1, L + 2) of each protein, without padding."""
    ids, mask = read_inputs(folder, vocabulary)
    return [row[None, :count] for row, count in zip(ids, mask.sum(1), strict=True)]


def write_outputs(folder: Path, outputs: Mapping[str, Any]) -> None:
    np.savez(folder / "outputs.npz", **outputs)


def read_outputs(folder: Path) -> Outputs:
    with np.load(folder / "outputs.npz") as arrays:
        return {name: arrays[name] for name in arrays.files}
