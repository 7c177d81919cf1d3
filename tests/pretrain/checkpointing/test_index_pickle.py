"""The pickled index of a checkpoint: torch's own is read; other content, false fields and sizes are refused."""

from __future__ import annotations

import io
import pickle
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from pretrain.checkpointing.format import INDEX_NAME, MODEL_PREFIX
from pretrain.checkpointing.index_pickle import load_index
from pretrain.checkpointing.index_reader import load_tensors, model_tensors, without_single_process_warning
from tape.errors import CheckpointError
from tape.io.restricted_pickle import RefusedPickleError
from tests.support.pickle_assembler import NONE, build, call, dict_of, integer, name, pickled, text, tuple_of

MODULE = "torch.distributed.checkpoint.metadata"
NAME = f"{MODEL_PREFIX}w"


def index(**changes: Any) -> Metadata:
    """An index of one tensor of 2 x 3 in one file; ``changes`` replace fields of the parts."""
    size = changes.get("size", torch.Size([2, 3]))
    chunk = ChunkStorageMetadata(torch.Size([0, 0]), size)
    properties = TensorProperties(torch.float32)
    return Metadata(
        state_dict_metadata={NAME: TensorStorageMetadata(properties, size, changes.get("chunks", [chunk]))},
        planner_data={NAME: ("model", 0)},
        storage_data={
            MetadataIndex(NAME, torch.Size([0, 0])): _StorageInfo(
                changes.get("file", "__0_0.distcp"), 0, changes.get("length", 1000)
            )
        },
        storage_meta=StorageMeta(checkpoint_id=changes.get("path", Path("a") / "b"), save_id="x"),
    )


def test_the_index_that_torch_writes_is_read(tmp_path: Path) -> None:
    with without_single_process_warning():
        dcp.save({NAME: torch.arange(6.0).view(2, 3)}, checkpoint_id=tmp_path, no_dist=True)
    data = (tmp_path / INDEX_NAME).read_bytes()
    expected = pickle.loads(data)
    found = load_index(data)
    assert found.state_dict_metadata == expected.state_dict_metadata
    assert found.storage_data == expected.storage_data
    assert found.planner_data == expected.planner_data
    tensors = model_tensors(tmp_path)
    assert tensors["w"].gather().tolist() == [[0, 1, 2], [3, 4, 5]]
    assert tensors["w"].shards[0].load().tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("protocol", range(2, 6))
def test_an_index_of_every_protocol_is_read(protocol: int) -> None:
    found = load_index(pickle.dumps(index(), protocol))
    assert found.state_dict_metadata == index().state_dict_metadata
    assert found.storage_data == index().storage_data
    assert found.storage_meta is not None
    assert found.storage_meta.checkpoint_id == "a/b"


def test_an_index_of_python_3_11_0_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """There, members of enumerations are pickled by their name."""
    enum = sys.modules[MODULE]._MEM_FORMAT_ENCODING
    monkeypatch.setattr(enum, "__reduce_ex__", lambda self, protocol: (getattr, (type(self), self.name)))
    data = pickle.dumps(index())
    assert b"getattr" in data
    assert load_index(data).state_dict_metadata == index().state_dict_metadata


@pytest.mark.parametrize(
    "changes",
    [
        {"chunks": ["x"]},
        {"chunks": {}},
        {"size": (2, 3)},
        {"length": -1},
        {"length": "x"},
        {"path": 3},
        {"file": "../__0_0.distcp"},
        {"file": ".."},
    ],
)
def test_fields_of_other_types_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(RefusedPickleError, match="unexpected arguments"):
        load_index(pickle.dumps(index(**changes)))


POLLUTION = tuple_of(NONE, dict_of(text("polluted"), integer(1)))
NEW_METADATA = name(MODULE, "Metadata") + b")\x81"


@pytest.mark.parametrize(
    "hostile",
    [
        build(name(MODULE, "Metadata"), POLLUTION),
        build(name("pathlib", "PosixPath"), POLLUTION),
        build(call(name("pathlib", "PosixPath"), text("a")), POLLUTION),
        build(NEW_METADATA, POLLUTION),
        build(NEW_METADATA, dict_of(text("polluted"), integer(1))),
        build(NEW_METADATA, dict_of()),
        NEW_METADATA,
        build(name(MODULE, "MetadataIndex") + b")\x81", dict_of(text("fqn"), integer(1))),
        build(name(MODULE, "TensorProperties") + b")\x81", tuple_of(NONE)),
        call(name(MODULE, "_MEM_FORMAT_ENCODING"), integer(1)),
        call(name("builtins", "getattr"), name(MODULE, "_MEM_FORMAT_ENCODING"), text("__class__")),
        call(name("builtins", "getattr"), name(MODULE, "Metadata"), text("TORCH_CONTIGUOUS_FORMAT")),
        call(name("builtins", "getattr"), text("x"), text("TORCH_CONTIGUOUS_FORMAT")),
        call(name("pathlib", "PosixPath"), integer(1)),
        call(name(MODULE, "create_from_tensor")),
        name("torch", "Tensor"),
        call(name("os", "system"), text("true")),
        text("x"),
    ],
)
def test_anything_but_an_index_is_refused(hostile: bytes) -> None:
    with pytest.raises(RefusedPickleError):
        load_index(pickled(hostile))
    assert not any(hasattr(kind, "polluted") for kind in (Metadata, type(Path()), TensorProperties))


def test_a_shape_beyond_the_file_is_refused_before_memory_is_allocated(tmp_path: Path) -> None:
    stream = io.BytesIO()
    torch.save(torch.zeros(2, 3), stream)
    (tmp_path / "__0_0.distcp").write_bytes(stream.getvalue())
    huge = torch.Size([1 << 30, 1 << 20])
    for written, words in ((index(size=huge, length=1 << 60), "too short"), (index(length=20), "too short")):
        (tmp_path / INDEX_NAME).write_bytes(pickle.dumps(written))
        with pytest.raises(CheckpointError, match=words):
            model_tensors(tmp_path)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    with without_single_process_warning():
        dcp.save({NAME: torch.arange(6.0).view(2, 3)}, checkpoint_id=tmp_path, no_dist=True)
    return tmp_path


def test_tensors_are_loaded_without_torch_load(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "load", None)
    tensors = {NAME: torch.zeros(2, 3)}
    load_tensors(tensors, saved, single_process=True)
    assert tensors[NAME].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("other", [torch.zeros(3, 2), torch.zeros(6), {"w": torch.zeros(2, 3)}, b"x"])
def test_a_shard_with_other_content_is_refused(saved: Path, other: Any) -> None:
    stream = io.BytesIO()
    torch.save(other, stream)
    (saved / "__0_0.distcp").write_bytes(stream.getvalue())
    metadata = index(length=len(stream.getvalue()))
    (saved / INDEX_NAME).write_bytes(pickle.dumps(metadata))
    with pytest.raises(CheckpointError, match=r"hold a tensor of shape \(2, 3\)|instead of a tensor"):
        load_tensors({NAME: torch.zeros(2, 3)}, saved, single_process=True)
