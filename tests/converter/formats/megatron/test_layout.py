"""Finding and reading the files of a classic Megatron-LM directory."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch

from converter.formats.detection import open_source
from converter.formats.megatron.key_names import Form, canonical_name
from converter.formats.megatron.layout import find_rank_files, read_megatron_checkpoint
from converter.options import SourceOptions
from tape.errors import CheckpointError
from tests.support.megatron_writer import edit, make_truth, only_rank, write_megatron


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of TP 2 x PP 2; tests that change it copy it first."""
    return write_megatron(tmp_path_factory.mktemp("layout") / "mega", make_truth(), tp=2, pp=2)


@pytest.fixture
def copy(tmp_path: Path, written: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "mega"))


def test_layers_are_numbered_across_stages(written: Path) -> None:
    checkpoint = read_megatron_checkpoint(written)
    merged = checkpoint.shards
    assert (checkpoint.tensor_parallel, len(checkpoint.stages)) == (2, 2)
    name = "language_model.transformer.layers.1.mlp.dense_h_to_4h.bias"
    assert torch.equal(
        merged[name][1].load(),
        checkpoint.stages[1][1].tensors["language_model.transformer.layers.0.mlp.dense_h_to_4h.bias"].load(),
    )


def test_iteration_folder_and_single_file_are_accepted(tmp_path: Path, written: Path) -> None:
    assert find_rank_files(written) == find_rank_files(written / "iter_0001000")
    as_single_rank = write_megatron(tmp_path / "one", make_truth())
    file = shutil.copy(only_rank(as_single_rank), tmp_path / "model_optim_rng.pt")
    assert find_rank_files(Path(file)) == [[Path(file)]]
    assert find_rank_files(tmp_path) == [[Path(file)]]


def test_two_candidates_are_an_error(tmp_path: Path) -> None:
    for name in ("a.pt", "b.pt"):
        torch.save({}, tmp_path / name)
    with pytest.raises(CheckpointError, match=r"a\.pt, b\.pt"):
        find_rank_files(tmp_path)


def test_empty_folder_names_the_missing_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint found: .* model_optim_rng\.pt"):
        read_megatron_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (
            ("iter_0000005/mp_rank_00/model_optim_rng.pt", "iter_0000009/x"),
            "checkpoints: iter_0000005, iter_0000009; give",
        ),
        (("checkpoint-500/config.json", "trainer_state.json"), "directories of models: checkpoint-500; give the path"),
        (("config.json", "tf_model.h5"), r"tf_model\.h5 is not read: .*from_tf=True.*save_pretrained"),
        (("config.json", "flax_model.msgpack"), r"flax_model\.msgpack is not read: .*from_flax=True"),
        ((".metadata", "__0_0.distcp"), r"\.metadata is not read: .*dcp_to_torch"),
        (("weights/common.pt", "weights/.metadata", "context/model.yaml"), r"weights/common\.pt is not read: .*NeMo"),
        (("adapter_config.json", "adapter_model.safetensors"), "merge the adapter into its model"),
        ((), r"neither config\.json and weights .* nor metadata\.json"),
    ],
)
def test_what_a_directory_without_a_checkpoint_has_is_named(tmp_path: Path, files: tuple[str, ...], words: str) -> None:
    for file in files:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text("{}")
    with pytest.raises(CheckpointError, match=f"{tmp_path}: no checkpoint found: .*{words}"):
        open_source(tmp_path, SourceOptions())


@pytest.mark.parametrize("content", ["", "soon", "12x", "6\u00b2", "1" * 5000])
def test_a_damaged_tracker_file_is_refused(copy: Path, content: str) -> None:
    (copy / "latest_checkpointed_iteration.txt").write_text(content)
    with pytest.raises(CheckpointError, match=r"latest_checkpointed_iteration\.txt"):
        read_megatron_checkpoint(copy)


def test_a_tracker_file_with_a_missing_iteration_is_refused(copy: Path) -> None:
    (copy / "latest_checkpointed_iteration.txt").write_text("7")
    with pytest.raises(CheckpointError, match="iter_0000007 is missing"):
        read_megatron_checkpoint(copy)


def test_missing_rank_is_named(copy: Path) -> None:
    shutil.rmtree(copy / "iter_0001000" / "mp_rank_00_001")
    with pytest.raises(CheckpointError, match="mp_rank_00_001 of 2 x 2 ranks is missing"):
        read_megatron_checkpoint(copy)


