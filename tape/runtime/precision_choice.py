"""The values of ``--precision``, and the choice that ``auto`` makes. Parsing options imports this, so no torch."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .distributed import DistributedContext

AUTO = "auto"
PRECISION_CHOICES = (AUTO, "fp32", "bf16", "fp16")

logger = logging.getLogger(__name__)


def choose_precision(device_type: str) -> tuple[str, str]:
    """The precision that ``--precision auto`` stands for: bf16 where it is faster than fp32, else fp32.

    Never fp16, which needs loss scaling and may overflow.

    Args:
        device_type: ``"cuda"`` or ``"cpu"``.

    Returns:
        The precision, and a line for the user with the reason.
    """
    from tape.models.low_precision import fast_bf16

    device = "GPU" if device_type == "cuda" else "CPU"
    if fast_bf16(device_type):
        return "bf16", f"--precision auto: bf16, which is faster than fp32 on this {device}"
    return "fp32", f"--precision auto: fp32, because bf16 is not faster on this {device}"


def resolve_precision(precision: str, context: DistributedContext) -> str:
    """The precision to compute in; logs the choice of ``auto``. Called by all ranks together.

    Args:
        precision: one of PRECISION_CHOICES.
        context: the ranks, which all use the choice of rank 0.
    """
    if precision != AUTO:
        return precision
    from .distributed import broadcast_object

    chosen, line = broadcast_object(choose_precision(context.device.type), context)
    logger.info(line)
    return chosen
