"""Options that several commands share, and their conversion to configurations.

Names and positions are those of TAPE and ProteinLM. Two of their defaults are unsuitable for downstream tasks (a batch
of 1024 proteins, 10,000 warm-up steps). Here both default to None, which stands for the values in :mod:`tape.tasks` and
:mod:`tape.finetuning.optimizer` (bug 11 in docs/compatibility.md).
"""

from __future__ import annotations

import argparse
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tape.errors import ConfigError, print_notice, quoted
from tape.evaluation.config import LENGTH_POLICIES, InferenceConfig, ModelSource
from tape.hub.bundled import DEFAULT_MODEL, default_model
from tape.io.credentials import without_credentials
from tape.io.records import FORMATS, RecordOptions
from tape.metrics.bootstrap import Bootstrap
from tape.registry import TaskSpec, registry
from tape.runtime.precision_choice import PRECISION_CHOICES
from tape.runtime.process import ProcessConfig
from tape.tasks import TaskType

from .parser import ArgumentParser
from .types import non_negative_int, positive_int

# Arguments of a command: a parsed namespace, the words of a command line, or None for sys.argv.
Arguments = argparse.Namespace | Sequence[str] | None
Options = Mapping[str, Any]  # values of all options by name

DEFAULT_OUTPUT_DIR = "./results"
_LOG_LEVELS = {"DEBUG": 10, "INFO": 20, "WARN": 30, "WARNING": 30, "ERROR": 40}


def log_level(text: str) -> int:
    """The name or number of a log level."""
    if text.isdigit() and int(text) in _LOG_LEVELS.values():
        return int(text)
    if text.upper() in _LOG_LEVELS:
        return _LOG_LEVELS[text.upper()]
    raise argparse.ArgumentTypeError(f"must be one of {', '.join(_LOG_LEVELS)}, 10, 20, 30, 40, not {quoted(text)}")


def existing_file(text: str) -> Path:
    """The path of a file that exists."""
    if not os.path.isfile(text):  # False for a name that no file can have
        raise argparse.ArgumentTypeError(f"{quoted(text)} is not an existing file")
    return Path(text)


def create_base_parser() -> argparse.ArgumentParser:
    """Options of all commands."""
    parser = ArgumentParser(add_help=False)
    parser.add_argument("model_type", help="model type registered for the task, such as transformer or onehot")
    group = parser.add_argument_group("general")
    group.add_argument("--model_config_file", type=existing_file, help="JSON configuration of a model with new weights")
    group.add_argument("--vocab_file", help="accepted and ignored")
    group.add_argument(
        "--output_dir", default=DEFAULT_OUTPUT_DIR, help="directory of the run directories (default %(default)s)"
    )
    group.add_argument("--no_cuda", action="store_true", help="compute on the CPU")
    group.add_argument(
        "--no-verify",
        "--no_verify",
        dest="verify",
        action="store_false",
        help="load the model without comparing its files with their checksums",
    )
    group.add_argument("--seed", type=int, default=42, help="random seed (default %(default)s)")
    group.add_argument("--local_rank", "--local-rank", type=int, default=-1, help="set by old launchers")
    group.add_argument(
        "--tokenizer", choices=("iupac", "unirep"), default="iupac", help="vocabulary (default %(default)s)"
    )
    group.add_argument(
        "--num_workers",
        type=non_negative_int,
        default=8,
        help="processes that read data (default %(default)s; at most one per core, none for fewer than 2,000 proteins)",
    )
    group.add_argument(
        "--log_level", type=log_level, default=logging.INFO, help="name, or number from 10 to 40 (default INFO)"
    )
    group.add_argument("--debug", action="store_true", help="set the log level to DEBUG")
    precision = group.add_mutually_exclusive_group()
    precision.add_argument(
        "--precision",
        choices=PRECISION_CHOICES,
        help="fp32, or mixed precision in bf16, or in fp16 with dynamic loss scaling; auto: bf16 where a measurement"
        " finds it faster than fp32 (default fp32)",
    )
    precision.add_argument("--fp16", action="store_true", help="same as --precision fp16")
    precision.add_argument("--bf16", action="store_true", help="same as --precision bf16")
    return parser


