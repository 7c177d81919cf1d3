"""``eval_SPLIT.json``: metrics, data and model of an evaluation; written by tape-eval, read by reports.

Schema "proteinlm-eval", version 6::

    schema, version
    task, model, split             positions of tape-eval; model is the model type
    data                           {name, simulated, source, licence, splits ...}: the data set's dataset.json;
                                   long_proteins: crop or window, if --length was given
    proteins                       number of proteins evaluated
    metrics                        [{name, value, interval, n, definition}]; value null: undefined or infinite;
                                   interval [low, high] or null; definition: text
    bootstrap                      {resamples, seed, level} of the intervals; null: no intervals
    groups                         {path, sha256, groups}: table and number of the groups of proteins that the bootstrap
                                   resamples (null: it resamples proteins)
    config                         the model's configuration, which shows its head
    precision                      fp32, bf16 or fp16
    model_dir, model_sha256        the evaluated directory and SHA-256 of its weights file (null: no such file)
    data_sha256                    SHA-256 of the data file (null: not a single file)
    training                       {proteins, available}: number of proteins that the model was finetuned on, and of
                                   those in its training split (null: not recorded)
    leakage                        metrics in bins of the proteins' identity to training data (null: not computed):
                                   {file_sha256, search, references: [{name, path, sha256, proteins, bins: [{low, high,
                                   proteins, no_hit, metrics}]}]}: SHA-256 and search of the table of tape-leakage, its
                                   files, and metrics as above, without definition
    confusion                      true and predicted classes (null: the task has none): {classes, names, counts, pairs}
                                   with the number of classes, and their names and counts [[...]] by true (row) and
                                   predicted class (column); with more than 50 classes, names and counts are empty, and
                                   pairs has those confused most often: [{true, predicted, count, of}], at most 50, with
                                   names of the classes, and how many of the proteins or residues of the true one
    code_version, date             of this package; UTC, ISO 8601

Version 1 has no interval, bootstrap and config, versions 1 and 2 have no leakage, versions 1 to 3 no confusion,
versions 1 to 4 no training, and versions 1 to 5 no groups.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tape.errors import CheckpointError, quoted
from tape.io.json_files import read_json_object
from tape.io.timestamps import utc_now
from tape.io.writing import write_json
from tape.leakage.bins import IdentityBin
from tape.leakage.table import ProteinFile
from tape.metrics.confusion import ConfusedPair, Confusion
from tape.metrics.metric import Interval, Metric
from tape.version import __version__

from .leakage_scores import BinScores, Leakage, ReferenceScores

SCHEMA = "proteinlm-eval"
SCHEMA_VERSION = 6
_READABLE = (1, 2, 3, 4, 5, SCHEMA_VERSION)


@dataclass(frozen=True)
class TrainingSize:
    """The proteins of a finetuning run.

    Attributes:
        proteins: number of those that it trains on (``--max_train_samples``, ``--max_length``).
        available: number of those in the training split.
    """

    proteins: int
    available: int

    @classmethod
    def from_fields(cls, path: Path, where: str, fields: Any) -> TrainingSize:
        """Read it from a JSON object.

        Args:
            path: the file, for messages.
            where: its name there.
            fields: the object.

        Raises:
            CheckpointError: it is no object with two numbers.
        """
        return cls(**_checked(path, f"{where}.", fields, {"proteins": (int,), "available": (int,)}))

    def __str__(self) -> str:
        return f"{self.proteins:,} of {self.available:,} proteins"


@dataclass(frozen=True)
class ResampledGroups:
    """The groups of proteins over which intervals are.

    Attributes:
        path: the table of the groups.
        sha256: its SHA-256.
        groups: number of groups of the evaluated proteins.
    """

    path: str
    sha256: str
    groups: int

    def __str__(self) -> str:
        return f"{self.groups:,} groups of {Path(self.path).name}"


@dataclass(frozen=True)
class EvaluationRecord:
    """The content of one file; the module's docstring explains the fields."""

    task: str
    model: str
    split: str
    data: dict[str, Any]
    proteins: int
    metrics: tuple[Metric, ...]
    precision: str
    bootstrap: dict[str, Any] | None = None
    groups: ResampledGroups | None = None
    config: dict[str, Any] = field(default_factory=dict)
    model_dir: str | None = None
    model_sha256: str | None = None
    data_sha256: str | None = None
    training: TrainingSize | None = None
    leakage: Leakage | None = None
    confusion: Confusion | None = None
    code_version: str = __version__
    date: str = field(default_factory=utc_now)

    def metric(self, name: str) -> Metric | None:
        """The metric with this name, if it was measured."""
        return next((metric for metric in self.metrics if metric.name == name), None)

    @property
    def data_name(self) -> str:
        return str(self.data["name"])

    @property
    def is_simulated(self) -> bool:
        return bool(self.data.get("simulated"))


