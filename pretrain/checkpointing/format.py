"""The files of a checkpoint directory, and how they are verified; no torch.distributed here."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from pretrain.checkpoint_paths import METADATA_NAME
from tape.errors import CheckpointError, quoted
from tape.io.checksums import sha256_of
from tape.io.json_files import read_json_object

FORMAT = "proteinlm-sharded"
VERSION = 1
INDEX_NAME = ".metadata"  # torch.distributed.checkpoint's
_CHECKSUM_FIELD = "sha256"  # of all other fields of metadata.json
_FIELD_TYPES: dict[str, type] = {
    "iteration": int,
    "model_config": dict,
    "arguments": dict,
    "vocabulary": list,
    "vocabulary_fingerprint": str,
    "files": dict,
}
MODEL_PREFIX, OPTIMIZER_PREFIX = "model.", "optimizer."


@dataclass(frozen=True)
class CheckpointConfig:
    """Where and when to save checkpoints, and which one to resume from.

    Attributes:
        save: directory for checkpoints; None: save none.
        load: directory to resume from; if it is ``save``, a run that starts for the first time has no checkpoint there.
        save_interval: iterations between checkpoints; None: save only at the end.
        keep_last: number of newest checkpoints to keep; None: all.
        async_save: write checkpoints in a background thread while training continues.
        allow_other_samples: resume even if the training rows differ from those of the checkpoint's run.
        schedule_of: which learning-rate schedule applies when flags and checkpoint differ: that of the flags
            (``start``) or of the ``checkpoint``; None: it is an error.
    """

    save: str | None = None
    load: str | None = None
    save_interval: int | None = None
    keep_last: int | None = None
    async_save: bool = True
    allow_other_samples: bool = False
    schedule_of: str | None = None

    @property
    def resumes_itself(self) -> bool:
        """Whether the run resumes from the directory that it saves to."""
        return None not in (self.save, self.load) and Path(str(self.save)).resolve() == Path(str(self.load)).resolve()


@dataclass(frozen=True)
class RunState:
    """Progress of a run, stored beside weights and optimizer state.

    Attributes:
        iteration: number of completed steps.
        consumed_samples, consumed_tokens: rows and tokens of these steps.
        skipped_steps: those of these steps that were skipped because loss or gradient were not finite.
        loss_scale: state of :class:`pretrain.optim.precision.LossScale`.
        skipped_in_a_row: number of the latest steps that were all skipped; steps that search for a loss scale are not
            counted.
        evaluation_due: whether the evaluation after this iteration has not been done yet.
        skipped_samples: rows of the skipped steps; 0 in checkpoints of versions that did not count them.
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
    """Description of a run that is stored in each of its checkpoints.

    Attributes:
        model_config: ProteinBertConfig.to_dict().
        arguments: the run's command-line options.
        vocabulary, vocabulary_fingerprint: tokens in the order of their ids, and a hash of them.
        samples: everything that determines the training rows (:mod:`pretrain.resume`).
        initial_weights: path, format and digest of the model whose weights the run started from; empty for random ones.
        weights_only: whether this is a converted model, without optimizer state, and not a checkpoint of a run.
    """

    model_config: dict[str, Any]
    arguments: dict[str, Any]
    vocabulary: list[str]
    vocabulary_fingerprint: str
    samples: dict[str, Any] = field(default_factory=dict)
    initial_weights: dict[str, str] = field(default_factory=dict)
    weights_only: bool = False


@dataclass(frozen=True)
class FullCheckpoint:
    """A checkpoint with its shards gathered into plain tensors on the CPU.

    Attributes:
        model: state dict of ProteinBertForMaskedLM.
        model_config: ProteinBertConfig.to_dict().
        arguments: the run's command-line options.
        iteration: number of completed steps.
        vocabulary: tokens in the order of their ids.
        path: the checkpoint's directory.
    """

    model: dict[str, Tensor]
    model_config: dict[str, Any]
    arguments: dict[str, Any]
    iteration: int
    vocabulary: list[str]
    path: Path


def named_tensors(model: nn.Module, optimizer_state: dict[str, Tensor]) -> dict[str, Any]:
    """All tensors of a checkpoint by their names in it, not copied: saving reads them and loading fills them."""
    return {
        **{MODEL_PREFIX + name: value for name, value in model.state_dict().items()},
        **{OPTIMIZER_PREFIX + name: value for name, value in optimizer_state.items()},
    }


def read_metadata(path: Path) -> dict[str, Any]:
    """Read a checkpoint's ``metadata.json``.

    Raises:
        CheckpointError: it is missing, damaged, or of an unknown format.
    """
    file = path / METADATA_NAME
    values = read_json_object(file)
    if values.get("format") != FORMAT:
        raise CheckpointError(f"{file}: not a {FORMAT} checkpoint")
    if values.get("version") != VERSION:
        raise CheckpointError(f"{file}: version {quoted(values.get('version'))}; this code reads version {VERSION}")
    recorded = values.pop(_CHECKSUM_FIELD, None)  # absent in checkpoints of earlier versions
    if recorded is not None and recorded != _checksum(values):
        raise CheckpointError(f"{file}: damaged, its content is not what was written (its own checksum differs)")
    _check_fields(file, values)
    return values


def with_checksum(metadata: dict[str, Any]) -> dict[str, Any]:
    """The content of ``metadata.json``: a checkpoint's metadata, and their checksum, which `read_metadata` compares."""
    return {**metadata, _CHECKSUM_FIELD: _checksum(json.loads(json.dumps(metadata)))}  # keys become text


def _checksum(values: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _check_fields(file: Path, values: dict[str, Any]) -> None:
    """Check the types of what is read from the metadata, and that the listed files are in the checkpoint's directory.

    Raises:
        CheckpointError: names file and field.
    """
    for name, kind in _FIELD_TYPES.items():
        if not isinstance(values.get(name), kind) or isinstance(values.get(name), bool):
            raise CheckpointError(
                f"{file}: damaged, {name} must be of type {kind.__name__}, not {quoted(values.get(name))}"
            )
    if not all(isinstance(token, str) for token in values["vocabulary"]):
        raise CheckpointError(f"{file}: damaged, vocabulary must be a list of tokens")
    samples = values.get("samples", {})  # absent in checkpoints of earlier versions
    corpora = samples.get("corpora", []) if isinstance(samples, dict) else None
    if not isinstance(corpora, list) or not all(isinstance(corpus, dict) for corpus in corpora):
        raise CheckpointError(f"{file}: damaged, samples must be an object with a list of corpora")
    if INDEX_NAME not in values["files"]:
        raise CheckpointError(f"{file}: damaged, the index is missing")
    for name, entry in values["files"].items():
        described = isinstance(entry, dict) and isinstance(entry.get("bytes"), int)
        if Path(name).name != name or not described or not isinstance(entry.get("sha256"), str):
            raise CheckpointError(f"{file}: damaged, {quoted(name)} is no file with its size and SHA-256")


def verify_files(path: Path, files: dict[str, dict[str, Any]], rank: int = 0, ranks: int = 1) -> None:
    """Compare every file with its recorded size and hash; each of several ranks hashes some of the files.

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
