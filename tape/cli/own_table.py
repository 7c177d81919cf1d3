"""Options of a user's own table, and the task that a model or a table stands for."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tape.configs import CONFIG_NAME, ProteinConfig
from tape.errors import CheckpointError, ConfigError, ProteinLMError, did_you_mean, quoted
from tape.hub.bundled import DEFAULT_MODEL, DEFAULT_MODEL_TYPE, bundled_names
from tape.io.json_files import read_json_object
from tape.io.records import RecordOptions
from tape.io.run_layout import ARGUMENTS_NAME, TABLE_NAME, resolve_model_directory
from tape.io.structures import ATOMS
from tape.registry import registry
from tape.tables.options import SPLIT_UNITS, TableOptions
from tape.tables.table import Table
from tape.targets import OWN_TASK_TYPES, Target, target_of
from tape.tasks import LABELED_MODELS, TaskType

from .options import Options, record_options

_TABLE_ONLY = ("labels", "target", "task_type", "split", "split_by", "split_identity", "split_column", "atom")
# Settings for tables, which have tens to thousands of proteins; see docs/finetuning.md.
_STEPS = 1500
_FEWEST_EPOCHS, _MOST_EPOCHS = 5, 60
_SMALL_BATCH, _BATCH = 16, 32
_SMALL_TABLE = 500  # training proteins
_HEAD_FACTOR = 10  # a new head learns faster than a pretrained encoder
_HEAD_RATE = 1e-3
_RATE_TIMES_WIDTH = 0.128  # the best rate of the matrices falls with 1 / hidden size (Yang et al. 2022, section 3)
_HIGHEST_RATE = 1e-3
# Of contacts: few proteins suffice for a linear head, which a CPU trains in minutes; see docs/tutorial.md.
_CONTACT_BATCH = 8
_CONTACT_HEAD = "linear"
_CONTACT_HEAD_RATE = 3e-2  # of one layer, which starts from random weights
_CONTACT_CONFIG = (("contact_separations", 64), ("contact_dropout", 0.0))
_CLASS_DROPOUT = 0.1  # not for values: its noise exceeds the effect of a mutation


def split_fractions(text: str) -> str:
    """``TRAIN,VALID,TEST``, which is kept as text for ``args.json``."""
    try:
        parts = [float(part) for part in text.split(",")]
    except ValueError:
        parts = []
    if len(parts) != 3:
        raise argparse.ArgumentTypeError(f"must be TRAIN,VALID,TEST, such as 80,10,10, not {quoted(text)}")
    return text


def add_table_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of a table to train on."""
    group = parser.add_argument_group("your own table (instead of a task)")
    add_data(group)
    group.add_argument(
        "--target",
        nargs="+",
        action="extend",
        metavar="COLUMN",
        help="column to predict, or several columns of values, which one model learns together; cells may be empty",
    )
    group.add_argument(
        "--task-type",
        "--task_type",
        choices=tuple(OWN_TASK_TYPES),
        help="a value, a class or any number of labels per protein, a class per residue, or contacts of residues"
        " (default: inferred from the values)",
    )
    group.add_argument(
        "--split-column",
        "--split_column",
        metavar="COLUMN",
        help="column with train, valid and test (default: the column split, if there is one)",
    )
    group.add_argument(
        "--split",
        type=split_fractions,
        metavar="TRAIN,VALID,TEST",
        help="proportions of a random split by --seed (default: 80,10,10)",
    )
    group.add_argument(
        "--split-by",
        "--split_by",
        choices=SPLIT_UNITS,
        help="what stays together in a random split: the copies of a sequence (default), or whole clusters of related"
        " proteins, found by MMseqs2 if it is installed, or else by shared k-mers",
    )
    group.add_argument(
        "--split-identity",
        "--split_identity",
        type=float,
        metavar="FRACTION",
        help="with --split-by identity: lowest identity of two proteins that stay together, from 0 to 1 (default: 0.3"
        " with MMseqs2, 0.5 with k-mers, which find no more distant relatives)",
    )
    group.add_argument(
        "--standardize",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="learn values relative to their mean and deviation on the training split; predictions and metrics keep"
        " their unit (default: yes for your own table, no for a task, such as fluorescence)",
    )
    _add_atom(group)


def _add_atom(group: argparse._ActionsContainer) -> None:
    group.add_argument(
        "--atom",
        choices=ATOMS,
        help="of structure files, the atom whose position is that of its residue: C-alpha (default), as in TAPE, or"
        " C-beta (C-alpha of glycine)",
    )


def add_data(group: argparse._ActionsContainer) -> None:
    """Add the options that name the table."""
    group.add_argument(
        "--data",
        metavar="FILE",
        help="table with a sequence and a label per protein: CSV, TSV, JSON lines, Parquet, FASTA with name=value in"
        " its headers; or a folder of structure files (.pdb, .cif, .bcif), for contacts or secondary structure",
    )
    group.add_argument(
        "--labels",
        metavar="FILE",
        help="table with the labels, by id, of the proteins of --data, which may then be in any format, such as FASTA",
    )


