"""The files of an evaluation, beside the evaluated model: ``results.pkl``, ``results_SPLIT.pkl``, ``eval_SPLIT.json``.

``results.pkl`` is TAPE's: a pickled pair (dict name -> float, list of {"id", "prediction", "target"}) in the order of
the data set, without padding. The same file stays as ``results_SPLIT.pkl`` when the next split overwrites it.

``eval_SPLIT.json`` is described and read by :mod:`tape.evaluation.records`.
"""

from __future__ import annotations

import logging
import os
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tape.errors import ConfigError
from tape.io.atomic import atomic_write
from tape.io.checksums import sha256_of
from tape.metrics import NAMED_METRICS, Bootstrap
from tape.registry import registry
from tape.tasks import TaskType

from .evaluate import Evaluation
from .records import EvaluationRecord, write_record

_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
_METRIC_KEYS = {"L5": "precision_at_l5"}

logger = logging.getLogger(__name__)


def model_hash(directory: Path) -> str | None:
    """SHA-256 of a model directory's weights file."""
    for name in _WEIGHTS:
        if (directory / name).is_file():
            return sha256_of(directory / name)
    return None


def data_hash(dataset: Any) -> str | None:
    """SHA-256 of the file a data set reads (an LMDB's ``data.mdb``), if there is one file."""
    path = getattr(getattr(dataset, "data", None), "path", None)
    if path is None:
        return None
    file = Path(path) / "data.mdb" if Path(path).is_dir() else Path(path)
    return sha256_of(file) if file.is_file() else None


def check_metrics(names: Sequence[str], task: str, shape: TaskType) -> None:
    """Refuse, before anything is computed, a named metric that tasks of this shape don't have.

    Raises:
        ConfigError: says which the task has; those that third parties registered are among them.
    """
    allowed = [name for name in sorted(registry.metric_name_mapping) if shape in NAMED_METRICS.get(name, {shape})]
    for name in names:
        if name not in allowed:
            raise ConfigError(
                f"--metrics {name}: {task} has no such metric; it has {', '.join(allowed) or 'none by name'}."
                " Without --metrics all of the task's are computed"
            )


def chosen_metrics(evaluation: Evaluation, names: Sequence[str]) -> dict[str, float]:
    """The metrics that ``--metrics`` names; all when it names none.

    A metric that this shape of task does not have by itself (``accuracy`` of contacts, a third party's) is computed
    from the predictions.

    Raises:
        ConfigError: unknown, or it can't be computed from these predictions.
    """
    own = evaluation.values()
    if not names:
        return own
    chosen = {}
    for name in names:
        key = _METRIC_KEYS.get(name, name)
        chosen[key] = own[key] if key in own else _computed(name, evaluation)
    return chosen


def _computed(name: str, evaluation: Evaluation) -> float:
    metric = registry.get_metric(name)
    targets = [result["target"] for result in evaluation.results]
    predictions = [result["prediction"] for result in evaluation.results]
    try:
        return float(metric(targets, predictions))
    except Exception as error:  # a third party's function may raise anything
        raise ConfigError(f"metric {name} can't be computed from these predictions: {error}") from error


def write_results(directory: Path, split: str, metrics: dict[str, float], evaluation: Evaluation) -> None:
    """Write ``results_SPLIT.pkl`` and make ``results.pkl`` the same file."""
    own = directory / f"results_{split}.pkl"
    with atomic_write(own) as stream:
        pickle.dump((metrics, evaluation.results), stream, protocol=4)
    _same_file(own, directory / "results.pkl")


def _same_file(source: Path, target: Path) -> None:
    """A hard link where the file system has them, since contact maps are large; else a copy."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")  # two splits may be evaluated at once
    temporary.unlink(missing_ok=True)
    try:
        os.link(source, temporary)
        os.replace(temporary, target)
    except OSError:
        with atomic_write(target) as stream, source.open("rb") as original:
            while block := original.read(1 << 20):
                stream.write(block)


def write_report(
    directory: Path,
    evaluation: Evaluation,
    *,
    task: str,
    model: str,
    split: str,
    data: dict[str, Any],
    data_sha256: str | None,
    precision: str,
    bootstrap: Bootstrap | None = None,
    config: Mapping[str, Any] | None = None,
    model_dir: Path | None = None,
) -> Path:
    """Write ``eval_SPLIT.json`` with every metric, whatever ``--metrics`` says; returns its path.

    ``model_dir`` is the model's where that is not the directory that is written to.
    """
    model_dir = model_dir or directory
    record = EvaluationRecord(
        task=task,
        model=model,
        split=split,
        data=data,
        proteins=evaluation.proteins,
        metrics=tuple(evaluation.metrics),
        precision=precision,
        bootstrap=None if bootstrap is None else asdict(bootstrap),
        config=dict(config or {}),
        model_dir=str(model_dir),
        model_sha256=model_hash(model_dir),
        data_sha256=data_sha256,
    )
    path = directory / f"eval_{split}.json"
    write_record(path, record)
    return path