def test_a_missing_last_rank_is_detected_from_the_arguments(copy: Path) -> None:
    for stage in ("000", "001"):
        shutil.rmtree(copy / "iter_0001000" / f"mp_rank_01_{stage}")
    with pytest.raises(CheckpointError, match="2 tensor-parallel ranks, but files of 1"):
        read_megatron_checkpoint(copy)


def test_a_missing_file_in_a_rank_folder_is_named(copy: Path) -> None:
    (copy / "iter_0001000" / "mp_rank_01_000" / "model_optim_rng.pt").unlink()
    with pytest.raises(CheckpointError, match=r"mp_rank_01_000/model_optim_rng\.pt: no such file"):
        read_megatron_checkpoint(copy)


def test_ranks_with_different_keys_are_refused(copy: Path) -> None:
    def change(content: dict) -> None:
        del content["model"]["language_model"]["transformer"]["layers.0.mlp.dense_4h_to_h.bias"]

    edit(copy / "iter_0001000" / "mp_rank_01_001" / "model_optim_rng.pt", change)
    with pytest.raises(CheckpointError, match=r"mp_rank_01_001.*layers\.0\.mlp\.dense_4h_to_h\.bias is missing"):
        read_megatron_checkpoint(copy)


def test_ranks_of_different_versions_are_refused(copy: Path) -> None:
    def change(content: dict) -> None:
        content["checkpoint_version"] = 1.0

    edit(copy / "iter_0001000" / "mp_rank_01_001" / "model_optim_rng.pt", change)
    with pytest.raises(CheckpointError, match=r"mp_rank_01_001.*checkpoint_version 1.0"):
        read_megatron_checkpoint(copy)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state_dict": {}}, "no Megatron language model"),
        ({"model": {"language_model": {"embedding": 3}}}, "embedding is a int"),
        ({"model": {"language_model": {"x": torch.zeros(2, dtype=torch.int64)}}}, "x is a torch.int64 tensor"),
        ({"model": {"language_model": {}}, "checkpoint_version": "3"}, "checkpoint_version is '3'"),
        ({"model0": {}, "model1": {}}, "interleaved pipeline .* without --num-layers-per-virtual"),
        ([1, 2], "contains a list"),
    ],
)
def test_files_that_are_not_megatron_checkpoints_are_refused(tmp_path: Path, content: object, message: str) -> None:
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match=rf"other\.pt.*{message}"):
        read_megatron_checkpoint(tmp_path / "other.pt")


def test_a_tensor_under_two_names_is_refused(tmp_path: Path) -> None:
    layer = {"layers.0.attention.dense.bias": torch.zeros(2), "layers.0.self_attention.dense.bias": torch.zeros(2)}
    torch.save({"model": {"language_model": {"encoder": layer}}}, tmp_path / "twice.pt")
    with pytest.raises(CheckpointError, match="occurs twice"):
        read_megatron_checkpoint(tmp_path / "twice.pt")


def test_keys_of_recent_megatron_versions_are_mapped_to_the_old_names() -> None:
    old = "language_model.transformer.layers.3.attention.dense.bias"
    assert canonical_name("language_model.encoder.layers.3.self_attention.dense.bias", Form.CLASSIC) == old
    assert canonical_name(old, Form.CLASSIC) == old
    assert (
        canonical_name("language_model.encoder.final_norm.weight", Form.CLASSIC)
        == "language_model.transformer.final_layernorm.weight"
    )


def test_optimizer_directories_of_data_parallel_ranks_are_not_pipeline_stages(tmp_path: Path) -> None:
    """With a distributed optimizer, from March 2022 to May 2023."""
    truth = make_truth()
    folder = write_megatron(tmp_path / "mega", truth, tp=2)
    for rank in (0, 1):
        place = folder / "iter_0001000" / f"mp_rank_{rank:02d}"
        (place / "model_optim_rng.pt").rename(place / "model_rng.pt")
        for data_rank in range(2):
            optimizer = place.with_name(f"{place.name}_{data_rank:03d}")
            optimizer.mkdir()
            torch.save({"optimizer": {}}, optimizer / "optim.pt")
    checkpoint = read_megatron_checkpoint(folder)
    assert (checkpoint.tensor_parallel, len(checkpoint.stages)) == (2, 1)
    for place in folder.glob("*/mp_rank_0[01]"):
        shutil.rmtree(place)
    with pytest.raises(CheckpointError, match=r"optim\.pt: the optimizer's state alone; the weights are in mp_rank_TT"):
        read_megatron_checkpoint(folder)
