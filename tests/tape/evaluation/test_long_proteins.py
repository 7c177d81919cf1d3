"""The ``--length`` policies: proteins beyond the position table are refused, cropped, or read in windows."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from torch import nn

from tape.datasets import StabilityDataset
from tape.datasets.cropping import CroppedDataset
from tape.errors import DataError
from tape.evaluation.long_proteins import check_position_limit, fit_long_proteins
from tape.evaluation.windows import WindowedModel
from tape.tasks import TaskType


@pytest.fixture
def stability(write_split: Callable[..., Path]) -> StabilityDataset:
    """Proteins of 5, 40 and 30 residues."""
    records = [{"primary": "A" * n, "id": f"p{n}", "stability_score": [1.0]} for n in (5, 40, 30)]
    return StabilityDataset(write_split("stability", "train", records), "train")


def model_with_positions(positions: int | None) -> nn.Module:
    model = nn.Module()
    model.config = SimpleNamespace(max_position_embeddings=positions)  # type: ignore[assignment]
    return model


def test_proteins_beyond_the_position_table_are_refused_by_name(stability: StabilityDataset) -> None:
    # bug 16 in docs/compatibility.md: none is dropped without an error
    check_position_limit(stability, None)
    check_position_limit(stability, 42)
    with pytest.raises(DataError, match=r"--length crop or --length window$"):  # evaluation excludes none
        check_position_limit(stability, 41)
    with pytest.raises(DataError, match=r"or --max_length N to exclude long proteins from training$"):
        check_position_limit(stability, 41, np.arange(3))
    with pytest.raises(DataError) as error:
        check_position_limit(stability, 32)
    for word in ("stability_train.lmdb, record 1 (p40)", "40 residues", "positions for 30", "1 of 3"):
        assert word in str(error.value)
    assert len(stability) == 3


def test_a_data_set_without_an_index_is_not_checked() -> None:
    check_position_limit([1, 2, 3], 3)


@pytest.mark.parametrize("positions", [None, 42])
def test_proteins_within_the_position_table_are_left_as_they_are(
    stability: StabilityDataset, positions: int | None
) -> None:
    model = model_with_positions(positions)
    assert fit_long_proteins("error", model, stability, TaskType.VALUE, "train") == (model, stability)


def test_the_policy_error_checks_only_the_proteins_in_use(stability: StabilityDataset) -> None:
    model = model_with_positions(32)
    fit_long_proteins("error", model, stability, TaskType.VALUE, "train", np.array([0, 2]))
    with pytest.raises(DataError, match=r"record 1 \(p40\): 40 residues"):
        fit_long_proteins("error", model, stability, TaskType.VALUE, "train", np.array([0, 1]))


def test_the_policy_crop_crops_the_data_and_the_policy_window_wraps_the_model(
    stability: StabilityDataset, caplog: pytest.LogCaptureFixture
) -> None:
    model = model_with_positions(32)
    with caplog.at_level(logging.WARNING):
        same, cropped = fit_long_proteins("crop", model, stability, TaskType.VALUE, "train", np.array([0, 1]))
        windowed, whole = fit_long_proteins("window", model, stability, TaskType.VALUE, "test")
    assert (same, whole) == (model, stability)
    assert isinstance(cropped, CroppedDataset)
    assert isinstance(windowed, WindowedModel)
    assert caplog.messages == [
        "--length crop: 1 of 2 proteins of train are cropped to their first 30 residues",
        "--length window: 1 of 3 proteins of test are read in windows of 30",
    ]
