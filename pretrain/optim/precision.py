"""Mixed precision (Micikevicius et al. 2018): autocast of the forward pass, and loss scaling for fp16.

Master weights, gradients, their all-reduce and the optimizer are always fp32. With --bf16 and --fp16 the forward and
backward pass run under autocast, which keeps layer norms and the loss in fp32.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch

from tape.errors import ConfigError
from tape.runtime.precision import DTYPES, autocast, is_fast

_GROWTH = 2.0


@dataclass(frozen=True)
class PrecisionConfig:
    """Precision of the forward pass, and Megatron-LM's loss scaling, which only fp16 uses.

    Attributes:
        name: fp32, bf16 or fp16; auto until pretrain.resume has chosen one.
        loss_scale: static loss scale; None: dynamic loss scale.
        initial_loss_scale, min_loss_scale: initial and minimum dynamic loss scale.
        window: number of consecutive steps without overflow after which the dynamic loss scale doubles.
        hysteresis: the dynamic loss scale halves at this number of overflows, counted since it last doubled, and at
            each one after that.
    """

    name: str = "fp32"
    loss_scale: float | None = None
    initial_loss_scale: float = 2.0**32
    min_loss_scale: float = 1.0
    window: int = 1000
    hysteresis: int = 2

    def autocast(self, device: torch.device) -> AbstractContextManager[Any]:
        """Context manager for the forward pass."""
        return autocast(self.name, device)

    def product_dtype(self, device: torch.device) -> torch.dtype:
        """Data type that matrix products are computed in: fp32 if the device has no instructions for this precision."""
        return DTYPES[self.name] if is_fast(self.name, device) else torch.float32

    def check_compiled(self, device: torch.device) -> None:
        """Make sure that compiled transformer blocks can compute in this precision at full speed.

        Raises:
            ConfigError: the device has no instructions for it. Without --compile matrix products are then computed in
                fp32, but compiled blocks would emulate this precision, about sixteen times more slowly.
        """
        if not is_fast(self.name, device):
            raise ConfigError(
                f"--compile with --{self.name} needs a device with {self.name} instructions, which this {device.type} "
                f"does not have; omit one of the two"
            )


class LossScale:
    """The factor by which the loss is multiplied before the backward pass, so that fp16 gradients don't underflow.

    A dynamic loss scale follows Megatron-LM's DynamicGradScaler.
    """

    def __init__(self, config: PrecisionConfig) -> None:
        self._config = config
        self.is_dynamic = config.name == "fp16" and config.loss_scale is None
        fixed = config.loss_scale if config.name == "fp16" and config.loss_scale is not None else 1.0
        self.value = config.initial_loss_scale if self.is_dynamic else fixed
        self._good_steps = 0
        self._overflows_left = config.hysteresis

    @property
    def can_decrease(self) -> bool:
        """Whether a lower loss scale could still avoid an overflow of the gradient."""
        return self.is_dynamic and self.value > self._config.min_loss_scale

    def update(self, overflow: bool) -> None:
        """Adapt a dynamic loss scale after a step; ``overflow``: the step's gradient was not finite."""
        if not self.is_dynamic:
            return
        if overflow:
            self._good_steps = 0
            self._overflows_left -= 1
            if self._overflows_left <= 0:
                self.value = max(self.value / _GROWTH, self._config.min_loss_scale)
            return
        self._good_steps += 1
        if self._good_steps == self._config.window:
            self._good_steps = 0
            self._overflows_left = self._config.hysteresis
            self.value *= _GROWTH

    def state(self) -> dict[str, float]:
        """State for a checkpoint."""
        return {"value": self.value, "good_steps": self._good_steps, "forgiven": self._overflows_left}

    def restore(self, state: dict[str, float]) -> None:
        """Resume from a checkpoint's state; a static loss scale stays what the flags state."""
        if self.is_dynamic:
            self.value = float(state["value"])
            self._good_steps, self._overflows_left = int(state["good_steps"]), int(state["forgiven"])
