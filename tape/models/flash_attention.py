"""Attention over packed rows in one kernel: FlashAttention-2 for sequences of different lengths (Dao 2023), on CUDA.

torch's public ``varlen_attn`` has no dropout. The operator below it has, and autograd differentiates it, but its name
and arguments are not guaranteed. Before the kernel is used, :func:`unusable_reason` therefore compares it with
attention in float64, including its gradients and its dropout. Where the comparison fails, attention is computed on
padded groups of proteins (:mod:`tape.models.attention`).

The kernel compares 8 random bits with the dropout probability, so the fraction of probabilities that it drops is a
multiple of 1/256. Its random numbers are a function of torch's generator and advance it, as those of ``F.dropout`` do.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import torch
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

# (query, key, value, cumulative lengths, longest, dropout) -> context
Kernel = Callable[[Tensor, Tensor, Tensor, Tensor, int, float], Tensor]

_DTYPES = (torch.float16, torch.bfloat16)
_HEAD_SIZE_MULTIPLE, _LARGEST_HEAD_SIZE = 8, 256

# The check: few and short proteins, of which none is longer than the head size (see _kept_probabilities).
_HEADS, _SEED, _DROPOUT = 4, 1234, 0.5
# Relative error of bf16 and fp16 kernels: below 1e-2. That of a wrong mask, scale or boundary: about 1.
_TOLERANCE = 3e-2
# At least 424 probabilities are kept or dropped: six standard deviations
_DROPOUT_TOLERANCE = 0.15


def flash_attention(
    query: Tensor, key: Tensor, value: Tensor, cumulative: Tensor, longest: int, dropout: float
) -> Tensor:
    """Compute attention within each protein of a packed row.

    Args:
        query, key, value: (T, heads, head size), in a format for which :func:`unusable_reason` is None.
        cumulative: (N + 1,) int32, start of each protein and end of the last.
        longest: number of tokens of the longest protein.
        dropout: dropout probability of the attention probabilities, below 1.

    Returns:
        (T, heads, head size).
    """
    if dropout == 0.0:
        from torch.nn.attention.varlen import varlen_attn

        context = varlen_attn(query, key, value, cumulative, cumulative, longest, longest)
        assert isinstance(context, Tensor)
        return context
    forward = torch.ops.aten._flash_attention_forward
    # False: no causal mask, and no dropout mask among the results
    result = forward(query, key, value, cumulative, cumulative, longest, longest, dropout, False, False)
    first: Tensor = result[0]
    return first


def unusable_reason(device: torch.device, dtype: torch.dtype, head_size: int, dropout: float) -> str | None:
    """Why :func:`flash_attention` can't be used; None if it can.

    The first call on a device compares the kernel with a reference, which takes milliseconds and leaves random states,
    autograd and autocast as they are. Later calls return the same answer.

    Args:
        device: device of query, key and value.
        dtype: their data type.
        head_size: size of an attention head.
        dropout: dropout probability; the check is only with or without dropout.
    """
    if device.type != "cuda":
        return "FlashAttention needs a CUDA device"
    if dtype not in _DTYPES:
        return "FlashAttention needs bf16 or fp16"
    if head_size % _HEAD_SIZE_MULTIPLE or head_size > _LARGEST_HEAD_SIZE:
        return f"FlashAttention needs heads of a multiple of {_HEAD_SIZE_MULTIPLE}, up to {_LARGEST_HEAD_SIZE}"
    index = torch.cuda.current_device() if device.index is None else device.index
    return _checked(torch.device("cuda", index), dtype, head_size, dropout > 0.0)


@cache
def _checked(device: torch.device, dtype: torch.dtype, head_size: int, has_dropout: bool) -> str | None:
    return check_kernel(flash_attention, device, dtype, head_size, _DROPOUT if has_dropout else 0.0)


def check_kernel(
    kernel: Kernel, device: torch.device, dtype: torch.dtype, head_size: int, dropout: float
) -> str | None:
    """Compare results and gradients of a kernel with a float64 reference that has the same dropout mask.

    Returns:
        What is wrong with the kernel; None if nothing is.
    """
    lengths = (head_size, 5, 1, head_size // 2)
    try:
        with _isolated(device):
            kept = _kept_probabilities(kernel, lengths, device, dtype, head_size, dropout)
            dropped = 1.0 - torch.cat([mask.flatten() for mask in kept]).mean().item()
            if abs(dropped - dropout) > (_DROPOUT_TOLERANCE if dropout else 0.0):
                return f"{dropped:.0%} of the attention probabilities are dropped instead of {dropout:.0%}"
            error = _relative_error(kernel, kept, device, dtype, head_size, dropout)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, AttributeError, ImportError) as failure:
        return f"{type(failure).__name__}: {str(failure).strip().splitlines()[0]}"
    return None if error < _TOLERANCE else f"its relative error is {error:.2g}"


@contextmanager
def _isolated(device: torch.device) -> Iterator[None]:
    """No effect on random states, and none of the caller's autocast, inference mode and checkpointing."""
    gpus = [device] if device.type == "cuda" else []
    with (
        torch.random.fork_rng(gpus),
        torch.autocast(device.type, enabled=False),
        torch.inference_mode(False),
        torch.enable_grad(),
        saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor),  # hides those of activation checkpointing
    ):
        yield


