"""How the processes of a run find each other: checks of rank 0's address, and errors that name its variables."""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from tape.errors import ConfigError

from .launch import Launch, check_address

JOIN_SECONDS = 600.0
"""How long processes wait for each other at the start."""
_POLL_SECONDS = 0.2


class RendezvousError(ConfigError):
    """The processes of a run can't find each other. Each process reports what it sees."""


@dataclass(frozen=True)
class Endpoint:
    """Host and port at which rank 0, or torchrun on its behalf, listens."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"MASTER_ADDR={self.host}, MASTER_PORT={self.port}"


def find_endpoint(launch: Launch, environment: Mapping[str, str]) -> Endpoint | None:
    """The endpoint of a run of several processes; None if they meet in a file (``file://``).

    Args:
        launch: this process.
        environment: has MASTER_ADDR and MASTER_PORT, unless ``launch.rendezvous`` contains them.

    Raises:
        RendezvousError: a variable is missing, or its host can't be resolved here.
        ConfigError: a variable has an invalid form.
    """
    url = urlsplit(launch.rendezvous)
    if url.scheme == "file":
        return None
    check_address(environment)
    if url.hostname is not None and url.port is not None:
        endpoint = Endpoint(url.hostname, url.port)
    else:
        for name, meaning in (("MASTER_ADDR", "<host of rank 0>"), ("MASTER_PORT", "<a free port of that host>")):
            if not environment.get(name):
                raise RendezvousError(
                    f"{name} is not set, but WORLD_SIZE={launch.world_size}: start with torchrun, which sets it, or "
                    f"export {name}={meaning} to all processes"
                )
        endpoint = Endpoint(environment["MASTER_ADDR"], int(environment["MASTER_PORT"]))
    try:
        socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise RendezvousError(
            f"MASTER_ADDR={endpoint.host} can't be resolved on {socket.gethostname()} ({reason}): set it to a name or "
            "address of rank 0's host that every host knows"
        ) from None
    return endpoint


def serves_store(launch: Launch, environment: Mapping[str, str]) -> bool:
    """Whether this process listens at the endpoint; False if torchrun does so."""
    return launch.rank == 0 and environment.get("TORCHELASTIC_USE_AGENT_STORE") != "True"


def wait_for_server(endpoint: Endpoint, launch: Launch, seconds: float) -> None:
    """Wait until somebody listens at the endpoint. torch's client would print its own reports of every attempt.

    Args:
        endpoint: where rank 0 listens.
        launch: this process.
        seconds: how long to wait.

    Raises:
        RendezvousError: nobody does for so long.
    """
    deadline = time.monotonic() + seconds
    while True:
        try:
            socket.create_connection((endpoint.host, endpoint.port), timeout=max(1.0, _POLL_SECONDS)).close()
            return
        except OSError as error:
            if time.monotonic() >= deadline:
                raise RendezvousError(
                    f"rank {launch.rank} on {socket.gethostname()}: no answer at {endpoint} for {seconds:.0f} s "
                    f"({error.strerror or error}). Check that rank 0 was started, that MASTER_ADDR is its host, that "
                    "all processes have the same MASTER_PORT, and that its firewall admits this host"
                ) from None
        time.sleep(_POLL_SECONDS)


def explain_failed_store(
    error: Exception, endpoint: Endpoint | None, launch: Launch, seconds: float
) -> RendezvousError:
    """The error for a store that could not be opened, or that not all processes have joined.

    Args:
        error: torch's error.
        endpoint: where the store is, or was to be; None for a file (``file://``).
        launch: this process.
        seconds: how long it has waited for the others.
    """
    text = str(error)
    if endpoint is None:
        return RendezvousError(
            f"rank {launch.rank} on {socket.gethostname()}: not all of the {launch.world_size} processes joined at "
            f"{launch.rendezvous} within {seconds:.0f} s ({_first_line(error)})"
        )
    if "EADDRINUSE" in text or "address already in use" in text.lower():
        return RendezvousError(
            f"MASTER_PORT={endpoint.port} is in use on {socket.gethostname()} by another run, or by one that is still "
            "ending: export another MASTER_PORT to all processes"
        )
    return RendezvousError(
        f"rank {launch.rank} on {socket.gethostname()}: not all of the {launch.world_size} processes joined at "
        f"{endpoint} within {seconds:.0f} s ({_first_line(error)}). Check that all of them were started, with the same "
        "MASTER_ADDR and MASTER_PORT"
    )


def explain_failed_connection(error: Exception, launch: Launch) -> RendezvousError:
    """The error for processes that have met at the endpoint but can't connect to each other."""
    return RendezvousError(
        f"rank {launch.rank} on {socket.gethostname()} can't connect to the other ranks ({_first_line(error)}). If the "
        "hosts have several networks, set GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME to an interface of the shared one"
    )


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines()
    return lines[0][:300].rstrip(".") if lines else type(error).__name__
