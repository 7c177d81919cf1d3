"""Finetuning as in a notebook: ``tape.finetune(...)`` on a user's own table, a file or a pandas DataFrame.

The numbers are those of ``tape-train``, whose parser checks the options and which runs the same functions.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tape.cli.options import DEFAULT_OUTPUT_DIR
from tape.cli.train import keyword_config
from tape.errors import ConfigError, DataError, options_as_arguments, quoted
from tape.finetuning.finetune import finetune as finetune_from
from tape.io.records import ID_COLUMNS, id_columns
from tape.io.run_layout import ARGUMENTS_NAME, TABLE_NAME, experiment_name
from tape.io.writing import output_errors, write_text
from tape.loaded_model import LoadedModel, load
from tape.runtime.process import process_context
from tape.tables.table import task_name


@options_as_arguments()
def finetune(
    data: Any, *, target: str | Sequence[str] | None = None, model: str = "transformer", **options: Any
) -> LoadedModel:
    """Train a model on a table with a label per protein, or per residue, or on structures, as ``tape-train --data``.

    Log lines go to stderr and to the run's directory, as those of the command.

    Args:
        data: the table: a file that the command reads, or a pandas DataFrame with a column of sequences, which is
            written to the run's directory as ``table.jsonl``; with ``labels="labels.csv"``, a file of proteins, such as
            FASTA, whose labels are in that table, by id. Or a folder of structure files, for ``task_type="contact"`` or
            secondary structure.
        target: column to predict, or several columns of values, which one model learns together and whose cells may
            be empty; of structure files ``ss3`` or ``ss8``; None for ``task_type="contact"``.
        model: model type, such as ``transformer``, or ``onehot`` for a baseline.
        **options: the options of ``tape-train`` with underscores, such as ``from_pretrained="models/out"``,
            ``learning_rate=3e-4``, ``split=(80, 10, 10)``, ``freeze=True``, ``no_cuda=True`` and
            ``config={"hidden_dropout_prob": 0.0}``. The options of a table have its size's defaults. Left out are
            those that train several models, save an untrained one or resume a run.

    Returns:
        The best model of the run, on the device that has trained it.

    Raises:
        ConfigError: an option is unknown, can't be used, or contradicts another; or the run's directory holds a run.
        CheckpointError: ``from_pretrained`` names no model.
        DataError: the table can't be read, or its target can't be learned. Names the record.
        SystemExit: a stop signal has interrupted the training. The log names the command that resumes it.
    """
    labels = options.get("labels")
    if not isinstance(labels, str | os.PathLike | None):
        raise ConfigError(f"labels is the path of a table, not {type(labels).__name__}; merge it with data")
    several = isinstance(target, Iterable) and not isinstance(target, str)
    targets: list[Any] = [] if target is None else list(target) if several else [target]
    if not all(isinstance(column, str) for column in targets) or (target is not None and not targets):
        raise ConfigError(f"target names a column, or several, not {quoted(target)}")
    given = {**options, "target": targets} if targets else options
    with _table_file(data, targets, model, given) as settings:
        config = keyword_config(model, settings)
        with process_context(config.process) as context:
            run = finetune_from(config, context)
    return load(run, device="cpu" if config.process.no_cuda else None, verify=config.model.verify)


@contextmanager
def _table_file(data: Any, targets: Sequence[str], model: str, options: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """The options with the table's file, inside a block that trains.

    A DataFrame is written to the run's directory, which is removed if the block fails before the run is there.
    """
    if isinstance(data, str | os.PathLike):
        yield {**options, "data": os.fspath(data)}
    elif hasattr(data, "columns"):
        if not targets:
            raise ConfigError("give the column of the DataFrame to predict, target=NAME")
        lines = _json_lines(data, options.get("id_column"))
        task = task_name(Path(TABLE_NAME), *targets)
        name = experiment_name(task, model, options.get("time_or_name") or "time", options.get("exp_name"))
        directory = Path(options.get("output_dir") or DEFAULT_OUTPUT_DIR) / name
        is_new = not directory.exists()
        if not is_new and not options.get("overwrite"):
            raise ConfigError(f"{directory} exists; choose another time_or_name or exp_name, or give overwrite=True")
        with output_errors(directory):
            directory.mkdir(parents=True, exist_ok=True)
        write_text(directory / TABLE_NAME, lines)
        file = directory / TABLE_NAME
        try:
            yield {**options, "data": str(file), "exp_name": name}
        except BaseException as error:
            if not is_new or (directory / ARGUMENTS_NAME).exists():
                raise
            shutil.rmtree(directory)
            if isinstance(error, ConfigError | DataError):  # which names the file that is removed
                error.args = (str(error).replace(str(file.resolve()), "the DataFrame"),)
            raise
    else:
        raise ConfigError(f"data is the path of a table or a pandas DataFrame, not {type(data).__name__}")


def _json_lines(table: Any, id_column: str | None) -> str:
    """A DataFrame as JSON lines, with null for missing values; without a column of ids, with the labels of its index.

    Raises:
        ConfigError: two columns have the same name.
    """
    names = [str(name) for name in table.columns]
    if len(set(names)) < len(names):
        raise ConfigError(f"two columns of the table have the same name: {', '.join(names)}")
    cells = table.astype(object).where(table.notna(), None)
    columns = {name: cells.iloc[:, place].tolist() for place, name in enumerate(names)}
    if id_column is None and not id_columns(names):
        columns = {ID_COLUMNS[0]: [str(label) for label in table.index], **columns}
    rows = zip(*columns.values(), strict=True)
    return "".join(f"{json.dumps(dict(zip(columns, row, strict=True)), default=_as_json)}\n" for row in rows)


def _as_json(value: Any) -> Any:
    """An array or number of numpy as JSON has it, and the text of any other object, such as a date."""
    return value.tolist() if hasattr(value, "tolist") else str(value)
