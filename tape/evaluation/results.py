"""The files of an evaluation, written beside the model: ``results.pkl``, ``results_SPLIT.pkl``, ``eval_SPLIT.json``.

``results.pkl`` has TAPE's format: a pickled pair (dict name -> float, list of {"id", "prediction", "target"}) in the
order of the data set, without padding. Evaluating another split overwrites it; ``results_SPLIT.pkl`` keeps the same
content for each split. If the model was given by its run's directory, ``results.pkl`` is there, too, where scripts for
TAPE read it.

:mod:`tape.evaluation.records` describes and reads ``eval_SPLIT.json``.
"""

from __future__ import annotations

import logging
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from torch import nn

from tape.datasets.sources import dataset_provenance
from tape.errors import ConfigError, quoted
from tape.io.checksums import sha256_of
from tape.io.json_files import read_json_object
from tape.io.run_layout import RESULTS_NAME
from tape.io.text_files import data_file
from tape.io.writing import atomic_write, check_output_directory, link_or_copy
from tape.metrics import Bootstrap
from tape.metrics.confusion import confusion_of
from tape.models.model_directory import PROVENANCE_NAME, directory_provenance

from .class_names import class_names
from .config import EvalConfig
from .evaluate import Evaluation
from .leakage_scores import Leakage
from .records import EvaluationRecord, ResampledGroups, TrainingSize, write_record
from .spooled_results import PROTOCOL, Result, SpooledResults, pickle_body

TRAINING = "training"  # in provenance.json, with the fields of TrainingSize
_WEIGHTS = ("model.safetensors", "pytorch_model.bin")

logger = logging.getLogger(__name__)


def model_hash(directory: Path) -> str | None:
    """SHA-256 of the weights file of a model directory; None without one."""
    for name in _WEIGHTS:
        if (directory / name).is_file():
            return sha256_of(directory / name)
    return None


def training_size(directory: Path) -> TrainingSize | None:
    """The proteins that the model of a directory was finetuned on; None if its provenance does not have their number.

    Raises:
        CheckpointError: the provenance is damaged.
    """
    fields = directory_provenance(directory).get(TRAINING)
    return None if fields is None else TrainingSize.from_fields(directory / PROVENANCE_NAME, TRAINING, fields)


def data_hash(dataset: Any) -> str | None:
    """SHA-256 of the file that a data set reads (``data.mdb`` of an LMDB); None if it is not a single file."""
    source = getattr(dataset, "data", None)
    path = getattr(source, "path", None)
    if path is None or getattr(source, "sha256", None) is not None:
        return getattr(source, "sha256", None)
    file = data_file(Path(path))
    return sha256_of(file) if file.is_file() else None


def results_directory(output_dir: Path | None, model: Path) -> Path:
    """The directory for the results of a model, after a check that they can be written there.

    Args:
        output_dir: the directory chosen by the user; None: beside the model.
        model: the directory of the model.

    Raises:
        ConfigError: the directory can't be written, or contains results of another model.
    """
    if output_dir is None:
        check_output_directory(model, "results in", "give --output_dir to write them elsewhere")
        return model
    for file in sorted(output_dir.glob("eval_*.json")):
        other = read_json_object(file).get("model_dir")
        if other is not None and not _is_same_directory(str(other), model):
            raise ConfigError(
                f"--output_dir {output_dir} contains the results of {quoted(other)} ({file.name}); choose another"
                " directory"
            )
    return output_dir


def _is_same_directory(name: str, model: Path) -> bool:
    try:
        return Path(name).resolve() == model.resolve()
    except ValueError:  # a name that no directory can have
        return False


def write_files(
    config: EvalConfig,
    folder: Path,
    directory: Path,
    dataset: Any,
    model: nn.Module,
    evaluation: Evaluation,
    chosen: Mapping[str, float],
    leakage: Leakage | None = None,
    groups: ResampledGroups | None = None,
) -> Path:
    """Write all files of an evaluation; returns the path of ``eval_SPLIT.json``.

    Args:
        config: task, split and settings.
        folder: directory for the files.
        directory: the model directory.
        dataset: the split.
        model: the model, for its configuration.
        evaluation: the result.
        chosen: the metrics named by ``--metrics``, for ``results.pkl``.
        leakage: the metrics in bins of identity to training data.
        groups: the groups of proteins over which intervals are.
    """
    write_results(folder, config.split, dict(chosen), evaluation)
    run = Path(config.model.from_pretrained)
    if config.output_dir is None and run.is_dir() and not run.samefile(directory):
        link_or_copy(folder / RESULTS_NAME, run / RESULTS_NAME)
    long_proteins = {} if config.length == "error" else {"long_proteins": config.length}
    model_config: Any = model.config
    return write_report(
        folder,
        evaluation,
        task=config.task,
        model=config.model.model_type,
        split=config.split,
        data_sha256=data_hash(dataset),
        data={**dataset_provenance(dataset), **long_proteins},
        precision=config.inference.precision,
        bootstrap=config.bootstrap,
        groups=groups,
        config=model_config.to_dict(),
        model_dir=directory,
        leakage=leakage,
    )


def write_results(directory: Path, split: str, metrics: dict[str, float], evaluation: Evaluation) -> None:
    """Write ``results_SPLIT.pkl``, and ``results.pkl`` with the same content."""
    own = directory / f"results_{split}.pkl"
    with atomic_write(own) as stream:
        _dump(metrics, evaluation.results, stream)
    link_or_copy(own, directory / RESULTS_NAME)  # a link, since contact maps are large


def _dump(metrics: dict[str, float], results: Sequence[Result], stream: IO[bytes]) -> None:
    """Pickle the pair (metrics, list of results), with one result in memory at a time.

    The pickle of each result becomes part of the list's; results on disk have been pickled already.
    """
    stream.write(pickle.PROTO + bytes([PROTOCOL]) + pickle_body(metrics) + pickle.EMPTY_LIST)
    for body in results.bodies() if isinstance(results, SpooledResults) else map(pickle_body, results):
        stream.write(body + pickle.APPEND)
    stream.write(pickle.TUPLE2 + pickle.STOP)


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
    groups: ResampledGroups | None = None,
    config: Mapping[str, Any] | None = None,
    model_dir: Path | None = None,
    leakage: Leakage | None = None,
) -> Path:
    """Write ``eval_SPLIT.json`` with all metrics, not only those of ``--metrics``; returns its path.

    Args:
        directory: where the file is written.
        evaluation: the result.
        task, model, split: names; ``model`` is the model type.
        data: provenance of the data set.
        data_sha256: see :func:`data_hash`.
        precision: fp32, fp16 or bf16.
        bootstrap: resampling of the intervals.
        groups: the groups of proteins that are resampled; None: proteins are.
        config: the model's configuration.
        model_dir: the model's directory, if it is not ``directory``.
        leakage: the metrics in bins of identity to training data.
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
        bootstrap=None if bootstrap is None else bootstrap.settings(),
        groups=groups,
        config=dict(config or {}),
        model_dir=str(model_dir),
        model_sha256=model_hash(model_dir),
        data_sha256=data_sha256,
        training=training_size(model_dir),
        leakage=leakage,
        confusion=None
        if evaluation.confusions is None
        else confusion_of(evaluation.confusions, class_names(task, config)),
    )
    path = directory / f"eval_{split}.json"
    write_record(path, record)
    return path
