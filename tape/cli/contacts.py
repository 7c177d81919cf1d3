"""``tape-contacts``: contacts from a pretrained model's attention maps, without finetuning."""

from __future__ import annotations

import argparse
from pathlib import Path

from tape.inference.config import ContactsConfig
from tape.io.run_layout import check_run_names
from tape.runtime.process import process_context

from .options import (
    Arguments,
    add_bootstrap,
    add_column_options,
    add_leakage,
    add_optional_model_directory,
    add_run_name,
    bootstrap_of,
    create_base_parser,
    json_arguments,
    model_source,
    parse_with_default_model,
    precision_of,
    process_config,
    record_options,
)
from .parser import ArgumentParser


def run_contacts(arguments: Arguments = None) -> Path:
    """Fit a regression on a few proteins and evaluate a split; returns the result directory.

    Raises:
        ProteinLMError: options, data or model can't be used.
    """
    config = contacts_config(arguments)
    from tape.inference.unsupervised_contacts import predict_contacts

    with process_context(config.process) as context:
        return predict_contacts(config, context)


def contacts_config(arguments: Arguments = None) -> ContactsConfig:
    """Configuration of ``tape-contacts``."""
    options = parse_with_default_model(create_contacts_parser(), arguments)
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
        leakage=options["leakage"],
        precision=precision_of(options),
        arguments=json_arguments(options),
        process=process_config(options),
    )


def create_contacts_parser() -> argparse.ArgumentParser:
    """``model_type [from_pretrained]`` and the options of the regression."""
    parser = ArgumentParser(
        prog="tape-contacts",
        description="Contacts from a pretrained model's attention maps by logistic regression (Rao et al. 2021).",
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
    add_column_options(parser.add_argument_group("proteins"))
    parser.set_defaults(task="contact_prediction")
    return parser
