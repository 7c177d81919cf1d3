"""``tape.utils.setup_dataset``, ``setup_loader`` and the samplers, as scripts call them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import RandomSampler, SequentialSampler

from tape import utils
from tape.datasets import MaskedLanguageModelingDataset, StabilityDataset
from tape.errors import ConfigError
from tape.utils._sampler import BucketBatchSampler, SortedSampler


def test_a_loader_yields_every_protein_once_with_little_padding(small_data: Path) -> None:
    dataset = utils.setup_dataset("stability", str(small_data), "train", "iupac")
    assert isinstance(dataset, StabilityDataset)
    loader = utils.setup_loader(dataset, 4, -1, 1, 1, 8)
    torch.manual_seed(0)
    batches = list(loader)
    assert [len(batch["input_ids"]) for batch in batches].count(4) == 2
    assert len(loader) == len(batches) == 3
    seen = sorted(float(value) for batch in batches for value in batch["targets"])
    assert seen == pytest.approx(sorted(float(dataset[index][2]) for index in range(len(dataset))))
    lengths = sorted(len(dataset[index][0]) for index in range(len(dataset)))
    widths = sorted(batch["input_ids"].shape[1] for batch in batches)
    assert widths[-1] == lengths[-1]
    assert widths[0] <= lengths[3]  # the shortest are in one batch


def test_named_arguments_as_in_scripts(small_data: Path) -> None:
    dataset = MaskedLanguageModelingDataset(data_path=small_data, split="train")
    loader = utils.setup_loader(
        dataset=dataset, batch_size=4, local_rank=-1, n_gpu=1, gradient_accumulation_steps=2, num_workers=8
    )
    assert {len(batch["input_ids"]) for batch in loader} == {2}


class Theirs(torch.utils.data.Dataset[Any]):
    """A data set without an index; its first field has the token ids."""

    lengths = [7, 3, 9, 2, 5]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, index: int) -> Any:
        return torch.zeros(self.lengths[index]), index

    def collate_fn(self, batch: Any) -> Any:
        return [len(ids) for ids, _ in batch]


def test_examples_of_others_are_measured_by_their_first_field() -> None:
    batches = list(utils.setup_loader(Theirs(), 2, -1, 1, 1, 0))
    assert sorted(batches) == [[2, 3], [5, 7], [9]]


def test_samplers_of_tape() -> None:
    assert list(SortedSampler(range(5), sort_key=lambda i: -i)) == [4, 3, 2, 1, 0]
    data = [3, 1, 2, 0]
    assert list(SortedSampler(data, lambda value: value, indices=[0, 1, 2])) == [1, 2, 0]
    torch.manual_seed(0)
    words = {"batch_size": 3, "sort_key": lambda i: -i, "dataset": range(10)}
    batches = list(BucketBatchSampler(SequentialSampler(range(10)), drop_last=False, **words))
    assert sorted(batches) == [[0], [3, 2, 1], [6, 5, 4], [9, 8, 7]]
    assert len(list(BucketBatchSampler(RandomSampler(range(10)), drop_last=True, **words))) == 3
    small = list(BucketBatchSampler(SequentialSampler(range(6)), drop_last=False, bucket_size_multiplier=1, **words))
    assert small == [[2, 1, 0], [5, 4, 3]]  # no batch leaves its bucket


def test_sizes_and_steps() -> None:
    assert utils.get_effective_num_gpus(-1, 4) == 4
    assert utils.get_effective_batch_size(64, -1, 2, 4) == 8
    assert utils.get_num_train_optimization_steps(range(10), 4, 3) == 9  # bug 10 in docs/compatibility.md
    with pytest.raises(ConfigError, match=r"local_rank is 1, but .* single process"):
        utils.setup_loader(Theirs(), 2, 1, 1, 1, 0)
