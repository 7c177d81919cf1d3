"""``--length crop``: batches with at most as many tokens as the position table has rows."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tape.datasets.contacts import ProteinnetDataset
from tape.datasets.cropping import CroppedDataset
from tape.datasets.residue import SecondaryStructureDataset
from tape.datasets.whole_protein import StabilityDataset


def records(**fields: Callable[[int], Any]) -> list[dict[str, Any]]:
    text = "ACDEFGHIKLMNPQ"
    return [{"primary": text[:n], "id": f"p{n}", **{k: make(n) for k, make in fields.items()}} for n in (4, 14, 9)]


def crop(dataset: Any, positions: int = 8) -> dict[str, Any]:
    cropped = CroppedDataset(dataset, positions)
    return cropped.collate_fn([cropped[i] for i in range(len(cropped))])


def test_cropped_tokens_end_with_sep_and_labels_are_cropped_alike(write_split: Callable[..., Path]) -> None:
    data = write_split("secondary_structure", "train", records(ss3=lambda n: np.arange(n) % 3))
    dataset = SecondaryStructureDataset(data, "train")
    batch, whole = crop(dataset), dataset.collate_fn([dataset[i] for i in range(3)])
    assert batch["input_ids"].shape == (3, 8)
    assert batch["input_ids"][0].tolist() == whole["input_ids"][0, :8].tolist()
    for row in (1, 2):
        assert batch["input_ids"][row].tolist() == [*whole["input_ids"][row, :7].tolist(), 3]
        assert batch["targets"][row].tolist() == [-1, 0, 1, 2, 0, 1, 2, -1]
        assert CroppedDataset(dataset, 8).unmasked_labels(row).tolist() == batch["targets"][row].tolist()
    assert CroppedDataset(dataset, 8).unmasked_labels(0).tolist() == [-1, 0, 1, 2, 0, -1]
    assert batch["input_mask"].sum(1).tolist() == [6, 8, 8]
    assert crop(dataset, 16)["input_ids"].shape == (3, 16)  # nothing is too long: untouched


def test_contact_maps_are_cropped_and_values_are_kept(write_split: Callable[..., Path]) -> None:
    data = write_split(
        "proteinnet",
        "train",
        records(tertiary=lambda n: np.arange(3 * n).reshape(n, 3) / 2.0, valid_mask=lambda n: np.ones(n, bool)),
    )
    dataset = ProteinnetDataset(data, "train")
    batch, whole = crop(dataset, 10), dataset.collate_fn([dataset[i] for i in range(3)])
    assert batch["protein_length"].tolist() == [4, 8, 8]
    assert torch.equal(batch["targets"], whole["targets"][:, :8, :8])
    assert (batch["targets"] >= 0).any()
    data = write_split("stability", "train", records(stability_score=lambda n: [float(n)]))
    values = crop(StabilityDataset(data, "train"))
    assert values["targets"][:, 0].tolist() == [4.0, 14.0, 9.0]


def test_other_attributes_are_those_of_the_wrapped_data_set(write_split: Callable[..., Path]) -> None:
    data = write_split("stability", "train", records(stability_score=lambda n: [float(n)]))
    inner = StabilityDataset(data, "train")
    cropped = CroppedDataset(inner, 8)
    dataset_index = cropped.build_index()
    assert dataset_index is not None
    assert dataset_index.lengths.tolist() == [4, 6, 6]
    assert list(dataset_index.identifiers) == ["p4", "p14", "p9"]
    assert cropped.data.path == inner.data.path
    assert not hasattr(cropped, "set_epoch")
    assert len(pickle.loads(pickle.dumps(cropped))) == 3
