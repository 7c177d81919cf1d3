"""One error for every way in which a model runs out of memory, with the options that help at this point."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from tape.errors import NO_MEMORY_REMEDY, ConfigError, exhausted_memory


class OutOfMemoryError(ConfigError):
    """This process has not enough memory for what the options ask for."""


@dataclass(frozen=True)
class MemoryRemedies:
    """Options of a command that lower its peak memory.

    Attributes:
        several: those that help only while several sequences are in one pass.
        always: those that also help for a single sequence.
    """

    several: tuple[str, ...] = ()
    always: tuple[str, ...] = ()


@contextmanager
def explain_out_of_memory(work: str, shape: Sequence[int] | None, remedies: MemoryRemedies) -> Iterator[None]:
    """Raise one error if the block runs out of memory, on a GPU or on the CPU.

    Args:
        work: what is computed, such as ``the backward pass``.
        shape: (sequences, tokens of the longest) of the pass; None if the work does not depend on it.
        remedies: what the command offers.

    Raises:
        OutOfMemoryError: there is not enough memory. Names the size of the pass, and what helps.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        memory = exhausted_memory(error)
        if memory is None:
            raise
        sequences = 1 if shape is None else int(shape[0])
        helpful = (*(remedies.several if sequences > 1 else ()), *remedies.always)
        advice = f"give {', or '.join(helpful)}" if helpful else NO_MEMORY_REMEDY
        raise OutOfMemoryError(f"out of {memory}{_size(shape)} in {work}; {advice}") from error


def _size(shape: Sequence[int] | None) -> str:
    if shape is None:
        return ""
    proteins = "1 protein of" if int(shape[0]) == 1 else f"{int(shape[0])} proteins of up to"
    return f" with {proteins} {int(shape[1])} tokens"
