"""A third-party data set and model, registered in a script, are trained by the commands."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset

from tape import ProteinBertForValuePrediction, TAPETokenizer
from tape.datasets import LMDBDataset, SecondaryStructureDataset, StabilityDataset, pad_sequences
from tape.datasets.cropping import CroppedDataset
from tape.datasets.index import DatasetIndex, index_of, unmasked_labels_of
from tape.finetuning.run_directory import read_history
from tape.main import run_eval
from tape.registry import registry
from tape.tasks import TASKS

# Code as in the documentation of tape-proteins.
SCRIPT = """
import shutil
import sys
from pathlib import Path

import numpy as np
import torch
import torch.nn as nn
from torch.utils.data import Dataset

from tape import ProteinBertForSequenceToSequenceClassification, ProteinConfig, ProteinModel, TAPETokenizer
from tape.datasets import LMDBDataset, pad_sequences
from tape.main import run_eval, run_train, run_train_distributed
from tape.models.modeling_utils import SequenceToSequenceClassificationHead
from tape.registry import registry


@registry.register_task("first_or_second_half", num_labels=2)
class HalvesDataset(Dataset):
    def __init__(self, data_path, split, tokenizer="iupac", in_memory=False):
        if isinstance(tokenizer, str):
            tokenizer = TAPETokenizer(vocab=tokenizer)
        self.tokenizer = tokenizer
        self.data = LMDBDataset(Path(data_path) / f"secondary_structure/secondary_structure_{split}.lmdb", in_memory)

    def __len__(self):
        return len(self.data)

    def __getitem__(self, index):
        item = self.data[index]
        ids = self.tokenizer.encode(item["primary"])
        labels = (np.arange(len(ids)) > len(ids) / 2).astype(np.int64)
        labels[[0, -1]] = -1
        return ids, np.ones_like(ids), labels

    def collate_fn(self, batch):
        ids, mask, labels = tuple(zip(*batch))
        return {
            "input_ids": torch.from_numpy(pad_sequences(ids, 0)),
            "input_mask": torch.from_numpy(pad_sequences(mask, 0)),
            "targets": torch.from_numpy(pad_sequences(labels, -1)),
        }


class SimpleConvConfig(ProteinConfig):
    def __init__(self, vocab_size=30, filter_size=8, **kwargs):
        super().__init__(**kwargs)
        self.vocab_size = vocab_size
        self.filter_size = filter_size


class SimpleConvModel(ProteinModel):
    config_class = SimpleConvConfig
    base_model_prefix = "simple_conv"

    def _init_weights(self, module):
        if isinstance(module, nn.Embedding):
            module.weight.data.normal_(0.0, 0.5)


@registry.register_task_model("first_or_second_half", "simple_conv")
class SimpleConvForResidues(SimpleConvModel):
    def __init__(self, config):
        super().__init__(config)
        self.embedding = nn.Embedding(config.vocab_size, config.filter_size)
        self.unused = nn.Linear(2, 2)
        self.classify = SequenceToSequenceClassificationHead(config.filter_size, config.num_labels)
        self.init_weights()

    def forward(self, input_ids, input_mask=None, targets=None):
        return self.classify(self.embedding(input_ids), targets, input_mask)


registry.register_task_model(
    "first_or_second_half", "transformer", ProteinBertForSequenceToSequenceClassification
)


@registry.register_metric("number_of_proteins")
def number_of_proteins(target, prediction):
    return float(len(target))


def train_and_resume():
    run = run_train()
    shutil.copytree(run / "1", "whole")
    words = ["--resume_from_checkpoint", "--from_pretrained", str(run / "0"), "--overwrite"]
    assert run_train([*sys.argv[1:3], *words]) == run.resolve()


if __name__ == "__main__":
    command = sys.argv.pop(1)
    {"train": train_and_resume, "eval": run_eval, "distributed": run_train_distributed}[command]()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "their_task.py"
    path.write_text(SCRIPT, encoding="utf-8")
    return path


def test_a_third_party_task_and_model_train_resume_and_evaluate(
    script: Path, run_script: Callable[..., Any], small_data: Path, tmp_path: Path
) -> None:
    options = ["--data_dir", small_data, "--num_train_epochs", 2, "--time_or_name", "x", "--batch_size", 5]
    run_script(script, "train", "simple_conv", "first_or_second_half", *options, cwd=tmp_path, check=True)
    run = tmp_path / "results" / "first_or_second_half_simple_conv_x"
    assert json.loads((run / "1" / "config.json").read_text())["filter_size"] == 8
    first, whole, again = (
        torch.load(path / "pytorch_model.bin", weights_only=True) for path in (run / "0", tmp_path / "whole", run / "1")
    )
    assert not torch.equal(first["embedding.weight"], whole["embedding.weight"])
    assert all(torch.equal(again[name], value) for name, value in whole.items())
    assert [record["epoch"] for record in read_history(run)] == [0, 1]
    words = ["simple_conv", "first_or_second_half", run / "1", "--data_dir", small_data, "--split", "cb513"]
    metrics = ["--metrics", "accuracy", "number_of_proteins"]
    run_script(script, "eval", *words, *metrics, cwd=tmp_path, check=True)
    values, results = pickle.loads((run / "1" / "results.pkl").read_bytes())
    assert set(values) == {"accuracy", "number_of_proteins"}
    assert values["number_of_proteins"] == 5.0
    assert [result["id"] for result in results] == ["0", "1", "2", "3", "4"]  # this data set has no ids


