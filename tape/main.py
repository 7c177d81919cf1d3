"""The commands: they read their options, have the parts put together (:mod:`tape.cli.build`), and run.

``run_train``, ``run_eval``, ``run_embed`` and ``run_train_distributed`` read ``sys.argv`` unless given arguments, and
raise :class:`tape.errors.ProteinLMError` for what a user can mend. The ``*_command`` functions are for the shell: the
same, with one line on stderr and an exit code instead.

Third-party tasks and models registered in the same process are known to all of them. Heavy imports stand inside the
functions, so that ``--help`` and a wrong option answer at once.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tape.finetuning.config import AdamWConfig
from tape.finetuning.resume import take_over
from tape.hub.cache import local_model

from .cli import parsers as options
from .errors import ConfigError, run_cli
from .registry import TaskSpec, registry
from .tasks import TASK_TYPE_TRAITS, TaskType
from .tokenizers import TAPETokenizer
from .version import __version__

if TYPE_CHECKING:
    from tape.evaluation.evaluate import Evaluation
    from tape.finetuning.checkpoint import TrainerState
    from tape.finetuning.run_directory import RunDirectory
    from tape.finetuning.run_logger import RunLogger
    from tape.finetuning.trainer import Finetuner
    from tape.runtime.distributed import DistributedContext

Arguments = argparse.Namespace | Sequence[str] | None

logger = logging.getLogger(__name__)


def _parse(parser: argparse.ArgumentParser, arguments: Arguments) -> argparse.Namespace:
    return arguments if isinstance(arguments, argparse.Namespace) else parser.parse_args(arguments)


def _parse_training(parser: argparse.ArgumentParser, arguments: Arguments) -> argparse.Namespace:
    """Parsed options that know which of them were given; those of a launcher's process know it already."""
    args = _parse(parser, arguments)
    if not isinstance(arguments, argparse.Namespace):
        args.given_options = options.given_options(parser, arguments)
    elif not hasattr(args, "given_options"):
        args.given_options = options.changed_options(parser, args)
    return args


# --- training -------------------------------------------------------------------------------------------------------


def run_train(arguments: Arguments = None) -> Path:
    """``tape-train``: train a model on a task.

    Args:
        arguments: of the command line; ``sys.argv`` when None.

    Returns:
        The run's directory (with ``--force_save``, that of the saved model).

    Raises:
        ProteinLMError: options, data or model that can't be used.
    """
    args, changes = _completed(_parse_training(options.create_train_parser(), arguments))
    spec = _trainable(args)
    from tape.finetuning.run_directory import logging_to_terminal
    from tape.finetuning.trainer import seed_all
    from tape.runtime.distributed import distributed_context

    with distributed_context(args.no_cuda, args.local_rank) as context:
        with logging_to_terminal(options.level_of(args) if context.is_main else logging.WARNING):
            seed_all(args.seed)
            if args.force_save != "FALSE":
                return _save_untrained(args, context)
            if args.seeds is not None:
                return _train_seeds(args, spec, context)
            path = _train(args, spec, context, changes)
            _evaluate_splits(args, spec, context, path)
            return path


def _completed(args: argparse.Namespace) -> tuple[argparse.Namespace, list[str]]:
    """Checked options, for a resumed run with those it was started with; and what it changes, for the log."""
    changes: list[str] = []
    if args.resume_from_checkpoint and args.from_pretrained is not None:
        args, changes = take_over(args)
    options.check_training_arguments(args)
    return args, changes


def _trainable(args: argparse.Namespace) -> TaskSpec:
    """The task's spec, if it can be trained with the model type."""
    spec = registry.get_task_spec(args.task)
    if not spec.is_available:
        raise ConfigError(f"task {args.task} is not available in this version")
    if spec.task_type == TaskType.EMBEDDING:
        raise ConfigError(f"task {args.task} has nothing to train or evaluate; use tape-embed")
    if args.model_type not in spec.models:
        spec.get_model(args.model_type)  # raises, and says what there is
    return spec


