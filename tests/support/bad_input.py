"""Inputs for the tests of bad input: files, damaged files, small data sets, and command lines that use them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import lmdb

from tape.io.lmdb_store import write_lmdb

SIZES: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "max_position_embeddings": 64,
    "type_vocab_size": 1,
    "head_hidden_size": 16,
    "num_labels": 1,
}
LONG = "A" * 40_000
FASTA = ">a\nMKVLAAGIV\n>b\nACDEFGHIK\n" * 60
CSV = "primary,stability_score\nMKV,1\n"
QUIET = ("--no_cuda", "--num_workers", 0, "--log_level", "ERROR")


def write(path: str, content: str | bytes) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.encode() if isinstance(content, str) else content)
    return file


def cut(path: Path, size: int = 100) -> None:
    """Remove the last bytes of a file."""
    path.write_bytes(path.read_bytes()[:-size])


def contains(line: str, words: Iterable[str]) -> None:
    for word in words:
        assert word in line, f"{word!r} is missing from: {line}"


def records(folder: str = "stability") -> list[dict[str, Any]]:
    """Six proteins of 3 to 6 residues with valid labels."""
    made = []
    for number in range(6):
        primary = "MKVLAG"[: 3 + number % 4]
        length = len(primary)
        labels = {
            "stability": {"stability_score": [float(number)]},
            "remote_homology": {"fold_label": number},
            "secondary_structure": {"ss3": [number % 3] * length, "valid_mask": [1] * length},
            "proteinnet": {"tertiary": [[0.0, 0.0, 0.0]] * length, "valid_mask": [1] * length},
        }
        made.append({"primary": primary, "protein_length": length, "id": f"p{number}", **labels[folder]})
    return made


def write_data(folder: str = "stability", **changed: Any) -> Path:
    """Write `data/` with the splits train, valid and test; `changed` replaces fields of record 3 (None removes one)."""
    made = records(folder)
    made[3] = {name: value for name, value in {**made[3], **changed}.items() if value is not None}
    for split in ("train", "valid", "test"):
        write_lmdb(f"data/{folder}/{folder}_{split}.lmdb", made)
    return Path("data") / folder


def delete_key(folder: Path, split: str, key: bytes) -> None:
    with lmdb.open(str(folder / f"{folder.name}_{split}.lmdb"), map_size=1 << 20) as store:
        with store.begin(write=True) as transaction:
            assert transaction.delete(key)


def training(task: str = "stability", *extra: object) -> tuple[object, ...]:
    write("config.json", json.dumps({**SIZES, "contact_num_blocks": 1}))
    options = ("--data_dir", "data", "--model_config_file", "config.json", "--num_train_epochs", 1, "--batch_size", 4)
    return ("transformer", task, *options, "--time_or_name", "x", *QUIET, *extra)


def evaluation(model: Path | str, *extra: object) -> tuple[object, ...]:
    return ("transformer", "stability", model, "--data_dir", "data", *QUIET, *extra)
