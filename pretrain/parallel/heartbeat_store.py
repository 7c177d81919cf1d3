"""The key-value store through which ranks exchange heartbeats, on connections of its own."""

from __future__ import annotations

from datetime import timedelta

import torch.distributed as dist

from .context import ParallelContext
from .control_group import ControlGroup

# finding the store may take long when thousands of ranks connect at once
_CONNECT_TIMEOUT = timedelta(minutes=2)


def open_heartbeat_store(
    context: ParallelContext, host: str, control_group: ControlGroup, timeout: timedelta
) -> dist.TCPStore:
    """Start a TCPStore in rank 0's process and connect all ranks to it. Called by all ranks.

    Args:
        context: the parallel layout.
        host: address of rank 0's machine.
        control_group: sends the port.
        timeout: timeout of a request.
    """
    server = _connect(host, 0, timeout) if context.rank == 0 else None
    port = control_group.gather(server.port if server is not None else 0)[0]
    return server or _connect(host, port, timeout)


def _connect(host: str, port: int, timeout: timedelta) -> dist.TCPStore:
    """Connect to a store; port 0 starts it here."""
    store = dist.TCPStore(host, port, is_master=port == 0, wait_for_workers=False, timeout=_CONNECT_TIMEOUT)
    store.set_timeout(timeout)
    return store
