"""A checkpoint's tensors one by one, gathered and in parts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pretrain.checkpointing import RunDescription, RunState, model_tensors, save_checkpoint
from pretrain.parallel import ParallelContext, ParallelDims
from pretrain.train.initialization import InitConfig, build_model
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError
from tape.tokenizers import TAPETokenizer

ALONE = ParallelContext(ParallelDims(), 0, torch.device("cpu"), None)
CONFIG = ProteinBertConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32
)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    description = RunDescription(CONFIG.to_dict(), {}, TAPETokenizer().tokens, TAPETokenizer().fingerprint)
    model = build_model(CONFIG, InitConfig(seed=1), ALONE)
    return save_checkpoint(tmp_path / "run", model, {"x.step": torch.ones(1)}, RunState(3), description, ALONE)


def test_parts_and_gathered_tensors_are_the_models(saved: Path) -> None:
    expected = build_model(CONFIG, InitConfig(seed=1), ALONE).state_dict()
    tensors = model_tensors(saved)
    assert tensors.keys() == expected.keys()  # the optimizer's are left out
    for name, entry in tensors.items():
        (part,) = entry.shards
        assert (entry.shape, entry.dtype) == (tuple(expected[name].shape), expected[name].dtype)
        assert torch.equal(part.load(), expected[name])
        assert torch.equal(entry.gather(), expected[name])


def test_a_damaged_part_is_named(saved: Path) -> None:
    entry = model_tensors(saved)["bert.encoder.final_ln.weight"]
    (part,) = entry.shards
    content = bytearray(part.file.read_bytes())
    content[part.start : part.start + 40] = bytes(40)
    part.file.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{part.file.name}: damaged at byte {part.start}"):
        part.load()
