"""Single tensors of a checkpoint, gathered and by shard."""

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


def test_shards_and_gathered_tensors_equal_the_models(saved: Path) -> None:
    expected = build_model(CONFIG, InitConfig(seed=1), ALONE).state_dict()
    tensors = model_tensors(saved)
    assert tensors.keys() == expected.keys()  # without the optimizer state
    for name, entry in tensors.items():
        (shard,) = entry.shards
        assert (entry.shape, entry.dtype) == (tuple(expected[name].shape), expected[name].dtype)
        assert torch.equal(shard.load(), expected[name])
        assert torch.equal(entry.gather(), expected[name])


def test_a_damaged_shard_is_named(saved: Path) -> None:
    entry = model_tensors(saved)["bert.encoder.final_ln.weight"]
    (shard,) = entry.shards
    content = bytearray(shard.file.read_bytes())
    content[shard.start : shard.start + 40] = bytes(40)
    shard.file.write_bytes(content)
    with pytest.raises(CheckpointError, match=rf"{shard.file.name}: damaged at byte {shard.start}"):
        shard.load()
