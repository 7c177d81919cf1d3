"""One stage of a pipeline that says what it is doing, and counts what it sends to and wants of the stages beside it.

Stages do different things in different order, so one count of exchanges can't tell which of two waits for the other: it
takes one for each direction. torch's schedules ask a stage for its exchanges just before they begin them, and only then
wait; what was asked for is counted, so that the rank that waits for a message has counted it and the one that never
began to send it hasn't.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch.distributed as dist
from torch.distributed.pipelining import PipelineStage

from pretrain.trace import Operations


class InstrumentedStage(PipelineStage):
    """A stage.

    Args:
        operations: is told.
        arguments, options: of PipelineStage.
    """

    def __init__(self, operations: Operations, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._operations = operations

    def get_fwd_recv_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        name = f"input of micro-batch {fwd_chunk_id + 1}"
        return self._noted(super().get_fwd_recv_ops(fwd_chunk_id), name, self._operations.wanted)

    def get_bwd_recv_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        name = f"gradient of micro-batch {bwd_chunk_id + 1}"
        return self._noted(super().get_bwd_recv_ops(bwd_chunk_id), name, self._operations.wanted)

    def get_fwd_send_ops(self, fwd_chunk_id: int) -> list[dist.P2POp]:
        name = f"output of micro-batch {fwd_chunk_id + 1}"
        return self._noted(super().get_fwd_send_ops(fwd_chunk_id), name, self._operations.sent)

    def get_bwd_send_ops(self, bwd_chunk_id: int) -> list[dist.P2POp]:
        name = f"gradient of the input of micro-batch {bwd_chunk_id + 1}"
        return self._noted(super().get_bwd_send_ops(bwd_chunk_id), name, self._operations.sent)

    def forward_one_chunk(self, fwd_chunk_id: int, *arguments: Any, **options: Any) -> Any:
        self._operations.within(f"forward pass of micro-batch {fwd_chunk_id + 1}")
        output = super().forward_one_chunk(fwd_chunk_id, *arguments, **options)
        # Schedules wait here for what was sent before.
        self._operations.within(f"after the forward pass of micro-batch {fwd_chunk_id + 1}", exchanging=True)
        return output

    def backward_one_chunk(self, bwd_chunk_id: int, *arguments: Any, **options: Any) -> Any:
        self._operations.within(f"backward pass of micro-batch {bwd_chunk_id + 1}")
        result = super().backward_one_chunk(bwd_chunk_id, *arguments, **options)
        self._operations.within(f"after the backward pass of micro-batch {bwd_chunk_id + 1}", exchanging=True)
        return result

    def _noted(self, exchanges: list[dist.P2POp], name: str, counts: Counter[int]) -> list[dist.P2POp]:
        if exchanges:
            counts.update(exchange.peer for exchange in exchanges)
            self._operations.within(name, exchanging=True)
        return exchanges
