"""Training and validation data of a run."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import nn

from tape.datasets.cropping import CroppedDataset
from tape.datasets.index import check_position_limit, index_of, lengths_of, load_split, within_length
from tape.errors import ConfigError
from tape.evaluation.long_proteins import position_limit, warn_of_long_proteins
from tape.registry import TaskSpec

from .config import FinetuneDataConfig

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The proteins of a run.

    Attributes:
        train: training set.
        lengths: (N,) residues per protein of the training set.
        indices: indices of the proteins to train on.
        valid: validation set; None: no validation.
    """

    train: Any
    lengths: np.ndarray
    indices: np.ndarray
    valid: Any = None


def load_training_data(config: FinetuneDataConfig, spec: TaskSpec, validate: bool) -> TrainingData:
    """Load the splits ``train`` and, if the run is validated, ``valid``; logs what ``--max_length`` leaves out.

    Raises:
        ProteinLMError: a split is missing or damaged, or no protein is left.
    """
    train = load_split(spec, config.data_dir, "train", config.tokenizer)
    valid = load_split(spec, config.data_dir, "valid", config.tokenizer) if validate else None
    if index_of(train) is None and config.max_length is not None:
        raise ConfigError(f"{type(train).__name__} has no index of its proteins' lengths, which --max_length needs")
    lengths = lengths_of(train)
    indices = within_length(lengths, config.max_length)
    if config.max_length is not None and indices.size < len(lengths):
        left_out = len(lengths) - indices.size
        logger.warning(
            "--max_length %d: %d of %d training proteins excluded", config.max_length, left_out, len(lengths)
        )
    return TrainingData(train, lengths, indices, valid)


def fit_training_data(policy: str, model: nn.Module, data: TrainingData) -> TrainingData:
    """The data under a ``--length`` policy: cropped where the model's position table requires it.

    Training crops under the policy ``window`` too; validation then reads windows, see
    :func:`tape.finetuning.model.validation_model`.

    Raises:
        DataError: a protein is longer than the position table, and the policy is ``error``.
    """
    limit = position_limit(model)
    if limit is None:
        return data
    if policy == "error":
        check_position_limit(data.train, limit, data.indices)
        if data.valid is not None:
            check_position_limit(data.valid, limit)
        return data
    warn_of_long_proteins(data.lengths[data.indices], limit, "crop", "train")
    valid = data.valid
    if valid is not None:
        warn_of_long_proteins(lengths_of(valid), limit, policy, "valid")
        valid = CroppedDataset(valid, limit) if policy == "crop" else valid
    return replace(data, train=CroppedDataset(data.train, limit), valid=valid)


def check_eval_splits(config: FinetuneDataConfig, splits: tuple[str, ...], spec: TaskSpec, model: nn.Module) -> None:
    """Check, before training, that the ``--eval_splits`` can be evaluated after it.

    Raises:
        ProteinLMError: a split is missing or damaged, or has too long proteins for the model and ``--length error``.
    """
    limit = position_limit(model)
    for split in splits:
        dataset = spec.dataset_class(config.data_dir, split, config.tokenizer)
        if limit is not None and config.length == "error":
            check_position_limit(dataset, limit)