def table_options(options: Options) -> TableOptions | None:
    """The table to train on; None for a task of the registry.

    Raises:
        ConfigError: neither a task nor a table is given, both are, or options of tables are given with a task.
    """
    if options["data"] is None:
        given = [name for name in _TABLE_ONLY if options[name] is not None]
        if options["task"] is None:
            raise ConfigError("give a task, or your own table: --data FILE --target COLUMN")
        if given:
            raise ConfigError(f"--{given[0].replace('_', '-')} is for your own table; give --data FILE with it")
        return None
    if options["task"] is not None:
        raise ConfigError(f"--data {options['data']} is a task of its own; leave out {options['task']}")
    if options["model_type"] not in LABELED_MODELS:
        raise ConfigError(f"{options['model_type']} can't be trained on a table; {', '.join(LABELED_MODELS)} can")
    fractions = None if options["split"] is None else tuple(float(part) for part in options["split"].split(","))
    return TableOptions(
        path=Path(options["data"]),
        target=tuple(options["target"]) if isinstance(options["target"], list) else options["target"],
        labels=None if options["labels"] is None else Path(options["labels"]),
        kind=options["task_type"],
        split_column=options["split_column"],
        fractions=None if fractions is None else (fractions[0], fractions[1], fractions[2]),
        split_by=options["split_by"],
        split_identity=options["split_identity"],
        seed=options["seed"],
        standardize=options["standardize"] is not False,
        atom=options["atom"],
        records=record_options(options),
    )


