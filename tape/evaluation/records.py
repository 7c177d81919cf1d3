"""``eval_SPLIT.json``: metrics, data and model of an evaluation; written by tape-eval, read by reports.

Schema "proteinlm-eval", version 2::

    schema, version
    task, model, split             positions of tape-eval; model is the model type
    data                           {name, simulated, source, licence, splits ...}: the data set's dataset.json;
                                   long_proteins: crop or window, if --length was given
    proteins                       number of proteins evaluated
    metrics                        [{name, value, interval, n, definition}]; value null: undefined or infinite;
                                   interval [low, high] or null; definition: text
    bootstrap                      {resamples, seed, level} of the intervals, over proteins; null: no intervals
    config                         the model's configuration, which shows its head
    precision                      fp32, bf16 or fp16
    model_dir, model_sha256        the evaluated directory and SHA-256 of its weights file (null: no such file)
    data_sha256                    SHA-256 of the data file (null: not a single file)
    code_version, date             of this package; UTC, ISO 8601

Version 1 has no interval, bootstrap and config.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tape.errors import CheckpointError, quoted
from tape.io.json_files import read_json_object
from tape.io.writing import write_json
from tape.metrics.metric import Interval, Metric
from tape.version import __version__

SCHEMA = "proteinlm-eval"
SCHEMA_VERSION = 2
_READABLE = (1, SCHEMA_VERSION)


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


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
    config: dict[str, Any] = field(default_factory=dict)
    model_dir: str | None = None
    model_sha256: str | None = None
    data_sha256: str | None = None
    code_version: str = __version__
    date: str = field(default_factory=_now)

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
    metrics = [{**metric.to_dict(), "value": finite(metric.value)} for metric in record.metrics]
    write_json(path, {"schema": SCHEMA, "version": SCHEMA_VERSION, **values, "metrics": metrics})


def finite(value: float) -> float | None:
    """The value, or None for nan and infinity, which JSON lacks."""
    return value if math.isfinite(value) else None


# field -> types that it may have; a version 1 file may lack those of _LATER
_TYPES: dict[str, tuple[type, ...]] = {
    "task": (str,),
    "model": (str,),
    "split": (str,),
    "data": (dict,),
    "proteins": (int,),
    "metrics": (list,),
    "precision": (str,),
    "bootstrap": (dict, type(None)),
    "config": (dict,),
    "model_dir": (str, type(None)),
    "model_sha256": (str, type(None)),
    "data_sha256": (str, type(None)),
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
_LATER: dict[str, Any] = {"bootstrap": None, "config": {}, "interval": None}


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
        known = " and ".join(map(str, _READABLE))
        raise CheckpointError(f"{path}: version {quoted(version)} of {SCHEMA}; this program reads {known}")
    fields = _checked(path, "", content, _TYPES, version == 1)
    if not isinstance(fields["data"].get("name"), str):
        raise CheckpointError(f"{path}: data has no name")
    metrics = tuple(_metric(path, position, entry, version == 1) for position, entry in enumerate(fields["metrics"]))
    return EvaluationRecord(**{**fields, "metrics": metrics})


def _checked(
    path: Path, where: str, content: Mapping[str, Any], types: Mapping[str, tuple[type, ...]], is_first_version: bool
) -> dict[str, Any]:
    """The known fields of an object, after a check of their types."""
    fields = {}
    for name, allowed in types.items():
        if name not in content and not (is_first_version and name in _LATER):
            raise CheckpointError(f"{path}: not an evaluation: {where}{name} is missing")
        value = content.get(name, _LATER.get(name))
        if not isinstance(value, allowed) or isinstance(value, bool):
            kinds = " or ".join("null" if kind is type(None) else kind.__name__ for kind in allowed)
            raise CheckpointError(f"{path}: {where}{name} is a {type(value).__name__}, not {kinds}")
        fields[name] = value
    return fields


def _metric(path: Path, position: int, entry: Any, is_first_version: bool) -> Metric:
    where = f"metrics[{position}]."
    if not isinstance(entry, dict):
        raise CheckpointError(f"{path}: metrics[{position}] is a {type(entry).__name__}, not an object")
    fields = _checked(path, where, entry, _METRIC_TYPES, is_first_version)
    value = math.nan if fields["value"] is None else _number(path, f"{where}value", fields["value"])
    reason = entry.get("undefined", "")  # absent for defined values, and in files of earlier versions
    if not isinstance(reason, str):
        raise CheckpointError(f"{path}: {where}undefined is a {type(reason).__name__}, not str")
    interval = _interval(path, where, fields["interval"])
    return Metric(fields["name"], value, fields["n"], fields["definition"], interval, reason)


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
