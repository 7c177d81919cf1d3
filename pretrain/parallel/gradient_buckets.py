"""Gradient buckets: contiguous fp32 buffers that are zeroed, all-reduced over the data-parallel ranks and clipped.

This is replicated data parallelism with explicit all-reduces. DistributedDataParallel doesn't support the DTensor
parameters of tensor parallelism; here the gradient of every parameter is a view of a bucket. The all-reduce of a bucket
starts in the backward pass of the last micro-batch as soon as the bucket is complete, so that communication overlaps
with computation. Sharded data parallelism (fsdp.py) reduce-scatters by itself, into the same views.

Depending on the layout, two more all-reduces follow once per step: over the tensor-parallel ranks, for parameters that
each of them used on its own tokens (sequence parallelism), and over first and last pipeline stage, for the embedding
that both have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from pretrain import trace

from .context import ParallelContext
from .parameters import TIED_NAME, LocalParameter

_BUCKET_ELEMENTS = 6_500_000  # 26 MB, about the size of DDP's buckets


class _Bucket:
    """The gradients of some parameters, contiguous in memory."""

    def __init__(self, parameters: Sequence[LocalParameter]) -> None:
        self.parameters = parameters
        self.has_partial_gradient = parameters[0].has_partial_gradient
        first = parameters[0].local
        self.values = torch.zeros(sum(p.local.numel() for p in parameters), device=first.device, dtype=torch.float32)
        self.views = []
        self.missing = 0
        start = 0
        for parameter in parameters:
            view = self.values[start : start + parameter.local.numel()].view(parameter.local.shape)
            start += parameter.local.numel()
            parameter.local.grad = view
            parameter.full.grad = parameter.as_global(view)
            self.views.append(view)


class GradientBuckets:
    """The gradients of all parameters.

    Args:
        parameters: from :func:`local_parameters`; their ``grad`` is set to views of the buckets and must not be
            replaced.
        context: process groups to all-reduce over.
    """

    def __init__(self, parameters: Sequence[LocalParameter], context: ParallelContext) -> None:
        self._context = context
        self._buckets = [_Bucket(group) for group in _grouped(list(reversed(parameters)))]
        self._sharded = [view for p, view in self._pairs() if p.is_tensor_sharded and not p.is_tied_replica]
        self._replicated = [view for p, view in self._pairs() if not p.is_tensor_sharded and not p.is_tied_replica]
        self._tied = [view for p, view in self._pairs() if p.name == TIED_NAME]
        self._tied_elements = _tied_elements_of(self._tied, context)
        self._all_reduces_data = context.dims.data > 1 and not context.dims.fsdp_enabled
        self._armed = False
        self._started: list[Any] = []
        if self._all_reduces_data:
            for bucket in self._buckets:
                for parameter in bucket.parameters:
                    parameter.full.register_post_accumulate_grad_hook(self._completion(bucket))

    def zero(self) -> None:
        for bucket in self._buckets:
            bucket.values.zero_()

    @contextmanager
    def all_reduce_after_backward(self) -> Iterator[None]:
        """Context of a step's last backward pass: all-reduces complete buckets during it, the rest at its end."""
        for bucket in self._buckets:
            bucket.missing = len(bucket.parameters)
        self._armed = self._all_reduces_data
        try:
            yield
        finally:
            self._armed = False
        self.all_reduce()

    def all_reduce(self) -> None:
        """Reduce all gradients to those of the global batch."""
        with trace.span("all-reduce gradients"):
            if self._all_reduces_data:
                self._start_until(len(self._buckets))
                for work in self._started:
                    work.wait()
                self._started.clear()
            elif self._context.dims.fsdp_enabled:
                self._collect()
            self._all_reduce_partial()
        if self._context.dims.pipeline > 1:
            with trace.span("all-reduce gradients of the tied embedding"):
                self._all_reduce_tied()

    def norm(self) -> Tensor:
        """L2 norm of all gradients of the model, a float64 scalar; equal on all ranks.

        Sharded parameters are summed over the ranks with their shards; replicated ones count once.
        """
        with trace.span("gradient norm"):
            sharded = self._context.all_reduce_over_tensor(_squared_norm(self._sharded, self._context.device))
            total = sharded + _squared_norm(self._replicated, self._context.device)
            if self._context.dims.fsdp_enabled:
                self._context.all_reduce_over_data(total)
            return self._context.all_reduce_over_pipeline(total).sqrt()

    def scale(self, factor: float) -> None:
        for bucket in self._buckets:
            bucket.values.mul_(factor)

    def _collect(self) -> None:
        """Copy gradients that FSDP stored elsewhere into the buckets; pipelining replaces our views at its start."""
        for parameter, view in self._pairs():
            gradient = parameter.full.grad
            values = gradient.to_local() if isinstance(gradient, DTensor) else gradient
            if values is not None and values.data_ptr() != view.data_ptr():
                view.copy_(values)
            parameter.full.grad = parameter.as_global(view)

    def _all_reduce_partial(self) -> None:
        for bucket in self._buckets:
            if bucket.has_partial_gradient:
                self._context.all_reduce_over_tensor(bucket.values)

    def _all_reduce_tied(self) -> None:
        device = self._context.device
        # stages in the middle have no copy of the embedding and contribute zeros
        own = self._tied[0] if self._tied else torch.zeros(self._tied_elements, device=device)
        self._context.all_reduce_over_pipeline(own)

    def _pairs(self) -> Iterator[tuple[LocalParameter, Tensor]]:
        for bucket in self._buckets:
            yield from zip(bucket.parameters, bucket.views, strict=True)

    def _completion(self, bucket: _Bucket) -> Any:
        def hook(parameter: Tensor) -> None:
            if not self._armed:
                return
            bucket.missing -= 1
            # in the order of the buckets, not of completion: all ranks must start the same collectives in the same
            # order
            ready = next((i for i, other in enumerate(self._buckets) if other.missing), len(self._buckets))
            self._start_until(ready)

        return hook

    def _start_until(self, stop: int) -> None:
        for bucket in self._buckets[len(self._started) : stop]:
            self._started.append(self._context.start_all_reduce_over_data(bucket.values))


def _grouped(parameters: list[LocalParameter]) -> list[list[LocalParameter]]:
    """Parameters in the given order, grouped by bucket size; those with partial gradients are grouped separately."""
    groups: list[list[LocalParameter]] = []
    for partial in (False, True):
        elements = _BUCKET_ELEMENTS
        for parameter in (p for p in parameters if p.has_partial_gradient == partial):
            if elements >= _BUCKET_ELEMENTS:
                groups.append([])
                elements = 0
            groups[-1].append(parameter)
            elements += parameter.local.numel()
    return groups


def _tied_elements_of(tied: list[Tensor], context: ParallelContext) -> int:
    """Number of elements of this rank's shard of the tied embedding, broadcast from the first stage to all stages."""
    number = tied[0].numel() if tied and context.is_first_stage else 0
    return int(context.all_reduce_over_pipeline(torch.tensor(number, device=context.device)))


def _squared_norm(views: list[Tensor], device: torch.device) -> Tensor:
    # One norm per tensor, then their sum in float64: one long fp32 sum would lose digits.
    if not views:
        return torch.zeros((), dtype=torch.float64, device=device)
    return torch.stack(torch._foreach_norm(views)).double().square().sum()
