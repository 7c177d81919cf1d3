"""Checks that a mapped state dict has exactly the parameters of the model, and those of a reference checkpoint."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tape.errors import CheckpointError, ConfigError
from tape.models.lazy_tensors import LazyState, LazyTensor
from tape.models.meta_device import on_meta_device
from tape.models.modeling_bert import ProteinBertForMaskedLM, ProteinBertModel

from .certificate import ComparedModel


def check_parameters(state: LazyState, source: ComparedModel, pooler_needed: bool = False) -> None:
    """Check that the mapping produces exactly the model's parameters (masked-LM models may lack BERT's pooler).

    Args:
        state: the mapped state dict.
        source: the model that it comes from, for its configuration and for messages.
        pooler_needed: whether the target's format requires BERT's pooler.

    Raises:
        CheckpointError: if a key is missing, unknown, has another shape, or is not a floating-point tensor.
    """
    for name, tensor in state.items():
        if not tensor.dtype.is_floating_point:
            raise CheckpointError(
                f"{source.path}: {name} has the data type {tensor.dtype}, but weights must be floating-point numbers"
            )
    has_head = "mlm.bias" in state
    with on_meta_device():
        model = (ProteinBertForMaskedLM if has_head else ProteinBertModel)(source.config)
    prefix = "" if has_head else "bert."
    expected = {prefix + key: tuple(value.shape) for key, value in model.state_dict().items()}
    if not pooler_needed and not any(name.startswith("bert.pooler.") for name in state):
        expected = {name: shape for name, shape in expected.items() if not name.startswith("bert.pooler.")}
    try:
        check_complete(state, expected)
    except CheckpointError as error:
        raise CheckpointError(f"{source.path}: {error}") from None


def check_reference(state: LazyState, reference: LazyState, path: Path | None) -> None:
    """Check that the result has the names and shapes of the reference checkpoint, ``-dst``.

    Args:
        state: the mapped state dict.
        reference: the reference checkpoint's tensors.
        path: where that is, for the message.

    Raises:
        ConfigError: names the first difference.
    """
    try:
        check_complete(state, {key: value.shape for key, value in reference.items()})
    except CheckpointError as error:
        raise ConfigError(f"-dst {path} does not match the result: {error}") from None


def check_complete(state: Mapping[str, LazyTensor], expected: Mapping[str, Sequence[int]]) -> None:
    """Check that a state dict has exactly the expected keys and shapes.

    Raises:
        CheckpointError: names the first key that is missing, unknown or has another shape.
    """
    for key in expected:
        if key not in state:
            raise CheckpointError(f"{key}: required by the model, but missing in the source")
    for key, tensor in state.items():
        if key not in expected:
            raise CheckpointError(f"{key}: present in the source, but the model has no such parameter")
        if tuple(tensor.shape) != tuple(expected[key]):
            raise CheckpointError(f"{key}: has shape {tuple(tensor.shape)}, but the model's is {tuple(expected[key])}")
