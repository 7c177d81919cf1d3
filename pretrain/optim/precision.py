"""In which precision the forward pass computes, and how gradients of fp16 keep above zero.

Master weights, gradients, their sums and the optimizer are always fp32; the forward and backward pass of --bf16 and
--fp16 run under autocast, which keeps layer norms and the loss in fp32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from tape.errors import ConfigError
from tape.models import low_precision

_GROWTH = 2.0
_DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class PrecisionConfig:
    """Precision of the forward pass, and Megatron's loss scaling for fp16.

    Attributes:
        name: fp32, bf16 or fp16.
        loss_scale: fixed factor of the loss of fp16; None: dynamic. The others have none.
        initial_loss_scale, min_loss_scale: where the dynamic factor starts and what it never falls below.
        window: steps without overflow after which it doubles.
        hysteresis: overflows that are forgiven before it halves.
    """

    name: str = "fp32"
    loss_scale: float | None = None
    initial_loss_scale: float = 2.0**32
    min_loss_scale: float = 1.0
    window: int = 1000
    hysteresis: int = 2

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Context of a forward pass."""
        dtype = _DTYPES[self.name]
        return nullcontext() if dtype is None else low_precision.autocast(device.type, dtype)

    def product_dtype(self, device: torch.device) -> torch.dtype:
        """What matrix products are computed in: fp32 where the device has no instructions of the precision."""
        dtype = _DTYPES[self.name]
        return dtype if dtype is not None and low_precision.is_fast(device.type, dtype) else torch.float32

    def check_compiled(self, device: torch.device) -> None:
        """Make sure that compiled products are as fast as others.

        Raises:
            ConfigError: they are not: what stands in for missing instructions does not reach into compiled blocks,
                which would compute in the format itself, some sixteen times slower.
        """
        if _DTYPES[self.name] is not None and self.product_dtype(device) == torch.float32:
            raise ConfigError(
                f"--compile with --{self.name} needs a device with {self.name} instructions, which this {device.type} "
                f"has not; leave one of them out"
            )


class LossScale:
    """The factor by which the loss is multiplied before the backward pass."""

    def __init__(self, config: PrecisionConfig) -> None:
        self._config = config
        self.is_dynamic = config.name == "fp16" and config.loss_scale is None
        fixed = config.loss_scale if config.name == "fp16" and config.loss_scale is not None else 1.0
        self.value = config.initial_loss_scale if self.is_dynamic else fixed
        self._good_steps = 0
        self._forgiven = config.hysteresis

    @property
    def may_fall(self) -> bool:
        """Whether an overflow of the gradient can still be the scale's fault."""
        return self.is_dynamic and self.value > self._config.min_loss_scale

    def update(self, overflow: bool) -> None:
        """Note how a step went. As Megatron's: halve after repeated overflows, double after a window without any."""
        if not self.is_dynamic:
            return
        if overflow:
            self._good_steps = 0
            self._forgiven -= 1
            if self._forgiven <= 0:
                self.value = max(self.value / _GROWTH, self._config.min_loss_scale)
            return
        self._good_steps += 1
        if self._good_steps == self._config.window:
            self._good_steps = 0
            self._forgiven = self._config.hysteresis
            self.value *= _GROWTH

    def state(self) -> dict[str, float]:
        return {"value": self.value, "good_steps": self._good_steps, "forgiven": self._forgiven}

    def restore(self, state: dict[str, float]) -> None:
        if self.is_dynamic:
            self.value = float(state["value"])
            self._good_steps, self._forgiven = int(state["good_steps"]), int(state["forgiven"])
