"""Model FLOPs of a training step, the peak FLOP/s of the device, and the model FLOPs utilization (MFU).

Recomputation with --checkpoint-activations is not counted. A token costs 6 x parameters of the blocks (2 forward, 4
backward) and 12 x layers x hidden x attended length for attention scores and weighted sums, where the attended length
is that of the token's own protein; a predicted position costs 6 x parameters of the head. Embedding tables are looked
up, not multiplied. (Narayanan et al. 2021, appendix; Chowdhery et al. 2022, appendix B.)
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

# A processor is as fast as it gets after some products, but the clock of a GPU takes longer to rise.
_PEAK_SECONDS = {"cpu": 0.15, "cuda": 0.8}
# Sizes of square matrices; which of them is fastest depends on the machine and the library.
_PEAK_SIZES = {"cpu": (512, 1024), "cuda": (4096, 8192)}


def flops_per_token(config: ProteinBertConfig, attended_length: float, mask_prob: float) -> float:
    """Floating-point operations per token of the forward and backward pass; a multiply-add counts as two.

    Args:
        config: sizes of the model.
        attended_length: mean number of tokens that a token attends to.
        mask_prob: fraction of positions that the head predicts.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    blocks = layers * (4 * hidden**2 + 2 * hidden * config.intermediate_size)
    head = hidden**2 + config.vocab_size * hidden
    return 6.0 * (blocks + mask_prob * head) + 12.0 * layers * hidden * attended_length


def measured_peak(
    precision: PrecisionConfig,
    device: torch.device,
    seconds: float | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Measure the peak FLOP/s of one process: the fastest of many square matrix products.

    Args:
        precision: precision of the run. If the device has no instructions for it, training multiplies in fp32, and
            the peak is that of fp32.
        device: the device to measure.
        seconds: approximate duration of the measurement; None: as long as a run of pretraining takes for it.
        clock: see :func:`best_rate`.
    """
    dtype = precision.product_dtype(device)
    sizes = _PEAK_SIZES.get(device.type, _PEAK_SIZES["cpu"])
    duration = _PEAK_SECONDS.get(device.type, _PEAK_SECONDS["cpu"]) if seconds is None else seconds
    return best_rate([_square_product(size, dtype, device) for size in sizes], duration, clock)


def best_rate(
    products: Sequence[Callable[[], float]], seconds: float, clock: Callable[[], float] = time.perf_counter
) -> float:
    """FLOP/s of the fastest of repeated products. The maximum is used because other load only slows products down.

    Args:
        products: functions that compute, wait for the result and return the number of floating-point operations.
            They run in turn, each at least twice; the first run is a warm-up and is not counted.
        seconds: no further round begins after this time.
        clock: returns the time in seconds.
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
    """A function that returns the peak memory of this process in bytes: allocated GPU memory, or resident memory."""
    if device.type == "cuda":
        return lambda: int(torch.cuda.max_memory_allocated(device))
    return peak_memory


@dataclass(frozen=True)
class Meter:
    """Computes the model FLOPs utilization from the speed.

    Attributes:
        flops_per_token: model FLOPs per token, see :func:`flops_per_token`.
        peak: peak FLOP/s of all processes together.
        peak_source: ``stated`` (--peak-tflops) or ``measured``.
        memory: returns the peak memory of the main process in bytes, see :func:`memory_reader`.
    """

    flops_per_token: float
    peak: float
    peak_source: str
    memory: Callable[[], int]

    def utilization(self, tokens_per_second: float) -> float:
        """Model FLOPs utilization (MFU): the fraction of the peak FLOP/s that the model's FLOPs amount to."""
        return tokens_per_second * self.flops_per_token / self.peak
