"""Putting the parts of a command together from its parsed options: data, model, settings, the run's directory."""

from __future__ import annotations

import argparse
import logging
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from tape.datasets.cropping import CroppedDataset
from tape.datasets.index import check_position_limit, index_of, lengths_of, within_length
from tape.datasets.labels import infer_task_type
from tape.datasets.sources import dataset_provenance
from tape.errors import CheckpointError, ConfigError
from tape.evaluation.windows import WindowedModel
from tape.finetuning.config import AdamWConfig, TrainingConfig
from tape.finetuning.resume import resumed_epoch
from tape.finetuning.run_directory import LATEST_NAME, RunDirectory, experiment_name, logging_to_file, saved_epoch
from tape.finetuning.run_logger import RunLogger
from tape.finetuning.trainer import TrainingData
from tape.hub.cache import local_model
from tape.models.freezing import freeze_encoder
from tape.models.lora import add_lora
from tape.models.model_directory import UNTRAINED, check_vocabulary, directory_provenance
from tape.registry import TaskSpec, registry
from tape.runtime.distributed import DistributedContext, broadcast_object
from tape.runtime.precision import is_fast
from tape.tasks import TASK_TYPE_TRAITS, TaskType
from tape.tokenizers import VOCABULARIES, TAPETokenizer
from tape.version import __version__

from .parsers import precision_of, written_arguments

logger = logging.getLogger(__name__)


def training_data(args: argparse.Namespace, spec: TaskSpec) -> TrainingData:
    """Splits ``train`` and, if there is validation, ``valid``; what ``--max_length`` leaves out is counted and said.

    Raises:
        ProteinLMError: a split is missing or damaged, or nothing is left.
    """
    train = spec.dataset_class(args.data_dir, "train", args.tokenizer)
    valid = spec.dataset_class(args.data_dir, "valid", args.tokenizer) if args.eval_freq > 0 else None
    for split, dataset in (("train", train), ("valid", valid)):
        report_changes(dataset, split)
    if index_of(train) is None and args.max_length is not None:
        raise ConfigError(f"{type(train).__name__} does not tell its proteins' lengths, so --max_length can't be used")
    lengths = lengths_of(train)
    indices = within_length(lengths, args.max_length)
    if args.max_length is not None and indices.size < len(lengths):
        left_out = len(lengths) - indices.size
        logger.warning("--max_length %d: %d of %d training proteins left out", args.max_length, left_out, len(lengths))
    return TrainingData(train, lengths, indices, valid)


def report_changes(dataset: Any, split: str) -> None:
    """Say how many characters of a split's sequences were read as others."""
    dataset_index = None if dataset is None else index_of(dataset)
    if dataset_index is not None and dataset_index.changes:
        changes = ", ".join(f"{name} {count}" for name, count in sorted(dataset_index.changes.items()))
        logger.warning("sequences of %s were read with these changes of characters: %s", split, changes)


def report_slow_precision(precision: str, device: torch.device) -> None:
    """Say so when the number format is slow on this machine."""
    if not is_fast(precision, device):
        logger.warning(
            "this machine has no matrix instructions for %s: --%s computes its numbers at the speed of fp32",
            precision,
            precision,
        )


def task_type(spec: TaskSpec, dataset: Any) -> TaskType:
    """The shape that the task states, or else that of its first example."""
    return spec.task_type or infer_task_type(dataset.collate_fn([dataset[0]]))


def training_config(args: argparse.Namespace, shape: TaskType) -> TrainingConfig:
    """Settings of the run; a batch size that was not given is the shape's."""
    return TrainingConfig(
        batch_size=TASK_TYPE_TRAITS[shape].batch_size if args.batch_size is None else args.batch_size,
        num_train_epochs=args.num_train_epochs,
        gradient_accumulation_steps=args.gradient_accumulation_steps,
        num_log_iter=args.num_log_iter,
        eval_freq=args.eval_freq,
        save_freq=args.save_freq,
        patience=args.patience,
        seed=args.seed,
        num_workers=args.num_workers,
        precision=precision_of(args),
        max_tokens=args.max_tokens,
        optimizer=AdamWConfig(
            args.learning_rate, args.weight_decay, args.warmup_steps, args.max_grad_norm, args.head_learning_rate
        ),
    )


def pretrained_source(args: argparse.Namespace) -> Path | None:
    """The model directory that ``--from_pretrained`` means: of a run its best epoch, or to go on its latest."""
    if args.from_pretrained is None:
        return None
    path = local_model(args.from_pretrained)
    return resumed_epoch(path) if args.resume_from_checkpoint else saved_epoch(path)


