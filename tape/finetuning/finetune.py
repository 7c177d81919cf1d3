"""Finetuning from a configuration to the run directory (``tape-train``)."""

from __future__ import annotations

import logging
import shlex
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from torch import nn

from tape.datasets.labels import task_type_of
from tape.datasets.own_table import register_table, table_of
from tape.errors import ConfigError
from tape.evaluation.split import evaluate_split
from tape.io.credentials import without_credentials
from tape.io.run_layout import SEED_PREFIX, experiment_name, is_epoch_file
from tape.io.writing import check_replaceable
from tape.models.model_directory import UNTRAINED, directory_provenance
from tape.registry import registry
from tape.runtime.distributed import DistributedContext, broadcast_object, run_on_all_ranks
from tape.runtime.precision import warn_if_slow
from tape.runtime.precision_choice import AUTO, resolve_precision
from tape.runtime.stop_signals import StopSignals
from tape.tables.scale import describe_scale
from tape.tables.table import Table, fitted_to, table_for_training
from tape.tasks import TaskType
from tape.tokenizers import TAPETokenizer
from tape.version import __version__

from .best_epoch import LOSS, check_metric
from .checkpoint import TrainerState, load_training_state, save_epoch
from .class_weights import balanced_class_weights, describe_weights, stored_weights
from .config import FinetuneConfig, LoopConfig, ModelConfig, OutputConfig, check_class_weights, check_standardize
from .data import TrainingData, data_digests, fit_training_data, load_training_data
from .frozen_states import kept_states
from .model import build_model, build_trained_model
from .optimizer import untrained_state
from .rank_consistency import check_rank_consistency
from .resume import check_data, initial_weights, run_to_resume
from .run_directory import RunDirectory, open_run_directory
from .run_logger import RunLogger, open_run_logger
from .seeding import seed_all
from .seeds import SeedRun, write_summary
from .tape_runs import TapeRun, find_tape_run
from .tape_state import load_tape_state
from .trainer import Finetuner
from .value_scale import stored_scale, training_scale

logger = logging.getLogger(__name__)


def finetune(config: FinetuneConfig, context: DistributedContext) -> Path:
    """Train a model on a task, and evaluate it on ``eval_splits``.

    Returns:
        The run's directory, or that of the runs of all ``seeds``; with ``force_save``, that of the saved model.

    Raises:
        ProteinLMError: data or model can't be used.
        SystemExit: a stop signal has interrupted the training, and its state is saved.
    """
    tokenizer = TAPETokenizer(config.model.tokenizer)
    table = None if config.data.table is None else table_for_training(config.data.table)
    if table is not None:
        register_table(table)
    if config.force_save is not None:
        return _save_untrained(config, tokenizer, config.force_save / "0", context)
    config = replace(config, loop=replace(config.loop, precision=resolve_precision(config.loop.precision, context)))
    output, model_type = config.output, config.model.model_type
    name = experiment_name(config.task, model_type, output.time_or_name, output.exp_name)
    name = broadcast_object(name, context)
    directory = Path(output.output_dir) / name
    if config.seeds is None:
        return _train_and_evaluate(config, tokenizer, directory, context).path
    runs = []
    for seed in range(config.loop.seed, config.loop.seed + config.seeds):
        seed_config = config.with_seed(seed, name)
        if table is not None:  # an evaluation of the seed before has registered it with the splits of that run
            register_table(table)
        runs.append(_train_and_evaluate(seed_config, tokenizer, directory / f"{SEED_PREFIX}{seed}", context))
    if context.is_main:
        for line in write_summary(directory, config.task, model_type, runs, without=_without_common_unit(config)):
            logger.info(line)
    return directory


def _without_common_unit(config: FinetuneConfig) -> tuple[str, ...]:
    """The loss, if its scale or weights are those of other training proteins for each seed."""
    table = config.data.table
    is_scaled = config.standardize if table is None else table.standardize
    is_fitted = is_scaled or config.class_weights is not None
    return (LOSS,) if is_fitted and config.data.max_train_samples is not None else ()


def _train_and_evaluate(
    config: FinetuneConfig, tokenizer: TAPETokenizer, directory: Path, context: DistributedContext
) -> SeedRun:
    """One run, and the metrics of its best saved epoch on the ``eval_splits``."""
    path = train_run(config, tokenizer, directory, context)
    evaluated = {split: evaluate_split(config.evaluation_of(path, split), context) for split in config.eval_splits}
    return SeedRun(config.loop.seed, path, evaluated)


