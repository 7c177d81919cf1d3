"""Autocast to bf16 and fp16, with emulated matrix products on machines without instructions for them.

A CPU without matrix instructions for a format computes it about fifty times slower than fp32. On such a machine, the
operands are rounded to the format, multiplied and accumulated in fp32 (where the products are exact), and the result is
rounded. This is what the hardware does, up to the order of the sums, at the speed of fp32. The backward pass uses the
same casts. In attention, the probabilities stay in fp32 between the two products, while fused kernels round them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_map_only

# The functions that autocast runs in the lower format, as far as this library calls them.
_PRODUCTS: frozenset[Callable[..., Any]] = frozenset(
    (
        F.linear,
        F.conv1d,
        F.conv2d,
        F.scaled_dot_product_attention,
        torch.einsum,
        torch.matmul,
        torch.mm,
        torch.bmm,
        torch.addmm,
        torch.baddbmm,
        Tensor.matmul,
        Tensor.__matmul__,
        Tensor.mm,
        Tensor.bmm,
    )
)
# bf16 must be faster by this factor, so that the answer is always the same on one machine; number of measurements.
_MARGIN, _TRIES = 1.2, 8
_NAMES = {torch.bfloat16: ("_is_amx_tile_supported", "_is_avx512_bf16_supported"), torch.float16: ()}


def fast_bf16(device_type: str) -> bool:
    """True if matrix products in bf16 are faster than in fp32: on GPUs from Ampere on; on CPUs by measurement.

    The instruction set alone does not decide it. With AMX, bf16 is several times faster; with AVX512-BF16 alone, it is
    twice as fast on one processor and half as fast on another.

    Args:
        device_type: ``"cuda"`` or ``"cpu"``.
    """
    if not is_fast(device_type, torch.bfloat16):
        return False
    return device_type != "cpu" or _MARGIN * _seconds(torch.bfloat16) < _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    """Shortest of several measured times of a matrix product that is typical of a small model."""
    values, weight = torch.ones(2048, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
    times = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        F.linear(values, weight)
        times.append(time.perf_counter() - start)
    return min(times)


def is_fast(device_type: str, dtype: torch.dtype) -> bool:
    """Whether the device has matrix instructions for ``dtype``, bf16 or fp16."""
    if device_type == "cuda":
        bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        return bf16 or dtype == torch.float16
    # Private functions of torch 2.13. A release without them is treated as a CPU without the instructions.
    return any(getattr(torch.cpu, name, bool)() for name in _NAMES[dtype])


def is_native(dtype: torch.dtype) -> bool:
    """Whether this CPU multiplies matrices in ``dtype``, so that they are not emulated."""
    return dtype.itemsize >= 4 or is_fast("cpu", dtype)


def operand_dtype(values: Tensor) -> torch.dtype:
    """Data type of these values as operands of a matrix product: that of autocast, if it is active, also emulated."""
    device = values.device.type
    is_active = torch.amp.is_autocast_available(device) and torch.is_autocast_enabled(device)
    return torch.get_autocast_dtype(device) if is_active else values.dtype


def uses_tiles(dtype: torch.dtype) -> bool:
    """Whether this CPU multiplies matrices in ``dtype`` tile by tile (AMX): only bf16, and only on some processors."""
    return dtype == torch.bfloat16 and bool(getattr(torch.cpu, "_is_amx_tile_supported", bool)())


@contextmanager
def autocast(device_type: str, dtype: torch.dtype) -> Iterator[None]:
    """Autocast: matrix products of the forward and backward pass in ``dtype``, layer norms and losses in fp32."""
    with torch.autocast(device_type, dtype=dtype), products_of_autocast(device_type):
        yield


def products_of_autocast(device_type: str) -> AbstractContextManager[Any]:
    """Emulate the products of the active autocast if the machine lacks instructions for its format.

    Activation checkpointing restores autocast for the recomputation, but not this emulation, so it needs this context.
    """
    if not torch.is_autocast_enabled(device_type) or is_fast(device_type, torch.get_autocast_dtype(device_type)):
        return nullcontext()
    return _RoundedProducts(device_type, torch.get_autocast_dtype(device_type))


class _RoundedProducts(TorchFunctionMode):
    """Replaces matrix products under autocast by fp32 products of operands rounded to ``dtype``."""

    def __init__(self, device_type: str, dtype: torch.dtype) -> None:
        super().__init__()
        self._device_type = device_type
        self._dtype = dtype

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func not in _PRODUCTS or not torch.is_autocast_enabled(self._device_type):
            return func(*args, **kwargs)
        args, kwargs = tree_map_only(Tensor, self._rounded, (args, kwargs))
        with torch.autocast(self._device_type, enabled=False):
            # The backward pass of the casts rounds the gradients of operands and result in the same way.
            return func(*args, **kwargs).to(self._dtype)

    def _rounded(self, tensor: Tensor) -> Tensor:
        if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return tensor  # masks and indices; autocast does not cast float64 either
        return tensor.to(self._dtype).float()
