"""Labels outside ``valid_mask``: those of the example that is read with them, from one reading of its record."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tape.datasets.cropping import CroppedDataset
from tape.datasets.index import unmasked_labels_of
from tape.datasets.loading import load_batches
from tape.datasets.residue import EightStateDataset, SecondaryStructureDataset
from tape.datasets.unmasked_labels import UNMASKED, WithUnmaskedLabels

Writer = Callable[..., Path]


def records() -> list[dict[str, Any]]:
    """Proteins with and without mask, with labels in numbers and letters, and with eight states only."""
    rng = np.random.default_rng(0)
    made = []
    for number in range(12):
        length = int(rng.integers(1, 15))
        eight = rng.integers(-1, 8, length)
        record: dict[str, Any] = {"primary": "ACDEFGHIKLMNPQ"[:length], "id": f"p{number}", "ss8": eight}
        if number % 4:
            record["ss3"] = "".join(rng.choice(list("HECX"), length)) if number % 3 else rng.integers(0, 3, length)
        if number % 2:
            record["valid_mask"] = rng.integers(0, 2, length)
        made.append(record)
    return made


def anew(kind: Any, data: Path, index: int) -> list[int]:
    """Labels that were not read with an example."""
    labels: list[int] = kind(data, "valid").unmasked_labels(index).tolist()
    return labels


@pytest.mark.parametrize("kind", [SecondaryStructureDataset, EightStateDataset])
def test_labels_read_with_an_example_are_those_of_its_record(kind: Any, write_split: Writer) -> None:
    data = write_split("secondary_structure", "valid", records())
    dataset = kind(data, "valid")
    rng = np.random.default_rng(1)
    for read, asked in rng.integers(0, 12, (60, 2)).tolist():
        example = dataset[read][2]
        for index in (read, asked, read):
            assert dataset.unmasked_labels(index).tolist() == anew(kind, data, index)
        if "valid_mask" not in dataset.data[read]:
            assert example.tolist() == dataset.unmasked_labels(read).tolist()


def test_a_record_is_decoded_once(write_split: Writer, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_split("secondary_structure", "valid", records())
    dataset = SecondaryStructureDataset(data, "valid")
    read = type(dataset.data).__getitem__
    reads: list[int] = []
    monkeypatch.setattr(type(dataset.data), "__getitem__", lambda self, at: reads.append(at) or read(self, at))
    examples = WithUnmaskedLabels(dataset)
    batch = examples.collate_fn([examples[index] for index in range(12)])
    assert reads == list(range(12))
    assert [labels.tolist() for labels in batch[UNMASKED]] == [anew(type(dataset), data, at) for at in range(12)]
    assert batch.keys() - {UNMASKED} == {"input_ids", "input_mask", "targets"}


def test_another_source_has_other_labels(write_split: Writer) -> None:
    dataset = SecondaryStructureDataset(write_split("secondary_structure", "valid", records()), "valid")
    dataset[3]
    dataset.data = SecondaryStructureDataset(
        write_split("secondary_structure", "test", [{"primary": "AC", "ss3": [0, 1]}] * 4), "test"
    ).data
    assert dataset.unmasked_labels(3).tolist() == [-1, 0, 1, -1]


def test_an_example_that_is_changed_does_not_change_the_labels(write_split: Writer) -> None:
    data = write_split("secondary_structure", "valid", records())
    dataset = SecondaryStructureDataset(data, "valid")
    for index in range(12):
        dataset[index][2][:] = 7
        dataset.unmasked_labels(index)[:] = 7
        assert dataset.unmasked_labels(index).tolist() == anew(type(dataset), data, index)


@pytest.mark.parametrize("method", sorted(set(multiprocessing.get_all_start_methods()) - {"forkserver"}))
def test_examples_can_be_sent_to_worker_processes(method: str, write_split: Writer) -> None:
    data = write_split("secondary_structure", "valid", records())
    cropped = CroppedDataset(SecondaryStructureDataset(data, "valid"), 8)
    examples = WithUnmaskedLabels(cropped)
    if method == "spawn":  # sends the data set as a pickle
        examples = pickle.loads(pickle.dumps(examples))
    expected = unmasked_labels_of(cropped)
    assert expected is not None
    plan = [np.array([5, 1]), np.array([0, 11, 3])]
    for indices, batch in zip(plan, load_batches(examples, plan, num_workers=method == "fork"), strict=True):
        assert batch["targets"].shape[1] <= 8
        for index, labels in zip(indices.tolist(), batch[UNMASKED], strict=True):
            np.testing.assert_array_equal(labels, expected(index))


def test_a_class_with_labels_of_its_own_is_asked_for_them(write_split: Writer) -> None:
    class Shifted(SecondaryStructureDataset):
        def unmasked_labels(self, index: int) -> np.ndarray:
            return super().unmasked_labels(index) + 100

    dataset = Shifted(write_split("secondary_structure", "valid", records()), "valid")
    example, labels = WithUnmaskedLabels(dataset)[4]
    assert labels[1:-1].tolist() == [label + 100 for label in example[2][1:-1]]  # record 4 has no mask