def write_record(path: Path, record: EvaluationRecord) -> None:
    """Write a record atomically."""
    values = {name: getattr(record, name) for name in record.__dataclass_fields__}
    values["metrics"] = [_metric_fields(metric) for metric in record.metrics]
    values["groups"] = None if record.groups is None else asdict(record.groups)
    values["training"] = None if record.training is None else asdict(record.training)
    values["confusion"] = None if record.confusion is None else asdict(record.confusion)
    values["leakage"] = None if record.leakage is None else _leakage_fields(record.leakage)
    write_json(path, {"schema": SCHEMA, "version": SCHEMA_VERSION, **values})


def _metric_fields(metric: Metric) -> dict[str, Any]:
    return {**metric.to_dict(), "value": finite(metric.value)}


def _leakage_fields(leakage: Leakage) -> dict[str, Any]:
    references = [
        {**asdict(scores.reference), "bins": [_bin_fields(one) for one in scores.bins]} for scores in leakage.references
    ]
    return {"file_sha256": leakage.file_sha256, "search": leakage.search, "references": references}


def _bin_fields(scores: BinScores) -> dict[str, Any]:
    """The fields of a bin; its metrics have no definition, which is that of the evaluation's metric of this name."""
    fields = [_metric_fields(metric) for metric in scores.metrics]
    metrics = [{name: value for name, value in metric.items() if name != "definition"} for metric in fields]
    return {**asdict(scores.identity), "proteins": scores.proteins, "no_hit": scores.no_hit, "metrics": metrics}


def finite(value: float) -> float | None:
    """The value, or None for nan and infinity, which JSON lacks."""
    return value if math.isfinite(value) else None


# field -> types that it may have; files of earlier versions may lack those of _LATER
_TYPES: dict[str, tuple[type, ...]] = {
    "task": (str,),
    "model": (str,),
    "split": (str,),
    "data": (dict,),
    "proteins": (int,),
    "metrics": (list,),
    "precision": (str,),
    "bootstrap": (dict, type(None)),
    "groups": (dict, type(None)),
    "config": (dict,),
    "model_dir": (str, type(None)),
    "model_sha256": (str, type(None)),
    "data_sha256": (str, type(None)),
    "training": (dict, type(None)),
    "leakage": (dict, type(None)),
    "confusion": (dict, type(None)),
    "code_version": (str,),
    "date": (str,),
}
_METRIC_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "value": (int, float, type(None)),
    "n": (int,),
    "definition": (str,),
    "interval": (list, type(None)),
}
_BIN_METRIC_TYPES = {name: types for name, types in _METRIC_TYPES.items() if name != "definition"}
_LEAKAGE_TYPES: dict[str, tuple[type, ...]] = {"file_sha256": (str,), "search": (dict,), "references": (list,)}
_REFERENCE_TYPES: dict[str, tuple[type, ...]] = {
    "name": (str,),
    "path": (str,),
    "sha256": (str,),
    "proteins": (int,),
    "bins": (list,),
}
_BIN_TYPES: dict[str, tuple[type, ...]] = {
    "low": (int, float),
    "high": (int, float),
    "proteins": (int,),
    "no_hit": (int,),
    "metrics": (list,),
}
_CONFUSION_TYPES: dict[str, tuple[type, ...]] = {
    "classes": (int,),
    "names": (list,),
    "counts": (list,),
    "pairs": (list,),
}
_GROUPS_TYPES: dict[str, tuple[type, ...]] = {"path": (str,), "sha256": (str,), "groups": (int,)}
_PAIR_TYPES: dict[str, tuple[type, ...]] = {"true": (str,), "predicted": (str,), "count": (int,), "of": (int,)}
# field -> the first version that has it, and its value in files of earlier versions
_LATER: dict[str, tuple[int, Any]] = {
    "bootstrap": (2, None),
    "config": (2, {}),
    "interval": (2, None),
    "leakage": (3, None),
    "confusion": (4, None),
    "training": (5, None),
    "groups": (6, None),
}


def read_record(path: Path) -> EvaluationRecord:
    """Read and check a file.

    Raises:
        CheckpointError: it can't be read, is of another schema or version, or a field is missing or of another type.
    """
    content = read_json_object(path)
    if content.get("schema") != SCHEMA:
        raise CheckpointError(
            f"{path}: not an evaluation: its schema is {quoted(content.get('schema'))}, not {SCHEMA!r}"
        )
    version = content.get("version")
    if version not in _READABLE:
        known = f"{', '.join(map(str, _READABLE[:-1]))} and {_READABLE[-1]}"
        raise CheckpointError(f"{path}: version {quoted(version)} of {SCHEMA}; this program reads {known}")
    fields = _checked(path, "", content, _TYPES, version)
    if not isinstance(fields["data"].get("name"), str):
        raise CheckpointError(f"{path}: data has no name")
    metrics = _metrics(path, "metrics", fields["metrics"], version)
    definitions = {metric.name: metric.definition for metric in metrics}
    leakage = None if fields["leakage"] is None else _leakage(path, fields["leakage"], definitions)
    confusion = None if fields["confusion"] is None else _confusion(path, fields["confusion"])
    training = None if fields["training"] is None else TrainingSize.from_fields(path, "training", fields["training"])
    groups = fields["groups"]
    groups = None if groups is None else ResampledGroups(**_checked(path, "groups.", groups, _GROUPS_TYPES))
    parsed = {"metrics": metrics, "groups": groups, "training": training, "leakage": leakage, "confusion": confusion}
    return EvaluationRecord(**{**fields, **parsed})


