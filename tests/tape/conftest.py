"""Small data sets of all tasks, and a small transformer's configuration."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tape.io.lmdb_store import write_lmdb

RESIDUES = "ACDEFGHIKLMNPQRSTVWY"

SPLITS = {
    "secondary_structure": ("train", "valid", "cb513"),
    "proteinnet": ("train", "valid", "test"),
    "remote_homology": ("train", "valid", "test_fold_holdout"),
    "fluorescence": ("train", "valid", "test"),
    "stability": ("train", "valid", "test"),
    "pfam": ("train", "valid", "holdout"),
}


def make_record(folder: str, number: int, rng: np.random.Generator) -> dict[str, Any]:
    """One protein of 8 to 30 residues with the fields of a task; labels follow from the sequence."""
    length = int(rng.integers(8, 31))
    sequence = "".join(rng.choice(list(RESIDUES), length))
    record: dict[str, Any] = {"primary": sequence, "protein_length": length, "id": f"{folder}-{number}"}
    if folder == "secondary_structure":
        record["ss3"] = np.array([RESIDUES.index(residue) % 3 for residue in sequence])
        record["ss8"] = np.array([RESIDUES.index(residue) % 8 for residue in sequence])
        record["valid_mask"] = rng.random(length) > 0.1
    elif folder == "proteinnet":
        record["tertiary"] = np.cumsum(rng.normal(size=(length, 3)) * 2.2, axis=0).astype(np.float32)
        record["valid_mask"] = rng.random(length) > 0.1
    elif folder == "remote_homology":
        record["fold_label"] = RESIDUES.index(sequence[0])
    elif folder == "fluorescence":
        record["log_fluorescence"] = [sequence.count("A") / length]
    elif folder == "stability":
        record["stability_score"] = [10 * sequence.count("K") / length]
    else:
        record.update(clan=1, family=2)
    return record


def write_trrosetta(directory: Path, rng: np.random.Generator) -> None:
    """Alignments and geometry of 10 training and 5 other proteins, some of one sequence, some of many."""
    (directory / "npz").mkdir(parents=True)
    for split, count in (("train", 10), ("valid", 5)):
        names = [f"{split}{number}" for number in range(count)]
        for name in names:
            length, depth = int(rng.integers(8, 31)), int(rng.choice([1, 5, 30]))
            distance = rng.uniform(1, 25, (length, length))
            fields = {
                "msa": rng.integers(0, 21, (depth, length)).astype(np.uint8),
                "dist6d": np.where(distance < 20, distance, 0),
                "omega6d": rng.uniform(-np.pi, np.pi, (length, length)),
                "theta6d": rng.uniform(-np.pi, np.pi, (length, length)),
                "phi6d": rng.uniform(0, np.pi, (length, length)),
            }
            np.savez(directory / "npz" / f"{name}.npz", **fields)
        (directory / f"{split}_files.txt").write_text("\n".join(names) + "\n", encoding="utf-8")
    provenance = {"name": "toy trrosetta", "simulated": True, "source": "a test", "licence": "none"}
    (directory / "dataset.json").write_text(json.dumps(provenance), encoding="utf-8")


@pytest.fixture(scope="session")
def small_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory for every task, with 10 training proteins and 5 proteins in every other split."""
    directory = tmp_path_factory.mktemp("data")
    write_trrosetta(directory / "trrosetta", np.random.default_rng(9))
    for seed, (folder, splits) in enumerate(SPLITS.items()):
        rng = np.random.default_rng(seed)
        for split in splits:
            count = 10 if split == "train" else 5
            records = [make_record(folder, number, rng) for number in range(count)]
            write_lmdb(directory / folder / f"{folder}_{split}.lmdb", records)
        provenance = {"name": f"toy {folder}", "simulated": True, "source": "a test", "licence": "none"}
        (directory / folder / "dataset.json").write_text(json.dumps(provenance), encoding="utf-8")
    return directory


@pytest.fixture(scope="session")
def small_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``config.json`` of a transformer of 2 layers and width 16, without dropout."""
    path = tmp_path_factory.mktemp("config") / "config.json"
    values = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "max_position_embeddings": 64,
        "type_vocab_size": 1,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "contact_num_blocks": 1,
        "head_hidden_size": 16,
    }
    path.write_text(json.dumps(values), encoding="utf-8")
    return path


@pytest.fixture
def write_split(tmp_path: Path) -> Callable[..., Path]:
    """``write_split(folder, split, records)``: one split under ``tmp_path``; returns the data directory."""

    def write(folder: str, split: str, records: list[dict[str, Any]]) -> Path:
        write_lmdb(tmp_path / folder / f"{folder}_{split}.lmdb", records)
        return tmp_path

    return write


@pytest.fixture
def free_port() -> int:
    """An unused TCP port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@pytest.fixture
def train(tmp_path: Path, small_data: Path, small_config: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    """``train(model_type, task, *options)`` in an empty directory; returns the run's directory."""
    from tape.main import run_train

    monkeypatch.chdir(tmp_path)

    def run(model_type: str, task: str, *options: object, data: Path = small_data) -> Path:
        words = [model_type, task, "--data_dir", str(data), "--time_or_name", "t", "--log_level", "40"]
        if model_type == "transformer" and "--from_pretrained" not in options:
            words += ["--model_config_file", str(small_config)]
        return run_train([*words, *map(str, options)])

    return run