def add_task(parser: argparse.ArgumentParser, own: bool = False) -> None:
    """Add the position ``task``, which may be left out for a user's own table.

    Args:
        parser: the parser.
        own: whether it may be the name of such a table's task, too, which :func:`.own_table.with_task` checks.
    """
    tasks = sorted(name for name, spec in registry.task_name_mapping.items() if spec.target is None)
    parser.add_argument(
        "task",
        nargs="?",
        choices=None if own else tasks,
        metavar="task",
        help=f"{', '.join(tasks)}; left out for your own table (--data) or a model of it",
    )


def add_model_directory(parser: argparse.ArgumentParser, kinds: str = "model directory") -> None:
    """Add the position ``from_pretrained``."""
    parser.add_argument("from_pretrained", help=kinds)


def add_optional_model_directory(parser: argparse.ArgumentParser) -> None:
    """Add the position ``from_pretrained`` of a command that uses the bundled model if none is given."""
    parser.add_argument(
        "from_pretrained",
        nargs="?",
        help=f"model directory, run directory (its best saved epoch), name or URL (default: {DEFAULT_MODEL})",
    )


def add_batch_size(parser: argparse._ActionsContainer) -> None:
    """Add the number of proteins per forward pass of a command that does not train."""
    parser.add_argument("--batch_size", type=int, help="proteins per forward pass; does not change the results")


def add_run_name(group: argparse._ActionsContainer, directory: str) -> None:
    """Add the two options that name the directory of a run or a result."""
    group.add_argument("--exp_name", help=f"complete name of the {directory}")
    group.add_argument(
        "--time_or_name",
        default="time",
        metavar="NAME",
        help=f"suffix of the {directory} TASK_MODEL_NAME (default: time and a random number)",
    )


def add_forward_options(group: argparse._ArgumentGroup) -> None:
    """Add the limits of a forward pass."""
    group.add_argument(
        "--max_tokens",
        type=positive_int,
        metavar="N",
        help="maximum tokens per forward pass, padding included; larger batches are divided (default: no limit)",
    )
    group.add_argument(
        "--length",
        choices=LENGTH_POLICIES,
        default="error",
        help="proteins longer than the model's position table: stop with an error (error), keep their first residues"
        " (crop), or average over overlapping windows (window; training crops them). Default %(default)s",
    )


def add_column_options(group: argparse._ArgumentGroup) -> None:
    """Add the options that name the columns of a record's sequence and id."""
    group.add_argument(
        "--sequence_column",
        "--sequence-column",
        metavar="NAME",
        help="column with the sequence in JSON, tables and LMDB (default: primary, sequence, text or a usual name)",
    )
    group.add_argument(
        "--id_column",
        "--id-column",
        metavar="NAME",
        help="column with the id (default: id, identifier, name or entry)",
    )


def add_format(group: argparse._ArgumentGroup, file: str) -> None:
    """Add the option that names the format of the input."""
    group.add_argument(
        "--format",
        metavar="FORMAT",
        help=f"format of {file}, for the standard input (-), pipes and unusual names: {', '.join(FORMATS)}, or one of"
        " these with .gz, .bz2, .xz or .zst after it (default: according to the suffix)",
    )


def record_options(options: Options) -> RecordOptions:
    """Format and columns of the files of records."""
    return RecordOptions(options.get("format"), options["sequence_column"], options["id_column"])


def add_bootstrap(parser: argparse.ArgumentParser) -> None:
    """Add the options for the metrics' intervals."""
    parser.add_argument(
        "--bootstrap",
        type=non_negative_int,
        default=1000,
        metavar="N",
        help="bootstrap resamples of the proteins for the metrics' 95 %% intervals, drawn with --seed; 0: no intervals"
        " (default %(default)s)",
    )
    parser.add_argument(
        "--groups",
        type=existing_file,
        metavar="TABLE",
        help="table with the columns id and group of each protein, such as families, or the wild types of variants: the"
        " bootstrap draws whole groups (default: groups_SPLIT.tsv beside the split, if it exists)",
    )


def add_leakage(parser: argparse.ArgumentParser) -> None:
    """Add the option for metrics in bins of identity to training data."""
    parser.add_argument(
        "--leakage",
        type=existing_file,
        metavar="FILE",
        help="table of tape-leakage for the split; adds the metrics in bins of the proteins' identity to training data"
        " (default: leakage_SPLIT.tsv beside the split, if it exists)",
    )


