"""Single tensors of a checkpoint, gathered and by shard."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.metadata import Metadata

from pretrain.checkpointing import RunDescription, RunState, model_tensors, save_checkpoint
from pretrain.checkpointing.index_reader import IndexReader, load_tensors
from pretrain.parallel import ParallelContext, ParallelDims
from pretrain.train.initialization import InitConfig, build_model
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, Terminated
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


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, Terminated])
def test_an_interrupt_while_tensors_are_loaded_is_no_damage(
    saved: Path, interrupt: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch.distributed.checkpoint puts every exception of a rank into its own."""

    def interrupted(self: IndexReader, plan: object, planner: object) -> None:
        raise interrupt

    monkeypatch.setattr(IndexReader, "read_data", interrupted)
    with pytest.raises(interrupt):
        load_tensors({"model.mlm.bias": torch.empty(30)}, saved, single_process=True)


NAME = "model.bert.encoder.final_ln.weight"


def edit_index(saved: Path, change: Callable[[Metadata], None]) -> None:
    index = pickle.loads((saved / ".metadata").read_bytes())
    change(index)
    (saved / ".metadata").write_bytes(pickle.dumps(index))


@pytest.mark.parametrize(("offsets", "sizes"), [((3,), (16,)), ((0,), (4, 4)), ((0, 0), (16,))])
def test_a_shard_that_is_not_inside_its_tensor_is_refused(
    saved: Path, offsets: tuple[int, ...], sizes: tuple[int, ...]
) -> None:
    def move(index: Metadata) -> None:
        (chunk,) = index.state_dict_metadata[NAME].chunks
        chunk.offsets, chunk.sizes = torch.Size(offsets), torch.Size(sizes)

    edit_index(saved, move)
    with pytest.raises(
        CheckpointError, match=rf"{saved.name}: a shard of bert\.encoder\.final_ln\.weight at .* not inside"
    ):
        model_tensors(saved)


@pytest.mark.parametrize("file", ["n" * 300, "a\0b"])
def test_the_name_of_a_file_that_cannot_exist_is_refused(saved: Path, file: str) -> None:
    def rename(index: Metadata) -> None:
        index.storage_data = {
            key: dataclasses.replace(place, relative_path=file) for key, place in index.storage_data.items()
        }

    edit_index(saved, rename)
    with pytest.raises(CheckpointError, match="too short for the shard"):
        model_tensors(saved)