@dataclass(frozen=True)
class _RunParts:
    """What each rank loads for a run.

    Attributes:
        data: training and validation data, fitted to the model.
        task_type: type of the task.
        model: the model to train, on its device.
        validation_model: the model for validation.
        source: model directory to start or resume from; None: new weights.
        checkpoint: training state and progress of the epoch to resume after; None: a new run.
        data_sha256: digests of the splits' files.
        changes: lines on what differs from the interrupted run.
    """

    data: TrainingData
    task_type: TaskType
    model: nn.Module
    validation_model: nn.Module
    source: Path | None
    checkpoint: tuple[dict[str, Any], TrainerState] | None
    data_sha256: dict[str, str | None]
    changes: tuple[str, ...]


def train_run(config: FinetuneConfig, tokenizer: TAPETokenizer, directory: Path, context: DistributedContext) -> Path:
    """Build data, model and trainer, and train; returns the run's directory (of a resumed run, its own).

    A resumed run of another program continues in a new directory.
    """
    seed_all(config.loop.seed)
    parts = run_on_all_ranks(lambda: _load(config, tokenizer, directory, context), context)
    run_on_all_ranks(lambda: check_rank_consistency(config, parts.data, parts.source, context), context)
    resumed = None
    if parts.checkpoint is not None and parts.source is not None:
        own_run = run_to_resume(parts.source)
        if own_run is not None:
            resumed = parts.source.resolve(), parts.checkpoint[1].epoch
            directory = own_run
    with (
        StopSignals() as signals,
        open_run_directory(directory, config.output, resumed, context) as run,
        open_run_logger(config, run, parts.data, parts.data_sha256, parts.source, tokenizer, context) as run_logger,
    ):
        finetuner = Finetuner(
            parts.model, parts.data, parts.task_type, config.loop, context, run_logger, parts.validation_model, signals
        )
        if parts.checkpoint is not None:
            steps = parts.checkpoint[1].global_step
            finetuner.resume(*parts.checkpoint)
            if run_logger is not None:
                run_logger.resume_after(resumed and resumed[0], finetuner.state, parts.changes, steps)
        table = table_of(registry.get_task_spec(config.task))
        if run_logger is not None and table is not None:
            _log_table(table, run)
        _log_start(config, finetuner, run, run_logger)
        inference = config.loop.validation_for(parts.task_type, context.world_size)
        known = _data_of_states(parts, finetuner)
        with kept_states(parts.model, known, parts.task_type, inference, context, signals):
            _warn_without_best(finetuner.train(), config.loop)
        if run_logger is not None:
            run_logger.draw_curves()
        if finetuner.interrupted:
            _exit_interrupted(config, finetuner, run)
    return run.path


def _data_of_states(parts: _RunParts, finetuner: Finetuner) -> TrainingData | None:
    """The data whose states a frozen encoder needs in the epochs that are left; None: there are none.

    A validation in windows has inputs that depend on the task model.
    """
    if not finetuner.epochs_left:
        return None
    is_whole = parts.validation_model is parts.model
    is_validated = any(map(finetuner.config.is_validated, finetuner.epochs_left))
    return parts.data if is_whole and is_validated else replace(parts.data, valid=None)


def _warn_without_best(state: TrainerState, loop: LoopConfig) -> None:
    """Say that no epoch could be the best by the chosen metric, which is undefined where all labels are equal."""
    if loop.metric_for_best_model != LOSS and state.best_loss is None and state.epoch + 1 >= loop.eval_freq:
        logger.warning(
            "--metric_for_best_model %s: undefined in every validation, so that no epoch is the best: the last saved"
            " one counts, and --patience had no effect",
            loop.metric_for_best_model,
        )


def _exit_interrupted(config: FinetuneConfig, finetuner: Finetuner, run: RunDirectory) -> NoReturn:
    """End the process with code 0 after a stop signal, as pretraining does.

    An exception, because a caller of :func:`tape.main.run_train` would otherwise continue with its next run.
    """
    received, state = finetuner.signals.received, finetuner.state
    name = signal.Signals(received).name if received else "stop signal on another rank"
    if finetuner.context.is_main:
        text = "%s: exiting after step %d of %d; resume with: %s"
        logger.warning(text, name, state.global_step, finetuner.total_steps, _resume_command(config, run))
    raise SystemExit(0)