def parse(parser: argparse.ArgumentParser, arguments: Arguments) -> dict[str, Any]:
    """Values of all options by name."""
    args = arguments if isinstance(arguments, argparse.Namespace) else parser.parse_args(arguments)
    return dict(vars(args))


def parse_with_default_model(parser: argparse.ArgumentParser, arguments: Arguments) -> dict[str, Any]:
    """As :func:`parse`, for a parser with :func:`add_optional_model_directory`; without a model, the bundled one.

    Raises:
        ConfigError: no model is given, and there is no bundled one for the model type, or the output file is a
            directory, as when it was left out instead of the model.
    """
    options = parse(parser, arguments)
    fill_default_model(options)
    return options


def fill_default_model(options: dict[str, Any]) -> None:
    """Set ``from_pretrained`` to the bundled model, with a notice, if no model is given.

    Raises:
        ConfigError: see :func:`parse_with_default_model`.
    """
    if options["from_pretrained"] is None:
        if os.path.isdir(options.get("out_file", "")):
            raise ConfigError(f"{options['out_file']} is a directory; give the output file before the model")
        registry.get_task_spec("embed").get_model(options["model_type"])  # an unknown type has its own error
        options["from_pretrained"] = default_model(options["model_type"])
        print_notice(f"note: no model is given; using the bundled model {options['from_pretrained']}")


def parse_given(parser: argparse.ArgumentParser, arguments: Arguments) -> tuple[dict[str, Any], list[str]]:
    """As :func:`parse`, with the sorted names of the given options; of a namespace, those that are not the defaults."""
    options = parse(parser, arguments)
    if isinstance(arguments, argparse.Namespace):
        return options, sorted(name for name, value in options.items() if value != parser.get_default(name))
    unset = argparse.Namespace(**dict.fromkeys(options))
    values = vars(parser.parse_args(arguments, unset))
    return options, sorted(name for name, value in values.items() if value is not None)


def process_config(options: Options) -> ProcessConfig:
    """Device and log level of the process."""
    level = logging.DEBUG if options["debug"] else int(options["log_level"])
    return ProcessConfig(options["no_cuda"], options["local_rank"], level)


def precision_of(options: Options) -> str:
    """One of PRECISION_CHOICES."""
    return options["precision"] or ("fp16" if options["fp16"] else "bf16" if options["bf16"] else "fp32")


def inference_config(options: Options) -> InferenceConfig:
    """Batches, workers and precision of a pass over proteins."""
    return InferenceConfig(
        options["batch_size"], options["num_workers"], precision_of(options), options.get("max_tokens")
    )


def model_source(options: Options) -> ModelSource:
    """The trained model of an evaluation or inference command."""
    return ModelSource(options["model_type"], options["from_pretrained"], options["tokenizer"], options["verify"])


def bootstrap_of(options: Options) -> Bootstrap | None:
    """Resampling for the metrics' intervals; None: no intervals.

    Raises:
        ConfigError: the seed is negative.
    """
    if options["seed"] < 0:
        raise ConfigError(f"--seed must not be negative, but is {options['seed']}")
    return Bootstrap(options["bootstrap"], options["seed"]) if options["bootstrap"] else None


def check_task(task: str, model_type: str) -> TaskSpec:
    """The task, if it can be trained and evaluated with the model type.

    Raises:
        ConfigError: the task is not available, has nothing to train, or has no such model.
    """
    spec = registry.get_task_spec(task)
    if not spec.is_available:
        raise ConfigError(f"task {task} is not available in this version")
    if spec.task_type == TaskType.EMBEDDING:
        raise ConfigError(f"task {task} has nothing to train or evaluate; use tape-embed")
    if model_type not in spec.models:
        spec.get_model(model_type)  # raises an error that lists the models
    return spec


def note_output_dir(options: Options, place: str) -> None:
    """Print a note if ``--output_dir`` is given to a command that writes elsewhere."""
    if options["output_dir"] not in (None, DEFAULT_OUTPUT_DIR):
        print_notice(f"note: --output_dir is ignored: {place}")


def json_arguments(options: Options) -> dict[str, Any]:
    """All options as JSON values, for ``args.json``."""
    values = dict(options)
    values["config"] = dict(values.get("config") or ())
    if isinstance(values.get("from_pretrained"), str):
        values["from_pretrained"] = without_credentials(values["from_pretrained"])
    return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
