"""Gradients in a few contiguous buffers: zeroed, summed over the data-parallel ranks and clipped as wholes.

Replicated data parallelism with an explicit sum in fp32. DistributedDataParallel doesn't take the DTensor parameters of
tensor parallelism; here every parameter's gradient is a view of a buffer, whatever the parameter is. Only the last
micro-batch of a step starts sums, one as soon as a buffer is complete, so that they run beside the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard

from .processes import Processes

_BUFFER_ELEMENTS = 6_500_000  # 26 MB, about DDP's buckets


@dataclass(frozen=True)
class LocalParameter:
    """A parameter and the part of it on this rank.

    Attributes:
        name: in the model's state dict.
        full: what the model computes with, a DTensor when it is split.
        local: the part here, sharing memory with ``full``; what the optimizer updates.
    """

    name: str
    full: nn.Parameter
    local: nn.Parameter

    @property
    def is_split(self) -> bool:
        """Whether tensor ranks hold different parts (and not copies) of it."""
        return isinstance(self.full, DTensor) and any(isinstance(place, Shard) for place in self.full.placements)

    def as_global(self, values: Tensor) -> Tensor:
        """Values of the local part, as the checkpoint sees them: a DTensor where the parameter is one."""
        if not isinstance(self.full, DTensor) or values.shape != self.local.shape:
            return values
        return DTensor.from_local(values, self.full.device_mesh, self.full.placements, run_check=False)


def local_parameters(model: nn.Module) -> list[LocalParameter]:
    """All trained parameters, tied ones once."""
    found = []
    for name, parameter in model.named_parameters():
        if isinstance(parameter, DTensor):
            local = nn.Parameter(parameter.to_local().detach())
        else:
            local = parameter
        found.append(LocalParameter(name, parameter, local))
    return found


class _Buffer:
    """Gradients of some parameters one after another in memory."""

    def __init__(self, parameters: Sequence[LocalParameter]) -> None:
        self.parameters = parameters
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


class Gradients:
    """The gradients of all parameters.

    Args:
        parameters: of :func:`local_parameters`; their ``grad`` is set and must never be replaced.
        processes: whom to sum with.
    """

    def __init__(self, parameters: Sequence[LocalParameter], processes: Processes) -> None:
        self._processes = processes
        self._buffers = [_Buffer(group) for group in _grouped(list(reversed(parameters)))]
        self._split = [view for p, view in self._pairs() if p.is_split]
        self._whole = [view for p, view in self._pairs() if not p.is_split]
        self._armed = False
        self._started: list[Any] = []
        if processes.dims.data > 1:
            for buffer in self._buffers:
                for parameter in buffer.parameters:
                    parameter.full.register_post_accumulate_grad_hook(self._completion(buffer))

    def zero(self) -> None:
        for buffer in self._buffers:
            buffer.values.zero_()

    @contextmanager
    def summing(self) -> Iterator[None]:
        """Around the last backward pass of a step: at the end all gradients are sums over the data-parallel ranks."""
        if self._processes.dims.data == 1:
            yield
            return
        for buffer in self._buffers:
            buffer.missing = len(buffer.parameters)
        self._armed = True
        try:
            yield
        finally:
            self._armed = False
        self._start_until(len(self._buffers))
        for work in self._started:
            work.wait()
        self._started.clear()

    def norm(self) -> Tensor:
        """Euclidean norm over the whole model, float64 scalar; equal on all ranks.

        Split parameters are summed over the tensor ranks, replicated ones counted once.
        """
        split = self._processes.sum_over_tensor(_squared_norm(self._split, self._processes.device))
        return (split + _squared_norm(self._whole, self._processes.device)).sqrt()

    def scale(self, factor: float) -> None:
        for buffer in self._buffers:
            buffer.values.mul_(factor)

    def _pairs(self) -> Iterator[tuple[LocalParameter, Tensor]]:
        for buffer in self._buffers:
            yield from zip(buffer.parameters, buffer.views, strict=True)

    def _completion(self, buffer: _Buffer) -> Any:
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
            self._started.append(self._processes.start_sum_over_data(buffer.values))


def _grouped(parameters: list[LocalParameter]) -> list[list[LocalParameter]]:
    """Parameters in the order given, cut into groups of about the buffer size."""
    groups: list[list[LocalParameter]] = [[]]
    elements = 0
    for parameter in parameters:
        if elements >= _BUFFER_ELEMENTS:
            groups.append([])
            elements = 0
        groups[-1].append(parameter)
        elements += parameter.local.numel()
    return groups


def _squared_norm(views: list[Tensor], device: torch.device) -> Tensor:
    # A norm a tensor, then the sum in float64: one long fp32 sum would lose digits.
    if not views:
        return torch.zeros((), dtype=torch.float64, device=device)
    return torch.stack(torch._foreach_norm(views)).double().square().sum()
