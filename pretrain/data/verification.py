"""Compares corpora with the digests in their sidecars: in the background of a run, or before it.

A bit that flips in a ``.bin`` gives another residue, which no other check can find. Reading a large corpus once takes
minutes, so by default a thread of the main process does it while the run trains.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from tape.errors import ConfigError, DataError

from .corpus import read_description
from .indexed_dataset import data_path, description_path, index_path

Batch = TypeVar("Batch")

VERIFICATION_TIMES = ("background", "start", "never")
_FILES: dict[str, Callable[[str], Path]] = {"bin": data_path, "idx": index_path}
_BLOCK_BYTES = 1 << 22
_LOWEST_PRIORITY = 19
_SECONDS_AT_END = 5.0  # a run shorter than the comparison must not wait for all of a large corpus


def verify_corpus(prefix: str, is_stopped: Callable[[], bool] = lambda: False) -> None:
    """Compare the files of a corpus with the digests in its sidecar; nothing is compared without digests.

    Args:
        prefix: path of the corpus without suffix.
        is_stopped: asked after every block; True ends the comparison without a result.

    Raises:
        DataError: a file differs or can't be read. Names it, with both digests.
    """
    description = read_description(prefix)
    for name, expected in description.sha256.items() if description is not None else ():
        if name not in _FILES:
            continue
        path = _FILES[name](prefix)
        found = _digest(path, is_stopped)
        if found is not None and found != expected:
            raise DataError(
                f"{path}: damaged, or changed after it was written: its SHA-256 is {found},"
                f" {description_path(prefix).name} beside it has {expected}; copy the corpus again, or tokenize it"
                " again with preprocess_data.py (--verify-data never reads it as it is)"
            )


def _digest(path: Path, is_stopped: Callable[[], bool]) -> str | None:
    digest, block = hashlib.sha256(), bytearray(_BLOCK_BYTES)
    try:
        with path.open("rb", buffering=0) as stream:
            while size := stream.readinto(block):
                digest.update(memoryview(block)[:size])
                if is_stopped():
                    return None
    except OSError as error:
        raise DataError(f"{path}: can't be read ({error.strerror or error})") from error
    return digest.hexdigest()


class CorpusVerification:
    """Verification of a run's corpora; a context manager, which on exit stops a comparison that is still going on.

    Args:
        prefixes: the corpora.
        when: ``background`` verifies in a thread, whose error is raised between two steps; ``start`` verifies before
            the block; ``never`` does nothing.

    Raises:
        ConfigError: ``when`` is something else.
        DataError: a corpus is damaged; on entry, or by :meth:`check`.
    """

    def __init__(self, prefixes: Iterable[str], when: str) -> None:
        if when not in VERIFICATION_TIMES:
            raise ConfigError(f"--verify-data must be one of {', '.join(VERIFICATION_TIMES)}, not {when}")
        self._prefixes, self._when = tuple(dict.fromkeys(prefixes)), when
        self._stopped = threading.Event()
        self._error: DataError | None = None
        self._thread = threading.Thread(target=self._verify_quietly, name="verify corpora", daemon=True)

    def __enter__(self) -> CorpusVerification:
        if self._when == "background":
            self._thread.start()
        elif self._when == "start":
            for prefix in self._prefixes:
                verify_corpus(prefix)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def check(self) -> None:
        """Raise the error of the comparison, if it has found one."""
        if self._error is not None:
            raise self._error

    def finish(self, seconds: float = _SECONDS_AT_END) -> bool:
        """Wait for the rest of the comparison, at most some seconds, and raise its error.

        Returns:
            Whether it is complete.
        """
        if self._thread.is_alive():
            self._thread.join(seconds)
        self.check()
        return not self._thread.is_alive()

    def checked(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The batches; between two of them an error is raised once it has been found."""
        for batch in batches:
            self.check()
            yield batch

    def _verify_quietly(self) -> None:
        with suppress(OSError, AttributeError):  # Linux only, where each thread has its own priority
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        try:
            for prefix in self._prefixes:
                verify_corpus(prefix, self._stopped.is_set)
        except DataError as error:
            self._error = error
