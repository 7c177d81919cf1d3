"""The data of a run: its training and validation set, and the splits that are evaluated after training."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor, nn

from tape.datasets.index import index_of, lengths_of, load_split, within_length
from tape.errors import ConfigError
from tape.evaluation.long_proteins import check_position_limit, fit_long_proteins, position_limit
from tape.evaluation.results import data_hash
from tape.tasks import TaskType

from .config import FinetuneDataConfig
from .resume import TRAIN_SAMPLES

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingData:
    """The proteins of a run.

    Attributes:
        train: training set.
        lengths: (N,) residues per protein of the training set.
        indices: indices of the proteins to train on.
        valid: validation set; None: no validation.
        eval_sets: the ``--eval_splits``, opened before training so that errors in them show at once; empty after the
            check of their lengths.
    """

    train: Any
    lengths: np.ndarray
    indices: np.ndarray
    valid: Any = None
    eval_sets: tuple[Any, ...] = ()

    def targets(self) -> Iterator[Tensor]:
        """The targets of each protein to train on, as a batch of one."""
        for index in self.indices.tolist():
            yield self.train.collate_fn([self.train[index]])["targets"]


def load_training_data(
    config: FinetuneDataConfig, dataset_class: Any, validate: bool, eval_splits: Sequence[str] = (), seed: int = 0
) -> TrainingData:
    """Load the splits of a run; logs how many proteins ``--max_length`` and ``--max_train_samples`` leave.

    Args:
        config: data directory, vocabulary, ``--max_length`` and ``--max_train_samples``.
        dataset_class: data set class of the task.
        validate: whether the run is validated on the split ``valid``.
        eval_splits: splits to evaluate after training.
        seed: seed of the proteins that ``--max_train_samples`` draws.

    Raises:
        ProteinLMError: a split is missing or damaged, or no protein is short enough.
    """
    train = load_split(dataset_class, config.data_dir, "train", config.tokenizer, config.records)
    valid = None
    if validate:
        valid = load_split(dataset_class, config.data_dir, "valid", config.tokenizer, config.records)
    if index_of(train) is None and config.max_length is not None:
        raise ConfigError(f"{type(train).__name__} has no index of its proteins' lengths, which --max_length needs")
    lengths = lengths_of(train)
    indices = within_length(lengths, config.max_length)
    if config.max_length is not None and indices.size < len(lengths):
        excluded = len(lengths) - indices.size
        logger.warning(
            "--max_length %d: %d of %d training proteins excluded", config.max_length, excluded, len(lengths)
        )
    if config.max_train_samples is not None:
        indices = _drawn(indices, config.max_train_samples, seed)
    eval_sets = tuple(
        load_split(dataset_class, config.data_dir, split, config.tokenizer, config.records) for split in eval_splits
    )
    return TrainingData(train, lengths, indices, valid, eval_sets)


def _drawn(indices: np.ndarray, number: int, seed: int) -> np.ndarray:
    """``number`` of the indices in ascending order; fewer ones with the same seed are among them."""
    if number >= indices.size:
        if number > indices.size:
            logger.warning("--max_train_samples %d: all %d training proteins are used", number, indices.size)
        return indices
    logger.info("--max_train_samples %d: drawn from %d training proteins with seed %d", number, indices.size, seed)
    return np.sort(np.random.default_rng(seed).permutation(indices)[:number])


def data_digests(data: TrainingData) -> dict[str, str | None]:
    """SHA-256 of the data that determine a run's weights and its best epoch.

    Args:
        data: the splits, not fitted to a model yet.

    Returns:
        A digest of each split's file, None for a data set that does not read a single one; and ``train_samples``, of
        the numbers of the proteins to train on.
    """
    splits = {"train": data.train, **({} if data.valid is None else {"valid": data.valid})}
    digests = {name: data_hash(split) for name, split in splits.items()}
    digests[TRAIN_SAMPLES] = hashlib.sha256(data.indices.astype("<i8").tobytes()).hexdigest()
    return digests


def fit_training_data(
    policy: str, model: nn.Module, task_type: TaskType, data: TrainingData
) -> tuple[TrainingData, nn.Module]:
    """Fit the splits to the model's position table under a ``--length`` policy.

    Training crops under the policy ``window`` too, since only evaluation can read windows.

    Returns:
        The data, and the model for validation.

    Raises:
        DataError: a protein is longer than the position table, and the policy is ``error``.
    """
    training_policy = "crop" if policy == "window" else policy
    _, train = fit_long_proteins(training_policy, model, data.train, task_type, "train", data.indices)
    validation_model, valid = model, data.valid
    if valid is not None:
        validation_model, valid = fit_long_proteins(policy, model, valid, task_type, "valid")
    for eval_set in data.eval_sets if policy == "error" else ():
        check_position_limit(eval_set, position_limit(model))
    return replace(data, train=train, valid=valid, eval_sets=()), validation_model