def _train(args: argparse.Namespace, spec: TaskSpec, context: DistributedContext, changes: Sequence[str]) -> Path:
    from tape.finetuning.checkpoint import load_training_state
    from tape.finetuning.trainer import Finetuner

    from .cli import build as assembly

    data = assembly.training_data(args, spec)
    shape = assembly.task_type(spec, data.train)
    config = assembly.training_config(args, shape)
    assembly.report_slow_precision(config.precision, context.device)
    source = assembly.pretrained_source(args)
    saved = load_training_state(source) if args.resume_from_checkpoint and source is not None else None
    model = assembly.choose_trained_parts(args, assembly.model_to_train(args, source)).to(context.device)
    data = assembly.fit_training_lengths(args, model, data)
    assembly.check_evaluated_splits(args, spec, model)
    with ExitStack() as stack:
        run = assembly.run_directory(args, source, context)
        if saved is not None:
            assembly.check_later_epochs(args, run, saved[1].epoch)
        recorder = assembly.run_recorder(args, run, data, context, stack)
        validated = assembly.validated_model(args, model, shape)
        trainer = Finetuner(model, data, shape, config, context, recorder, validated)
        if saved is not None:
            _resume(trainer, saved, run, recorder)
            for change in changes if context.is_main else ():
                logger.warning(change)
        _announce(args, trainer, run)
        trainer.train()
    return run.path


def _train_seeds(args: argparse.Namespace, spec: TaskSpec, context: DistributedContext) -> Path:
    """``--seeds N``: N runs in one directory, and their mean and standard deviation."""
    from tape.finetuning.run_directory import SEED_PREFIX, experiment_name
    from tape.finetuning.seeds import SeedRun, write_summary
    from tape.finetuning.trainer import seed_all
    from tape.runtime.distributed import broadcast_object

    name = broadcast_object(experiment_name(args.task, args.model_type, args.time_or_name, args.exp_name), context)
    runs = []
    for seed in range(args.seed, args.seed + args.seeds):
        own = argparse.Namespace(
            **{**vars(args), "seed": seed, "seeds": None, "exp_name": f"{name}/{SEED_PREFIX}{seed}"}
        )
        seed_all(seed)
        path = _train(own, spec, context, ())
        runs.append(SeedRun(seed, path, _evaluate_splits(own, spec, context, path)))
    directory = Path(args.output_dir) / name
    if context.is_main:
        for line in write_summary(directory, args.task, args.model_type, runs):
            logger.info(line)
    return directory


def _evaluate_splits(
    args: argparse.Namespace, spec: TaskSpec, context: DistributedContext, run: Path
) -> dict[str, dict[str, float]]:
    """``--eval_splits``: the metrics of a run's best saved epoch on each."""
    evaluation = vars(options.create_eval_parser().parse_args([args.model_type, args.task, str(run)]))
    shared = {name: value for name, value in vars(args).items() if name in evaluation and name != "from_pretrained"}
    return {
        split: _evaluate(argparse.Namespace(**{**evaluation, **shared, "split": split}), spec, context)
        for split in args.eval_splits
    }


def _resume(
    trainer: Finetuner,
    saved: tuple[dict[str, Any], TrainerState],
    run: RunDirectory,
    recorder: RunLogger | None,
) -> None:
    state, progress = saved
    trainer.resume(state, progress)
    if recorder is not None:
        run.forget_after(progress.epoch)
        recorder.point_to_best(progress)
    logger.info("going on after epoch %d, step %d, in %s", progress.epoch, progress.global_step, run.path)


def _announce(args: argparse.Namespace, trainer: Finetuner, run: RunDirectory) -> None:
    """Write the arguments with what their defaults came to, and say what is about to happen."""
    resolved = {"batch_size": trainer.config.batch_size, "warmup_steps": trainer.schedule.warmup_steps}
    if trainer.recorder is not None:
        run.write_arguments({**options.written_arguments(args), **resolved})
    logger.info("%s on %s in %s, %s", args.model_type, args.task, run.path, trainer.describe())
    if trainer.schedule.warmup_steps >= trainer.total_steps:
        logger.warning(
            "--warmup_steps %d is not less than the run's %d steps: the learning rate never reaches %g",
            trainer.schedule.warmup_steps,
            trainer.total_steps,
            args.learning_rate,
        )


def _save_untrained(args: argparse.Namespace, context: DistributedContext) -> Path:
    """``--force_save``: the model as it starts, with its optimizer, in PATH/0. No data are read."""
    from tape.finetuning.checkpoint import TrainerState, save_epoch
    from tape.finetuning.optimizer import make_optimizer
    from tape.models.model_directory import UNTRAINED

    from .cli import build as assembly

    directory = Path(args.force_save) / "0"
    model = assembly.model_to_train(args, assembly.pretrained_source(args))
    if context.is_main:
        optimizer, schedule = make_optimizer(model, AdamWConfig(args.learning_rate, args.weight_decay, 0), 1)
        state = {"optimizer": optimizer.state_dict(), "scheduler": schedule.state_dict()}
        provenance = {
            "kind": UNTRAINED,
            "task": args.task,
            "initialised_from": args.from_pretrained,
            "seed": args.seed,
            "code_version": __version__,
        }
        tokenizer = TAPETokenizer(args.tokenizer)
        save_epoch(directory, model, state, TrainerState(), tokenizer=tokenizer, provenance=provenance)
        logger.info("saved the untrained model to %s", directory)
    return directory


