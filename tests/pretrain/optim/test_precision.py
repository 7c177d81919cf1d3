"""Loss scaling of fp16 as in Megatron-LM; which precisions can be compiled."""

from __future__ import annotations

from contextlib import nullcontext

import pytest
import torch

from pretrain.optim.precision import LossScale, PrecisionConfig
from tape.errors import ConfigError
from tape.models import low_precision


def test_loss_scale_halves_after_repeated_overflows_and_doubles_after_a_window() -> None:
    scale = LossScale(PrecisionConfig("fp16", initial_loss_scale=16.0, window=3, hysteresis=2))
    scale.update(overflow=True)
    assert scale.value == 16.0  # hysteresis
    scale.update(overflow=True)
    scale.update(overflow=True)
    assert scale.value == 4.0
    for _ in range(3):
        scale.update(overflow=False)
    assert scale.value == 8.0


def test_the_loss_scale_does_not_fall_below_its_minimum() -> None:
    scale = LossScale(PrecisionConfig("fp16", initial_loss_scale=2.0, min_loss_scale=1.0, hysteresis=1))
    for _ in range(5):
        scale.update(overflow=True)
    assert scale.value == 1.0


def test_loss_scale_is_restored_from_a_checkpoint() -> None:
    config = PrecisionConfig("fp16", initial_loss_scale=16.0, hysteresis=2)
    scale, other = LossScale(config), LossScale(config)
    for _ in range(2):
        scale.update(overflow=True)
    other.restore(scale.state())
    assert other.state() == scale.state()


def test_only_fp16_has_a_loss_scale() -> None:
    for name in ("fp32", "bf16"):
        scale = LossScale(PrecisionConfig(name))
        scale.update(overflow=True)
        assert scale.value == 1.0
        assert LossScale(PrecisionConfig(name, loss_scale=128.0)).value == 1.0
    assert LossScale(PrecisionConfig("fp16", loss_scale=128.0)).value == 128.0


def test_autocast_computes_in_the_dtype_of_the_precision() -> None:
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with PrecisionConfig(name).autocast(torch.device("cpu")):
            assert torch.nn.Linear(2, 2)(torch.ones(1, 2)).dtype == dtype


@pytest.mark.parametrize(
    ("name", "fast", "allowed"), [("bf16", False, False), ("bf16", True, True), ("fp32", False, True)]
)
def test_compilation_needs_instructions_for_the_precision(
    monkeypatch: pytest.MonkeyPatch, name: str, fast: bool, allowed: bool
) -> None:
    monkeypatch.setattr(low_precision, "is_fast", lambda device_type, dtype: fast)
    with nullcontext() if allowed else pytest.raises(ConfigError, match="--bf16 needs a device with bf16"):
        PrecisionConfig(name).check_compiled(torch.device("cpu"))
