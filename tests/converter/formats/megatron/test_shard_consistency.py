"""Mixed files of several runs, iterations or ranks in a Megatron-LM directory are detected."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from converter.convert import ConversionRequest, convert
from converter.formats.detection import open_source
from converter.formats.megatron.layout import read_megatron_checkpoint
from converter.options import SourceOptions
from tape.errors import CheckpointError
from tests.converter.test_round_trips import silent
from tests.support.megatron_writer import edit, make_truth, only_rank, write_megatron

Content = dict[str, Any]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of TP 2 x PP 2; tests that change it copy it first."""
    return write_megatron(tmp_path_factory.mktemp("agreement") / "mega", make_truth(), tp=2, pp=2)


@pytest.fixture
def copy(tmp_path: Path, written: Path) -> Path:
    return Path(shutil.copytree(written, tmp_path / "mega"))


def rank_file(folder: Path, name: str) -> Path:
    return folder / "iter_0001000" / name / "model_optim_rng.pt"


def swap(folder: Path, one: str, other: str) -> None:
    place = folder / "iter_0001000"
    (place / one).rename(place / "aside")
    (place / other).rename(place / one)
    (place / "aside").rename(place / other)


def set_argument(name: str, value: object) -> Callable[[Content], None]:
    def change(content: Content) -> None:
        content["args"] = argparse.Namespace(**{**vars(content["args"]), name: value})

    return change


@pytest.mark.parametrize("name", ["mp_rank_01_000", "mp_rank_00_001"])
def test_a_rank_of_another_iteration_is_refused(tmp_path: Path, copy: Path, name: str) -> None:
    edit(rank_file(copy, name), lambda content: content.update(iteration=900))
    with pytest.raises(CheckpointError, match=rf"{name}.*has iteration 900, but .*mp_rank_00_000.* has 1000"):
        convert(ConversionRequest(copy, tmp_path / "out"), silent)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "value"),
    [("num_attention_heads", 2), ("padded_vocab_size", 512), ("layernorm_epsilon", 1e-5), ("seed", 7)],
)
def test_a_rank_with_other_arguments_is_refused(copy: Path, name: str, value: float) -> None:
    edit(rank_file(copy, "mp_rank_01_001"), set_argument(name, value))
    if name == "seed":
        edit(rank_file(copy, "mp_rank_00_000"), set_argument(name, 1234))
    with pytest.raises(CheckpointError, match=rf"mp_rank_01_001.*has {name} {value}, but .*different checkpoints"):
        read_megatron_checkpoint(copy)


def test_a_stage_of_another_run_is_refused(tmp_path: Path) -> None:
    truth = make_truth(layers=4)
    mega = write_megatron(tmp_path / "mega", truth, pp=4, seed=1234)
    other = write_megatron(tmp_path / "other", make_truth(seed=5, layers=4), pp=4, seed=77)
    shutil.copy(rank_file(other, "mp_rank_00_002"), rank_file(mega, "mp_rank_00_002"))
    with pytest.raises(CheckpointError, match=r"mp_rank_00_002.*has seed 77, but .* has 1234"):
        read_megatron_checkpoint(mega)


def test_swapped_tensor_parallel_folders_are_refused(copy: Path) -> None:
    for stage in ("000", "001"):
        swap(copy, f"mp_rank_00_{stage}", f"mp_rank_01_{stage}")
    with pytest.raises(CheckpointError, match=r"mp_rank_00_000.*rank 1 wrote it.*tensor-parallel rank 1 of stage 0"):
        read_megatron_checkpoint(copy)


def test_swapped_pipeline_folders_are_refused(tmp_path: Path) -> None:
    mega = write_megatron(tmp_path / "mega", make_truth(layers=4), pp=4)
    swap(mega, "mp_rank_00_001", "mp_rank_00_002")
    with pytest.raises(CheckpointError, match=r"mp_rank_00_001.*rank 2 wrote it.*of stage 2, not 0 of 1"):
        read_megatron_checkpoint(mega)


def test_ranks_of_data_parallel_runs_and_of_repartitioning_tools_are_accepted(copy: Path) -> None:
    """With 2 x 3 x 2 processes, stage 1 begins at rank 6; a repartitioning tool writes its own rank into every file."""
    names = ("mp_rank_00_000", "mp_rank_01_000", "mp_rank_00_001", "mp_rank_01_001")
    for name, number in zip(names, (0, 1, 6, 7), strict=True):
        edit(rank_file(copy, name), set_argument("rank", number))
        edit(rank_file(copy, name), set_argument("world_size", 12))
    assert open_source(copy, SourceOptions()).config.num_hidden_layers == 2
    for name in names:
        edit(rank_file(copy, name), set_argument("rank", 0))
    assert open_source(copy, SourceOptions()).config.num_hidden_layers == 2


def test_a_last_stage_without_word_embeddings_is_refused(tmp_path: Path, copy: Path) -> None:
    for name in ("mp_rank_00_001", "mp_rank_01_001"):
        edit(rank_file(copy, name), lambda content: content["model"].pop("word_embeddings_for_head"))
    words = r"mp_rank_00_001.*word_embeddings_for_head\.weight is missing.*LM head"
    with pytest.raises(CheckpointError, match=words):
        convert(ConversionRequest(copy, tmp_path / "out"), silent)
    for name in ("mp_rank_00_001", "mp_rank_01_001"):  # a model without an LM head does not need them
        edit(rank_file(copy, name), lambda content: content["model"].pop("lm_head"))
    assert not open_source(copy, SourceOptions()).has_head


def shorten(*keys: str) -> Callable[[Content], None]:
    """Remove the last row of a tensor of the model."""

    def change(content: Content) -> None:
        tree = content["model"]
        for key in keys[:-1]:
            tree = tree[key]
        tree[keys[-1]] = tree[keys[-1]][:-1].clone()

    return change


@pytest.mark.parametrize(
    ("name", "keys"),
    [
        ("mp_rank_01_000", ("language_model", "embedding", "word_embeddings", "weight")),
        ("mp_rank_01_001", ("lm_head", "bias")),
        ("mp_rank_01_001", ("language_model", "transformer", "layers.0.mlp.dense_h_to_4h.bias")),
    ],
)
def test_shards_of_different_sizes_are_refused(copy: Path, name: str, keys: tuple[str, ...]) -> None:
    edit(rank_file(copy, name), shorten(*keys))
    with pytest.raises(CheckpointError, match=rf"{name}.*{'.'.join(keys)} has shape .* but .*mp_rank_00_"):
        read_megatron_checkpoint(copy)


def test_an_lm_head_with_fewer_rows_than_the_embeddings_is_refused(tmp_path: Path) -> None:
    mega = write_megatron(tmp_path / "mega", make_truth())
    edit(only_rank(mega), shorten("lm_head", "bias"))
    with pytest.raises(CheckpointError, match=r"mp_rank_00.*lm_head\.bias has shape \(127,\), but .*word_embeddings"):
        read_megatron_checkpoint(mega)


def test_an_unknown_part_of_the_model_is_refused(tmp_path: Path) -> None:
    mega = write_megatron(tmp_path / "mega", make_truth())
    edit(only_rank(mega), lambda content: content.update(grad_scaler={"scale": 1.0}, tokens=3, opt_param_scheduler={}))
    assert read_megatron_checkpoint(mega).first.dropped[:2] == ("cuda_rng_state", "grad_scaler")
    edit(only_rank(mega), lambda content: content.update(ema_model={"x": torch.ones(2)}))
    with pytest.raises(CheckpointError, match=r"mp_rank_00/model_optim_rng\.pt: ema_model"):
        read_megatron_checkpoint(mega)