def _resume_command(config: FinetuneConfig, run: RunDirectory) -> str:
    """The command that resumes a run; all options that it doesn't name are taken from ``args.json``.

    Those that describe the machine or the place of the results are not, and are named if they differ from the defaults.
    ``--output_dir`` determines the place of the TensorBoard files in ``--log_dir``.
    """
    task = [config.task] if config.data.table is None else []  # the table is in args.json
    words = ["tape-train", config.model.model_type, *task, "--from_pretrained", str(run.path)]
    words += ["--resume_from_checkpoint", *(["--no_cuda"] if config.process.no_cuda else [])]
    if config.output.output_dir != OutputConfig.output_dir:
        words += ["--output_dir", config.output.output_dir]
    if config.loop.num_workers != LoopConfig.num_workers:
        words += ["--num_workers", str(config.loop.num_workers)]
    return shlex.join(words)


def _load(config: FinetuneConfig, tokenizer: TAPETokenizer, directory: Path, context: DistributedContext) -> _RunParts:
    spec = registry.get_task_spec(config.task)
    validate = config.loop.eval_freq > 0
    data = load_training_data(config.data, spec.dataset_class, validate, config.eval_splits, config.loop.seed)
    table = table_of(spec)
    if table is not None and config.data.table is not None:
        register_table(fitted_to(table, config.data.table, data.indices))
    task_type = task_type_of(spec, data.train)
    config.loop.batch_size_for(task_type)  # refused before a directory is made
    check_metric(config.loop.metric_for_best_model, task_type)
    warn_if_slow(config.loop.precision, context.device)
    source = initial_weights(config.model.from_pretrained, is_resumed=config.resume is not None)
    digests = data_digests(data)
    theirs = None if config.resume is None or source is None else find_tape_run(source)
    checkpoint, changes = None, tuple[str, ...]()
    if config.resume is not None and source is not None:
        differences = check_data(source, directory_provenance(source), digests, config.resume.allow_other_samples)
        changes = (*config.resume.changes, *differences)
        checkpoint = None if theirs is not None else load_training_state(source, verify=config.model.verify)
    resumed = source if config.resume is not None else None
    model_config = _with_class_weights(config, data, task_type, resumed)
    if config.standardize:
        model_config = _with_value_scale(model_config, config.task, data, task_type, resumed)
    model = build_trained_model(model_config, config.task, tokenizer, source).to(context.device)
    if theirs is not None:
        state = load_tape_state(theirs, model, config.loop.optimizer, verify=config.model.verify)
        _check_continuation(theirs, state.progress, directory, config.loop)
        checkpoint, changes = (state.training_state, state.progress), (*changes, *state.notices)
    data, validation_model = fit_training_data(config.data.length, model, task_type, data)
    return _RunParts(data, task_type, model, validation_model, source, checkpoint, digests, changes)


def _check_continuation(theirs: TapeRun, progress: TrainerState, directory: Path, loop: LoopConfig) -> None:
    """Check that epochs are left of another program's run, and that it continues in a new directory.

    Raises:
        ConfigError: its epochs are complete, or ``directory`` is inside its own or has saved epochs of another run.
            On a resume, ``overwrite`` drops the later epochs of the same run, so it doesn't replace these.
    """
    done, run = progress.epoch + 1, theirs.arguments.parent
    if done >= loop.num_train_epochs:
        raise ConfigError(f"{run}: all {done} epochs of the run are complete; give a larger --num_train_epochs")
    new = "choose another --time_or_name, --exp_name or --output_dir"
    if directory.resolve().is_relative_to(run.resolve()):
        raise ConfigError(
            f"{directory}: the run goes on in a new directory, so that nothing of {theirs.program} is replaced; {new}"
        )
    if directory.is_dir() and RunDirectory(directory).has_saved_states():
        raise ConfigError(
            f"{directory} holds saved epochs of another run, which a resume of a run of {theirs.program} does not"
            f" replace, nor with --overwrite; {new}"
        )


