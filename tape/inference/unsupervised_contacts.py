"""Contacts from attention maps, from the configuration to the result directory (``tape-contacts``)."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from tape.datasets.index import load_split
from tape.datasets.sources import dataset_provenance
from tape.errors import ConfigError
from tape.evaluation.evaluate import Evaluation
from tape.evaluation.group_resampling import with_groups
from tape.evaluation.leakage import SplitIdentities, find_identities, scores_in_bins
from tape.evaluation.load_model import folder_of, model_directory
from tape.evaluation.long_proteins import check_position_limit
from tape.evaluation.records import ResampledGroups
from tape.evaluation.results import data_hash, model_hash, write_report, write_results
from tape.io.run_layout import ARGUMENTS_NAME, experiment_name, is_results_file
from tape.io.writing import atomic_directory, check_output_directory, check_replaceable, write_json
from tape.metrics import Bootstrap, metrics_of
from tape.registry import registry
from tape.runtime.distributed import DistributedContext, broadcast_object
from tape.runtime.precision import autocast, warn_if_slow
from tape.runtime.precision_choice import resolve_precision
from tape.tasks import TaskType

from .attention_contacts import TASK_NAME, choose_proteins, evaluate_contacts, fit_contacts
from .config import ContactsConfig
from .contact_models import load_attention_encoder
from .contact_regression import ContactRegression, keep_with_model, write_regression

_REGRESSION_NAME = "regression.json"

logger = logging.getLogger(__name__)


def predict_contacts(config: ContactsConfig, context: DistributedContext) -> Path:
    """Fit a regression on a few proteins and evaluate a split; returns the result directory.

    Raises:
        ProteinLMError: data or model can't be used, or the directory exists.
    """
    spec = registry.get_task_spec("contact_prediction")
    name = experiment_name(TASK_NAME, config.model.model_type, config.time_or_name, config.exp_name)
    path = Path(config.output_dir) / broadcast_object(name, context)
    check_output_directory(path, "--output_dir")
    if path.exists() and not config.overwrite:  # refused before the work is done
        raise ConfigError(f"{path} exists already; remove it, choose another name, or give --overwrite")
    check_replaceable(path, _is_output, "--overwrite:")
    directory = model_directory(config.model)
    splits = (config.fit_split, config.split)
    fit, test = (
        load_split(spec.dataset_class, config.data_dir, split, config.model.tokenizer, config.records)
        for split in splits
    )
    identities = find_identities(test, config.split, config.leakage)
    bootstrap, groups = with_groups(config.bootstrap, test, config.split, config.groups)
    model = load_attention_encoder(config.model, directory).to(context.device)
    positions = getattr(model.config, "max_position_embeddings", None)
    check_position_limit(test, positions)
    chosen = choose_proteins(fit, config.fit_proteins, config.seed, positions and positions - 2)
    config = replace(config, precision=resolve_precision(config.precision, context))
    warn_if_slow(config.precision, context.device)
    with autocast(config.precision, context.device):
        regression = fit_contacts(model, fit, chosen, config.inverse_penalty, context.device)
        title = f"contacts {config.split}"
        evaluation = evaluate_contacts(model, test, regression, context.device, bootstrap, title, path.parent)
    if context.is_main:
        _write_files(config, path, directory, test, model, regression, evaluation, identities, bootstrap, groups)
        _keep_with_model(config, directory, path, regression)
        for metric in ("precision_at_l", "precision_at_l5", "precision_at_l_long"):
            logger.info("%s: %.4g", metric, evaluation.value(metric))
    return path


def _is_output(name: str) -> bool:
    return name in (ARGUMENTS_NAME, _REGRESSION_NAME) or is_results_file(name)


def _keep_with_model(config: ContactsConfig, directory: Path, path: Path, regression: ContactRegression) -> None:
    """Keep the regression in the directory of the model, if that is the user's own.

    One whose weights are all 0, of which a warning was logged, does not replace another.
    """
    folder = folder_of(directory)
    given = Path(config.model.from_pretrained).absolute()
    is_own = given in (folder.absolute(), *folder.absolute().parents, directory.absolute())
    is_useful = bool(regression.weights.any())
    kept = keep_with_model(folder, regression, model_hash(folder)) if is_own and is_useful else None
    if not is_useful:
        logger.warning("the regression is not kept with the model, since all of its scores are equal")
    elif kept is None:
        logger.info("tape-contacts --predict uses this regression with --regression %s", path / _REGRESSION_NAME)
    else:
        logger.info("kept the regression with the model: %s; tape-contacts --predict uses it", kept)


def _write_files(
    config: ContactsConfig,
    path: Path,
    model_dir: Path,
    dataset: Any,
    model: nn.Module,
    regression: ContactRegression,
    evaluation: Evaluation,
    identities: SplitIdentities | None,
    bootstrap: Bootstrap | None,
    groups: ResampledGroups | None,
) -> None:
    """Write ``args.json``, ``regression.json``, ``results_SPLIT.pkl`` and ``eval_SPLIT.json``."""
    model_config: Any = model.config
    leakage = None
    if identities is not None:
        summarize = metrics_of(TaskType.RESIDUE_PAIR).summarize
        leakage = scores_in_bins(identities, evaluation.measured, summarize, bootstrap)
    with atomic_directory(path, overwrite=config.overwrite) as folder:
        write_json(folder / ARGUMENTS_NAME, dict(config.arguments))
        write_regression(folder / _REGRESSION_NAME, regression, model_hash(folder_of(model_dir)))
        write_results(folder, config.split, evaluation.values(), evaluation)
        write_report(
            folder,
            evaluation,
            task=TASK_NAME,
            model=config.model.model_type,
            split=config.split,
            data=dataset_provenance(dataset),
            data_sha256=data_hash(dataset),
            precision=config.precision,
            bootstrap=bootstrap,
            groups=groups,
            config=model_config.to_dict(),
            model_dir=model_dir,
            leakage=leakage,
        )
    logger.info("%d proteins of %s; wrote %s", evaluation.proteins, config.split, path)
