"""The check that a state dict has exactly the expected parameters."""

from __future__ import annotations

import pytest
import torch

from converter.verify.parameters import check_complete
from tape.errors import CheckpointError
from tape.models.lazy_tensors import LazyTensor


def test_each_kind_of_difference_is_named() -> None:
    expected = {"a": torch.Size([2]), "b": torch.Size([3])}
    state = {"a": LazyTensor.of(torch.zeros(2)), "b": LazyTensor.of(torch.zeros(3))}
    check_complete(state, expected)
    with pytest.raises(CheckpointError, match="b: required by the model"):
        check_complete({"a": state["a"]}, expected)
    with pytest.raises(CheckpointError, match="c: present in the source"):
        check_complete({**state, "c": LazyTensor.of(torch.zeros(1))}, expected)
    with pytest.raises(CheckpointError, match=r"b: has shape \(4,\)"):
        check_complete({**state, "b": LazyTensor.of(torch.zeros(4))}, expected)
