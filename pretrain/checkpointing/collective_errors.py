"""An error on one rank is raised on all ranks, so that none of them waits in a collective for one that has failed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.distributed.checkpoint.api import CheckpointException

from pretrain.parallel import ControlGroup
from tape.errors import CheckpointError, OutputError


def run_on_all_ranks(control_group: ControlGroup, action: Callable[[], Any], failure: str) -> list[Any]:
    """Run ``action`` on every rank and gather the results; called by all ranks together.

    Args:
        control_group: all ranks.
        action: what to run. OSError, OutputError and CheckpointError are passed on to the other ranks; other exceptions
            are not.
        failure: beginning of the error message.

    Returns:
        The results by rank.

    Raises:
        CheckpointError: on all ranks, if ``action`` failed on any.
    """
    result, message = None, None
    try:
        result = action()
    except (OSError, OutputError, CheckpointError) as error:
        message = error_message(error)
    outcomes = control_group.gather((result, message))
    messages = [message for _, message in outcomes if message is not None]
    if messages:
        raise CheckpointError(f"{failure}: {messages[0]}")
    return [value for value, _ in outcomes]


def run_on_main_rank(control_group: ControlGroup, action: Callable[[], Any], failure: str) -> Any:
    """Run ``action`` on rank 0 and return its result on every rank; otherwise as :func:`run_on_all_ranks`."""
    return run_on_all_ranks(control_group, action if control_group.is_main else lambda: None, failure)[0]


def error_message(error: BaseException) -> str:
    """The first line of an error's message; of torch.distributed.checkpoint's errors, that of the first failed rank.

    Raises:
        KeyboardInterrupt, SystemExit: the one that torch.distributed.checkpoint has caught; it ends the process.
    """
    if isinstance(error, CheckpointException) and error.failures:
        rank, (failure, _) = next(iter(error.failures.items()))
        if isinstance(failure, KeyboardInterrupt | SystemExit):
            raise failure
        return f"rank {rank}: {error_message(failure)}"
    if isinstance(error, OutputError):
        return f"{error.reason} ({error.path})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror + (f" ({error.filename})" if error.filename else "")
    return str(error).splitlines()[0] if str(error) else type(error).__name__
