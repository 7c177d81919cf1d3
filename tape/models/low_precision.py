"""Matrix products in bf16 and fp16: by the machine's own instructions, or with the same numerics at the speed of fp32.

A processor without matrix instructions of the format computes it some fifty times slower than fp32. There the operands
are rounded to the format, multiplied in fp32 (products of such numbers are exact in it), accumulated in fp32, and the
result is rounded: what the hardware does, up to the order of the sums. The backward pass follows by the same casts. In
attention the probabilities stay fp32 between the two products, where fused kernels round them.
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

# What autocast computes in the lower format, as this library calls it.
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
# By how much bf16 must be faster, so that a machine has the same answer each time; products measured.
_MARGIN, _TRIES = 1.2, 8
_NAMES = {torch.bfloat16: ("_is_amx_tile_supported", "_is_avx512_bf16_supported"), torch.float16: ()}


def fast_bf16(device_type: str) -> bool:
    """True where products in bf16 are faster than in fp32: on GPUs from Ampere on; on CPUs it is measured.

    Instructions alone don't say it: with AMX bf16 is several times faster, with AVX512-BF16 alone twice as fast on one
    processor and half as fast on another.

    Args:
        device_type: ``"cuda"`` or ``"cpu"``.
    """
    if not is_fast(device_type, torch.bfloat16):
        return False
    return device_type != "cpu" or _MARGIN * _seconds(torch.bfloat16) < _seconds(torch.float32)


def _seconds(dtype: torch.dtype) -> float:
    """Of a product of the size that a small model's step is made of, undisturbed: the best of several."""
    values, weight = torch.ones(2048, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
    times = []
    for _ in range(_TRIES):
        start = time.perf_counter()
        F.linear(values, weight)
        times.append(time.perf_counter() - start)
    return min(times)


def is_fast(device_type: str, dtype: torch.dtype) -> bool:
    """Whether the device has matrix instructions of ``dtype``, bf16 or fp16."""
    if device_type == "cuda":
        bf16 = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        return bf16 or dtype == torch.float16
    # Named with an underscore in torch 2.13; a release without them counts as a CPU without the instructions.
    return any(getattr(torch.cpu, name, bool)() for name in _NAMES[dtype])


@contextmanager
def autocast(device_type: str, dtype: torch.dtype) -> Iterator[None]:
    """Matrix products of the forward pass, and of its backward pass, in ``dtype``; layer norms and losses in fp32."""
    with torch.autocast(device_type, dtype=dtype), products_of_autocast(device_type):
        yield


def products_of_autocast(device_type: str) -> AbstractContextManager[Any]:
    """What the autocast that is on now needs besides: fp32 products of rounded numbers, where the machine is slow.

    For code that is run again in the backward pass: activation checkpointing turns autocast on again, but not this.
    """
    if not torch.is_autocast_enabled(device_type) or is_fast(device_type, torch.get_autocast_dtype(device_type)):
        return nullcontext()
    return _RoundedProducts(device_type, torch.get_autocast_dtype(device_type))


class _RoundedProducts(TorchFunctionMode):
    """Replaces the products under autocast by fp32 ones between numbers of ``dtype``."""

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
            # Autograd's inverse of each cast rounds the gradients of operands and result alike.
            return func(*args, **kwargs).to(self._dtype)

    def _rounded(self, tensor: Tensor) -> Tensor:
        if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            return tensor  # masks and indices; float64 is left alone by autocast, too
        return tensor.to(self._dtype).float()
