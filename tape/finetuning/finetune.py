"""Finetuning from a configuration to the run directory (``tape-train``)."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import nn

from tape.datasets.labels import task_type_of
from tape.evaluation.split import evaluate_split
from tape.hub.cache import local_model
from tape.io.run_layout import experiment_name, resolve_model_directory
from tape.io.run_lock import lock_beside, run_lock
from tape.models.model_directory import UNTRAINED
from tape.registry import registry
from tape.runtime.distributed import DistributedContext, broadcast_object, run_on_all_ranks, run_on_main_rank
from tape.runtime.precision import warn_if_slow
from tape.tasks import TaskType
from tape.tokenizers import TAPETokenizer
from tape.version import __version__

from .agreement import check_agreement
from .checkpoint import TrainerState, load_training_state, save_epoch
from .config import AdamWConfig, FinetuneConfig
from .data import TrainingData, check_eval_splits, fit_training_data, load_training_data
from .model import build_model, choose_trained_weights, validation_model
from .optimizer import make_optimizer
from .resume import check_later_epochs, epoch_to_resume
from .run_directory import RunDirectory
from .run_logger import RunLogger, open_run_logger
from .seeding import seed_all
from .seeds import Scores, SeedRun, write_summary
from .trainer import Finetuner

Checkpoint = tuple[dict[str, Any], TrainerState]

logger = logging.getLogger(__name__)


def finetune(config: FinetuneConfig, context: DistributedContext) -> Path:
    """Train a model on a task, and evaluate it on ``eval_splits``.

    Returns:
        The run's directory; with ``force_save``, the directory of the saved model.

    Raises:
        ProteinLMError: data or model can't be used.
    """
    if config.force_save is not None:
        return _save_untrained(config, config.force_save / "0", context)
    if config.seeds is not None:
        return _finetune_seeds(config, config.seeds, context)
    path = train_run(config, context)
    _evaluate_best_epoch(config, path, context)
    return path


def train_run(config: FinetuneConfig, context: DistributedContext) -> Path:
    """One run: build data, model and trainer, and train; returns the run's directory."""
    seed_all(config.loop.seed)
    data, task_type, source, checkpoint, model = run_on_all_ranks(lambda: _load(config, context), context)
    run_on_all_ranks(lambda: check_agreement(config, data, source, context), context)
    with ExitStack() as stack:
        run = _open_run_directory(config, source, context, stack)
        if checkpoint is not None:
            check_later_epochs(run, checkpoint[1].epoch, config.output.overwrite)
        run_logger = stack.enter_context(open_run_logger(config, run, data.train, context))
        validated = validation_model(config.data.length, model, task_type)
        finetuner = Finetuner(model, data, task_type, config.loop, context, run_logger, validated)
        if checkpoint is not None:
            finetuner.resume(*checkpoint)
            _log_resume(config, finetuner.state, run, run_logger)
        _log_start(config, finetuner, run, run_logger)
        finetuner.train()
    return run.path


def _load(
    config: FinetuneConfig, context: DistributedContext
) -> tuple[TrainingData, TaskType, Path | None, Checkpoint | None, nn.Module]:
    """The data with the type of their task, the model directory to start from, its training state, and the model."""
    spec = registry.get_task_spec(config.task)
    data = load_training_data(config.data, spec, validate=config.loop.eval_freq > 0)
    task_type = task_type_of(spec, data.train)
    config.loop.batch_size_for(task_type)  # refused before a directory is made
    warn_if_slow(config.loop.precision, context.device)
    source = _initial_weights(config)
    checkpoint = None
    if config.resume is not None and source is not None:
        checkpoint = load_training_state(source, verify=config.model.verify)
    model = choose_trained_weights(config.model, build_model(config.model, config.task, source)).to(context.device)
    data = fit_training_data(config.data.length, model, data)
    check_eval_splits(config.data, config.eval_splits, spec, model)
    return data, task_type, source, checkpoint, model


def _initial_weights(config: FinetuneConfig) -> Path | None:
    """The model directory of ``from_pretrained``: the best epoch of a run, or the latest one to resume."""
    if config.model.from_pretrained is None:
        return None
    path = local_model(config.model.from_pretrained)
    return resolve_model_directory(path) if config.resume is None else epoch_to_resume(path)