def _checked(
    path: Path, where: str, content: Any, types: Mapping[str, tuple[type, ...]], version: int = SCHEMA_VERSION
) -> dict[str, Any]:
    """The known fields of an object, after a check of their types."""
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: {where.rstrip('.')} is a {type(content).__name__}, not an object")
    fields = {}
    for name, allowed in types.items():
        first, default = _LATER.get(name, (0, None))
        if name not in content and version >= first:
            raise CheckpointError(f"{path}: not an evaluation: {where}{name} is missing")
        value = content.get(name, default)
        if not isinstance(value, allowed) or isinstance(value, bool):
            kinds = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
            raise CheckpointError(f"{path}: {where}{name} is a {type(value).__name__}, not {kinds}")
        fields[name] = value
    return fields


def _metrics(
    path: Path, where: str, entries: list[Any], version: int, definitions: Mapping[str, str] | None = None
) -> tuple[Metric, ...]:
    """The metrics of a list.

    Args:
        path: the file, for messages.
        where: name of the list, for messages.
        entries: the list.
        version: version of the file.
        definitions: name of a metric -> its definition; None: the entries contain it.
    """
    return tuple(_metric(path, f"{where}[{i}].", entry, version, definitions) for i, entry in enumerate(entries))


def _metric(path: Path, where: str, entry: Any, version: int, definitions: Mapping[str, str] | None) -> Metric:
    fields = _checked(path, where, entry, _METRIC_TYPES if definitions is None else _BIN_METRIC_TYPES, version)
    definition = fields["definition"] if definitions is None else definitions.get(fields["name"], "")
    value = math.nan if fields["value"] is None else _number(path, f"{where}value", fields["value"])
    reason = entry.get("undefined", "")  # absent for defined values, and in files of earlier versions
    if not isinstance(reason, str):
        raise CheckpointError(f"{path}: {where}undefined is a {type(reason).__name__}, not str")
    interval = _interval(path, where, fields["interval"])
    return Metric(fields["name"], value, fields["n"], definition, interval, reason)


def _leakage(path: Path, content: Any, definitions: Mapping[str, str]) -> Leakage:
    fields = _checked(path, "leakage.", content, _LEAKAGE_TYPES)
    references = []
    for position, entry in enumerate(fields["references"]):
        where = f"leakage.references[{position}]."
        reference = _checked(path, where, entry, _REFERENCE_TYPES)
        bins = [_bin(path, f"{where}bins[{i}].", one, definitions) for i, one in enumerate(reference.pop("bins"))]
        references.append(ReferenceScores(ProteinFile(**reference), tuple(bins)))
    return Leakage(fields["file_sha256"], fields["search"], tuple(references))


def _bin(path: Path, where: str, content: Any, definitions: Mapping[str, str]) -> BinScores:
    fields = _checked(path, where, content, _BIN_TYPES)
    metrics = _metrics(path, f"{where}metrics", fields["metrics"], SCHEMA_VERSION, definitions)
    identity = IdentityBin(_number(path, f"{where}low", fields["low"]), _number(path, f"{where}high", fields["high"]))
    return BinScores(identity, fields["proteins"], fields["no_hit"], metrics)


def _confusion(path: Path, content: Any) -> Confusion:
    fields = _checked(path, "confusion.", content, _CONFUSION_TYPES)
    pairs = [_checked(path, f"confusion.pairs[{i}].", one, _PAIR_TYPES) for i, one in enumerate(fields["pairs"])]
    classes, names, counts = fields["classes"], fields["names"], fields["counts"]
    sizes = {len(names), len(counts), *(len(row) if isinstance(row, list) else -1 for row in counts)}
    if sizes != ({classes} if counts else {0}) or not all(isinstance(name, str) for name in names):
        raise CheckpointError(f"{path}: confusion: names and counts don't match the number of classes, {classes}")
    cells = [count for row in counts for count in row]
    if not all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in cells):
        raise CheckpointError(f"{path}: confusion.counts: every count must be a number of items, 0 or more")
    return Confusion(classes, tuple(names), tuple(map(tuple, counts)), tuple(ConfusedPair(**pair) for pair in pairs))


def _interval(path: Path, where: str, value: list[Any] | None) -> Interval:
    if value is None:
        return None
    if len(value) != 2 or not all(isinstance(end, (int, float)) for end in value):
        raise CheckpointError(f"{path}: {where}interval is {quoted(value)}, not [low, high]")
    return _number(path, f"{where}interval", value[0]), _number(path, f"{where}interval", value[1])


def _number(path: Path, where: str, value: float) -> float:
    try:
        return float(value)
    except OverflowError:
        raise CheckpointError(f"{path}: {where} is {quoted(value)}, which no float can represent") from None
