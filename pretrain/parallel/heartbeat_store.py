"""The key-value store through which ranks exchange heartbeats, on connections of its own."""

from __future__ import annotations

import socket
from datetime import timedelta

import torch.distributed as dist

from tape.runtime.rendezvous import RendezvousError

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

    Raises:
        RendezvousError: rank 0's machine does not admit the connection.
    """
    server = _connect(host, 0, timeout) if context.rank == 0 else None
    port = control_group.gather(server.port if server is not None else 0)[0]
    if server is not None:
        return server
    try:
        return _connect(host, port, timeout)
    except dist.DistError as error:
        raise RendezvousError(
            f"rank {context.rank} on {socket.gethostname()} can't connect to port {port} of {host}, which rank 0 has "
            "opened: the hosts of a run must admit connections from each other on all ports"
        ) from error


def _connect(host: str, port: int, timeout: timedelta) -> dist.TCPStore:
    """Connect to a store; port 0 starts it here."""
    store = dist.TCPStore(host, port, is_master=port == 0, wait_for_workers=False, timeout=_CONNECT_TIMEOUT)
    store.set_timeout(timeout)
    return store
