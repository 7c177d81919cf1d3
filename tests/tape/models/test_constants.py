"""Numbers of the configuration on the model's device, beside its weights."""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from tape.configs import ProteinBertConfig
from tape.models.constants import Constants
from tape.models.heads import SequenceClassificationHead, SequenceToSequenceClassificationHead, ValuePredictionHead
from tape.models.meta_device import allocate, on_meta_device
from tape.models.model_directory import save_model_directory
from tape.models.modeling_bert import ProteinBertForValuePrediction

NUMBERS = (12345.6, 1e6, 1e-9)
TARGET = {
    "task": "my",
    "type": "regression",
    "column": ["Tm", "kcat"],
    "mean": [1e6, 1e-9],
    "std": [3e5, 2e-9],
}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_numbers_stay_in_fp32_when_the_model_is_cast(dtype: torch.dtype) -> None:
    model = nn.Sequential(nn.Linear(2, 2), Constants(NUMBERS)).to(dtype)
    assert model[0].weight.dtype == dtype
    assert torch.equal(model[1].values, torch.tensor(NUMBERS))
    assert torch.equal(model.float()[1].values, torch.tensor(NUMBERS))


def test_numbers_follow_the_model_to_the_meta_device_and_have_their_values_on_the_way_back() -> None:
    model = nn.Sequential(nn.Linear(2, 2), Constants(NUMBERS)).to("meta")
    assert model[1].values.is_meta
    assert model.half()[1].values.dtype == torch.float32
    assert torch.equal(model.to_empty(device="cpu")[1].values, torch.tensor(NUMBERS))
    with on_meta_device():
        outline = nn.Sequential(nn.Linear(2, 2), Constants(NUMBERS))
    assert outline[1].values.is_meta
    allocate(outline, "cpu")
    assert torch.equal(copy.deepcopy(outline)[1].values, torch.tensor(NUMBERS))


def heads() -> list[tuple[nn.Module, Tensor, Tensor]]:
    return [
        (
            ValuePredictionHead(8, mean=(57.0, 0.5), std=(6.0, 0.25)),
            torch.randn(2, 8),
            torch.tensor([[51.0, math.nan], [60.0, 0.75]]),
        ),
        (SequenceClassificationHead(8, 3, class_weights=[0.5, 2.0, 3.0]), torch.randn(2, 8), torch.tensor([0, 2])),
        (
            SequenceToSequenceClassificationHead(8, 3, class_weights=[0.5, 2.0, 3.0]),
            torch.randn(1, 2, 8),
            torch.tensor([[0, 2]]),
        ),
    ]


class _NoNewTensors(TorchFunctionMode):
    """Refuses tensors from Python's numbers."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert func not in (torch.tensor, torch.as_tensor)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("head", "features", "targets"), heads())
def test_no_forward_pass_of_a_head_builds_tensors_of_its_numbers(
    head: nn.Module, features: Tensor, targets: Tensor
) -> None:
    with _NoNewTensors():
        (loss, _), prediction = head(features, targets)
        torch.testing.assert_close(head.loss(prediction, targets), loss)  # type: ignore[operator]
    assert not {name for name in head.state_dict() if "values" in name or "scales" in name or "class_weights" in name}


@pytest.mark.parametrize(("head", "features", "targets"), heads())
def test_a_head_on_the_meta_device_needs_no_values(head: nn.Module, features: Tensor, targets: Tensor) -> None:
    head.to("meta")
    (prediction,) = head(features.to("meta"))
    assert prediction.is_meta
    assert head.loss(prediction, targets.to("meta") if targets.is_floating_point() else prediction.argmax(-1)).is_meta  # type: ignore[operator]


def test_a_loaded_model_has_the_scales_of_its_configuration(tmp_path: Path) -> None:
    config = ProteinBertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, target=TARGET
    )
    torch.manual_seed(0)
    model = ProteinBertForValuePrediction(config).eval()
    plain = ProteinBertForValuePrediction(ProteinBertConfig.from_dict({**config.to_dict(), "target": None}))
    names = {name for name in plain.state_dict() if not name.startswith("predict.")}
    assert {name for name in model.state_dict() if not name.startswith("predict.")} == names
    save_model_directory(tmp_path, model.state_dict(), config)
    again = ProteinBertForValuePrediction.from_pretrained(tmp_path)
    ids = torch.tensor([[2, 11, 12, 3]])
    assert torch.equal(again(ids)[0], model(ids)[0])
    standardized = (again.bfloat16()(ids)[0].float() - torch.tensor(TARGET["mean"])) / torch.tensor(TARGET["std"])
    expected = (model(ids)[0] - torch.tensor(TARGET["mean"])) / torch.tensor(TARGET["std"])
    torch.testing.assert_close(standardized, expected, atol=0.1, rtol=0.1)


def test_a_model_with_several_scales_is_loaded_without_initializing_it(tmp_path: Path) -> None:
    config = ProteinBertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, target=TARGET
    )
    model = ProteinBertForValuePrediction(config)
    save_model_directory(tmp_path, model.state_dict(), config)
    before = torch.get_rng_state()
    ProteinBertForValuePrediction.from_pretrained(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