def complete_for_table(options: dict[str, Any], table: Table, given: Sequence[str]) -> tuple[dict[str, Any], str]:
    """The options with defaults for a table of this size, and a line that states them.

    Args:
        options: all options by name.
        table: the table.
        given: names of the options that the user has given, which stay as they are.
    """
    available = table.count("train")
    proteins = min(available, options["max_train_samples"] or available)
    batch_size = options["batch_size"] or _batch_size(table, proteins)
    steps = -(-proteins // batch_size)
    epochs = min(_MOST_EPOCHS, max(_FEWEST_EPOCHS, -(-_STEPS // steps)))
    defaults: dict[str, Any] = {"batch_size": batch_size, "num_train_epochs": epochs, **_model_defaults(options, table)}
    if "learning_rate" in given:
        defaults["head_learning_rate"] = _HEAD_FACTOR * options["learning_rate"]
    else:
        defaults |= _rate_defaults({**options, **defaults})
        if "contact_head" in defaults:
            defaults["head_learning_rate"] = _CONTACT_HEAD_RATE
    if options["eval_freq"] > 0:
        defaults |= {"patience": max(_FEWEST_EPOCHS, epochs // 4), "save_freq": "improvement"}
    if table.target.task_type in (TaskType.VALUE, TaskType.SEQUENCE_CLASS, TaskType.MULTILABEL):
        defaults |= {"pooling": "mean", "pooled_norm": "batch"}
    if table.count("test"):
        defaults["eval_splits"] = ["test"]
    if table.division is not None and table.division.clusters is not None:
        defaults["split_identity"] = table.division.clusters.identity
    chosen = {name: value for name, value in defaults.items() if name not in given}
    shown = [f"--{name} {_shown(value)}" for name, value in chosen.items()]
    return {**options, **chosen}, f"defaults for {proteins} training proteins: {' '.join(shown)}"


def _batch_size(table: Table, proteins: int) -> int:
    if table.target.task_type == TaskType.RESIDUE_PAIR:
        return _CONTACT_BATCH
    return _SMALL_BATCH if proteins < _SMALL_TABLE else _BATCH


def _model_defaults(options: Options, table: Table) -> dict[str, Any]:
    """The contact head; the bundled model, if none is chosen, and dropout, where no configuration is given."""
    found: dict[str, Any] = {}
    is_contact = table.target.task_type == TaskType.RESIDUE_PAIR
    new_head = is_contact and options["contact_head"] is None and not _has_contact_head(options)
    if new_head:
        found["contact_head"] = _CONTACT_HEAD
    if options["model_type"] != DEFAULT_MODEL_TYPE or options["config"]:
        return found
    if options["from_pretrained"] is None and options["model_config_file"] is None and DEFAULT_MODEL in bundled_names():
        found["from_pretrained"] = DEFAULT_MODEL
    if table.target.task_type is not TaskType.VALUE:
        found["config"] = [("hidden_dropout_prob", _CLASS_DROPOUT), *(_CONTACT_CONFIG if new_head else ())]
    return found


def _has_contact_head(options: Options) -> bool:
    """Whether the model that a run starts from was finetuned on contacts, and so has a head of its own."""
    config = None if options["from_pretrained"] is None else _source_config(options["from_pretrained"])
    return config is not None and registry.finetuned_task_type(config) == TaskType.RESIDUE_PAIR


def _source_config(source: str) -> ProteinConfig | None:
    """The configuration of a model, or in a file; None if it can't be read, which the run reports."""
    try:
        return ProteinConfig.from_pretrained(source)
    except (ProteinLMError, OSError):
        return None


def _rate_defaults(options: Options) -> dict[str, Any]:
    """The learning rates of the head and, where its hidden size is known, of the encoder."""
    hidden_size = _hidden_size(options)
    rates: dict[str, Any] = {"head_learning_rate": _HEAD_RATE}
    if hidden_size is not None:
        rates["learning_rate"] = min(_HIGHEST_RATE, float(f"{_RATE_TIMES_WIDTH / hidden_size:.3g}"))
    return rates


def _hidden_size(options: Options) -> int | None:
    """The hidden size of the model; None if it is not stated or can't be read."""
    size = dict(options["config"]).get("hidden_size")
    source = options["from_pretrained"] or options["model_config_file"]
    if size is None and source is not None:
        size = getattr(_source_config(source), "hidden_size", None)
    return size if type(size) is int and size > 0 else None


def _shown(value: Any) -> str:
    """A value as on the command line."""
    if isinstance(value, list):
        return " ".join(f"{one[0]}={one[1]}" if isinstance(one, tuple) else str(one) for one in value)
    return str(value)


def target_of_run(epoch: Path) -> Target:
    """The target of a saved epoch to resume after.

    Raises:
        CheckpointError: its ``config.json`` is missing, damaged or without a target. Names it.
    """
    target = target_of(ProteinConfig.from_pretrained(epoch))
    if target is None:
        raise CheckpointError(
            f"{epoch / CONFIG_NAME}: no target, so the run was not trained on a table; start a new run from this model"
            " without --resume_from_checkpoint"
        )
    return target


def own_target(from_pretrained: str) -> Target | None:
    """The target of a model on this machine; None if there is none, or it was trained on a task of TAPE."""
    try:
        return target_of(ProteinConfig.from_pretrained(Path(from_pretrained)))
    except (ProteinLMError, OSError):
        return None


def with_task(parser: argparse.ArgumentParser, options: dict[str, Any]) -> dict[str, Any]:
    """The options of an evaluation or prediction, whose task may be left out for a model of a user's own table.

    Exits as argparse does if the task is unknown, or left out for another model.
    """
    task, model = options["task"], options["from_pretrained"]
    if task in registry.task_name_mapping and registry.get_task_spec(task).target is None:
        return options
    target = own_target(model)
    if target is not None and task in (None, target.task):
        return {**options, "task": target.task}
    if task is None:
        if model in registry.task_name_mapping and not Path(model).exists():
            parser.error("the following arguments are required: from_pretrained")
        parser.error(f"{quoted(model)} is no model of your own table; give a task, one of {_task_names()}")
    own = "" if target is None else f"; the model's own task is {target.task}"
    near = did_you_mean([task], registry.task_name_mapping)
    parser.error(f"argument task: invalid choice: {quoted(task)} (choose from {_task_names()}){near}{own}")


def _task_names() -> str:
    return ", ".join(repr(name) for name, spec in sorted(registry.task_name_mapping.items()) if spec.target is None)


def evaluated_table(options: Options) -> TableOptions | None:
    """The table of an evaluation: ``--data``, or for a model of a user's table, that of its run.

    Raises:
        ConfigError: the table of the run can't be found, or ``--labels`` is given without ``--data``.
    """
    target = own_target(options["from_pretrained"])
    records, labels = record_options(options), options["labels"]
    if options["data"] is not None:
        return TableOptions(Path(options["data"]), labels=None if labels is None else Path(labels), records=records)
    if labels is not None:
        raise ConfigError(f"--labels {labels} belongs to the proteins of a file; give --data FILE with it")
    if target is None or target.task != options["task"]:
        return None
    run = resolve_model_directory(Path(options["from_pretrained"])).resolve().parent
    arguments = read_json_object(run / ARGUMENTS_NAME) if (run / ARGUMENTS_NAME).is_file() else {}
    data, own_labels = arguments.get("data"), arguments.get("labels")
    if (run / TABLE_NAME).is_file():  # of a DataFrame; the run may have been moved
        data = str(run / TABLE_NAME)
    for file in (data, *([] if own_labels is None else [own_labels])):
        if not isinstance(file, str) or not Path(file).exists():
            give = "--data FILE" if own_labels is None else "--data FILE and --labels FILE"
            raise ConfigError(f"{options['from_pretrained']}: the table of its run is not here ({file}); give {give}")
    if records == RecordOptions():
        columns = {name: arguments.get(name) for name in ("sequence_column", "id_column")}
        records = replace(records, **{name: value for name, value in columns.items() if isinstance(value, str)})
    return TableOptions(Path(str(data)), labels=None if own_labels is None else Path(own_labels), records=records)
