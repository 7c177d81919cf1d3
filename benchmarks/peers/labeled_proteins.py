"""Proteins with labels for the comparison of finetuning.

Sequences are real, labels are random: no step depends on their values. This repository reads them as JSON lines through
its data sets, the peers from an ``.npz`` file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tape.errors import ConfigError
from tape.io.lmdb_store import write_lmdb
from tape.tasks import TASKS
from tape.tokenizers import TAPETokenizer

from .proteins import SEED, similar_lengths

_SHORTEST, _LONGEST = 50, 500  # residues of proteins of natural length
_STEP = 3.8  # Angstrom between consecutive C-alpha atoms


@dataclass(frozen=True)
class Workload:
    """A finetuning step to measure.

    Attributes:
        task: name of the task.
        length: residues of every protein; None for natural lengths of 50 to 500.
        contact_head: head of contact prediction.
    """

    task: str
    length: int | None = None
    contact_head: str = "linear"

    @property
    def is_pairs(self) -> bool:
        return self.task == "contact_prediction"


WORKLOADS = {
    "secondary_structure": Workload("secondary_structure"),
    "remote_homology": Workload("remote_homology"),
    "fluorescence": Workload("fluorescence", 237),
    "stability": Workload("stability", 45),
    "contacts_linear": Workload("contact_prediction", 400),
    "contacts_resnet": Workload("contact_prediction", 256, "resnet"),
}


def choose(proteins: Sequence[str], length: int | None, number: int, group: int) -> list[str]:
    """The proteins of a workload.

    Args:
        proteins: all proteins, sorted by length.
        length: residues to which proteins are cut; None keeps those of natural length.
        number, group: how many, and the largest batch, see :func:`benchmarks.peers.proteins.similar_lengths`.

    Raises:
        ConfigError: there are not enough.
    """
    if length is None:
        return similar_lengths([p for p in proteins if _SHORTEST <= len(p) <= _LONGEST], number, group)
    long_enough = [protein[:length] for protein in proteins if len(protein) >= length]
    if len(long_enough) < number:
        raise ConfigError(f"{len(long_enough)} proteins have {length} residues or more; --proteins asks for {number}")
    return long_enough[:number]


def write_task(folder: Path, task: str, proteins: Sequence[str]) -> None:
    """Write the training split of a task for this repository, and ``proteins.npz`` for the peers."""
    labels = _random_labels(task, proteins)
    directory = folder / TASKS[task].folder
    directory.mkdir()
    with (directory / f"{directory.name}_train.jsonl").open("w", encoding="utf-8") as stream:
        for protein, (fields, _) in zip(proteins, labels, strict=True):
            print(json.dumps({"primary": protein, **fields}), file=stream)
    _write_arrays(folder / "proteins.npz", proteins, labels)


def write_split(folder: Path, task: str, split: str, proteins: Sequence[str]) -> None:
    """Write proteins in every form that evaluation and embedding read.

    Args:
        folder: receives ``SPLIT.fasta``, ``SPLIT.npz`` for transformers, and the task's LMDB directory of this split,
            which tape-proteins and this repository read.
        task: the task of the labels.
        split: name of the split.
        proteins: the sequences.
    """
    labels = _random_labels(task, proteins)
    entries = [f">protein{number}\n{protein}\n" for number, protein in enumerate(proteins)]
    (folder / f"{split}.fasta").write_text("".join(entries), encoding="ascii")
    directory = folder / TASKS[task].folder
    directory.mkdir(exist_ok=True)
    records = [
        {"id": f"protein{number}", "primary": protein, "protein_length": len(protein), **_as_arrays(fields)}
        for number, (protein, (fields, _)) in enumerate(zip(proteins, labels, strict=True))
    ]
    write_lmdb(directory / f"{directory.name}_{split}.lmdb", records)
    order = sorted(range(len(proteins)), key=lambda number: -len(proteins[number]))
    _write_arrays(folder / f"{split}.npz", [proteins[n] for n in order], [labels[n] for n in order])


def _as_arrays(fields: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Labels as in the published LMDB files and in those of ``scripts/prepare_data.py``."""
    return {name: np.asarray(value) for name, value in fields.items()}


def _write_arrays(path: Path, proteins: Sequence[str], labels: Sequence[tuple[dict[str, Any], np.ndarray]]) -> None:
    """Write ``input_ids`` of all proteins, one after another, ``lengths`` with special tokens, and ``targets``.

    The number of targets per protein depends on the task: 1, one per token, or one per pair of residues.
    """
    encoded = [TAPETokenizer().encode(protein) for protein in proteins]
    np.savez(
        path,
        input_ids=np.concatenate(encoded),
        lengths=np.array([len(ids) for ids in encoded]),
        targets=np.concatenate([targets.ravel() for _, targets in labels]),
    )


def _random_labels(task: str, proteins: Sequence[str]) -> list[tuple[dict[str, Any], np.ndarray]]:
    generator = np.random.default_rng(SEED)
    return [_labels(task, len(protein), generator) for protein in proteins]


def _labels(task: str, length: int, generator: np.random.Generator) -> tuple[dict[str, Any], np.ndarray]:
    """The fields of a record, and the targets of the peers."""
    if task == "secondary_structure":
        states = generator.integers(3, size=length)
        return {"ss3": states.tolist()}, np.pad(states, 1, constant_values=-1)
    if task == "remote_homology":
        fold = int(generator.integers(1195))
        return {"fold_label": fold}, np.array([fold])
    if task == "contact_prediction":
        positions = np.cumsum(generator.normal(size=(length, 3)) * _STEP / np.sqrt(3), axis=0).round(3)
        valid = np.ones(length, dtype=bool)
        fields = {"tertiary": positions.tolist(), "valid_mask": valid.tolist()}
        from tape.datasets.contacts import contact_labels  # imports torch, which --help doesn't need

        return fields, contact_labels(positions, valid)
    value = [round(float(generator.normal()), 3)]
    field = {"fluorescence": "log_fluorescence", "stability": "stability_score"}[task]
    return {field: value}, np.array(value, dtype=np.float32)