# --- evaluation -----------------------------------------------------------------------------------------------------


def run_eval(arguments: Arguments = None) -> dict[str, float]:
    """``tape-eval``: evaluate a finetuned model on a split.

    Returns:
        The metrics that ``--metrics`` names (all of the task's when it names none), as ``results.pkl`` holds them; with
        ``--predict``, nothing but the number of ``proteins``.

    Raises:
        ProteinLMError: options, data or model that can't be used.
    """
    args = _parse(options.create_eval_parser(), arguments)
    options.check_directory("--output_dir", args.output_dir)
    spec = _trainable(args)
    from tape.finetuning.run_directory import logging_to_terminal
    from tape.runtime.distributed import distributed_context

    with distributed_context(args.no_cuda, args.local_rank) as context:
        with logging_to_terminal(options.level_of(args) if context.is_main else logging.WARNING):
            return _evaluate(args, spec, context) if args.predict is None else _predict(args, spec, context)


def _predict(args: argparse.Namespace, spec: TaskSpec, context: DistributedContext) -> dict[str, float]:
    """``--predict FILE``."""
    from tape.datasets.embedding import EmbedDataset
    from tape.evaluation.evaluate import EvaluationConfig
    from tape.finetuning.run_directory import saved_epoch
    from tape.inference.predict import check_predicted, predict
    from tape.inference.prediction_files import PredictionFiles
    from tape.runtime.distributed import all_gather_lists

    from .cli import build as assembly

    directory = saved_epoch(local_model(args.from_pretrained))
    shape = spec.task_type or assembly.task_type(spec, spec.dataset_class(args.data_dir, args.split, args.tokenizer))
    check_predicted(args.task, shape)
    folder = directory if directory.is_dir() else directory.parent
    path = args.predict_out or folder / f"predictions_{args.predict.name.split('.')[0]}.csv"
    files = PredictionFiles(path, args.task, shape)
    dataset: Any = EmbedDataset(args.predict, args.tokenizer)
    assembly.report_changes(dataset, str(args.predict))
    model = assembly.finetuned_model(args, spec, directory).to(context.device)
    model, dataset = assembly.fit_lengths(args.length, model, dataset, shape, str(args.predict))
    batch_size = TASK_TYPE_TRAITS[shape].batch_size if args.batch_size is None else args.batch_size
    config = EvaluationConfig(batch_size, args.num_workers, options.precision_of(args), max_tokens=args.max_tokens)
    rows = all_gather_lists(files.keep(predict(model, dataset, shape, config, context)), context)
    if context.is_main:
        files.write(rows, directory)
        logger.info("wrote %d predictions to %s", len(rows), path)
    return {"proteins": float(len(rows))}


def _evaluate(args: argparse.Namespace, spec: TaskSpec, context: DistributedContext) -> dict[str, float]:
    from tape.evaluation.evaluate import EvaluationConfig, check_measured, evaluate
    from tape.evaluation.results import check_metrics, chosen_metrics
    from tape.finetuning.run_directory import saved_epoch

    from .cli import build as assembly

    directory = saved_epoch(local_model(args.from_pretrained))
    dataset = spec.dataset_class(args.data_dir, args.split, args.tokenizer)
    assembly.report_changes(dataset, args.split)
    shape = assembly.task_type(spec, dataset)
    check_metrics(args.metrics, args.task, shape)
    batch_size = TASK_TYPE_TRAITS[shape].batch_size if args.batch_size is None else args.batch_size
    bootstrap = options.bootstrap_of(args)
    precision = options.precision_of(args)
    config = EvaluationConfig(batch_size, args.num_workers, precision, bootstrap, args.max_tokens)
    assembly.report_slow_precision(config.precision, context.device)
    model = assembly.finetuned_model(args, spec, directory).to(context.device)
    model, dataset = assembly.fit_lengths(args.length, model, dataset, shape, args.split)
    evaluation = evaluate(model, dataset, shape, config, context, keep_results=True, title=f"{args.task} {args.split}")
    check_measured(evaluation, getattr(getattr(dataset, "data", None), "path", f"split {args.split}"))
    chosen = chosen_metrics(evaluation, args.metrics)
    if context.is_main:
        _write_evaluation(args, directory, dataset, evaluation, chosen, model.config)
    for name, value in chosen.items():
        logger.info("%s: %.4g", name, value)
    return chosen


