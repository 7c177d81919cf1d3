"""The commands that need a pretrained model and no finetuning: ``tape-score`` and ``tape-contacts``.

Like :mod:`tape.main`, they read their options and have the parts put together.
"""

from __future__ import annotations

import argparse
import csv
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tape.errors import ConfigError, run_cli
from tape.hub.cache import local_model
from tape.inference.variants import METHODS, Variant, read_proteins, read_variants
from tape.io.atomic import atomic_write, write_json
from tape.registry import registry
from tape.tokenizers import TAPETokenizer

from . import parsers as options

logger = logging.getLogger(__name__)

# --- scores of variants ---------------------------------------------------------------------------------------------


def create_score_parser() -> argparse.ArgumentParser:
    """``model_type variants_file out_file from_pretrained`` and the options of scoring."""
    parser = argparse.ArgumentParser(
        prog="tape-score",
        description="Score variants of a protein with a pretrained model alone (Meier et al. 2021).",
        parents=[options.create_base_parser()],
    )
    parser.add_argument(
        "variants_file",
        help="table with a column mutations (or mutant), such as A123G:V7L, and protein where there are several",
    )
    parser.add_argument("out_file", help=".csv to write: the table and a column for each method")
    parser.add_argument("from_pretrained", help="model directory")
    parser.add_argument(
        "--wild_type", required=True, metavar="FILE|SEQUENCE", help="FASTA (or other sequence file), or the residues"
    )
    parser.add_argument(
        "--methods",
        nargs="+",
        choices=METHODS,
        default=["wild_type_marginal", "masked_marginal"],
        help="default wild_type_marginal masked_marginal; the two pseudo-likelihood ones need a forward pass a residue",
    )
    parser.add_argument(
        "--first_residue", type=int, default=1, help="number of the sequence's first residue (default 1)"
    )
    parser.add_argument("--compare", metavar="COLUMN", help="log Spearman's rho between each score and this column")
    parser.add_argument("--batch_size", type=int, default=32, help="sequences a forward pass (default %(default)s)")
    parser.set_defaults(task="masked_language_modeling")
    return parser


def run_score(arguments: Sequence[str] | None = None) -> Path:
    """``tape-score``: write the variants' scores; returns the file written.

    Raises:
        ProteinLMError: options, variants or model that can't be used.
    """
    args = create_score_parser().parse_args(arguments)
    from tape.evaluation.evaluate import EvaluationConfig
    from tape.finetuning.run_directory import logging_to_terminal, saved_epoch
    from tape.inference.variant_effects import VariantScorer
    from tape.runtime.distributed import distributed_context

    from . import build as assembly

    proteins = read_proteins(args.wild_type)
    variants = read_variants(args.variants_file, proteins, args.first_residue)
    measured = None if args.compare is None else _numbers(args.compare, variants, args.variants_file)
    with distributed_context(args.no_cuda, args.local_rank) as context, logging_to_terminal(options.level_of(args)):
        spec = registry.get_task_spec(args.task)
        model = assembly.finetuned_model(args, spec, saved_epoch(local_model(args.from_pretrained))).to(context.device)
        config = EvaluationConfig(args.batch_size, 0, options.precision_of(args))
        scores = VariantScorer(model, TAPETokenizer(args.tokenizer), config, context.device).score(
            variants, proteins, list(dict.fromkeys(args.methods))
        )
        if context.is_main:
            _write_scores(Path(args.out_file), variants, scores)
            _log_agreement(args.compare, measured, scores)
            logger.info("wrote %d variants to %s", len(variants), args.out_file)
    return Path(args.out_file)


def _numbers(column: str, variants: Sequence[Variant], path: str) -> list[float]:
    try:
        return [float(variant.fields[column]) for variant in variants]
    except KeyError:
        raise ConfigError(f"{path}: no column {column!r}; it has {', '.join(variants[0].fields)}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: column {column!r} does not hold numbers ({error})") from None


def _write_scores(path: Path, variants: Sequence[Variant], scores: dict[str, list[float]]) -> None:
    """The rows as they were read, and the scores; a column of a score's name is replaced."""
    names = [name for name in variants[0].fields if name not in scores]
    try:
        with atomic_write(path, "w") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow([*names, *scores])
            for variant, *row in zip(variants, *scores.values(), strict=True):
                writer.writerow([variant.fields.get(name, "") for name in names] + [f"{value:.6g}" for value in row])
    except OSError as error:
        raise ConfigError(f"{path}: can't be written: {error.strerror or error}") from error


def _log_agreement(column: str | None, measured: list[float] | None, scores: dict[str, list[float]]) -> None:
    from tape.metrics import spearmanr

    for method, values in scores.items():
        if measured is not None:
            logger.info("Spearman's rho of %s and %s: %.3f", method, column, spearmanr(measured, values))


# --- contacts from attention maps -----------------------------------------------------------------------------------


