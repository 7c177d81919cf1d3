"""Precision of pretraining, finetuning and inference: fp32, or automatic mixed precision in fp16 or bf16."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager

import torch

from tape.errors import ConfigError, quoted
from tape.models import low_precision

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
PRECISIONS = tuple(DTYPES)

logger = logging.getLogger(__name__)


def autocast(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Autocast context of a forward pass. Weights stay in fp32.

    Raises:
        ConfigError: unknown precision.
    """
    if precision not in PRECISIONS:
        raise ConfigError(f"precision must be one of {', '.join(PRECISIONS)}, not {quoted(precision)}")
    if precision == "fp32":
        return torch.autocast(device.type, enabled=False)
    return low_precision.autocast(device.type, DTYPES[precision])


def is_fast(precision: str, device: torch.device) -> bool:
    """Whether the device has matrix instructions for the precision; False for fp16 on any CPU."""
    return precision == "fp32" or low_precision.is_fast(device.type, DTYPES[precision])


def warn_if_slow(precision: str, device: torch.device) -> None:
    """Warn if the device does not compute the format in hardware."""
    if not is_fast(precision, device):
        logger.warning(
            "this machine has no matrix instructions for %s: --%s is no faster than fp32", precision, precision
        )


def make_scaler(precision: str, device: torch.device) -> torch.amp.GradScaler:
    """Dynamic loss scaling, enabled for fp16, where small gradients would underflow."""
    return torch.amp.GradScaler(device.type, enabled=precision == "fp16")