def _seed(device: torch.device) -> None:
    """Seed the generator of one device; torch.manual_seed would seed those of all."""
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(_SEED)
    else:
        torch.default_generator.manual_seed(_SEED)


def _run(kernel: Kernel, inputs: Sequence[Tensor], lengths: Sequence[int], dropout: float) -> Tensor:
    device = inputs[0].device
    cumulative = torch.tensor([0, *lengths]).cumsum(0).to(device, torch.int32)
    _seed(device)
    return kernel(inputs[0], inputs[1], inputs[2], cumulative, max(lengths), dropout)


def _kept_probabilities(
    kernel: Kernel,
    lengths: Sequence[int],
    device: torch.device,
    dtype: torch.dtype,
    head_size: int,
    dropout: float,
) -> list[Tensor]:
    """The dropout mask of each protein, (heads, L, L), 1 where a probability is kept; none may exceed the head size.

    The mask does not depend on the inputs. Values that are unit vectors make the results the probabilities themselves,
    and those that were dropped are 0.
    """
    values = torch.cat([torch.eye(length, head_size) for length in lengths])
    values = values.unsqueeze(1).expand(-1, _HEADS, -1).contiguous().to(device, dtype)
    uniform = torch.zeros_like(values)
    context = _run(kernel, (uniform, uniform, values), lengths, dropout)
    parts = context.detach().split(list(lengths))
    return [(part.transpose(0, 1)[..., : len(part)] > 0).double() for part in parts]


def _relative_error(
    kernel: Kernel, kept: Sequence[Tensor], device: torch.device, dtype: torch.dtype, head_size: int, dropout: float
) -> float:
    """Largest relative error of the context and of the gradients of query, key and value."""
    lengths = [mask.shape[-1] for mask in kept]
    generator = torch.Generator().manual_seed(_SEED)
    shape = (4, sum(lengths), _HEADS, head_size)
    *inputs, gradient = torch.randn(shape, generator=generator).to(device, dtype)
    ours = [tensor.clone().requires_grad_() for tensor in inputs]
    exact = [tensor.double().requires_grad_() for tensor in inputs]
    context = _run(kernel, ours, lengths, dropout)
    expected = masked_reference(exact, kept, dropout)
    results = [context, *torch.autograd.grad(context, ours, gradient)]
    references = [expected, *torch.autograd.grad(expected, exact, gradient.double())]
    errors = [(x - y).norm() / y.norm() for x, y in zip(results, references, strict=True)]
    return max(error.item() if error.isfinite() else float("inf") for error in errors)


def masked_reference(inputs: Sequence[Tensor], kept: Sequence[Tensor], dropout: float) -> Tensor:
    """Attention with a given dropout mask.

    Args:
        inputs: query, key and value, (T, heads, head size) each.
        kept: the mask of each protein, (heads, L, L), 1 where a probability is kept.
        dropout: dropout probability.

    Returns:
        (T, heads, head size).
    """
    lengths = [mask.shape[-1] for mask in kept]
    contexts = []
    for mask, query, key, value in zip(kept, *(tensor.split(lengths) for tensor in inputs), strict=True):
        scores = torch.einsum("qhd,khd->hqk", query, key) * query.shape[-1] ** -0.5
        probabilities = scores.softmax(-1) * mask / (1.0 - dropout)
        contexts.append(torch.einsum("hqk,khd->qhd", probabilities, value))
    return torch.cat(contexts)
