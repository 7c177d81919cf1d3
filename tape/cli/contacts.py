"""``tape-contacts``: contacts from a pretrained model's attention maps, and contacts of unlabeled proteins."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tape.errors import ConfigError
from tape.inference.config import ContactMapsConfig, ContactsConfig, PredictConfig
from tape.io.run_layout import check_run_names
from tape.io.writing import check_output_directory
from tape.runtime.process import process_context

from .options import (
    Arguments,
    Options,
    add_batch_size,
    add_bootstrap,
    add_column_options,
    add_format,
    add_forward_options,
    add_leakage,
    add_optional_model_directory,
    add_run_name,
    bootstrap_of,
    create_base_parser,
    existing_file,
    fill_default_model,
    inference_config,
    json_arguments,
    model_source,
    parse_given,
    precision_of,
    process_config,
    record_options,
)
from .parser import ArgumentParser

# Options of one of the two uses of the command.
_OF_EVALUATION = (
    "bootstrap",
    "data_dir",
    "exp_name",
    "fit_proteins",
    "fit_split",
    "groups",
    "inverse_penalty",
    "leakage",
    "overwrite",
    "split",
    "time_or_name",
)
_OF_PREDICTION = ("batch_size", "format", "length", "max_tokens", "plot", "predict_out", "regression")


def run_contacts(arguments: Arguments = None) -> Path:
    """Fit a regression and evaluate a split, or predict contacts; returns the result directory, or the table.

    Raises:
        ProteinLMError: options, data or model can't be used.
    """
    config = contacts_config(arguments)
    with process_context(config.process) as context:
        if isinstance(config, ContactMapsConfig):
            from tape.inference.run import predict_contact_maps

            return predict_contact_maps(config, context)
        from tape.inference.unsupervised_contacts import predict_contacts

        return predict_contacts(config, context)


def contacts_config(arguments: Arguments = None) -> ContactsConfig | ContactMapsConfig:
    """Configuration of ``tape-contacts``.

    Raises:
        ConfigError: options don't belong together, or there is no model.
    """
    options, given = parse_given(create_contacts_parser(), arguments)
    if options["predict"] is None:
        _refuse(given, _OF_PREDICTION, "belongs to --predict FILE")
    else:
        _refuse(given, _OF_EVALUATION, "belongs to the fit of a regression and its evaluation, without --predict")
    fill_default_model(options)
    return _evaluation_config(options) if options["predict"] is None else _prediction_config(options)


def _refuse(given: Sequence[str], names: Sequence[str], reason: str) -> None:
    wrong = [name for name in given if name in names]
    if wrong:
        raise ConfigError(f"--{wrong[0]} {reason}")


def _evaluation_config(options: Options) -> ContactsConfig:
    check_run_names(options["time_or_name"], options["exp_name"])
    return ContactsConfig(
        model=model_source(options),
        output_dir=options["output_dir"],
        time_or_name=options["time_or_name"],
        exp_name=options["exp_name"],
        overwrite=options["overwrite"],
        data_dir=options["data_dir"],
        fit_split=options["fit_split"],
        fit_proteins=options["fit_proteins"],
        seed=options["seed"],
        inverse_penalty=options["inverse_penalty"],
        split=options["split"],
        records=record_options(options),
        bootstrap=bootstrap_of(options),
        groups=options["groups"],
        leakage=options["leakage"],
        precision=precision_of(options),
        arguments=json_arguments(options),
        process=process_config(options),
    )


def _prediction_config(options: Options) -> ContactMapsConfig:
    if options["predict_out"] is None:
        check_output_directory(Path(options["output_dir"]), "--output_dir")
    prediction = PredictConfig(
        task=options["task"],
        model=model_source(options),
        data_file=options["predict"],
        records=record_options(options),
        out_file=options["predict_out"],
        output_dir=Path(options["output_dir"]),
        length=options["length"],
        inference=inference_config(options),
        process=process_config(options),
    )
    return ContactMapsConfig(prediction, options["regression"], options["plot"])


def create_contacts_parser() -> argparse.ArgumentParser:
    """``model_type [from_pretrained]`` and the options of the regression."""
    parser = ArgumentParser(
        prog="tape-contacts",
        description="Contacts from a pretrained model's attention maps by logistic regression (Rao et al. 2021): fits"
        " the regression, keeps it with the model, and evaluates a split; with --predict, predicts contacts of proteins"
        " by it, or by the head of a model finetuned on contact_prediction.",
        parents=[create_base_parser()],
    )
    add_optional_model_directory(parser)
    parser.add_argument("--data_dir", default="./data", help="parent of the folder proteinnet (default %(default)s)")
    parser.add_argument("--fit_split", default="train", help="split to fit on (default %(default)s)")
    parser.add_argument("--fit_proteins", type=int, default=20, help="proteins to fit on (default %(default)s)")
    parser.add_argument(
        "--inverse_penalty",
        type=float,
        default=0.15,
        metavar="C",
        help="weight of the logistic loss against the L1 penalty (default %(default)s)",
    )
    parser.add_argument("--split", default="test", help="split to evaluate (default %(default)s)")
    add_run_name(parser, "result directory")
    parser.add_argument("--overwrite", action="store_true", help="replace a result of the same name")
    add_bootstrap(parser)
    add_leakage(parser)
    group = parser.add_argument_group("prediction")
    group.add_argument(
        "--predict",
        type=Path,
        metavar="FILE",
        help="predict contacts of the proteins of FILE (FASTA, JSON lines, CSV, LMDB, ..., or - for the standard"
        " input)",
    )
    group.add_argument(
        "--predict_out",
        type=Path,
        metavar="PATH",
        help="table of the proteins, .csv or .json (default: contacts_FILE.csv in --output_dir); their probabilities"
        " (.npz) and pairs (.csv) are written to the folder PATH_maps beside it",
    )
    group.add_argument("--plot", action="store_true", help="draw each map as .png, too (extra plots)")
    group.add_argument(
        "--regression",
        type=existing_file,
        metavar="FILE",
        help="regression.json of an earlier evaluation (default: the one kept with the model)",
    )
    add_batch_size(group)
    add_forward_options(group)
    group = parser.add_argument_group("proteins")
    add_format(group, "the file of --predict")
    add_column_options(group)
    parser.set_defaults(task="contact_prediction")
    return parser
