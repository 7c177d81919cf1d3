"""Checkpoints of other frameworks are named, with what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from converter.formats.detection import open_source
from converter.options import SourceOptions
from tape.errors import CheckpointError, ConfigError
from tests.converter.test_round_trips import tape_model
from tests.support.megatron_writer import edit, make_truth, only_rank, write_megatron


def nemo(folder: Path) -> Path:
    (folder / "bert.nemo").write_bytes(b"tar")
    return folder / "bert.nemo"


def index(folder: Path) -> Path:
    (folder / "corpus.idx").write_bytes(b"TNTIDX\x00\x00" + bytes(40))
    return folder / "corpus.idx"


def deepspeed(folder: Path) -> Path:
    (folder / "latest").write_text("global_step10\n")
    (folder / "global_step10").mkdir()
    (folder / "global_step10" / "mp_rank_00_model_states.pt").touch()
    return folder


def megatron_core(folder: Path) -> Path:
    (folder / "metadata.json").write_text('{"sharded_backend": "torch_dist", "sharded_backend_version": 1}')
    (folder / "common.pt").touch()
    return folder


def saved(content: object) -> Callable[[Path], Path]:
    def make(folder: Path) -> Path:
        torch.save(content, folder / "m.pt")
        return folder / "m.pt"

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (nemo, r"bert\.nemo: a NeMo archive"),
        (index, r"corpus\.idx: the index of a pretraining corpus"),
        (deepspeed, r"a DeepSpeed checkpoint, .*zero_to_fp32\.py"),
        (megatron_core, "a distributed checkpoint of Megatron Core without .*--ckpt-convert-format torch"),
        (saved({"state_dict": {}, "pytorch-lightning_version": "2.0"}), r"m\.pt: a PyTorch Lightning checkpoint"),
        (saved({"model": {}, "optimizer_history": []}), r"m\.pt: a fairseq checkpoint"),
        (saved({"module": {}, "ds_version": "0.14"}), r"m\.pt: a DeepSpeed checkpoint: .*zero_to_fp32\.py"),
        (saved({"weights": 1}), r"m\.pt: contains no Megatron language model \(its keys: weights\)"),
        (
            saved({"model": {"module.language_model.embedding": torch.zeros(1)}}),
            r"m\.pt: all keys have the prefix 'module\.' .*removeprefix\('module\.'\)",
        ),
    ],
)
def test_other_frameworks_are_named(tmp_path: Path, make: Callable[[Path], Path], words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        open_source(make(tmp_path), SourceOptions())


def test_a_wrapped_state_dict_in_a_model_directory_is_named(tmp_path: Path) -> None:
    source = tape_model(tmp_path / "tape")
    (source / "SHA256SUMS").unlink()
    (source / "model.safetensors").unlink()
    torch.save({"model.bert.encoder.layer.0.input_ln.weight": torch.zeros(32)}, source / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pytorch_model\.bin: all keys have the prefix 'model\.'"):
        open_source(source, SourceOptions())


def test_every_message_names_the_checkpoint(tmp_path: Path) -> None:
    def remove(content: dict) -> None:
        del content["model"]["lm_head"]["layernorm.bias"]

    folder = write_megatron(tmp_path / "mega", make_truth())
    edit(only_rank(folder), remove)
    with pytest.raises(CheckpointError, match=r"/mega: lm_head\.layernorm\.bias is missing"):
        open_source(folder, SourceOptions()).map()
    folder = write_megatron(tmp_path / "dropout", make_truth(), hidden_dropout=3.0)
    with pytest.raises(ConfigError, match=r"/dropout: hidden_dropout_prob must be in"):
        open_source(folder, SourceOptions())


@pytest.mark.parametrize("size", [torch.zeros(2), "2", 1.5])
def test_a_parallel_size_that_is_no_number_is_refused(tmp_path: Path, size: object) -> None:
    folder = write_megatron(tmp_path / "mega", make_truth(), tensor_model_parallel_size=size)
    with pytest.raises(CheckpointError, match=r"mega: written by .* tensor-parallel ranks, but files of 1"):
        open_source(folder, SourceOptions())