def _with_class_weights(
    config: FinetuneConfig, data: TrainingData, task_type: TaskType, resumed: Path | None
) -> ModelConfig:
    """The model's configuration with the weights of the classes, if ``--class_weights`` is given.

    Those of a resumed run stay, since its best epoch is chosen by the loss.
    """
    if config.class_weights is None:
        return config.model
    check_class_weights(config.task, task_type)
    spec = registry.get_task_spec(config.task)
    own = balanced_class_weights(data, spec.num_labels)
    weights = own if resumed is None else stored_weights(resumed, spec.num_labels)
    logger.info(describe_weights(weights, spec.task.class_names))
    if not np.allclose(weights, own):
        shown = describe_weights(own, spec.task.class_names)
        logger.warning("these are the weights of the interrupted run; of the labels now, they would be %s", shown)
    return replace(config.model, overrides={**config.model.overrides, "class_weights": weights})


def _with_value_scale(
    config: ModelConfig, task: str, data: TrainingData, task_type: TaskType, resumed: Path | None
) -> ModelConfig:
    """The model's configuration with the scale of the values; that of the interrupted run, which its weights have."""
    check_standardize(task, task_type)
    own = training_scale(data, task)
    scale = own if resumed is None else stored_scale(resumed)
    logger.info(describe_scale(task, scale, own))
    return replace(config, overrides={**config.overrides, "value_scale": scale._asdict()})


def _log_table(table: Table, run: RunDirectory) -> None:
    """Log what was inferred from a user's table, and write its splits."""
    for line in (*table.notices, *table.training_notices):
        logger.info(line)
    assert table.division is not None  # a table for training
    table.division.write(run.path, table.identifiers, table.digests)


def _log_start(config: FinetuneConfig, finetuner: Finetuner, run: RunDirectory, run_logger: RunLogger | None) -> None:
    """Write ``args.json`` with the resolved batch size, warm-up and precision, and log what is trained."""
    warmup_steps = finetuner.schedule.warmup_steps
    is_complete = finetuner.state.epoch + 1 >= config.loop.num_train_epochs  # its options are not those of an epoch
    if run_logger is not None and not is_complete:
        resolved: dict[str, Any] = {"batch_size": finetuner.batch_size, "warmup_steps": warmup_steps}
        if config.output.arguments.get("precision") == AUTO:
            resolved["precision"] = config.loop.precision
        run.write_arguments({**config.output.arguments, **resolved})
    for line in config.notices:
        logger.info(line)
    logger.info("%s on %s in %s, %s", config.model.model_type, config.task, run.path, finetuner.describe())
    if warmup_steps >= finetuner.total_steps:
        logger.warning(
            "--warmup_steps %d is not less than the run's %d steps: the learning rate never reaches %g",
            warmup_steps,
            finetuner.total_steps,
            config.loop.optimizer.learning_rate,
        )


def _check_untrained(directory: Path, overwrite: bool) -> None:
    """Check that ``directory`` may be replaced by an untrained model; an earlier one has nothing to lose."""
    is_occupied = directory.is_dir() and any(directory.iterdir())
    if is_occupied and not overwrite and directory_provenance(directory).get("kind") != UNTRAINED:
        raise ConfigError(
            f"--force_save: {directory} exists, and is not a model that --force_save has written; choose another"
            " directory, or replace it with --overwrite"
        )
    check_replaceable(directory, is_epoch_file, "--force_save:")


def _save_untrained(
    config: FinetuneConfig, tokenizer: TAPETokenizer, directory: Path, context: DistributedContext
) -> Path:
    """``--force_save``: save the initial model with its optimizer. No data are read.

    Raises:
        ConfigError: the directory holds a trained model and ``--overwrite`` is not given, or other files.
    """
    _check_untrained(directory, config.output.overwrite)
    seed_all(config.loop.seed)
    source = initial_weights(config.model.from_pretrained, is_resumed=config.resume is not None)
    model = build_model(config.model, config.task, tokenizer, source)
    if context.is_main:
        provenance = {
            "kind": UNTRAINED,
            "task": config.task,
            "initialised_from": without_credentials(config.model.from_pretrained or "") or None,
            "seed": config.loop.seed,
            "code_version": __version__,
        }
        state = untrained_state(model, config.loop.optimizer)
        save_epoch(directory, model, state, TrainerState(), tokenizer=tokenizer, provenance=provenance)
        logger.info("saved the untrained model to %s", directory)
    return directory
