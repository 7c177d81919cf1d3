"""Single tensors of a checkpoint, gathered and by shard."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch.distributed.checkpoint.metadata import ChunkStorageMetadata, Metadata, MetadataIndex

from pretrain.checkpointing import (
    RunDescription,
    RunState,
    load_checkpoint,
    load_full_checkpoint,
    model_tensors,
    save_checkpoint,
    tensors_and_others,
)
from pretrain.checkpointing.index_reader import IndexReader, load_tensors
from pretrain.parallel import ParallelContext, ParallelDims
from pretrain.train.initialization import InitConfig, build_model
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError
from tape.interrupts import Terminated
from tape.tokenizers import TAPETokenizer

ALONE = ParallelContext(ParallelDims(), 0, torch.device("cpu"), None)
CONFIG = ProteinBertConfig(
    hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32
)
DESCRIPTION = RunDescription(CONFIG.to_dict(), {}, TAPETokenizer().tokens, TAPETokenizer().fingerprint)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    model = build_model(CONFIG, InitConfig(seed=1), ALONE)
    return save_checkpoint(tmp_path / "run", model, {"x.step": torch.ones(1)}, RunState(3), DESCRIPTION, ALONE)


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
    with pytest.raises(CheckpointError, match=rf"{saved.name}: '{NAME}': a shard at .* is not inside its shape"):
        model_tensors(saved)


def overlapping_shards(index: Metadata) -> None:
    """Two halves of a vector of 16 elements, of which the second starts too early."""
    key, place = next((key, place) for key, place in index.storage_data.items() if key.fqn == NAME)
    index.state_dict_metadata[NAME].chunks = [
        ChunkStorageMetadata(torch.Size([start]), torch.Size([8])) for start in (0, 4)
    ]
    del index.storage_data[key]
    index.storage_data |= {MetadataIndex(NAME, torch.Size([start])): place for start in (0, 4)}


def load_into_a_model(saved: Path) -> None:
    model = build_model(CONFIG, InitConfig(seed=1), ALONE)
    load_checkpoint(saved, model, {"x.step": torch.ones(1)}, DESCRIPTION, ALONE, verify=False)


@pytest.mark.parametrize(
    "read",
    [
        model_tensors,
        tensors_and_others,
        load_into_a_model,
        lambda path: load_full_checkpoint(path, verify=False),
        lambda path: load_tensors({NAME: torch.ones(16)}, path, single_process=True),
    ],
)
def test_no_reader_accepts_shards_that_overlap_and_leave_a_hole(saved: Path, read: Callable[[Path], object]) -> None:
    edit_index(saved, overlapping_shards)
    with pytest.raises(CheckpointError, match=rf"{saved.name}: '{NAME}': elements \[4:8\] .* are in 2 shards"):
        read(saved)


def test_a_shard_that_is_larger_than_its_index_states_is_refused(saved: Path) -> None:
    """Its first elements would be taken for all."""

    def shorten(index: Metadata) -> None:
        entry = index.state_dict_metadata[NAME]
        entry.size = entry.chunks[0].sizes = torch.Size([8])

    edit_index(saved, shorten)
    with pytest.raises(CheckpointError, match=r"__0_0\.distcp: byte \d+ doesn't hold a tensor of shape \(8,\)"):
        load_tensors({NAME: torch.ones(8)}, saved, single_process=True)


@pytest.mark.parametrize("file", ["n" * 300, "a\0b"])
def test_the_name_of_a_file_that_cannot_exist_is_refused(saved: Path, file: str) -> None:
    def rename(index: Metadata) -> None:
        index.storage_data = {
            key: dataclasses.replace(place, relative_path=file) for key, place in index.storage_data.items()
        }

    edit_index(saved, rename)
    with pytest.raises(CheckpointError, match=r"is missing, but \.metadata lists it"):
        model_tensors(saved)