def _write_evaluation(
    args: argparse.Namespace,
    directory: Path,
    dataset: Any,
    evaluation: Evaluation,
    chosen: dict[str, float],
    config: Any,
) -> None:
    from tape.datasets.sources import dataset_provenance
    from tape.evaluation.results import data_hash, write_report, write_results

    folder = directory if directory.is_dir() else directory.parent
    write_results(folder, args.split, chosen, evaluation)
    report = write_report(
        folder,
        evaluation,
        task=args.task,
        model=args.model_type,
        split=args.split,
        data={**dataset_provenance(dataset), **({} if args.length == "error" else {"long_proteins": args.length})},
        data_sha256=data_hash(dataset),
        precision=options.precision_of(args),
        bootstrap=options.bootstrap_of(args),
        config=config.to_dict(),
    )
    logger.info("%d proteins of %s; wrote %s", evaluation.proteins, args.split, report)


# --- embedding ------------------------------------------------------------------------------------------------------


def run_embed(arguments: Arguments = None) -> Path:
    """``tape-embed``: write a model's states of the proteins of a file; returns the file written.

    Raises:
        ProteinLMError: options, data or model that can't be used.
    """
    args = _parse(options.create_embed_parser(), arguments)
    spec = registry.get_task_spec("embed")
    spec.get_model(args.model_type)
    from tape.evaluation.evaluate import EvaluationConfig
    from tape.evaluation.results import data_hash, model_hash
    from tape.finetuning.run_directory import logging_to_terminal, saved_epoch
    from tape.inference.embed import embed, run_identity
    from tape.inference.embedding_files import embeddings_file
    from tape.runtime.distributed import distributed_context

    from .cli import build as assembly

    with distributed_context(args.no_cuda, args.local_rank) as context:
        with logging_to_terminal(options.level_of(args) if context.is_main else logging.WARNING):
            path = embeddings_file(Path(args.out_file))
            dataset = spec.dataset_class(args.data_file, args.tokenizer)
            assembly.report_changes(dataset, args.data_file)
            directory = saved_epoch(local_model(args.from_pretrained))
            model = assembly.encoder(args, directory).to(context.device)
            model, dataset = assembly.fit_lengths(args.length, model, dataset, TaskType.EMBEDDING, args.data_file)
            batch_size = TASK_TYPE_TRAITS[TaskType.EMBEDDING].batch_size if args.batch_size is None else args.batch_size
            config = EvaluationConfig(
                batch_size, args.num_workers, options.precision_of(args), max_tokens=args.max_tokens
            )
            identity = run_identity(
                dataset,
                model_sha256=model_hash(directory),
                data_sha256=data_hash(dataset),
                full_sequence=args.full_sequence_embed,
                length=args.length,
                precision=config.precision,
            )
            before = embed(model, dataset, config, context, path, identity)
            logger.info("wrote %d embeddings to %s (%d were done before)", len(dataset), path, before)
    return path


# --- several processes ----------------------------------------------------------------------------------------------


def run_train_distributed(arguments: Arguments = None) -> None:
    """``tape-train-distributed``: ``run_train`` in ``--nproc_per_node`` processes on each of ``--nnodes`` machines.

    Raises:
        ProteinLMError: options that can't be used, or a process failed.
    """
    args, _ = _completed(_parse_training(options.create_distributed_parser(), arguments))
    _trainable(args)
    from tape.runtime.distributed import LaunchPlan, launch

    values = vars(args)
    plan = LaunchPlan(**{name: values.pop(name) for name in options.LAUNCHER_OPTIONS})
    launch(plan, _train_worker, argparse.Namespace(**values))


def _train_worker(args: argparse.Namespace) -> None:
    sys.exit(run_cli(lambda: run_train(args)))


# --- for the shell --------------------------------------------------------------------------------------------------


def train_command() -> int:
    """``tape-train`` and ``tape_train.py``."""
    return run_cli(run_train)


def eval_command() -> int:
    """``tape-eval`` and ``tape_eval.py``."""
    return run_cli(run_eval)


def embed_command() -> int:
    """``tape-embed``."""
    return run_cli(run_embed)


def train_distributed_command() -> int:
    """``tape-train-distributed``."""
    return run_cli(run_train_distributed)


if __name__ == "__main__":
    sys.exit(train_command())
