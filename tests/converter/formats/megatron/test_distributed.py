"""Distributed checkpoints (torch_dist) of Megatron Core: the weights are read, and nothing else."""

from __future__ import annotations

import argparse
import io
import itertools
import pickle
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch.distributed.checkpoint.metadata import MetadataIndex
from torch.distributed.checkpoint.planner import SavePlan, WriteItem, WriteItemType

from converter.convert import ConversionRequest, convert
from converter.formats.base import Source
from converter.formats.detection import open_source
from converter.formats.megatron.distributed import _gather, _model_tensors
from converter.options import SourceOptions
from pretrain.checkpointing import StoredShard, StoredTensor, index_reader, tensors_and_others
from pretrain.checkpointing.index_reader import without_single_process_warning
from tape.errors import CheckpointError
from tests.support.megatron_writer import Truth, arguments_of, expected_state, make_truth, only_rank, write_megatron


def silent(line: str) -> None:
    pass


@pytest.fixture(scope="module")
def truth() -> Truth:
    return make_truth()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, truth: Truth) -> dict[str, Any]:
    """The tensors of Megatron Core's model, with the keys of Transformer Engine's layers, as in these checkpoints."""
    folder = tmp_path_factory.mktemp("core")
    mega = write_megatron(folder / "mega", truth, bias_gelu_fusion=True)
    convert(ConversionRequest(mega, folder / "core", "megatron-core"), silent)
    content = torch.load(only_rank(folder / "core"), weights_only=False)["model"]
    fused = (
        (".input_layernorm.", ".self_attention.linear_qkv.layer_norm_"),
        (".pre_mlp_layernorm.", ".mlp.linear_fc1.layer_norm_"),
    )
    model = {}
    for key, value in content.items():
        for old, new in fused:
            key = key.replace(old, new)
        if value is not None:
            model[key] = value
    return model


def stacked(model: dict[str, Any], layers: int) -> dict[str, Any]:
    result = {key: value for key, value in model.items() if not key.startswith("encoder.layers.")}
    for key in model:
        if key.startswith("encoder.layers.0."):
            parts = [model[key.replace(".0.", f".{layer}.", 1)] for layer in range(layers)]
            result[key.replace(".0.", ".", 1)] = torch.stack(parts)
    return result


def write(folder: Path, model: dict[str, Any], truth: Truth) -> Path:
    """A ``--save`` directory with all that a training run stores."""
    place = folder / "iter_0000007"
    state = {
        **model,
        "optimizer.state.exp_avg.encoder.final_layernorm.weight": torch.ones(truth.hidden),
        "encoder.layers.self_attention.linear_qkv._extra_state/shard_0_2": io.BytesIO(b"scales"),
        "encoder.layers.mlp.linear_fc1._extra_state/shard_0_2": torch.zeros(5, dtype=torch.uint8),
        "rng_state/shard_0.0_1.1": io.BytesIO(b"state"),
    }
    with without_single_process_warning():
        dcp.save(state, checkpoint_id=place, no_dist=True)
    metadata = pickle.loads((place / ".metadata").read_bytes())
    item = WriteItem(MetadataIndex("rng_state/shard_0.0_1.1"), WriteItemType.BYTE_IO)
    metadata.all_local_plans = [SavePlan([item])]
    metadata.mcore_data = {"optimizer.state": {"nd_reformulated_orig_global_shape": (1, 32)}}
    (place / ".metadata").write_bytes(pickle.dumps(metadata))
    arguments = arguments_of(truth, 1, 1, 3.0, bias_gelu_fusion=True, exit_signal=signal.SIGTERM, ckpt_format="x")
    common = {"args": arguments, "checkpoint_version": 3.0, "iteration": 7, "content_metadata": {"fsdp": False}}
    torch.save(common, place / "common.pt")
    (place / "metadata.json").write_text('{"sharded_backend": "torch_dist", "sharded_backend_version": 1}')
    (folder / "latest_checkpointed_iteration.txt").write_text("7")
    return folder


@pytest.mark.parametrize("stack", [True, False])
def test_the_weights_are_read_with_layers_stacked_or_not(
    tmp_path: Path, truth: Truth, model: dict[str, Any], stack: bool
) -> None:
    folder = write(tmp_path / "dist", stacked(model, truth.layers) if stack else model, truth)
    source = open_source(folder, SourceOptions())
    state = source.map().state
    for name, value in expected_state(truth).items():
        torch.testing.assert_close(state[name].load(), value, rtol=0, atol=0)
    provenance = source.provenance()
    assert (provenance["kind"], provenance["iteration"], provenance["extra_states_not_read"]) == ("megatron-core", 7, 2)
    certificate = convert(ConversionRequest(folder, tmp_path / "out"), silent)
    assert certificate.parity.worst[1] < 1e-12


