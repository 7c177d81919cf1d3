"""Options of ``tape-eval``, parsed into :class:`EvalConfig`, or :class:`PredictConfig` with ``--predict``."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tape.errors import ConfigError
from tape.evaluation.config import EvalConfig
from tape.inference.config import PredictConfig
from tape.io.records import RecordOptions
from tape.io.writing import check_output_directory
from tape.registry import registry

from .options import (
    Arguments,
    add_batch_size,
    add_bootstrap,
    add_column_options,
    add_format,
    add_forward_options,
    add_leakage,
    add_model_directory,
    add_task,
    bootstrap_of,
    check_task,
    create_base_parser,
    inference_config,
    model_source,
    parse,
    process_config,
    record_options,
)
from .own_table import add_data, evaluated_table, with_task
from .parser import ArgumentParser


def eval_config(arguments: Arguments = None) -> EvalConfig | PredictConfig:
    """Configuration of ``tape-eval``.

    Raises:
        ConfigError: an option can't be used, or the task has no such model.
    """
    parser = create_eval_parser()
    options = with_task(parser, parse(parser, arguments))
    output_dir = None if options["output_dir"] is None else Path(options["output_dir"])
    if output_dir is not None:
        check_output_directory(output_dir, "--output_dir")
    table = evaluated_table(options) if options["predict"] is None else None
    if options["task"] in registry.task_name_mapping:
        check_task(options["task"], options["model_type"])
    bootstrap = bootstrap_of(options)
    shared = {
        "task": options["task"],
        "model": model_source(options),
        "data_dir": options["data_dir"],
        "split": options["split"],
        "output_dir": output_dir,
        "length": options["length"],
        "records": RecordOptions() if table is not None else record_options(options),
        "inference": inference_config(options),
        "process": process_config(options),
    }
    if options["predict"] is not None:
        for name in ("leakage", "groups"):
            if options[name] is not None:
                raise ConfigError(
                    f"--{name}: predictions have no metrics; it belongs to an evaluation, without --predict"
                )
        for name in ("data", "labels"):
            if options[name] is not None:
                raise ConfigError(
                    f"--{name}: predictions need no labels; it belongs to an evaluation, without --predict"
                )
        return PredictConfig(data_file=options["predict"], out_file=options["predict_out"], **shared)
    metrics = tuple(options["metrics"])
    files = {name: options[name] for name in ("groups", "leakage")}
    return EvalConfig(metrics=metrics, bootstrap=bootstrap, table=table, **files, **shared)


def create_eval_parser(parents: Sequence[argparse.ArgumentParser] = ()) -> ArgumentParser:
    """``model_type task from_pretrained`` and the options of evaluation."""
    parser = ArgumentParser(
        prog="tape-eval", description="Evaluate a finetuned model.", parents=list(parents) or [create_base_parser()]
    )
    add_task(parser, own=True)
    parser.set_defaults(output_dir=None)
    add_model_directory(parser, "model directory, or a run directory (its best saved epoch)")
    add_batch_size(parser)
    parser.add_argument("--data_dir", default="./data", help="directory with one folder per task (default %(default)s)")
    add_data(parser)
    parser.add_argument(
        "--metrics",
        nargs="*",
        default=[],
        choices=sorted(registry.metric_name_mapping),
        help="metrics to log and to store in results.pkl (default: all metrics of the task)",
    )
    parser.add_argument(
        "--split",
        default="test",
        help="split to evaluate; of your own table also all, or new for proteins that the run does not have (default"
        " %(default)s)",
    )
    add_bootstrap(parser)
    add_leakage(parser)
    group = parser.add_argument_group("proteins")
    add_forward_options(group)
    add_format(group, "the file of --predict")
    add_column_options(group)
    group.add_argument(
        "--predict",
        type=Path,
        metavar="FILE",
        help="instead of evaluating a split, predict for the proteins of FILE (FASTA, JSON lines, CSV, LMDB, ..., or -"
        " for the standard input); a stop * at the end of a protein is removed",
    )
    group.add_argument(
        "--predict_out",
        type=Path,
        metavar="PATH",
        help="file for the predictions, .csv or .json (default: predictions_FILE.csv beside the model, or in"
        " --output_dir); contact maps"
        " are written to the folder PATH_maps beside it, a .npz and a .png per protein",
    )
    return parser
