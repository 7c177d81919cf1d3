"""Embeddings and predictions for a file of proteins, from the configuration to the written file."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import nn

from tape.datasets.embedding import EmbedDataset
from tape.datasets.index import log_replaced_characters, reader_options
from tape.datasets.labels import task_type_of
from tape.errors import ConfigError, listed, quoted
from tape.evaluation.load_model import (
    folder_of,
    load_encoder,
    load_finetuned_model,
    model_directory,
    stored_target,
)
from tape.evaluation.long_proteins import fit_long_proteins
from tape.evaluation.results import data_hash, model_hash
from tape.io.text_files import display_name, is_stream
from tape.io.writing import check_is_no_input
from tape.metrics.prediction_intervals import LEAST_PROTEINS
from tape.registry import registry
from tape.runtime.distributed import DistributedContext, all_gather_lists, run_on_all_ranks, run_on_main_rank
from tape.runtime.precision_choice import resolve_precision
from tape.runtime.rank_consistency import check_shared_directory
from tape.runtime.run_lock import lock_beside, run_lock
from tape.targets import Target, target_of
from tape.tasks import TaskType

from .config import ContactMapsConfig, EmbedConfig, PredictConfig
from .contact_models import load_contact_model
from .embed import embed, run_identity
from .embedding_files import check_identifiers, check_layout, embeddings_file
from .hidden_layers import LAST, select_layers
from .predict import check_predicted, predict
from .prediction_files import PredictionFiles

logger = logging.getLogger(__name__)


def embed_file(config: EmbedConfig, context: DistributedContext) -> Path:
    """Write the embeddings of a file's proteins; returns the file written.

    Raises:
        ProteinLMError: data or model can't be used.
    """
    path = embeddings_file(config.out_file)
    check_is_no_input(path, [config.data_file], "output file")
    _check_stream(config.data_file, context)
    dataset_class = registry.get_task_spec("embed").dataset_class
    dataset = dataset_class(config.data_file, config.model.tokenizer, **reader_options(dataset_class, config.records))
    log_replaced_characters(dataset, config.data_file)
    check_identifiers(path, dataset.build_index().identifiers, config.data_file, config.hdf5_layout)
    directory = model_directory(config.model)
    states = {} if config.layers == LAST else {"output_hidden_states": True}
    model = load_encoder(config.model, directory, **states).to(context.device)
    model, layers = select_layers(model, config.layers, dataset.tokenizer)
    check_layout(path, config.hdf5_layout, len(layers))
    model, dataset = fit_long_proteins(config.length, model, dataset, TaskType.EMBEDDING, config.data_file)
    inference = replace(config.inference, precision=resolve_precision(config.inference.precision, context))
    identity = run_identity(
        dataset,
        model_sha256=model_hash(directory),
        data_sha256=data_hash(dataset),
        full_sequence=config.full_sequence,
        layers=list(layers),
        length=config.length,
        precision=inference.precision,
        **{name: value for name, value in asdict(config.records).items() if value is not None},
    )
    if context.is_distributed:
        run_on_all_ranks(partial(_check_directory, path.parent, context), context)
    with ExitStack() as stack:
        lock = run_lock(lock_beside(path), path, "choose another output file")
        run_on_main_rank(lambda: stack.enter_context(lock), context)
        resumed = embed(
            model,
            dataset,
            inference,
            context,
            path,
            identity,
            dtype=config.dtype,
            hdf5_layout=config.hdf5_layout,
        )
    logger.info("wrote %d embeddings to %s (%d of them computed before)", len(dataset), path, resumed)
    return path


def _check_directory(directory: Path, context: DistributedContext) -> None:
    """Check that the journals of all ranks are in one directory."""
    check_shared_directory(
        "the output directory", directory, context.rank, lambda value: all_gather_lists([value], context)
    )


def _check_stream(data_file: str | Path, context: DistributedContext) -> None:
    if context.world_size > 1 and is_stream(data_file):
        raise ConfigError(f"{display_name(data_file)}: several processes can't read it; write it to a file first")


def predict_file(config: PredictConfig, context: DistributedContext) -> dict[str, float]:
    """Write predictions for a file's proteins; returns their number as ``proteins``.

    Raises:
        ProteinLMError: data or model can't be used, or the task has no predictions for single sequences.
    """
    directory = model_directory(config.model)
    target = stored_target(directory)
    if target is not None and target.task == config.task:
        registry.register_target(target)
    spec = registry.get_task_spec(config.task)
    task_type = spec.task_type or task_type_of(
        spec, spec.dataset_class(config.data_dir, config.split, config.model.tokenizer)
    )
    check_predicted(config.task, task_type)
    path = config.out_file or _default_out_file(config.data_file, config.output_dir, folder_of(directory))
    names, half_widths = ((), ()) if target is None else (target.names, target.half_widths)
    files = PredictionFiles(path, config.task, task_type, names=names, half_widths=half_widths)
    found = _write_predictions(
        config, files, directory, lambda: load_finetuned_model(config.model, spec, directory), context
    )
    if context.is_main and target is not None and task_type == TaskType.VALUE:
        for line in _interval_lines(target):
            logger.info(line)
    return found


def _interval_lines(target: Target) -> Iterator[str]:
    """What the log says about the intervals of predicted values."""
    if not target.half_widths:
        yield "without lower_90 and upper_90: the model has none, since no validation followed its last training step"
        return
    if any(width is not None for width in target.half_widths):
        yield "of proteins like those of valid, 90 % have a value between lower_90 and upper_90"
    missing = [name for name, width in zip(target.columns, target.half_widths, strict=True) if width is None]
    if missing:
        few = f"fewer than {LEAST_PROTEINS} proteins of valid have a value"
        yield f"without lower_90 and upper_90 of {listed(missing)}: {few}"


def _of_column(model: Any) -> str:
    """The column of a user's table whose unit the predictions have, in words."""
    target = target_of(getattr(model, "config", None))
    return "" if target is None or target.task_type == TaskType.RESIDUE_PAIR else f" of {target.column}"


