"""A third party's dataset and model, registered in their own script, train through the commands."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tape.run_directory import read_history

# What tape-proteins' documentation tells people to write.
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


def test_their_task_and_model_train_resume_and_evaluate(
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
    assert results[0]["id"] == "secondary_structure-0"


@pytest.mark.distributed
@pytest.mark.slow
def test_their_task_trains_in_two_processes(
    script: Path, run_script: Callable[..., Any], small_data: Path, tmp_path: Path, free_port: int
) -> None:
    """The processes of ``run_train_distributed`` know it too; and their model has a parameter that no loss reaches."""
    options = ["--data_dir", small_data, "--num_train_epochs", 1, "--time_or_name", "x", "--batch_size", 4]
    launcher = ["--nproc_per_node", 2, "--master_port", free_port]
    words = ["distributed", "simple_conv", "first_or_second_half", *options, *launcher]
    run_script(script, *words, cwd=tmp_path, check=True)
    run = tmp_path / "results" / "first_or_second_half_simple_conv_x"
    assert (run / "0" / "pytorch_model.bin").is_file()
    assert read_history(run)[0]["step"] == 3