def create_contacts_parser() -> argparse.ArgumentParser:
    """``model_type from_pretrained`` and the options of the regression."""
    parser = argparse.ArgumentParser(
        prog="tape-contacts",
        description="Contacts from a pretrained model's attention maps by logistic regression (Rao et al. 2021).",
        parents=[options.create_base_parser()],
    )
    parser.add_argument("from_pretrained", help="model directory")
    parser.add_argument("--data_dir", default="./data", help="holds the folder proteinnet (default %(default)s)")
    parser.add_argument("--fit_split", default="train", help="split to fit on (default %(default)s)")
    parser.add_argument("--fit_proteins", type=int, default=20, help="proteins to fit on (default %(default)s)")
    parser.add_argument("--inverse_penalty", type=float, default=0.15, metavar="C", help="C (default %(default)s)")
    parser.add_argument("--split", default="test", help="split to evaluate (default %(default)s)")
    parser.add_argument("--time_or_name", default="time", metavar="NAME", help="suffix of the result's directory")
    parser.add_argument("--exp_name", help="its whole name")
    parser.add_argument("--overwrite", action="store_true", help="replace a result of the same name")
    options.add_bootstrap(parser)
    parser.set_defaults(task="contact_prediction")
    return parser


def run_contacts(arguments: Sequence[str] | None = None) -> Path:
    """``tape-contacts``: fit on a few proteins, evaluate a split; returns the result's directory.

    Raises:
        ProteinLMError: options, data or model that can't be used.
    """
    args = create_contacts_parser().parse_args(arguments)
    from tape.datasets.index import check_position_limit
    from tape.finetuning.run_directory import experiment_name, logging_to_terminal, saved_epoch
    from tape.inference import attention_contacts as contacts
    from tape.runtime.distributed import broadcast_object, distributed_context

    with distributed_context(args.no_cuda, args.local_rank) as context, logging_to_terminal(options.level_of(args)):
        spec = registry.get_task_spec(args.task)
        directory = saved_epoch(local_model(args.from_pretrained))
        name = broadcast_object(
            experiment_name(contacts.TASK_NAME, args.model_type, args.time_or_name, args.exp_name), context
        )
        path = Path(args.output_dir) / name
        _check_new(path, args.overwrite)
        fit, test = (spec.dataset_class(args.data_dir, split, args.tokenizer) for split in (args.fit_split, args.split))
        model = _attention_model(args, directory).to(context.device)
        positions = getattr(model.config, "max_position_embeddings", None)
        check_position_limit(test, positions)
        chosen = contacts.choose_proteins(fit, args.fit_proteins, args.seed, positions and positions - 2)
        regression = contacts.fit_contacts(model, fit, chosen, args.inverse_penalty, context.device)
        evaluation = contacts.evaluate_contacts(
            model, test, regression, context.device, options.bootstrap_of(args), f"contacts {args.split}"
        )
        if context.is_main:
            _write_contacts(args, path, directory, test, model, regression, evaluation)
            for metric in ("precision_at_l", "precision_at_l5", "precision_at_l_long"):
                logger.info("%s: %.4g", metric, evaluation.value(metric))
    return path


def _check_new(path: Path, overwrite: bool) -> None:
    """Said before the work is done, not after."""
    if path.exists() and not overwrite:
        raise ConfigError(f"{path} exists already; remove it, choose another name, or give --overwrite")


def _attention_model(args: argparse.Namespace, directory: Path) -> Any:
    """The encoder with its attention maps as outputs."""
    from tape.models.model_directory import check_vocabulary

    check_vocabulary(directory, TAPETokenizer(args.tokenizer))
    if args.model_type != "transformer":
        raise ConfigError(f"model type {args.model_type!r} has no attention maps; there are those of transformer")
    return registry.get_task_model(args.model_type, "embed", load_dir=directory, output_attentions=True)


def _write_contacts(
    args: argparse.Namespace, path: Path, source: Path, dataset: Any, model: Any, regression: Any, evaluation: Any
) -> None:
    """``args.json``, ``regression.json``, ``results_SPLIT.pkl`` and ``eval_SPLIT.json``."""
    from tape.datasets.sources import dataset_provenance
    from tape.evaluation.results import data_hash, write_report, write_results
    from tape.finetuning.run_directory import ARGUMENTS_NAME
    from tape.inference.attention_contacts import TASK_NAME
    from tape.io.atomic import atomic_directory

    try:
        with atomic_directory(path, overwrite=args.overwrite) as folder:
            write_json(folder / ARGUMENTS_NAME, options.written_arguments(args))
            write_json(folder / "regression.json", regression.to_dict())
            write_results(folder, args.split, evaluation.values(), evaluation)
            write_report(
                folder,
                evaluation,
                task=TASK_NAME,
                model=args.model_type,
                split=args.split,
                data=dataset_provenance(dataset),
                data_sha256=data_hash(dataset),
                precision="fp32",
                bootstrap=options.bootstrap_of(args),
                config=model.config.to_dict(),
                model_dir=source,
            )
    except OSError as error:
        raise ConfigError(f"{path}: can't be written: {error.strerror or error}") from error
    logger.info("%d proteins of %s; wrote %s", evaluation.proteins, args.split, path)


# --- for the shell --------------------------------------------------------------------------------------------------


def score_command() -> int:
    """``tape-score``."""
    return run_cli(run_score)


def contacts_command() -> int:
    """``tape-contacts``."""
    return run_cli(run_contacts)
