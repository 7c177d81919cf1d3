"""GatheringRanks that write or read together fail together: a problem of one is reported by all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch.distributed.checkpoint.api import CheckpointException

from tape.errors import CheckpointError


class GatheringRanks(Protocol):
    """Whoever can gather values of all ranks: pretrain.parallel's ParallelContext and ControlGroup."""

    @property
    def is_main(self) -> bool: ...

    def gather(self, value: Any) -> list[Any]: ...


def raised_on_all_ranks(ranks: GatheringRanks, action: Callable[[], Any], what: str) -> list[Any]:
    """Results of ``action`` of all ranks; when it fails on any, CheckpointError on all."""
    result, problem = None, None
    try:
        result = action()
    except (OSError, CheckpointError) as error:
        problem = reason_of(error)
    answers = ranks.gather((result, problem))
    problems = [reason for _, reason in answers if reason is not None]
    if problems:
        raise CheckpointError(f"{what}: {problems[0]}")
    return [value for value, _ in answers]


def agreed(ranks: GatheringRanks, action: Callable[[], Any], what: str) -> Any:
    """Result of ``action`` run on rank 0, on every rank; its failure is every rank's."""
    return raised_on_all_ranks(ranks, action if ranks.is_main else lambda: None, what)[0]


def reason_of(error: BaseException) -> str:
    if isinstance(error, CheckpointException) and error.failures:
        rank, (failure, _) = next(iter(error.failures.items()))
        return f"rank {rank}: {reason_of(failure)}"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f" ({error.filename})" if error.filename else "")
    return str(error).splitlines()[0] if str(error) else type(error).__name__
