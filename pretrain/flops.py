"""Arithmetic of a training step, the machine's peak, and what a run makes of it (model FLOP utilisation).

Counted is what the model asks for, not what is computed again with --checkpoint-activations: for every token
6 x parameters of the blocks (2 forward, 4 backward) and 12 x layers x hidden x attended length for scores and weighted
sums, where the attended length is that of the token's own protein; for every predicted position 6 x parameters of the
head. Embedding tables are looked up, not multiplied. (Narayanan et al. 2021, appendix; Chowdhery et al. 2022,
appendix B.)
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from tape.configs import ProteinBertConfig

from .precision import PrecisionConfig

_PEAK_SECONDS = 0.1
_PEAK_SIZE = {"cpu": 512, "cuda": 8192}


def flops_per_token(config: ProteinBertConfig, attended_length: float, mask_prob: float) -> float:
    """Floating-point operations of forward and backward pass for one token (a product and a sum are two).

    Args:
        config: of the model.
        attended_length: tokens that a token attends to, on average.
        mask_prob: part of the positions that the head sees.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    blocks = layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    head = hidden**2 + config.vocab_size * hidden
    return 6.0 * (blocks + mask_prob * head) + 12.0 * layers * hidden * attended_length


def measured_peak(precision: PrecisionConfig, device: torch.device, seconds: float = _PEAK_SECONDS) -> float:
    """FLOP/s of one process at square matrix products in the training precision: the best of a short while."""
    size = _PEAK_SIZE.get(device.type, _PEAK_SIZE["cpu"])
    dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision.name, torch.float32)
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    best, until = float("inf"), time.perf_counter() + seconds
    with torch.no_grad(), precision.autocast(device):
        F.linear(left, right)
        while best == float("inf") or time.perf_counter() < until:
            _wait(device)
            began = time.perf_counter()
            F.linear(left, right)
            _wait(device)
            best = min(best, time.perf_counter() - began)
    return 2.0 * size**3 / best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_reader(device: torch.device) -> Callable[[], int]:
    """A function that gives this process's peak memory so far in bytes: allocated on the GPU, else resident."""
    if device.type == "cuda":
        return lambda: int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024
    return lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


@dataclass(frozen=True)
class Meter:
    """What turns a record's tokens and seconds into utilisation.

    Attributes:
        flops_per_token: of :func:`flops_per_token`.
        peak: FLOP/s of all processes together.
        peak_source: ``stated`` (--peak-tflops) or ``measured``.
        memory: bytes of the main process, see :func:`memory_reader`.
    """

    flops_per_token: float
    peak: float
    peak_source: str
    memory: Callable[[], int]

    def utilisation(self, tokens_per_second: float) -> float:
        """Part of the peak that the model's own arithmetic takes up."""
        return tokens_per_second * self.flops_per_token / self.peak
