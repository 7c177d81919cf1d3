"""Options of ``tape-train`` and ``tape-train-distributed``, parsed into :class:`FinetuneConfig`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tape.configs import POOLED_NORMS, POOLINGS
from tape.errors import ConfigError, quoted
from tape.finetuning.best_epoch import check_metric
from tape.finetuning.config import (
    BALANCED,
    IMPROVEMENT,
    AdamWConfig,
    FinetuneConfig,
    FinetuneDataConfig,
    LoopConfig,
    ModelConfig,
    OutputConfig,
    ResumeConfig,
    check_class_weights,
    check_standardize,
)
from tape.finetuning.resume import complete_options, epoch_to_resume, run_to_resume
from tape.io.json_files import RepeatedKeyError, parse_json
from tape.io.records import RecordOptions
from tape.io.run_layout import ARGUMENTS_NAME, check_run_names
from tape.io.writing import check_output_directory
from tape.registry import registry
from tape.runtime.elastic_launch import LaunchPlan
from tape.runtime.process import print_warnings_on_error
from tape.tables.options import TableOptions
from tape.tables.splits import SPLITS_NAME
from tape.tables.table import table_for_training
from tape.tasks import TaskType

from .keywords import words_of
from .options import (
    Arguments,
    Options,
    add_column_options,
    add_forward_options,
    add_run_name,
    add_task,
    check_task,
    create_base_parser,
    json_arguments,
    parse_given,
    precision_of,
    process_config,
    record_options,
)
from .own_table import add_table_options, complete_for_table, table_options, target_of_run
from .parser import ArgumentParser
from .types import positive_int

# of several models, no model, or a command that was started before
NOT_IN_PYTHON = ("seeds", "force_save", "resume_from_checkpoint", "allow_other_samples", "local_rank")
LAUNCHER_OPTIONS = ("nnodes", "node_rank", "nproc_per_node", "master_addr", "master_port")
TASK_TYPES_WITHOUT_POOLING = frozenset(TaskType) - {TaskType.VALUE, TaskType.SEQUENCE_CLASS, TaskType.MULTILABEL}
_POOLING_OPTIONS = ("pooling", "pooled_norm")
_NO_FORCE_SAVE = "FALSE"  # ProteinLM's default of --force_save


def finetune_config(arguments: Arguments = None, *, raises_errors: bool = False) -> FinetuneConfig:
    """Configuration of ``tape-train``.

    Args:
        arguments: words of a command line; None: those of this process.
        raises_errors: raise a ConfigError for wrong words, too, instead of ending the process.

    Raises:
        ConfigError: options contradict each other or the task, or a directory can't be used.
        CheckpointError: a run to resume is missing or damaged.
    """
    parser = create_train_parser()
    parser.raises_errors = raises_errors
    return _finetune_config(*parse_given(parser, arguments))


def keyword_config(model_type: str, options: Mapping[str, Any]) -> FinetuneConfig:
    """Configuration of ``tape-train`` on a table, with its options as keyword arguments.

    Args:
        model_type: the model type.
        options: value by name of the option; see :func:`.keywords.words_of`.

    Raises:
        ConfigError, CheckpointError: see :func:`finetune_config`. Suggests the closest option to an unknown one.
    """
    parser = create_train_parser()
    parser.raises_errors = True
    words = words_of(parser, options, NOT_IN_PYTHON)
    return _finetune_config(*parse_given(parser, [model_type, *words]))


def distributed_config(arguments: Arguments = None) -> tuple[FinetuneConfig, LaunchPlan]:
    """Configuration of ``tape-train-distributed``, and the processes to start.

    Raises:
        ConfigError, CheckpointError: see :func:`finetune_config`.
    """
    options, given = parse_given(create_distributed_parser(), arguments)
    launcher = {name: options.pop(name) for name in LAUNCHER_OPTIONS}
    return _finetune_config(options, given), LaunchPlan(**launcher)


def _finetune_config(options: dict[str, Any], given: list[str]) -> FinetuneConfig:
    options = {"given_options": given, **options}
    for name in ("data", "labels"):  # args.json names the table for evaluations in any working directory
        if options[name] is not None:
            options[name] = os.path.abspath(options[name])
    if options["target"] is not None and len(options["target"]) == 1:
        (options["target"],) = options["target"]  # args.json names a single column as text
    allow_other_samples = bool(options["allow_other_samples"])
    resume = ResumeConfig() if options["resume_from_checkpoint"] else None
    if resume is not None and options["from_pretrained"] is not None:
        options, changes = complete_options(options, options["given_options"])
        resume = ResumeConfig(tuple(changes), allow_other_samples)
        try:
            return _checked_config(options, resume)
        except ConfigError as error:
            run = options["from_pretrained"]
            raise ConfigError(f"{error}; options that were not given are those of {run} ({ARGUMENTS_NAME})") from error
    return _checked_config(options, resume)


def _checked_config(options: dict[str, Any], resume: ResumeConfig | None) -> FinetuneConfig:
    table = table_options(options)
    if table is None:
        return _config_of(options, resume, None, ())
    if resume is not None and options["from_pretrained"] is not None:
        epoch = epoch_to_resume(Path(options["from_pretrained"])).resolve()
        run = epoch.parent
        table = replace(table, splits_file=run / SPLITS_NAME, run_target=target_of_run(epoch))
    with print_warnings_on_error():  # the run reads the table again
        loaded = table_for_training(table)
    notices: tuple[str, ...] = ()
    if resume is None:
        options, line = complete_for_table(options, loaded, options["given_options"])
        notices = (line,)
    return _config_of({**options, "task": loaded.target.task}, resume, table, notices, loaded.target.task_type)


def _config_of(
    options: dict[str, Any],
    resume: ResumeConfig | None,
    table: TableOptions | None,
    notices: tuple[str, ...],
    task_type: TaskType | None = None,
) -> FinetuneConfig:
    """The configuration of a task, or of a table, whose task has been inferred and is not registered yet."""
    if table is None:
        check_task(options["task"], options["model_type"])  # before its data and directories
    config = FinetuneConfig(
        task=options["task"],
        model=_model_config(options),
        data=FinetuneDataConfig(
            options["data_dir"],
            options["tokenizer"],
            options["max_length"],
            options["length"],
            RecordOptions() if table is not None else record_options(options),
            table,
            options["max_train_samples"],
        ),
        loop=_loop_config(options),
        output=OutputConfig(
            options["output_dir"],
            options["log_dir"],
            options["time_or_name"],
            options["exp_name"],
            options["overwrite"],
            json_arguments(options),
        ),
        resume=resume,
        seeds=options["seeds"],
        eval_splits=tuple(options["eval_splits"]),
        force_save=None if options["force_save"] == _NO_FORCE_SAVE else Path(options["force_save"]),
        process=process_config(options),
        notices=notices,
        class_weights=options["class_weights"],
        standardize=table is None and bool(options["standardize"]),
    )
    _check_directories(config)
    task_type = registry.get_task_spec(config.task).task_type if table is None else task_type
    _check_pooling(options, task_type)
    if config.class_weights is not None and task_type is not None:
        check_class_weights(config.task, task_type)
    if table is None and options["standardize"] is not None and task_type is not None:
        check_standardize(config.task, task_type)
    if task_type is not None:
        check_metric(config.loop.metric_for_best_model, task_type)
    return config


def _model_config(options: Options) -> ModelConfig:
    chosen = {name: options[name] for name in ("contact_head", *_POOLING_OPTIONS) if options[name] is not None}
    config_file = options["model_config_file"]
    return ModelConfig(
        options["model_type"],
        options["tokenizer"],
        None if config_file is None else Path(config_file),
        options["from_pretrained"],
        {**dict(options["config"]), **chosen},
        options["freeze"],
        options["lora"],
        options["verify"],
    )


def _loop_config(options: Options) -> LoopConfig:
    return LoopConfig(
        batch_size=options["batch_size"],
        num_train_epochs=options["num_train_epochs"],
        gradient_accumulation_steps=options["gradient_accumulation_steps"],
        num_log_iter=options["num_log_iter"],
        eval_freq=options["eval_freq"],
        save_freq=options["save_freq"],
        patience=options["patience"],
        metric_for_best_model=options["metric_for_best_model"],
        seed=options["seed"],
        num_workers=options["num_workers"],
        precision=precision_of(options),
        max_tokens=options["max_tokens"],
        optimizer=AdamWConfig(
            options["learning_rate"],
            options["weight_decay"],
            options["warmup_steps"],
            options["max_grad_norm"],
            options["head_learning_rate"],
        ),
    )


def _check_directories(config: FinetuneConfig) -> None:
    """Check the directories that the command reads and writes."""
    if config.force_save is not None:
        check_output_directory(config.force_save, "--force_save")
        return
    check_run_names(config.output.time_or_name, config.output.exp_name)
    if config.data.table is None and not Path(config.data.data_dir).is_dir():
        raise ConfigError(f"--data_dir {config.data.data_dir}: no such directory")
    path = config.model.from_pretrained
    run = None if config.resume is None or path is None else run_to_resume(Path(path))
    if run is not None:
        check_output_directory(run, "--from_pretrained")
    else:
        check_output_directory(Path(config.output.output_dir), "--output_dir")
    check_output_directory(Path(config.output.log_dir), "--log_dir")


def _check_pooling(options: Options, task_type: TaskType | None) -> None:
    task = options["task"]
    if task_type in TASK_TYPES_WITHOUT_POOLING:
        for name in _POOLING_OPTIONS:
            if options[name] is not None:
                raise ConfigError(f"--{name} is for tasks with one value or class per protein, not for {task}")


# --- parsers --------------------------------------------------------------------------------------------------------


def save_frequency(text: str) -> int | str:
    """A number of epochs, or ``improvement``."""
    if text == IMPROVEMENT:
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number of epochs or {IMPROVEMENT!r}, not {quoted(text)}") from None


def config_override(text: str) -> tuple[str, Any]:
    """``KEY=VALUE``. The value is parsed as JSON, or else is plain text."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"must be KEY=VALUE, not {quoted(text)}")
    try:
        return key, parse_json(value)
    except RepeatedKeyError as error:
        raise argparse.ArgumentTypeError(f"{quoted(key)}: {error}") from None
    except ValueError:
        return key, value


