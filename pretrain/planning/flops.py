"""Arithmetic of a training step, the machine's peak, and what a run makes of it (model FLOP utilisation).

Counted is what the model asks for, not what is computed again with --checkpoint-activations: for every token
6 x parameters of the blocks (2 forward, 4 backward) and 12 x layers x hidden x attended length for scores and weighted
sums, where the attended length is that of the token's own protein; for every predicted position 6 x parameters of the
head. Embedding tables are looked up, not multiplied. (Narayanan et al. 2021, appendix; Chowdhery et al. 2022,
appendix B.)
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional as F

from pretrain.optim.precision import PrecisionConfig
from tape.configs import ProteinBertConfig
from tape.runtime.memory import peak_memory

_PEAK_SECONDS = 0.8
# Which size is fastest differs between machines and libraries.
_PEAK_SIZES = {"cpu": (512, 1024), "cuda": (4096, 8192)}


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
    """FLOP/s of one process at square matrix products, in what training computes its products in: the best of many.

    Args:
        precision: of the run. Where the machine lacks its instructions, products are computed in fp32, and that is
            their peak.
        device: to measure.
        seconds: to spend, about.
    """
    dtype = precision.product_dtype(device)
    sizes = _PEAK_SIZES.get(device.type, _PEAK_SIZES["cpu"])
    return best_rate([_square_product(size, dtype, device) for size in sizes], seconds)


def best_rate(
    products: Sequence[Callable[[], float]], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """FLOP/s of the fastest of repeated products: what else goes on on a machine only ever makes one slower.

    Args:
        products: each computes, waits for the result and returns its floating-point operations. They take turns, and
            each runs twice at least; its first time is not counted.
        seconds: after which no other turn begins.
        clock: seconds, of any origin.
    """
    until = clock() + seconds
    for product in products:
        product()
    best = 0.0
    while best == 0.0 or clock() < until:
        for product in products:
            began = clock()
            operations = product()
            best = max(best, operations / (clock() - began))
    return best


def _square_product(size: int, dtype: torch.dtype, device: torch.device) -> Callable[[], float]:
    left, right = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))

    def multiply() -> float:
        with torch.no_grad():
            F.linear(left, right)
        _wait(device)
        return 2.0 * size**3

    return multiply


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def memory_reader(device: torch.device) -> Callable[[], int]:
    """A function that gives this process's peak memory so far in bytes: allocated on the GPU, else resident."""
    if device.type == "cuda":
        return lambda: int(torch.cuda.max_memory_allocated(device))
    return peak_memory


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