def model_to_train(args: argparse.Namespace, source: Path | None) -> nn.Module:
    """The task's model: from ``source``, from ``--model_config_file``, or with its class's defaults.

    Raises:
        ProteinLMError: it can't be loaded, has another vocabulary, or an option does not fit it.
    """
    tokenizer = TAPETokenizer(args.tokenizer)
    overrides = {"finetuning_task": args.task, **dict(args.config)}
    for name in ("contact_head", "pooling"):
        if getattr(args, name) is not None:
            overrides[name] = getattr(args, name)
    if source is not None:
        check_vocabulary(source, tokenizer)
    elif args.tokenizer != "iupac" and args.model_config_file is None:
        overrides.setdefault("vocab_size", _rows_needed(tokenizer))
    model: nn.Module = registry.get_task_model(args.model_type, args.task, args.model_config_file, source, **overrides)
    _check_vocabulary_size(model, tokenizer)
    return model


def _rows_needed(tokenizer: TAPETokenizer) -> int:
    """Rows of an embedding that every id has one in (unirep: 26, where ``vocab_size`` says 29 as TAPE does)."""
    return max(tokenizer.vocab.values()) + 1


def _check_vocabulary_size(model: nn.Module, tokenizer: TAPETokenizer) -> None:
    size, needed = getattr(model.config, "vocab_size", None), _rows_needed(tokenizer)
    if isinstance(size, int) and size < needed:
        fitting = next((name for name in VOCABULARIES if _rows_needed(TAPETokenizer(name)) == size), None)
        raise ConfigError(
            f"the model has {size} tokens (vocab_size), but the {tokenizer.name} vocabulary needs {needed}"
            + (f"; its own may be --tokenizer {fitting}" if fitting else "")
        )


def choose_trained_parts(args: argparse.Namespace, model: nn.Module) -> nn.Module:
    """The model with only those weights in training that ``--freeze`` or ``--lora`` leave there."""
    if args.freeze:
        freeze_encoder(model)
    if args.lora is not None:
        add_lora(model, args.lora)
    return model


def position_limit(model: nn.Module) -> int | None:
    """Rows of the model's position table; None where it takes proteins of any length.

    Raises:
        ConfigError: a table for ``<cls>`` and ``<sep>`` alone.
    """
    limit = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(limit, int):
        return None
    if limit < 3:
        raise ConfigError(f"max_position_embeddings {limit} leaves no residue beside <cls> and <sep>; give 3 or more")
    return limit


def fit_training_lengths(args: argparse.Namespace, model: nn.Module, data: TrainingData) -> TrainingData:
    """The data as ``--length`` has them read; nothing is dropped or cut in silence (defect 16).

    Raises:
        DataError: a protein is longer than the position table, and ``--length error``.
    """
    limit = position_limit(model)
    if limit is None:
        return data
    if args.length == "error":
        check_position_limit(data.train, limit, data.indices)
        if data.valid is not None:
            check_position_limit(data.valid, limit)
        return data
    _report_long(data.lengths[data.indices], limit, "crop", "train")
    valid = data.valid
    if valid is not None:
        _report_long(lengths_of(valid), limit, args.length, "valid")
        valid = CroppedDataset(valid, limit) if args.length == "crop" else valid
    return replace(data, train=CroppedDataset(data.train, limit), valid=valid)


def fit_lengths(policy: str, model: nn.Module, dataset: Any, shape: TaskType, split: str) -> tuple[nn.Module, Any]:
    """Model and data set as ``--length`` has long proteins read in one pass over a split.

    Raises:
        DataError: a protein is longer than the position table, and the policy is ``error``.
    """
    limit = position_limit(model)
    if limit is None:
        return model, dataset
    if policy == "error":
        check_position_limit(dataset, limit)
        return model, dataset
    _report_long(lengths_of(dataset), limit, policy, split)
    if policy == "crop":
        return model, CroppedDataset(dataset, limit)
    return WindowedModel(model, shape, limit), dataset


def check_evaluated_splits(args: argparse.Namespace, spec: TaskSpec, model: nn.Module) -> None:
    """Refuse, before hours of training, what ``--eval_splits`` could not evaluate after it.

    Raises:
        ProteinLMError: a split is missing or damaged, or has proteins too long for the model and ``--length error``.
    """
    limit = position_limit(model)
    for split in args.eval_splits:
        dataset = spec.dataset_class(args.data_dir, split, args.tokenizer)
        if limit is not None and args.length == "error":
            check_position_limit(dataset, limit)


def validated_model(args: argparse.Namespace, model: nn.Module, shape: TaskType) -> nn.Module:
    """The model as validation calls it."""
    limit = position_limit(model)
    return model if limit is None or args.length != "window" else WindowedModel(model, shape, limit)


