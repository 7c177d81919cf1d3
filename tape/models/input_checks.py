"""Checks of what is passed to a model's ``forward``, whose errors name the argument and what is expected.

torch's own errors for a wrong shape or token id name an operation inside the model; some mistakes, such as a padded
batch without a mask, cause none.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor

from tape.errors import ConfigError

_PAD_ID = 0  # of both vocabularies


def check_inputs(input_ids: Any, input_mask: Any, vocab_size: int) -> None:
    """Check token ids and their mask. Warns if a batch has padding and no mask.

    Values are checked on the CPU, or where there is no mask: on an accelerator, the check waits for the device, and the
    project's own batches always have a mask.

    Args:
        input_ids: (B, S) integers.
        input_mask: (B, S), nonzero at real tokens; None means no padding.
        vocab_size: number of tokens of the model.

    Raises:
        ConfigError: wrong type or shape, or a token id that the model does not have.
    """
    if torch.compiler.is_compiling():
        return
    _check_shape(input_ids)
    if not input_ids.shape[1]:
        raise ConfigError("input_ids has no tokens: even an empty protein has <cls> and <sep>")
    if input_mask is not None and not isinstance(input_mask, Tensor):
        raise ConfigError(
            f"input_mask must be a tensor of shape {tuple(input_ids.shape)}, not {type(input_mask).__name__}"
        )
    if input_mask is not None and input_mask.shape != input_ids.shape:
        raise ConfigError(
            f"input_mask has shape {tuple(input_mask.shape)}, not that of input_ids, {tuple(input_ids.shape)}"
        )
    if input_ids.numel() and (input_mask is None or input_ids.device.type == "cpu"):
        _check_values(input_ids, vocab_size)
        if input_mask is None and bool((input_ids[:, -1] == _PAD_ID).any()):
            warnings.warn(
                "the batch has padding, but no input_mask: the padding is read as part of the proteins, which changes"
                " the result; pass input_mask=(input_ids != 0)",
                stacklevel=3,
            )


def _check_shape(input_ids: Any) -> None:
    if not isinstance(input_ids, Tensor):
        raise ConfigError(
            f"input_ids must be a tensor (proteins, tokens), not {type(input_ids).__name__}: of one protein,"
            " torch.from_numpy(TAPETokenizer().encode(residues))[None]; tape.load(MODEL).embed takes residues as text"
        )
    if input_ids.is_floating_point() or input_ids.dtype == torch.bool:
        raise ConfigError(f"input_ids must be integers, not {input_ids.dtype}")
    if input_ids.ndim != 2:
        raise ConfigError(
            f"input_ids must have the shape (proteins, tokens), not {tuple(input_ids.shape)}; a single protein is a"
            " batch of one: input_ids[None]"
        )


def _check_values(input_ids: Tensor, vocab_size: int) -> None:
    lowest, highest = (int(value) for value in torch.aminmax(input_ids))
    if lowest < 0 or highest >= vocab_size:
        wrong = lowest if lowest < 0 else highest
        raise ConfigError(
            f"input_ids has the token id {wrong}, but the model has the tokens 0 to {vocab_size - 1}; is this the"
            " tokenizer of another vocabulary?"
        )


def check_targets(targets: Any, expected: torch.Size) -> None:
    """Check the shape of targets.

    Args:
        targets: the targets; a last dimension of size 1 is allowed in addition.
        expected: their shape.

    Raises:
        ConfigError: not a tensor, or another shape. Names both shapes.
    """
    if not isinstance(targets, Tensor):
        raise ConfigError(f"targets must be a tensor of shape {tuple(expected)}, not {type(targets).__name__}")
    if targets.shape in (expected, torch.Size((*expected, 1))):
        return
    message = f"targets have the shape {tuple(targets.shape)}, but the predictions are for {tuple(expected)}"
    if len(expected) == 2 and targets.shape == (expected[0], expected[1] - 2):
        message += "; <cls> and <sep> need a label too: -1 before the first and after the last residue"
    elif len(expected) == 3 and targets.shape == (expected[0], expected[1] + 2, expected[2] + 2):
        message += "; pairs of residues have no rows and columns for <cls> and <sep>"
    raise ConfigError(message)


def check_classes(targets: Any, expected: torch.Size, num_classes: int) -> None:
    """Check targets that are classes. Like those of token ids, their values are checked on the CPU only.

    Args:
        targets: int64, the class of each prediction; negative where there is none.
        expected: their shape; a last dimension of size 1 is allowed in addition.
        num_classes: the number of classes.

    Raises:
        ConfigError: wrong type or shape, or a class that the model does not have.
    """
    check_targets(targets, expected)
    if targets.dtype != torch.int64:
        raise ConfigError(f"targets are classes, so they must be torch.int64 (targets.long()), not {targets.dtype}")
    if torch.compiler.is_compiling() or targets.device.type != "cpu" or not targets.numel():
        return
    highest = int(targets.max())
    if highest >= num_classes:
        raise ConfigError(
            f"targets have the class {highest}, but the model has the classes 0 to {num_classes - 1}; negative numbers"
            " mark what has no label"
        )