@pytest.mark.distributed
@pytest.mark.slow
def test_a_third_party_task_trains_in_two_processes(
    script: Path, run_script: Callable[..., Any], small_data: Path, tmp_path: Path, free_port: int
) -> None:
    """The task exists in the processes of ``run_train_distributed`` too; the model has a parameter without gradient."""
    options = ["--data_dir", small_data, "--num_train_epochs", 1, "--time_or_name", "x", "--batch_size", 4]
    launcher = ["--nproc_per_node", 2, "--master_port", free_port]
    words = ["distributed", "simple_conv", "first_or_second_half", *options, *launcher]
    run_script(script, *words, cwd=tmp_path, check=True)
    run = tmp_path / "results" / "first_or_second_half_simple_conv_x"
    assert (run / "0" / "pytorch_model.bin").is_file()
    assert read_history(run)[0]["step"] == 3


# --- data sets whose examples differ from the records of their file --------------------------------------------------


class Theirs(Dataset[Any]):
    """A data set like those of TAPE, with the file as ``self.data``; subclasses choose the records."""

    longest = 30
    requested: list[int]

    def __init__(self, data_path: str, split: str, tokenizer: str = "iupac", in_memory: bool = False) -> None:
        self.tokenizer = TAPETokenizer(vocab=tokenizer)
        self.data = LMDBDataset(Path(data_path) / f"stability/stability_{split}.lmdb", in_memory)
        self.chosen = self.choose(len(self.data))

    def choose(self, count: int) -> list[int]:
        return list(range(count))

    def __len__(self) -> int:
        return len(self.chosen)

    def __getitem__(self, index: int) -> Any:
        self.requested.append(index)
        record = self.data[self.chosen[index]]
        ids = self.tokenizer.encode(record["primary"][: self.longest])
        return ids, np.ones_like(ids), self.value(index)

    def value(self, index: int) -> float:
        return float(self.data[self.chosen[index]]["stability_score"][0])

    def collate_fn(self, batch: Any) -> dict[str, torch.Tensor]:
        ids, mask, values = tuple(zip(*batch, strict=True))
        return {
            "input_ids": torch.from_numpy(pad_sequences(ids, 0)),
            "input_mask": torch.from_numpy(pad_sequences(mask, 0)),
            "targets": torch.FloatTensor(values).unsqueeze(1),
        }


class Twice(Theirs):
    def choose(self, count: int) -> list[int]:
        return [*range(count), *range(count)]


class EverySecond(Theirs):
    def choose(self, count: int) -> list[int]:
        return list(range(0, count, 2))


class Backwards(Theirs):
    def choose(self, count: int) -> list[int]:
        return list(range(count))[::-1]


class SelfCropping(Theirs):
    longest = 6


class Derived(StabilityDataset):
    """Derived from a built-in data set, whose index has all records in the order of the file."""

    requested: list[int]

    def __len__(self) -> int:
        return len(self.data) - 1

    def __getitem__(self, index: int) -> Any:
        self.requested.append(index)
        return super().__getitem__(len(self) - index)

    def value(self, index: int) -> float:
        return float(self.data[len(self) - index]["stability_score"][0])


@pytest.mark.parametrize("kind", [Twice, EverySecond, Backwards, SelfCropping, Derived])
def test_examples_are_counted_and_named_by_the_third_party_data_set(
    kind: Any, train: Callable[..., Path], small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "task_name_mapping", dict(registry.task_name_mapping))
    registry.register_task("theirs", dataset=kind, models={"transformer": ProteinBertForValuePrediction})
    requested: list[int] = []
    monkeypatch.setattr(kind, "requested", requested, raising=False)
    positions = ("--config", "max_position_embeddings=8") if kind is SelfCropping else ()
    run = train("transformer", "theirs", "--num_train_epochs", 1, "--batch_size", 4, "--eval_freq", 0, *positions)
    assert set(requested) == set(range(len(kind(small_data, "train"))))
    run_eval(["transformer", "theirs", str(run), "--data_dir", str(small_data), "--log_level", "40"])
    _, results = pickle.loads((run / "0" / "results.pkl").read_bytes())
    test = kind(small_data, "test")
    assert [result["id"] for result in results] == [str(index) for index in range(len(test))]
    targets = [float(result["target"][0]) for result in results]
    assert targets == pytest.approx([test.value(index) for index in range(len(test))])


def test_a_derived_data_set_may_override_index_and_labels(small_data: Path) -> None:
    class Labeled(SecondaryStructureDataset):  # reads the same records as the built-in data set
        field = "ss8"
        task = TASKS["secondary_structure_8"]

    class Half(SecondaryStructureDataset):
        def __len__(self) -> int:
            return 3

        def __getitem__(self, index: int) -> Any:
            return super().__getitem__(2 * index)

    class Indexed(Half):
        def build_index(self) -> DatasetIndex:
            whole = super().build_index()
            return DatasetIndex(whole.lengths[:6:2], list(whole.identifiers)[:6:2], whole.changes)

    class Listed(SecondaryStructureDataset):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words)
            self.data: Any = [self.data[4], self.data[2]]

    words = (small_data, "train")
    whole, indexed = index_of(Labeled(*words)), index_of(Indexed(*words))
    assert whole is not None
    assert indexed is not None
    assert len(whole.lengths) == 10
    assert indexed.identifiers == [f"secondary_structure-{number}" for number in (0, 2, 4)]
    assert indexed.lengths.tolist() == [len(Indexed(*words)[index][0]) - 2 for index in range(3)]
    assert index_of(Half(*words)) is None
    assert index_of(CroppedDataset(Half(*words), 8)) is None
    assert index_of(Listed(*words)) is None
    assert unmasked_labels_of(Labeled(*words)) is not None
    for half in (Half(*words), CroppedDataset(Half(*words), 8)):  # labels of record 1 are not those of example 1
        assert unmasked_labels_of(half) is None