def _report_long(lengths: np.ndarray, limit: int, policy: str, split: str) -> None:
    over = int((lengths > limit - 2).sum())
    treated = f"cut to their first {limit - 2} residues" if policy == "crop" else f"read in windows of {limit - 2}"
    if over:
        logger.warning("--length %s: %d of %d proteins of %s are %s", policy, over, len(lengths), split, treated)


def run_directory(args: argparse.Namespace, source: Path | None, context: DistributedContext) -> RunDirectory:
    """A new run's directory, or the one that is gone on with; made by rank 0 alone."""
    if args.resume_from_checkpoint:
        assert source is not None
        return RunDirectory(source.resolve().parent)
    name = broadcast_object(experiment_name(args.task, args.model_type, args.time_or_name, args.exp_name), context)
    path = Path(args.output_dir) / name
    if context.is_main:
        RunDirectory.create(path, args.overwrite)
    return RunDirectory(path)


def check_later_epochs(args: argparse.Namespace, run: RunDirectory, epoch: int) -> None:
    """Refuse to drop what a run saved after ``epoch`` unless ``--overwrite`` asks for it.

    An epoch that ``latest.json`` does not name yet was cut off while it was saved, and is no loss.
    """
    later = run.saved_after(epoch)
    if not later or args.overwrite or saved_epoch(run.path, (LATEST_NAME,)) == run.epoch_directory(epoch):
        return
    raise ConfigError(
        f"{run.path}: going on after epoch {epoch} drops its saved epochs {', '.join(map(str, later))}; give"
        f" --overwrite to drop them, or --from_pretrained {run.path} to go on after the last of them"
    )


def run_recorder(
    args: argparse.Namespace, run: RunDirectory, data: TrainingData, context: DistributedContext, stack: ExitStack
) -> RunLogger | None:
    """Rank 0's recorder and log file, closed with ``stack``; None on other ranks."""
    if not context.is_main:
        return None
    run.write_arguments(written_arguments(args))
    stack.enter_context(logging_to_file(run.path / "log"))
    provenance = {
        "kind": "finetuned",
        "task": args.task,
        "model_type": args.model_type,
        "initialised_from": args.from_pretrained,
        "data": dataset_provenance(data.train),
        "seed": args.seed,
        "code_version": __version__,
    }
    recorder = RunLogger(run, _log_directory(args, run), TAPETokenizer(args.tokenizer), provenance)
    stack.callback(recorder.close)
    return recorder


def _log_directory(args: argparse.Namespace, run: RunDirectory) -> Path:
    """Where the folder with tensorboard's files is made: below ``--log_dir`` as the run lies below ``--output_dir``."""
    path, output = run.path.resolve(), Path(args.output_dir).resolve()
    return Path(args.log_dir) / (path.parent.relative_to(output) if path.is_relative_to(output) else "")


def finetuned_model(args: argparse.Namespace, spec: TaskSpec, directory: Path) -> nn.Module:
    """The model of a directory, whole: an untrained head would give numbers that mean nothing."""
    tokenizer = TAPETokenizer(args.tokenizer)
    check_vocabulary(directory, tokenizer)
    model_class = spec.get_model(args.model_type)
    loaded = model_class.from_pretrained(directory, num_labels=spec.num_labels, output_loading_info=True)
    model: nn.Module = loaded[0]
    missing = loaded[1]["missing_keys"]
    if missing:
        raise CheckpointError(
            f"{directory}: has no trained weights of the {args.task} model: {', '.join(missing[:4])}"
            f"{' ...' if len(missing) > 4 else ''}; finetune it first"
        )
    _check_vocabulary_size(model, tokenizer)
    _log_training_data(model, args.task, directory)
    return model


def _log_training_data(model: nn.Module, task: str, directory: Path) -> None:
    """Warn where a head of the right shape has learned nothing of the task."""
    trained = getattr(model.config, "finetuning_task", None)
    if trained not in (None, task):
        logger.warning("%s: finetuned on %s, not on %s", directory, trained, task)
    origin = directory_provenance(directory)
    if origin.get("kind") == UNTRAINED:
        source = origin.get("initialised_from")
        untrained = (
            "its head has random weights" if source is None else f"a head that {source} lacks has random weights"
        )
        logger.warning(
            "%s: saved by --force_save before any training on %s: %s, and what it predicts then means nothing",
            directory,
            task,
            untrained,
        )


def encoder(args: argparse.Namespace, directory: Path) -> nn.Module:
    """The bare model of a directory.

    Raises:
        ProteinLMError: it can't be loaded, or has another vocabulary.
    """
    tokenizer = TAPETokenizer(args.tokenizer)
    check_vocabulary(directory, tokenizer)
    model: nn.Module = registry.get_task_model(args.model_type, "embed", load_dir=directory)
    _check_vocabulary_size(model, tokenizer)
    return model