def predict_contact_maps(config: ContactMapsConfig, context: DistributedContext) -> Path:
    """Write contact maps of a file's proteins; returns the table that names them.

    Raises:
        ProteinLMError: data, model or regression can't be used, or there is no regression.
    """
    given = config.prediction
    directory = model_directory(given.model)
    path = given.out_file or _default_out_file(given.data_file, given.output_dir, folder_of(directory), "contacts")
    files = PredictionFiles(path, given.task, TaskType.RESIDUE_PAIR, pairs=True, plot=config.plot)
    _write_predictions(
        given, files, directory, lambda: load_contact_model(given.model, directory, config.regression), context
    )
    return path


def _write_predictions(
    config: PredictConfig,
    files: PredictionFiles,
    directory: Path,
    load_model: Callable[[], nn.Module],
    context: DistributedContext,
) -> dict[str, float]:
    """Write predictions of a model, which is loaded when the proteins have been read."""
    _check_stream(config.data_file, context)
    check_is_no_input(files.path, [config.data_file], "--predict_out")
    dataset: Any = EmbedDataset(config.data_file, config.model.tokenizer, options=config.records)
    log_replaced_characters(dataset, str(config.data_file))
    _log_repeated(dataset.build_index().identifiers, display_name(config.data_file))
    model = load_model().to(context.device)
    model, dataset = fit_long_proteins(config.length, model, dataset, files.task_type, str(config.data_file))
    inference = replace(config.inference, precision=resolve_precision(config.inference.precision, context))
    predictions = predict(model, dataset, files.task_type, inference, context)
    rows = all_gather_lists(files.keep(predictions), context)
    if context.is_main:
        files.write(rows, directory)
        logger.info("wrote %d predictions%s to %s", len(rows), _of_column(model), files.path)
        if files.task_type == TaskType.RESIDUE_PAIR:
            logger.info("the contact maps are in %s", files.maps)
    return {"proteins": float(len(rows))}


def _log_repeated(identifiers: Sequence[str], source: str) -> None:
    repeated = [identifier for identifier, count in Counter(identifiers).items() if count > 1]
    if repeated:
        text = "%s: %d ids occur more than once, such as %s; predictions are in the order of the proteins"
        logger.warning(text, source, len(repeated), quoted(repeated[0]))


def _default_out_file(data_file: Path, output_dir: Path | None, model: Path, kind: str = "predictions") -> Path:
    """``predictions_FILE.csv`` in ``--output_dir``, or beside the model."""
    return (output_dir or model) / f"{kind}_{data_file.name.split('.')[0]}.csv"