def test_a_layer_is_assembled_from_the_shards_of_its_ranks(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = torch.arange(2 * 4 * 6.0).reshape(2, 4, 6)
    places = itertools.product((0, 1), (0, 2), (0, 3))
    parts = {(i, j, k): whole[i : i + 1, j : j + 2, k : k + 3] for i, j, k in places}
    shards = tuple(StoredShard(place, (1, 2, 3), torch.float32, Path("x"), 0, 0) for place in parts)
    monkeypatch.setattr(StoredShard, "load", lambda shard: parts[shard.offsets])
    monkeypatch.setattr(StoredShard, "load_row", lambda shard, row: parts[shard.offsets][row])
    entry = StoredTensor("w", Path("x"), (2, 4, 6), torch.float32, shards)
    assert torch.equal(_gather(entry, 1), whole[1])
    assert torch.equal(_gather(entry, None), whole)
    hole = StoredTensor("w", Path("x"), (2, 4, 6), torch.float32, shards[1:])
    assert bool(_gather(hole, 0).isnan().any())


def test_stacked_layers_are_read_once(
    tmp_path: Path, truth: Truth, model: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To be verified, and then only the bytes of each layer."""
    layers = 12
    first = {key: value for key, value in model.items() if key.startswith("encoder.layers.0.")}
    deep = {
        key.replace(".0.", f".{layer}.", 1): value + layer for key, value in first.items() for layer in range(layers)
    }
    folder = write(tmp_path / "dist", stacked({**model, **deep}, layers), truth)
    read = 0

    def counted(file: Path, start: int, length: int) -> bytes:
        nonlocal read
        read += length
        return read_bytes(file, start, length)

    read_bytes = index_reader._read_bytes
    monkeypatch.setattr(index_reader, "_read_bytes", counted)
    stored, _ = tensors_and_others(folder / "iter_0000007")
    tensors = _model_tensors(stored, folder)
    for key, value in deep.items():
        assert torch.equal(tensors[key].load(), value), key
    assert read < 4 * sum(file.stat().st_size for file in folder.glob("iter_*/*.distcp"))


def test_any_number_of_empty_layers_is_refused() -> None:
    entry = StoredTensor("w", Path("x"), (1 << 40, 0), torch.float32, ())
    with pytest.raises(CheckpointError, match="which no weight has"):
        _model_tensors({"encoder.layers.mlp.linear_fc1.weight": entry}, Path("x"))


def test_the_number_of_layers_is_bounded() -> None:
    entry = StoredTensor("w", Path("x"), (1 << 40, 1), torch.float32, ())
    with pytest.raises(CheckpointError, match=r"has 1,099,511,627,776 layers, more than 4,096"):
        _model_tensors({"encoder.layers.mlp.linear_fc1.weight": entry}, Path("x"))


def test_a_missing_file_is_named(tmp_path: Path, truth: Truth, model: dict[str, Any]) -> None:
    place = write(tmp_path / "dist", model, truth) / "iter_0000007"
    (place / "common.pt").rename(tmp_path / "common.pt")
    with pytest.raises(CheckpointError, match=r"common\.pt: missing, in which a distributed checkpoint"):
        open_source(tmp_path / "dist", SourceOptions())
    (tmp_path / "common.pt").rename(place / "common.pt")
    (place / "__0_0.distcp").unlink()
    with pytest.raises(CheckpointError, match=r"iter_0000007: '__0_0\.distcp' is missing, but \.metadata lists it"):
        open_source(place, SourceOptions())


def test_keys_of_nemo_are_named(tmp_path: Path, truth: Truth, model: dict[str, Any]) -> None:
    folder = write(tmp_path / "dist", {f"module.{key}": value for key, value in model.items()}, truth)
    with pytest.raises(CheckpointError, match="contains no BERT of Megatron Core .*export a Megatron-LM checkpoint"):
        open_source(folder, SourceOptions())


def test_another_backend_is_named(tmp_path: Path) -> None:
    (tmp_path / "common.pt").touch()
    with pytest.raises(CheckpointError, match=r"of another backend than torch_dist: .*--ckpt-convert-format torch"):
        open_source(tmp_path, SourceOptions())


def load_all(source: Source) -> list[torch.Tensor]:
    return [tensor.load() for tensor in source.map().state.values()]


def test_a_flipped_bit_in_a_weight_is_refused(tmp_path: Path, truth: Truth, model: dict[str, Any]) -> None:
    folder = write(tmp_path / "dist", model, truth)
    file = folder / "iter_0000007" / "__0_0.distcp"
    content = file.read_bytes()
    place = content.index(model["encoder.final_layernorm.weight"].numpy().tobytes())
    file.write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
    source = open_source(folder, SourceOptions())
    with pytest.raises(CheckpointError, match=r"__0_0\.distcp, byte \d+: damaged: record '.*data/0'"):
        load_all(source)


def test_a_weight_of_another_type_than_the_index_has_is_refused(
    tmp_path: Path, truth: Truth, model: dict[str, Any]
) -> None:
    folder = write(tmp_path / "dist", model, truth)
    index = folder / "iter_0000007" / ".metadata"
    metadata = pickle.loads(index.read_bytes())
    metadata.state_dict_metadata["encoder.final_layernorm.weight"].properties.dtype = torch.float16
    index.write_bytes(pickle.dumps(metadata))
    source = open_source(folder, SourceOptions())
    with pytest.raises(CheckpointError, match=r"holds torch\.float32, not torch\.float16 as the index"):
        load_all(source)


def test_an_index_that_names_code_is_refused(tmp_path: Path, truth: Truth, model: dict[str, Any]) -> None:
    folder = write(tmp_path / "dist", model, truth)
    (folder / "iter_0000007" / ".metadata").write_bytes(pickle.dumps(argparse.ArgumentParser))
    with pytest.raises(CheckpointError, match=r"\.metadata: refused or damaged"):
        open_source(folder, SourceOptions())
