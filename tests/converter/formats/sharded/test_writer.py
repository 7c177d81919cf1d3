"""Converted weights are a checkpoint of iteration 0 that pretraining starts from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from converter.convert import ConversionRequest, convert
from converter.formats.sharded.writer import ShardedTarget
from pretrain.checkpointing import find_checkpoint, read_metadata, tensors_and_others
from pretrain.config.arguments import parse_arguments
from tape.configs import ProteinBertConfig
from tape.errors import ConfigError
from tests.converter.formats.sharded.test_source import save
from tests.converter.test_round_trips import assert_same_model, silent, tape_model
from tests.support.megatron_writer import make_truth, write_megatron

TRAINING = "--micro-batch-size 1 --seq-length 32 --data-path none --train-iters 4"


@pytest.mark.parametrize("changes", [{}, {"hidden_act": "gelu_tanh", "mlm_hidden_act": "gelu"}])
def test_conversion_to_pretraining_and_back_is_exact(tmp_path: Path, changes: dict[str, Any]) -> None:
    tape = tape_model(tmp_path / "tape", types=2, **changes)
    certificate = convert(ConversionRequest(tape, tmp_path / "weights", "pretraining"), silent)
    assert certificate.parity.worst[1] < 1e-9
    convert(ConversionRequest(tmp_path / "weights", tmp_path / "back"), silent)
    assert_same_model(tape, tmp_path / "back")


def test_a_post_layer_norm_model_keeps_its_pooler(tmp_path: Path) -> None:
    saved = save(tmp_path / "save", layer_norm_position="post")
    convert(ConversionRequest(saved.folder, tmp_path / "tape"), silent)
    certificate = convert(ConversionRequest(tmp_path / "tape", tmp_path / "weights", "pretraining"), silent)
    assert certificate.parity.worst[1] < 1e-9
    convert(ConversionRequest(tmp_path / "weights", tmp_path / "back"), silent)
    assert_same_model(tmp_path / "tape", tmp_path / "back")


def test_the_checkpoint_has_weights_alone(tmp_path: Path) -> None:
    mega = write_megatron(tmp_path / "mega", make_truth(), tp=2)
    convert(ConversionRequest(mega, tmp_path / "weights", "pretraining"), silent)
    assert {path.name for path in (tmp_path / "weights").iterdir()} == {
        "conversion.json",
        "iter_0000000",
        "latest_checkpointed_iteration.txt",
    }
    checkpoint = find_checkpoint(tmp_path / "weights")
    assert checkpoint == tmp_path / "weights" / "iter_0000000"
    metadata = read_metadata(checkpoint)
    assert (metadata["weights_only"], metadata["iteration"], metadata["arguments"]) == (True, 0, {})
    assert metadata["initial_weights"] == {"path": str(mega), "format": "megatron-classic"}
    tensors, others = tensors_and_others(checkpoint)
    assert not others
    assert all(name.startswith("model.") for name in tensors)


def test_pretraining_starts_from_it_without_further_flags(tmp_path: Path) -> None:
    mega = write_megatron(tmp_path / "mega", make_truth(), tp=2)
    convert(ConversionRequest(mega, tmp_path / "weights", "pretraining"), silent)
    config = parse_arguments([*TRAINING.split(), "--load", str(tmp_path / "weights")])
    assert config.pretrained is not None
    assert config.checkpoint.load is None
    assert config.model.layer_norm_eps == 1e-12


def test_half_precision_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--to pretraining writes float32"):
        ConversionRequest(tmp_path, tmp_path / "out", "pretraining", dtype=torch.float16)


def test_pruned_heads_are_refused() -> None:
    with pytest.raises(ConfigError, match="attention heads were pruned"):
        ShardedTarget().check(ProteinBertConfig(pruned_heads={0: [1]}), True)


def test_a_conversion_replaces_an_earlier_one_but_no_run(tmp_path: Path) -> None:
    tape, out = tape_model(tmp_path / "tape"), tmp_path / "weights"
    for _ in range(2):
        convert(ConversionRequest(tape, out, "pretraining"), silent)
    (out / "iter_0000100").mkdir()
    with pytest.raises(ConfigError, match="already contains iter_0000100"):
        convert(ConversionRequest(tape, out, "pretraining"), silent)
