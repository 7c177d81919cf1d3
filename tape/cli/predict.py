"""``proteinlm predict``: the predictions of ``tape-eval --predict``, with the file as a position."""

from __future__ import annotations

import argparse
from pathlib import Path

from tape.inference.config import PredictConfig

from .evaluate import eval_config
from .options import (
    Arguments,
    add_batch_size,
    add_column_options,
    add_format,
    add_forward_options,
    add_model_directory,
    add_task,
    create_base_parser,
    parse,
)
from .own_table import with_task
from .parser import ArgumentParser


def run_predict(arguments: Arguments = None) -> dict[str, float]:
    """Predict for the proteins of a file; returns the number of ``proteins``.

    Raises:
        ProteinLMError: options, proteins or model can't be used.
    """
    config = predict_config(arguments)
    from tape.inference.run import predict_file
    from tape.runtime.process import process_context

    with process_context(config.process) as context:
        return predict_file(config, context)


def predict_config(arguments: Arguments = None) -> PredictConfig:
    """Configuration of ``proteinlm predict``.

    Raises:
        ConfigError: an option can't be used, or the task has no such model.
    """
    parser = create_predict_parser()
    config = eval_config(argparse.Namespace(**with_task(parser, parse(parser, arguments))))
    assert isinstance(config, PredictConfig)  # the parser sets predict
    return config


def create_predict_parser() -> argparse.ArgumentParser:
    """``model_type task from_pretrained proteins`` and the options of predictions."""
    parser = ArgumentParser(
        prog="proteinlm predict", description="Predict for the proteins of a file.", parents=[create_base_parser()]
    )
    add_task(parser, own=True)
    add_model_directory(parser, "model directory, or a run directory (its best saved epoch)")
    parser.add_argument(
        "predict",
        type=Path,
        metavar="proteins",
        help="FASTA, JSON lines, CSV, LMDB, ..., or - for the standard input; a stop * at the end of a protein is"
        " removed",
    )
    parser.add_argument(
        "-o",
        "--out",
        "--predict_out",
        dest="predict_out",
        type=Path,
        metavar="PATH",
        help="file for the predictions, .csv or .json (default: predictions_FILE.csv beside the model, or in"
        " --output_dir); contact maps are written to the folder PATH_maps beside it, a .npz and a .png per protein",
    )
    add_batch_size(parser)
    group = parser.add_argument_group("proteins")
    add_forward_options(group)
    add_format(group, "the file of proteins")
    add_column_options(group)
    # of an evaluation, which this is not
    parser.set_defaults(output_dir=None, data_dir="./data", data=None, split="test", metrics=[], bootstrap=0)
    parser.set_defaults(leakage=None, labels=None)
    return parser
