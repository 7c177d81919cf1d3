"""GradientBuckets in a few contiguous buffers: zeroed, summed over the data-parallel ranks and clipped as wholes.

Replicated data parallelism with an explicit sum in fp32. DistributedDataParallel doesn't take the DTensor parameters of
tensor parallelism; here every parameter's gradient is a view of a buffer, whatever the parameter is. Only the last
micro-batch of a step starts sums, one as soon as a buffer is complete, so that they run beside the backward pass.
Sharded data parallelism (fsdp.py) sums by itself, into the same views.

Once a step two more sums follow where the layout needs them: over the tensor ranks, of parameters that each of them
used on its own tokens (sequence parallelism), and between first and last stage, of the matrix that both have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from pretrain.trace import Operations

from .context import ParallelContext
from .parameters import TIED_NAME, LocalParameter

_BUCKET_ELEMENTS = 6_500_000  # 26 MB, about DDP's buckets


class _Bucket:
    """GradientBuckets of some parameters one after another in memory."""

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
        parameters: of :func:`local_parameters`; their ``grad`` is set and must never be replaced.
        processes: whom to sum with.
        operations: is told when the waiting for other ranks' gradients begins.
    """

    def __init__(
        self, parameters: Sequence[LocalParameter], processes: ParallelContext, operations: Operations | None = None
    ) -> None:
        self._processes = processes
        self._operations = operations or Operations()
        self._buffers = [_Bucket(group) for group in _grouped(list(reversed(parameters)))]
        self._split = [view for p, view in self._pairs() if p.is_tensor_sharded and not p.is_tied_replica]
        self._whole = [view for p, view in self._pairs() if not p.is_tensor_sharded and not p.is_tied_replica]
        self._tied = [view for p, view in self._pairs() if p.name == TIED_NAME]
        self._tied_elements = _agreed_elements(self._tied, processes)
        self._sums_data = processes.dims.data > 1 and not processes.dims.fsdp_enabled
        self._armed = False
        self._started: list[Any] = []
        if self._sums_data:
            for buffer in self._buffers:
                for parameter in buffer.parameters:
                    parameter.full.register_post_accumulate_grad_hook(self._completion(buffer))

    def zero(self) -> None:
        for buffer in self._buffers:
            buffer.values.zero_()

    @contextmanager
    def summing(self) -> Iterator[None]:
        """Around the last backward pass of a step, with :meth:`sum` at its end, and part of it beside the pass."""
        for buffer in self._buffers:
            buffer.missing = len(buffer.parameters)
        self._armed = self._sums_data
        try:
            yield
        finally:
            self._armed = False
        self.sum()

    def sum(self) -> None:
        """Make all gradients those of the global batch."""
        self._operations.at("sum of gradients")
        if self._sums_data:
            self._start_until(len(self._buffers))
            for work in self._started:
                work.wait()
            self._started.clear()
        elif self._processes.dims.fsdp_enabled:
            self._collect()
        self._sum_partial()
        self._sum_tied()

    def norm(self) -> Tensor:
        """Euclidean norm over the whole model, float64 scalar; equal on all ranks.

        Parameters that are split are summed over the ranks that have parts, others counted once.
        """
        self._operations.at("norm of gradients")
        split = self._processes.all_reduce_over_tensor(_squared_norm(self._split, self._processes.device))
        total = split + _squared_norm(self._whole, self._processes.device)
        if self._processes.dims.fsdp_enabled:
            self._processes.all_reduce_over_data(total)
        return self._processes.all_reduce_over_pipeline(total).sqrt()

    def scale(self, factor: float) -> None:
        for buffer in self._buffers:
            buffer.values.mul_(factor)

    def _collect(self) -> None:
        """Bring gradients that FSDP put elsewhere (pipelining takes ours away when it begins) back into the buffers."""
        for parameter, view in self._pairs():
            gradient = parameter.full.grad
            values = gradient.to_local() if isinstance(gradient, DTensor) else gradient
            if values is not None and values.data_ptr() != view.data_ptr():
                view.copy_(values)
            parameter.full.grad = parameter.as_global(view)

    def _sum_partial(self) -> None:
        for buffer in self._buffers:
            if buffer.has_partial_gradient:
                self._processes.all_reduce_over_tensor(buffer.values)

    def _sum_tied(self) -> None:
        if self._processes.dims.pipeline == 1:
            return
        self._operations.at("sum of gradients of first and last stage")
        device = self._processes.device
        # Stages in the middle have no copy and add nothing.
        own = self._tied[0] if self._tied else torch.zeros(self._tied_elements, device=device)
        self._processes.all_reduce_over_pipeline(own)

    def _pairs(self) -> Iterator[tuple[LocalParameter, Tensor]]:
        for buffer in self._buffers:
            yield from zip(buffer.parameters, buffer.views, strict=True)

    def _completion(self, buffer: _Bucket) -> Any:
        def hook(parameter: Tensor) -> None:
            if not self._armed:
                return
            buffer.missing -= 1
            # In the order of the buffers, not of completion: every rank must start the same sums in the same order.
            ready = next((i for i, other in enumerate(self._buffers) if other.missing), len(self._buffers))
            self._start_until(ready)

        return hook

    def _start_until(self, stop: int) -> None:
        for buffer in self._buffers[len(self._started) : stop]:
            self._started.append(self._processes.start_all_reduce_over_data(buffer.values))


def _grouped(parameters: list[LocalParameter]) -> list[list[LocalParameter]]:
    """Parameters in the order given, in groups of about the buffer size; partial ones have groups of their own."""
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


def _agreed_elements(tied: list[Tensor], processes: ParallelContext) -> int:
    """Elements of this rank's part of the tied matrix, known on all stages: the first one tells the others."""
    number = tied[0].numel() if tied and processes.is_first_stage else 0
    return int(processes.all_reduce_over_pipeline(torch.tensor(number, device=processes.device)))


def _squared_norm(views: list[Tensor], device: torch.device) -> Tensor:
    # A norm a tensor, then the sum in float64: one long fp32 sum would lose digits.
    if not views:
        return torch.zeros((), dtype=torch.float64, device=device)
    return torch.stack(torch._foreach_norm(views)).double().square().sum()
