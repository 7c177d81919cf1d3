"""What a checkpoint directory holds, and how it is found and verified; plain files, no torch.distributed."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from tape.errors import CheckpointError
from tape.io.checksums import sha256_of
from tape.io.json_files import read_json_object

FORMAT = "proteinlm-sharded"
VERSION = 1
POINTER_NAME = "latest_checkpointed_iteration.txt"
METADATA_NAME = "metadata.json"
INDEX_NAME = ".metadata"  # torch's
MODEL_PREFIX, OPTIMIZER_PREFIX = "model.", "optimizer."


@dataclass(frozen=True)
class CheckpointConfig:
    """Where to save and what to start from.

    Attributes:
        save: directory of checkpoints; None saves nothing.
        load: directory to continue from; one without a checkpoint is not an error (the first start of a run).
        save_interval: iterations between checkpoints; None: only at the end.
        keep_last: how many of the newest checkpoints stay; None: all.
        in_background: write them beside the training.
        other_samples: continue although the rows are other ones than those of the checkpoint's run.
        schedule_of: whose learning rate holds where both have one: None (they must agree), ``start``, ``checkpoint``.
    """

    save: str | None = None
    load: str | None = None
    save_interval: int | None = None
    keep_last: int | None = None
    in_background: bool = True
    other_samples: bool = False
    schedule_of: str | None = None


@dataclass(frozen=True)
class RunState:
    """Where a run stands, beside weights and optimizer.

    Attributes:
        iteration: completed steps.
        consumed_samples, consumed_tokens: rows and tokens of these steps.
        skipped_steps: of these, steps whose update was left out (loss or gradient not finite).
        skipped_in_a_row: how many of them came last, those of the search for a loss scale left out.
        evaluation_due: whether the evaluation that belongs to this iteration is still to be done.
        loss_scale: state of pretrain.optim.precision.LossScale.
        skipped_samples: rows of the skipped steps; checkpoints written before it was counted have 0.
    """

    iteration: int = 0
    consumed_samples: int = 0
    consumed_tokens: int = 0
    skipped_steps: int = 0
    loss_scale: dict[str, float] = field(default_factory=dict)
    skipped_in_a_row: int = 0
    evaluation_due: bool = False
    skipped_samples: int = 0


@dataclass(frozen=True)
class RunDescription:
    """What every checkpoint of a run says about it.

    Attributes:
        model_config: ProteinBertConfig.to_dict().
        arguments: the run's options.
        vocabulary, vocabulary_fingerprint: tokens by id.
        samples: what the rows are a function of (pretrain.train.resume).
    """

    model_config: dict[str, Any]
    arguments: dict[str, Any]
    vocabulary: list[str]
    vocabulary_fingerprint: str
    samples: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class FullCheckpoint:
    """A checkpoint gathered into plain tensors on the CPU.

    Attributes:
        model: state dict under the names of ProteinBertForMaskedLM.
        model_config: ProteinBertConfig.to_dict().
        arguments: the run's options.
        iteration: completed steps.
        vocabulary: tokens by id.
        path: the checkpoint's directory.
    """

    model: dict[str, Tensor]
    model_config: dict[str, Any]
    arguments: dict[str, Any]
    iteration: int
    vocabulary: list[str]
    path: Path


def find_checkpoint(directory: str | os.PathLike[str], iteration: int | None = None) -> Path | None:
    """The checkpoint to read, or None when the directory has none yet.

    Args:
        directory: of a run, or one ``iter_...`` directory.
        iteration: None for the one that the pointer names.

    Raises:
        CheckpointError: the pointer is unreadable or names a checkpoint that isn't there.
    """
    root = Path(directory)
    if root.exists() and not root.is_dir():
        raise CheckpointError(f"{root}: a file, not a directory of checkpoints")
    if (root / METADATA_NAME).is_file():
        return root
    pointer = root / POINTER_NAME
    if iteration is None:
        if not pointer.exists():
            return None
        text = pointer.read_text(encoding="utf-8", errors="replace").strip()
        if not text.isdigit():
            raise CheckpointError(f"{pointer}: should hold the number of an iteration, not {text[:40]!r}")
        iteration = int(text)
    path = root / f"iter_{iteration:07d}"
    if not path.exists():  # a process was killed while this very iteration was being replaced
        path = next(root.glob(f".{path.name}.*.old/{path.name}"), path)
    if not (path / METADATA_NAME).is_file():
        raise CheckpointError(f"{path}: no checkpoint there ({METADATA_NAME} is missing)")
    return path


def read_metadata(path: Path) -> dict[str, Any]:
    """Content of a checkpoint's ``metadata.json``.

    Raises:
        CheckpointError: it is missing, damaged, or of an unknown format.
    """
    file = path / METADATA_NAME
    values = read_json_object(file)
    if values.get("format") != FORMAT:
        raise CheckpointError(f"{file}: not a {FORMAT} checkpoint")
    if values.get("version") != VERSION:
        raise CheckpointError(f"{file}: version {values.get('version')}; this code reads version {VERSION}")
    missing = {"iteration", "model_config", "arguments", "vocabulary", "files"} - values.keys()
    if missing or INDEX_NAME not in values["files"]:
        raise CheckpointError(f"{file}: damaged, {', '.join(sorted(missing)) or 'the index'} missing")
    return values


def verify_files(path: Path, files: dict[str, dict[str, Any]], rank: int = 0, ranks: int = 1) -> None:
    """Compare every file with its recorded size and hash; several ranks share the hashing.

    Raises:
        CheckpointError: a file is missing, truncated or changed. Names it.
    """
    for number, (name, entry) in enumerate(sorted(files.items())):
        file = path / name
        if not file.is_file():
            raise CheckpointError(f"{file}: missing; the checkpoint is incomplete")
        size = file.stat().st_size
        if size != entry["bytes"]:
            state = "truncated" if size < entry["bytes"] else "damaged"
            raise CheckpointError(f"{file}: {state}, {size} bytes where {entry['bytes']} were written")
        if number % ranks == rank and sha256_of(file) != entry["sha256"]:
            raise CheckpointError(f"{file}: damaged, its content is not what was written (SHA-256 differs)")