def create_train_parser(parents: Sequence[argparse.ArgumentParser] = (), prog: str = "tape-train") -> ArgumentParser:
    """``model_type task`` and the options of training."""
    parser = ArgumentParser(
        prog=prog, description="Train a model on a task.", parents=list(parents) or [create_base_parser()]
    )
    add_task(parser)
    add_table_options(parser)
    _add_run_options(parser)
    _add_model_options(parser)
    _add_optimization_options(parser)
    return parser


def create_distributed_parser() -> ArgumentParser:
    """The options of training and of the launcher."""
    parser = create_train_parser(prog="tape-train-distributed")
    parser.description = "Train a model on a task in several processes (data parallel)."
    add_launcher_options(parser)
    return parser


def add_launcher_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of :class:`tape.runtime.elastic_launch.LaunchPlan`."""
    group = parser.add_argument_group("processes")
    group.add_argument("--nnodes", type=int, default=1, help="number of machines (default %(default)s)")
    group.add_argument("--node_rank", type=int, default=0, help="number of this machine, from 0")
    group.add_argument("--nproc_per_node", type=int, default=1, help="processes per machine (default %(default)s)")
    group.add_argument("--master_addr", default="127.0.0.1", help="address of machine 0 (default %(default)s)")
    group.add_argument("--master_port", type=int, default=29500, help="port on machine 0 (default %(default)s)")


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--data_dir", default="./data", help="directory with one folder per task (default %(default)s)")
    add_run_name(group, "run directory")
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a run of the same name; with --resume_from_checkpoint: drop the epochs saved after the given one",
    )
    group.add_argument("--log_dir", default="./logs", help="directory of the TensorBoard files (default %(default)s)")
    group.add_argument(
        "--num_log_iter", type=int, default=20, help="optimizer steps between log lines (default %(default)s)"
    )
    group.add_argument(
        "--eval_freq", type=int, default=1, help="epochs between validations; 0: no validation (default %(default)s)"
    )
    group.add_argument(
        "--save_freq",
        type=save_frequency,
        default=1,
        help="epochs between saved models, or 'improvement' to save whenever an epoch is better than those before;"
        " with a number the last epoch is saved too (default %(default)s)",
    )
    group.add_argument(
        "--seeds",
        type=positive_int,
        metavar="N",
        help="train N runs with seeds --seed, --seed + 1, ...; each is stored in seed_NUMBER below the run directory,"
        " with mean and standard deviation in summary.json and summary.csv",
    )
    group.add_argument(
        "--eval_splits",
        nargs="+",
        default=[],
        metavar="SPLIT",
        help="splits on which the best saved epoch is evaluated after training",
    )
    group.add_argument(
        "--patience",
        type=int,
        default=-1,
        help="stop early after this many epochs without a better one (default: no early stopping)",
    )
    group.add_argument(
        "--metric_for_best_model",
        default="loss",
        metavar="METRIC",
        help="metric on the validation set that makes an epoch better than others: the loss, or one of the others in"
        " the log line of a validation, such as accuracy or spearmanr (default %(default)s)",
    )
    group.add_argument(
        "--resume_from_checkpoint",
        action="store_true",
        help="resume the run whose directory, or saved epoch, --from_pretrained names; options that are not given are"
        " taken from its args.json, and epochs saved after the given one are dropped only with --overwrite",
    )
    group.add_argument(
        "--allow_other_samples",
        action="store_true",
        help="allow resuming with other training or validation data",
    )
    group.add_argument(
        "--force_save",
        default=_NO_FORCE_SAVE,
        metavar="PATH",
        help="save the untrained model in PATH/0/ and exit; reads no data",
    )


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--from_pretrained", metavar="DIR", help="model directory, or a run directory (its best saved epoch)"
    )
    group.add_argument(
        "--pooling",
        choices=POOLINGS,
        help="input of value and class heads: the state of <cls>, or a mean or learned weighted mean over residues",
    )
    group.add_argument(
        "--pooled_norm",
        choices=POOLED_NORMS,
        help="normalization of that input: none as in TAPE (default), or batch, with which heads learn small "
        "differences between variants of one protein",
    )
    encoder = group.add_mutually_exclusive_group()
    encoder.add_argument("--freeze", action="store_true", help="train only the head, on a frozen encoder")
    encoder.add_argument(
        "--lora",
        type=positive_int,
        metavar="RANK",
        help="train the head and low-rank updates of the encoder's matrices (pip install 'proteinlm[lora]')",
    )
    group.add_argument("--contact_head", choices=("linear", "resnet"), help="contact head of TAPE or of ProteinLM")
    group.add_argument(
        "--config",
        type=config_override,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="replace a value of the model's configuration, e.g. hidden_dropout_prob=0.0; may be repeated",
    )
    group.add_argument(
        "--max_length",
        type=int,
        metavar="N",
        help="train only on proteins of at most N residues (validation and evaluation always use all)",
    )
    group.add_argument(
        "--max_train_samples",
        type=positive_int,
        metavar="N",
        help="train on N proteins drawn with --seed (validation and evaluation always use all)",
    )
    add_forward_options(group)
    add_column_options(group)


def _add_optimization_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("optimization")
    group.add_argument("--learning_rate", type=float, default=1e-4, help="peak learning rate (default %(default)s)")
    group.add_argument(
        "--head_learning_rate",
        type=float,
        help="peak learning rate of the task's head, which has new weights (default: --learning_rate)",
    )
    group.add_argument(
        "--batch_size",
        type=int,
        help="proteins per optimizer step, over all GPUs and accumulation steps (default: contacts 8, classes 32, "
        "values and language models 64)",
    )
    group.add_argument(
        "--class_weights",
        "--class-weights",
        choices=(BALANCED,),
        help="weights of the classes in the loss; balanced: inversely proportional to their numbers in the training"
        " split (default: 1)",
    )
    group.add_argument("--num_train_epochs", type=int, default=10, help="number of epochs (default %(default)s)")
    group.add_argument(
        "--warmup_steps", type=int, help="warm-up in optimizer steps (default: a tenth of the run, at most 10,000)"
    )
    group.add_argument(
        "--gradient_accumulation_steps",
        type=int,
        default=1,
        help="micro-batches per GPU and optimizer step (default %(default)s)",
    )
    group.add_argument(
        "--loss_scale", type=float, default=0, help="accepted and ignored: the loss scale of --fp16 is dynamic"
    )
    group.add_argument(
        "--max_grad_norm",
        type=float,
        default=1.0,
        help="clip gradients to this norm; 0: no clipping (default %(default)s)",
    )
    group.add_argument(
        "--weight_decay", type=float, default=0.01, help="weight decay of matrices (default %(default)s)"
    )
