"""The options of ``tape_train.py``, ``tape_eval.py``, ``tape-embed`` and ``tape-train-distributed``.

Names and positions are TAPE's and ProteinLM's. Two of their defaults make no sense for a downstream task (a batch of
1024, 10,000 steps of warm-up); here both default to None, which means the values in :mod:`tape.tasks` and
:mod:`tape.finetuning.optimizer`.
"""

from __future__ import annotations

import argparse
import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tape.configs import POOLINGS
from tape.errors import ConfigError
from tape.finetuning.config import IMPROVEMENT
from tape.metrics.bootstrap import Bootstrap
from tape.registry import registry
from tape.tasks import TaskType

from .types import non_negative_int, positive_int

LENGTH_POLICIES = ("error", "crop", "window")
_LOG_LEVELS = {"DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40}

TASK_TYPES_WITHOUT_POOLING = frozenset(TaskType) - {TaskType.VALUE, TaskType.SEQUENCE_CLASS}

Overrides = tuple[str, Any]


def log_level(text: str) -> int:
    """A level's name or its number."""
    if text.isdigit() and int(text) in _LOG_LEVELS.values():
        return int(text)
    if text.upper() in _LOG_LEVELS:
        return _LOG_LEVELS[text.upper()]
    raise argparse.ArgumentTypeError(f"{text!r} is none of {', '.join(_LOG_LEVELS)}, 10, 20, 30, 40")


def existing_file(text: str) -> Path:
    if not Path(text).is_file():
        raise argparse.ArgumentTypeError(f"{text!r} is no existing file")
    return Path(text)


def save_frequency(text: str) -> int | str:
    """A number of epochs, or ``improvement``."""
    if text == IMPROVEMENT:
        return text
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number of epochs nor {IMPROVEMENT!r}") from None


def config_override(text: str) -> Overrides:
    """``KEY=VALUE``; the value is JSON, or plain text where it is none."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def create_base_parser() -> argparse.ArgumentParser:
    """Options of all four commands."""
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("model_type", help="model type registered for the task, such as transformer or onehot")
    group = parser.add_argument_group("general")
    group.add_argument("--model_config_file", type=existing_file, help="JSON configuration of a model with new weights")
    group.add_argument("--vocab_file", help="accepted and not used")
    group.add_argument("--output_dir", default="./results", help="where run directories are made (default %(default)s)")
    group.add_argument("--no_cuda", action="store_true", help="compute on the CPU")
    group.add_argument("--seed", type=int, default=42, help="default %(default)s")
    group.add_argument("--local_rank", "--local-rank", type=int, default=-1, help="given by old launchers")
    group.add_argument("--tokenizer", choices=("iupac", "unirep"), default="iupac", help="default %(default)s")
    group.add_argument(
        "--num_workers",
        type=non_negative_int,
        default=8,
        help="processes that read data (default %(default)s; never more than cores, none below 2,000 proteins)",
    )
    group.add_argument("--log_level", type=log_level, default=logging.INFO, help="a name, or 10 to 40 (default INFO)")
    group.add_argument("--debug", action="store_true", help="log at DEBUG")
    precision = group.add_mutually_exclusive_group()
    precision.add_argument("--fp16", action="store_true", help="mixed precision in fp16, with loss scaling")
    precision.add_argument("--bf16", action="store_true", help="mixed precision in bf16; fast on newer GPUs and CPUs")
    return parser


def _add_passes(group: argparse._ArgumentGroup) -> None:
    """What bounds a forward pass, and what becomes of proteins that no pass can take."""
    group.add_argument(
        "--max_tokens",
        type=positive_int,
        metavar="N",
        help="most tokens of a forward pass, padding counted; a batch is divided into as many passes as that takes",
    )
    group.add_argument(
        "--length",
        choices=LENGTH_POLICIES,
        default="error",
        help="proteins longer than the model's position table: refuse them (error), keep their first residues (crop),"
        " or average over overlapping windows (window; in training they are cropped). Default %(default)s",
    )


def _add_task(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", choices=sorted(registry.task_name_mapping), metavar="task", help=_task_names())


def _task_names() -> str:
    return ", ".join(sorted(registry.task_name_mapping))


def create_train_parser(parents: list[argparse.ArgumentParser] | None = None) -> argparse.ArgumentParser:
    """``model_type task`` and the options of training."""
    parser = argparse.ArgumentParser(
        prog="tape-train", description="Train a model on a task.", parents=parents or [create_base_parser()]
    )
    _add_task(parser)
    _add_run_options(parser)
    _add_model_options(parser)
    _add_optimization_options(parser)
    return parser


def _add_run_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--data_dir", default="./data", help="holds one folder a task (default %(default)s)")
    group.add_argument("--exp_name", help="the run directory's whole name")
    group.add_argument(
        "--time_or_name",
        default="time",
        metavar="NAME",
        help="suffix of the run directory TASK_MODEL_NAME (default: time and a random number)",
    )
    group.add_argument(
        "--overwrite",
        action="store_true",
        help="replace a run of the same name; with --resume_from_checkpoint: drop the epochs saved after the one named",
    )
    group.add_argument("--log_dir", default="./logs", help="tensorboard's files (default %(default)s)")
    group.add_argument("--num_log_iter", type=int, default=20, help="steps between log lines (default %(default)s)")
    group.add_argument("--eval_freq", type=int, default=1, help="epochs between validations; 0: never (default 1)")
    group.add_argument(
        "--save_freq",
        type=save_frequency,
        default=1,
        help="epochs between saved models, the run's last epoch saved too; or 'improvement' (default 1)",
    )
    group.add_argument(
        "--seeds",
        type=positive_int,
        metavar="N",
        help="train N times, with --seed, --seed + 1, ...; each in its directory seed_NUMBER below the run's, and mean"
        " and standard deviation in summary.json and summary.csv there",
    )
    group.add_argument(
        "--eval_splits",
        nargs="+",
        default=[],
        metavar="SPLIT",
        help="evaluate the best saved epoch on these when trained",
    )
    group.add_argument("--patience", type=int, default=-1, help="stop after so many epochs without improvement")
    group.add_argument(
        "--resume_from_checkpoint",
        action="store_true",
        help="go on with the run whose directory, or saved epoch, --from_pretrained names; options not given are the"
        " run's own (its args.json); epochs saved after the one named are dropped only with --overwrite",
    )
    group.add_argument(
        "--force_save",
        default="FALSE",
        metavar="PATH",
        help="save the untrained model to PATH/0/ and end; needs no data",
    )


def _add_model_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument(
        "--from_pretrained", metavar="DIR", help="model directory, or a run's directory (its best saved epoch)"
    )
    group.add_argument(
        "--pooling",
        choices=POOLINGS,
        help="what value and class heads see: the state of <cls>, or a mean or learned weighted mean over residues",
    )
    encoder = group.add_mutually_exclusive_group()
    encoder.add_argument("--freeze", action="store_true", help="train the head alone; the encoder stays as it is")
    encoder.add_argument(
        "--lora",
        type=positive_int,
        metavar="RANK",
        help="train the head and low-rank updates of the encoder's matrices (peft: pip install 'proteinlm[lora]')",
    )
    group.add_argument("--contact_head", choices=("linear", "resnet"), help="TAPE's or ProteinLM's contact head")
    group.add_argument(
        "--config",
        type=config_override,
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="a configuration value to replace, e.g. hidden_dropout_prob=0.0; may be repeated",
    )
    group.add_argument(
        "--max_length",
        type=int,
        metavar="N",
        help="leave proteins of more than N residues out of training (never out of validation or evaluation)",
    )
    _add_passes(group)


def _add_optimization_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("optimization")
    group.add_argument("--learning_rate", type=float, default=1e-4, help="peak (default %(default)s)")
    group.add_argument(
        "--head_learning_rate",
        type=float,
        help="peak of the task's head, which starts from nothing (default: the same)",
    )
    group.add_argument(
        "--batch_size",
        type=int,
        help="proteins an optimizer step, over all GPUs and accumulation steps (default: contacts 8, classes 32, "
        "values and language models 64)",
    )
    group.add_argument("--num_train_epochs", type=int, default=10, help="default %(default)s")
    group.add_argument("--warmup_steps", type=int, help="optimizer steps (default: a tenth of all, at most 10,000)")
    group.add_argument("--gradient_accumulation_steps", type=int, default=1, help="parts of a batch (default 1)")
    group.add_argument("--loss_scale", type=float, default=0, help="accepted and not used: fp16 scales dynamically")
    group.add_argument("--max_grad_norm", type=float, default=1.0, help="default %(default)s")
    group.add_argument("--weight_decay", type=float, default=0.01, help="of matrices (default %(default)s)")


def create_distributed_parser() -> argparse.ArgumentParser:
    """Training's options and those of the launcher."""
    parser = create_train_parser([create_base_parser()])
    parser.prog = "tape-train-distributed"
    parser.description = "Train a model on a task in several processes (data parallel)."
    group = parser.add_argument_group("processes")
    group.add_argument("--nnodes", type=int, default=1, help="machines (default 1)")
    group.add_argument("--node_rank", type=int, default=0, help="this machine, from 0")
    group.add_argument("--nproc_per_node", type=int, default=1, help="processes a machine (default 1)")
    group.add_argument("--master_addr", default="127.0.0.1", help="default %(default)s")
    group.add_argument("--master_port", type=int, default=29500, help="default %(default)s")
    return parser


LAUNCHER_OPTIONS = ("nnodes", "node_rank", "nproc_per_node", "master_addr", "master_port")


def create_eval_parser() -> argparse.ArgumentParser:
    """``model_type task from_pretrained`` and the options of evaluation."""
    parser = argparse.ArgumentParser(
        prog="tape-eval", description="Evaluate a finetuned model.", parents=[create_base_parser()]
    )
    _add_task(parser)
    parser.add_argument("from_pretrained", help="model directory, or a run's directory (its best saved epoch)")
    parser.add_argument("--batch_size", type=int, help="proteins a forward pass; changes no number")
    parser.add_argument("--data_dir", default="./data", help="holds one folder a task (default %(default)s)")
    parser.add_argument(
        "--metrics",
        nargs="*",
        default=[],
        choices=sorted(registry.metric_name_mapping),
        help="what results.pkl holds and the log shows (default: all of the task's)",
    )
    parser.add_argument("--split", default="test", help="default %(default)s")
    add_bootstrap(parser)
    group = parser.add_argument_group("proteins")
    _add_passes(group)
    group.add_argument(
        "--predict",
        type=Path,
        metavar="FILE",
        help="instead of evaluating a split, predict for the proteins of FILE (FASTA, JSON lines, CSV, LMDB, ...). A"
        " stop * at a protein's end is left out; predictions are of the residues before it",
    )
    group.add_argument(
        "--predict_out",
        type=Path,
        metavar="PATH",
        help="where predictions go: .csv or .json (default: predictions_FILE.csv beside the model); contact maps go to"
        " the folder PATH_maps beside it, a .npz and a .png each",
    )
    return parser


def add_bootstrap(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--bootstrap",
        type=int,
        default=1000,
        metavar="N",
        help="resamples of the proteins (by --seed) for the metrics' 95 %% intervals; 0: none (default %(default)s)",
    )


def bootstrap_of(args: argparse.Namespace) -> Bootstrap | None:
    """How intervals are made; None: not at all.

    Raises:
        ConfigError: a negative number of resamples, or a negative seed.
    """
    check_seed(args)
    return Bootstrap(args.bootstrap, args.seed) if args.bootstrap else None


def create_embed_parser() -> argparse.ArgumentParser:
    """``model_type data_file out_file from_pretrained`` and the options of embedding."""
    parser = argparse.ArgumentParser(
        prog="tape-embed", description="Write a model's states of proteins.", parents=[create_base_parser()]
    )
    parser.add_argument(
        "data_file",
        help=".lmdb, FASTA, .json, .jsonl, or a directory of .npz. A stop * at a protein's end is left out, and"
        " counts in no length, mean or row of states",
    )
    parser.add_argument(
        "out_file",
        help=".npz (TAPE's layout, added to a name without a suffix), or .h5 (pip install 'proteinlm[hdf5]'). The same"
        " command goes on after a break",
    )
    parser.add_argument("from_pretrained", help="model directory")
    parser.add_argument("--batch_size", type=int, help="proteins a forward pass; changes no number")
    parser.add_argument("--full_sequence_embed", action="store_true", help="all states instead of two vectors")
    _add_passes(parser.add_argument_group("proteins"))
    parser.set_defaults(task="embed")
    return parser


def given_options(parser: argparse.ArgumentParser, words: Sequence[str] | None) -> list[str]:
    """Names of the options and positions that ``words`` (``sys.argv`` when None) give, sorted; they must be valid."""
    unset = dict.fromkeys(vars(parser.parse_args(words)))
    return sorted(
        name for name, value in vars(parser.parse_args(words, argparse.Namespace(**unset))).items() if value is not None
    )


def changed_options(parser: argparse.ArgumentParser, args: argparse.Namespace) -> list[str]:
    """Names of the options of ``args`` that are not the parser's defaults, sorted."""
    return sorted(name for name, value in vars(args).items() if value != parser.get_default(name))


def level_of(args: argparse.Namespace) -> int:
    """What is logged: ``--log_level``, or everything with ``--debug``."""
    return logging.DEBUG if args.debug else int(args.log_level)


def precision_of(args: argparse.Namespace) -> str:
    return "fp16" if args.fp16 else "bf16" if args.bf16 else "fp32"


def check_seed(args: argparse.Namespace) -> None:
    """Refuse a negative ``--seed``."""
    if args.seed < 0:
        raise ConfigError(f"--seed must not be negative, but is {args.seed}")


def check_directory(option: str, path: str | Path) -> None:
    """Refuse a directory to write to whose name, or a part of it, is a file's.

    Raises:
        ConfigError: names the file.
    """
    found = next((place for place in (Path(path), *Path(path).parents) if place.exists()), Path())
    if not found.is_dir():
        raise ConfigError(f"{option} {path}: {found} is a file; give the name of a directory, which may be a new one")


def _check_directories(args: argparse.Namespace) -> None:
    """Those that training reads and writes."""
    if not Path(args.data_dir).is_dir():
        raise ConfigError(f"--data_dir {args.data_dir}: no such directory")
    check_directory("--output_dir", args.output_dir)
    check_directory("--log_dir", args.log_dir)


def check_training_arguments(args: argparse.Namespace) -> None:
    """What argparse can't see.

    Raises:
        ConfigError: options that contradict each other, a data directory that is missing, or a file in the place of a
            directory to write to.
    """
    if args.resume_from_checkpoint and args.seeds is not None:
        raise ConfigError("--resume_from_checkpoint goes on with one run; give it without --seeds for each seed_NUMBER")
    if args.resume_from_checkpoint and args.from_pretrained is None:
        raise ConfigError("--resume_from_checkpoint needs --from_pretrained, the run or epoch to go on with")
    if args.force_save != "FALSE" and args.seeds is not None:
        raise ConfigError("--force_save saves one model and trains none; give it without --seeds")
    if args.force_save != "FALSE":
        check_directory("--force_save", args.force_save)
    else:
        _check_directories(args)
    check_seed(args)
    if args.max_length is not None and args.max_length < 1:
        raise ConfigError(f"--max_length must be at least 1, not {args.max_length}")
    if args.pooling is not None and registry.get_task_spec(args.task).task_type in TASK_TYPES_WITHOUT_POOLING:
        raise ConfigError(f"--pooling is for one value or class a protein, not for {args.task}")
    if args.warmup_steps is not None and args.warmup_steps < 0:
        raise ConfigError(f"--warmup_steps must not be negative, but is {args.warmup_steps}")


def written_arguments(args: argparse.Namespace) -> dict[str, Any]:
    """All arguments as JSON values, for ``args.json``."""
    values = dict(vars(args))
    values["config"] = dict(values.get("config") or ())
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
