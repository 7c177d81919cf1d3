"""Evaluating a finetuned model on a split of its task, from the configuration to the result files (``tape-eval``)."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tape.datasets.index import load_split
from tape.datasets.labels import task_type_of
from tape.datasets.own_table import register_table
from tape.datasets.sources import file_of
from tape.errors import ConfigError
from tape.metrics import Bootstrap, metrics_of
from tape.metrics.metric import Metric
from tape.metrics.prediction_intervals import coverage
from tape.registry import registry
from tape.runtime.distributed import DistributedContext
from tape.runtime.precision import warn_if_slow
from tape.runtime.precision_choice import resolve_precision
from tape.tables.splits import SPLITS_NAME
from tape.tables.table import Table, table_for_evaluation
from tape.targets import target_of, value_names_of

from .config import EvalConfig
from .evaluate import Evaluation, check_measured, check_metrics, chosen_metrics, evaluate
from .group_resampling import with_groups
from .leakage import find_identities, scores_in_bins
from .load_model import folder_of, load_finetuned_model, model_directory, stored_target
from .long_proteins import fit_long_proteins
from .records import ResampledGroups
from .results import results_directory, write_files

logger = logging.getLogger(__name__)

_NOT_HELD_OUT = ("train", "valid", "all")  # the intervals of predictions are those of the errors on valid


def evaluate_split(config: EvalConfig, context: DistributedContext) -> dict[str, float]:
    """Evaluate a model on a split, and write the results beside the model.

    Returns:
        The metrics named in the configuration, or all metrics of the task.

    Raises:
        ProteinLMError: data or model can't be used, or the task lacks a metric.
    """
    directory = model_directory(config.model)
    if config.table is not None:
        register_table(_table_of(config, directory))
    spec = registry.get_task_spec(config.task)
    folder = results_directory(config.output_dir, folder_of(directory))
    dataset = load_split(spec.dataset_class, config.data_dir, config.split, config.model.tokenizer, config.records)
    task_type = task_type_of(spec, dataset)
    check_metrics(config.metrics, config.task, task_type)
    identities = find_identities(dataset, config.split, config.leakage)
    bootstrap, groups = with_groups(config.bootstrap, dataset, config.split, config.groups)
    inference = replace(config.inference, precision=resolve_precision(config.inference.precision, context))
    config = replace(config, inference=inference)
    warn_if_slow(inference.precision, context.device)
    model = load_finetuned_model(config.model, spec, directory).to(context.device)
    model, dataset = fit_long_proteins(config.length, model, dataset, task_type, config.split)
    title = f"{config.task} {config.split}"
    evaluation = evaluate(
        model,
        dataset,
        task_type,
        inference,
        context,
        bootstrap=bootstrap,
        keep_results=True,
        folder=folder,
        title=title,
    )
    check_measured(evaluation, file_of(dataset) or f"split {config.split}")
    target, values = target_of(model.config), value_names_of(model.config)

    def covered(measured: Sequence[Any], bootstrap: Bootstrap | None = None) -> list[Metric]:
        if target is None or not target.half_widths or config.split in _NOT_HELD_OUT:
            return []
        return coverage(measured, target.half_widths, target.columns, bootstrap)

    def summarize(rows: Sequence[Any], bootstrap: Bootstrap | None = None) -> list[Metric]:
        return [*metrics_of(task_type, values).summarize(rows, bootstrap), *covered(rows, bootstrap)]

    evaluation = replace(evaluation, metrics=[*evaluation.metrics, *covered(evaluation.measured, bootstrap)])
    chosen = chosen_metrics(evaluation, config.metrics, values)
    if context.is_main:
        leakage = None
        if identities is not None:
            leakage = scores_in_bins(identities, evaluation.measured, summarize, bootstrap)
        report = write_files(config, folder, folder_of(directory), dataset, model, evaluation, chosen, leakage, groups)
        logger.info("%d proteins of %s; wrote %s", evaluation.proteins, config.split, report)
    for line in _lines(chosen, evaluation, config.bootstrap, groups):
        logger.info(line)
    return chosen


def _lines(
    chosen: Mapping[str, float], evaluation: Evaluation, bootstrap: Bootstrap | None, groups: ResampledGroups | None
) -> Iterator[str]:
    """The metrics as they are logged; those with an interval have it in brackets."""
    if bootstrap is not None:
        yield f"metrics with {100 * bootstrap.level:g} % intervals over {groups or 'the proteins'}:"
    intervals = {metric.name: metric.interval for metric in evaluation.metrics}
    for name, value in chosen.items():
        interval = intervals.get(name)
        yield f"{name}: {value:.4g}" + ("" if interval is None else f" [{interval[0]:.4g}, {interval[1]:.4g}]")


def _table_of(config: EvalConfig, directory: Path) -> Table:
    """The table of an evaluation, with the splits of the model's run.

    Raises:
        ProteinLMError: the model was not trained on a table, or the table does not have its target.
    """
    assert config.table is not None
    target = stored_target(directory)
    if target is None:
        raise ConfigError(f"--data: {directory} was trained on a task of TAPE, whose data are in --data_dir")
    table = table_for_evaluation(config.table, target, folder_of(directory).parent / SPLITS_NAME)
    for line in table.notices:
        logger.info(line)
    return table
