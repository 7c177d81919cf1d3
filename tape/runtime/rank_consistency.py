"""What all ranks of a run must see alike at its start: files that they read, and a directory that they write to.

Hosts with disks of their own make a run that is silently wrong, or hangs, or saves what can't be loaded. All functions
here are called by all ranks together, and raise the same error on each of them.
"""

from __future__ import annotations

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.errors import ConfigError

Gather = Callable[[Any], list[Any]]
"""Takes a picklable value of this rank; returns those of all ranks, in the order of the ranks."""

# NFS clients may take some time to see each other's files
_CACHE_SECONDS = 3.0
_POLL_SECONDS = 0.25


@dataclass(frozen=True)
class Observation:
    """Something that all ranks must see alike.

    Attributes:
        subject: what it is, with the option that names it, such as ``--load checkpoints/run``.
        seen: what this rank sees, such as ``iter_0000100 (metadata 1f2e)``.
        remedy: what the user can do if ranks differ.
    """

    subject: str
    seen: str
    remedy: str


def check_observations(observations: Sequence[Observation], gather: Gather) -> None:
    """Compare the observations of all ranks.

    Args:
        observations: those of this rank; all ranks have the same subjects in the same order, but may see fewer.
        gather: over all ranks.

    Raises:
        ConfigError: two ranks see something different. Names the ranks, their hosts and what each of them sees.
    """
    views = gather((socket.gethostname(), [item.seen for item in observations]))
    for number, item in enumerate(observations):
        places: dict[tuple[str, str], list[int]] = {}
        for rank, (host, seen) in enumerate(views):
            places.setdefault((host, seen[number] if number < len(seen) else "nothing"), []).append(rank)
        if len({seen for _, seen in places}) > 1:
            differences = "; ".join(f"{_ranks(ranks)} on {host}: {seen}" for (host, seen), ranks in places.items())
            raise ConfigError(f"{item.subject}: the ranks see different things: {differences}. {item.remedy}")


def check_shared_directory(option: str, directory: Path, rank: int, gather: Gather) -> None:
    """Check with a file per rank that all ranks write to the same directory, and can.

    Args:
        option: the option that names it, such as ``--save``.
        directory: exists on rank 0.
        rank: this rank.
        gather: over all ranks.

    Raises:
        ConfigError: a rank can't write there, or doesn't see the file of another one. Names rank and host.
    """
    token = gather(uuid.uuid4().hex)[0]

    def probe(of_rank: int) -> Path:
        return directory / f".probe.{token}.{of_rank}"

    try:
        problem = _write_probe(probe(rank))
        writers = [of_rank for of_rank, failed in enumerate(gather(problem)) if failed is None]
        read = writers if rank == 0 else writers[:1]
        views = gather((socket.gethostname(), problem, _unseen(read, probe)))
    finally:
        with suppress(OSError):
            probe(rank).unlink()
    hosts = [host for host, _, _ in views]
    for number, (host, failure, unseen) in enumerate(views):
        if failure is not None:
            finding = f"rank {number} on {host} can't write there ({failure})"
        elif unseen:
            other = unseen[0]
            finding = (
                f"rank {number} on {host} does not see the file that rank {other} on {hosts[other]} has written there"
            )
        else:
            continue
        raise ConfigError(f"{option} {directory}: {finding}. {option} must be on a file system that all hosts share")


def _write_probe(probe: Path) -> str | None:
    """Create the file; the reason if that is not possible."""
    deadline = time.monotonic() + _CACHE_SECONDS
    while True:
        try:
            probe.touch()
            return None
        except OSError as error:
            if not isinstance(error, FileNotFoundError) or time.monotonic() >= deadline:
                return error.strerror or type(error).__name__
        time.sleep(_POLL_SECONDS)


def _unseen(ranks: Iterable[int], probe: Callable[[int], Path]) -> list[int]:
    """Those of ``ranks`` whose files can't be seen."""
    deadline = time.monotonic() + _CACHE_SECONDS
    missing = list(ranks)
    while (missing := [rank for rank in missing if not _can_open(probe(rank))]) and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)
    return missing


def _can_open(path: Path) -> bool:
    try:
        os.close(os.open(path, os.O_RDONLY))  # opening asks the server, where a client might answer stat by itself
    except OSError:
        return False
    return True


def _ranks(ranks: Sequence[int]) -> str:
    """``rank 3``, ``ranks 0-3`` or ``ranks 0, 2``."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    if ranks[-1] - ranks[0] + 1 == len(ranks):
        return f"ranks {ranks[0]}-{ranks[-1]}"
    return f"ranks {', '.join(map(str, ranks))}"
