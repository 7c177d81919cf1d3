"""A pipeline stage that records its point-to-point operations in the trace.

The stages of a pipeline do different things in different orders, so a single count of operations does not show which
of two stages waits for the other; there is a count per direction. torch's schedules request a stage's sends and
receives just before they start them, and wait only then. They are counted on request, so that a rank that waits for a
tensor has counted the receive, and a rank that never started the send has not.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage

from pretrain import trace


class InstrumentedStage(PipelineStage):
    """A :class:`torch.distributed.pipelining.PipelineStage` with trace marks."""

    def get_fwd_recv_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        name = f"input of micro-batch {fwd_chunk_id + 1}"
        return self._trace(super().get_fwd_recv_ops(fwd_chunk_id), name, trace.PROCESS.received)

    def get_bwd_recv_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        name = f"gradient of micro-batch {bwd_chunk_id + 1}"
        return self._trace(super().get_bwd_recv_ops(bwd_chunk_id), name, trace.PROCESS.received)

    def get_fwd_send_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        name = f"output of micro-batch {fwd_chunk_id + 1}"
        return self._trace(super().get_fwd_send_ops(fwd_chunk_id), name, trace.PROCESS.sent)

    def get_bwd_send_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        name = f"gradient of the input of micro-batch {bwd_chunk_id + 1}"
        return self._trace(super().get_bwd_send_ops(bwd_chunk_id), name, trace.PROCESS.sent)

    def forward_one_chunk(self, fwd_chunk_id: int, *arguments: Any, **options: Any) -> Any:
        trace.mark(f"forward pass of micro-batch {fwd_chunk_id + 1}")
        output = super().forward_one_chunk(fwd_chunk_id, *arguments, **options)
        # schedules wait here for earlier sends
        trace.mark(f"after the forward pass of micro-batch {fwd_chunk_id + 1}", communicating=True)
        return output

    def backward_one_chunk(self, bwd_chunk_id: int, *arguments: Any, **options: Any) -> Any:
        trace.mark(f"backward pass of micro-batch {bwd_chunk_id + 1}")
        result = super().backward_one_chunk(bwd_chunk_id, *arguments, **options)
        trace.mark(f"after the backward pass of micro-batch {bwd_chunk_id + 1}", communicating=True)
        return result

    @staticmethod
    def _trace(operations: list[dist.P2POp], name: str, counts: Counter[int]) -> list[dist.P2POp]:
        if operations:
            counts.update(operation.peer for operation in operations)
            trace.mark(name, communicating=True)
        return operations