def _open_run_directory(
    config: FinetuneConfig, source: Path | None, context: DistributedContext, stack: ExitStack
) -> RunDirectory:
    """The directory of a resumed run, or a new one; rank 0 locks it until the stack is closed, and creates it."""
    resumes = config.resume is not None and source is not None
    if resumes and source is not None:
        path = source.resolve().parent
    else:
        path = Path(config.output.output_dir) / _experiment_name(config, context)

    def lock_and_create() -> None:
        stack.enter_context(run_lock(lock_beside(path), path, "choose another --exp_name or --time_or_name"))
        if not resumes:
            RunDirectory.create(path, config.output.overwrite)

    run_on_main_rank(lock_and_create, context)
    return RunDirectory(path)


def _experiment_name(config: FinetuneConfig, context: DistributedContext) -> str:
    output = config.output
    name = experiment_name(config.task, config.model.model_type, output.time_or_name, output.exp_name)
    return broadcast_object(name, context)


def _log_resume(config: FinetuneConfig, state: TrainerState, run: RunDirectory, run_logger: RunLogger | None) -> None:
    """Drop what was saved after the resumed epoch, and log what changes."""
    if run_logger is not None:
        run.drop_after(state.epoch)
        run_logger.write_best(state)
    logger.info("resuming after epoch %d, step %d, in %s", state.epoch, state.global_step, run.path)
    if run_logger is not None and config.resume is not None:
        for change in config.resume.changes:
            logger.warning(change)


def _log_start(config: FinetuneConfig, finetuner: Finetuner, run: RunDirectory, run_logger: RunLogger | None) -> None:
    """Write ``args.json`` with the resolved batch size and warm-up, and log what is trained."""
    warmup_steps = finetuner.schedule.warmup_steps
    if run_logger is not None:
        resolved = {"batch_size": finetuner.batch_size, "warmup_steps": warmup_steps}
        run.write_arguments({**config.output.arguments, **resolved})
    logger.info("%s on %s in %s, %s", config.model.model_type, config.task, run.path, finetuner.describe())
    if warmup_steps >= finetuner.total_steps:
        logger.warning(
            "--warmup_steps %d is not less than the run's %d steps: the learning rate never reaches %g",
            warmup_steps,
            finetuner.total_steps,
            config.loop.optimizer.learning_rate,
        )


def _evaluate_best_epoch(config: FinetuneConfig, run: Path, context: DistributedContext) -> Scores:
    """``--eval_splits``: metrics of a run's best saved epoch on each split."""
    return {split: evaluate_split(config.evaluation_of(run, split), context) for split in config.eval_splits}


def _finetune_seeds(config: FinetuneConfig, count: int, context: DistributedContext) -> Path:
    """``--seeds``: several runs in one directory, with mean and standard deviation of their metrics."""
    name = _experiment_name(config, context)
    runs = []
    for seed in range(config.loop.seed, config.loop.seed + count):
        seed_config = config.with_seed(seed, name)
        path = train_run(seed_config, context)
        runs.append(SeedRun(seed, path, _evaluate_best_epoch(seed_config, path, context)))
    directory = Path(config.output.output_dir) / name
    if context.is_main:
        for line in write_summary(directory, config.task, config.model.model_type, runs):
            logger.info(line)
    return directory


def _save_untrained(config: FinetuneConfig, directory: Path, context: DistributedContext) -> Path:
    """``--force_save``: save the initial model with its optimizer. No data are read."""
    seed_all(config.loop.seed)
    model = build_model(config.model, config.task, _initial_weights(config))
    if context.is_main:
        provenance = {
            "kind": UNTRAINED,
            "task": config.task,
            "initialised_from": config.model.from_pretrained,
            "seed": config.loop.seed,
            "code_version": __version__,
        }
        tokenizer = TAPETokenizer(config.model.tokenizer)
        state = _initial_optimizer_state(model, config.loop.optimizer)
        save_epoch(directory, model, state, TrainerState(), tokenizer=tokenizer, provenance=provenance)
        logger.info("saved the untrained model to %s", directory)
    return directory


def _initial_optimizer_state(model: nn.Module, config: AdamWConfig) -> dict[str, dict[str, object]]:
    without_warmup = AdamWConfig(config.learning_rate, config.weight_decay, 0)
    optimizer, schedule = make_optimizer(model, without_warmup, 1)
    return {"optimizer": optimizer.state_dict(), "scheduler": schedule.state_dict()}
