"""What every model answers to inputs and targets of a wrong shape or value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from tape import (
    ProteinBertForContactPrediction,
    ProteinBertForMaskedLM,
    ProteinBertForSequenceToSequenceClassification,
    ProteinBertForValuePrediction,
    ProteinBertModel,
    ProteinLSTMConfig,
    ProteinLSTMModel,
    ProteinOneHotConfig,
    ProteinOneHotModel,
    ProteinResNetConfig,
    ProteinResNetModel,
    TAPETokenizer,
    UniRepConfig,
    UniRepModel,
)
from tape.errors import ConfigError

IDS = torch.tensor([[2, 5, 6, 7, 3], [2, 5, 6, 7, 3]])
PADDED = torch.tensor([[2, 5, 6, 7, 3], [2, 5, 3, 0, 0]])
ENCODERS: dict[str, Callable[[], torch.nn.Module]] = {
    "lstm": lambda: ProteinLSTMModel(ProteinLSTMConfig(input_size=8, hidden_size=8, num_hidden_layers=1)),
    "onehot": lambda: ProteinOneHotModel(ProteinOneHotConfig(30)),
    "resnet": lambda: ProteinResNetModel(ProteinResNetConfig(hidden_size=8, num_hidden_layers=1)),
    "unirep": lambda: UniRepModel(UniRepConfig(input_size=8, hidden_size=8)),
}


@pytest.fixture
def bert(tiny_config: Callable[..., Any]) -> torch.nn.Module:
    return ProteinBertModel(tiny_config()).eval()


@pytest.mark.parametrize(
    ("input_ids", "message"),
    [
        (IDS[0], r"input_ids must have the shape \(proteins, tokens\), not \(5,\); .*input_ids\[None\]"),
        (IDS[None], r"not \(1, 2, 5\)"),
        (IDS.float(), "input_ids must be integers, not torch.float32"),
        (IDS > 2, "input_ids must be integers, not torch.bool"),
        ([[2, 5, 3]], "input_ids must be a tensor .*, not list: .*TAPETokenizer"),
        (np.array([[2, 5, 3]]), "input_ids must be a tensor .*, not ndarray"),
        ("MKV", "input_ids must be a tensor .*, not str"),
        (torch.tensor([[2, 30, 3]]), "has the token id 30, but the model has the tokens 0 to 29"),
        (torch.tensor([[2, -1, 3]]), "has the token id -1"),
        (IDS[:, :0], "input_ids has no tokens"),
    ],
)
def test_wrong_token_ids_are_named(bert: torch.nn.Module, input_ids: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        bert(input_ids)


def test_a_mask_of_another_shape_is_named(bert: torch.nn.Module) -> None:
    with pytest.raises(ConfigError, match=r"input_mask has shape \(2, 4\), not that of input_ids, \(2, 5\)"):
        bert(IDS, torch.ones(2, 4))


@pytest.mark.parametrize("mask", [[[1] * 5] * 2, np.ones((2, 5)), "MKV"], ids=["list", "array", "text"])
def test_a_mask_that_is_no_tensor_is_named(bert: torch.nn.Module, mask: Any) -> None:
    with pytest.raises(ConfigError, match=rf"input_mask must be a tensor of shape \(2, 5\), not {type(mask).__name__}"):
        bert(IDS, mask)


def test_padding_without_a_mask_causes_a_warning(bert: torch.nn.Module) -> None:
    with pytest.warns(UserWarning, match="the batch has padding, but no input_mask"):
        bert(PADDED)
    bert(PADDED, PADDED != 0)  # warnings are errors in the tests
    bert(IDS)


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_checks_its_input(name: str) -> None:
    model = ENCODERS[name]().eval()
    with pytest.raises(ConfigError, match=r"input_ids\[None\]"):
        model(IDS[0])
    with pytest.raises(ConfigError, match="has the token id 99"):
        model(torch.tensor([[2, 99, 3]]))
    with pytest.warns(UserWarning, match="padding"):
        model(PADDED)


def test_targets_without_special_tokens_are_named(tiny_config: Callable[..., Any]) -> None:
    for model in (ProteinBertForSequenceToSequenceClassification, ProteinBertForMaskedLM):
        with pytest.raises(ConfigError, match=r"shape \(2, 3\), .* for \(2, 5\); <cls> and <sep> need a label too"):
            model(tiny_config())(IDS, targets=torch.zeros(2, 3, dtype=torch.long))


def test_contacts_with_special_tokens_are_named(tiny_config: Callable[..., Any]) -> None:
    with pytest.raises(ConfigError, match=r"shape \(2, 5, 5\), .* for \(2, 3, 3\); pairs of residues have no rows"):
        ProteinBertForContactPrediction(tiny_config())(IDS, targets=torch.zeros(2, 5, 5, dtype=torch.long))


def test_values_of_another_number_are_named(tiny_config: Callable[..., Any]) -> None:
    model = ProteinBertForValuePrediction(tiny_config()).eval()
    with pytest.raises(ConfigError, match=r"targets have the shape \(3,\), but the predictions are for \(2,\)"):
        model(IDS, targets=torch.zeros(3))
    for targets in (torch.zeros(2), torch.zeros(2, 1)):
        assert torch.isfinite(model(IDS, targets=targets)[0][0])


@pytest.mark.parametrize("model", [ProteinBertForSequenceToSequenceClassification, ProteinBertForMaskedLM])
@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (torch.full((2, 5), 30), "targets have the class 30, but the model has the classes 0 to "),
        (torch.zeros(2, 5), r"they must be torch\.int64 \(targets\.long\(\)\), not torch\.float32"),
        (torch.zeros(2, 5, dtype=torch.bool), r"must be torch\.int64"),
        ([[0] * 5] * 2, r"targets must be a tensor of shape \(2, 5\), not list"),
    ],
)
def test_targets_that_are_not_classes_are_named(
    tiny_config: Callable[..., Any], model: Any, targets: Any, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        model(tiny_config())(IDS, targets=targets)


def test_an_encoded_protein_is_accepted(bert: torch.nn.Module) -> None:
    assert bert(torch.from_numpy(TAPETokenizer().encode("MKV"))[None])[0].shape[:2] == (1, 5)
