"""The predictions of an evaluation on disk, so that memory does not grow with the split.

The scores of the pairs of 500 residues take 2 MB, so those of a split need not fit into memory. They are pickled to a
temporary file as soon as they are known, and read from there when ``results.pkl`` is written.
"""

from __future__ import annotations

import pickle
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

from tape.errors import ProteinLMError
from tape.io.restricted_pickle import restricted_loads
from tape.io.writing import output_errors
from tape.io.writing.disk_space import nearest_existing
from tape.runtime.distributed import DistributedContext, all_gather_lists

_IN_MEMORY = 16 << 20  # bytes; above, the results are in a file without a name, which ends with the process
_EXCHANGED = 64 << 20  # bytes that each rank sends at a time

PROTOCOL = 3  # of all pickles, so that those of single results become parts of results.pkl; see pickle_body

Result = dict[str, Any]


def pickle_body(value: object) -> bytes:
    """The pickle of a value without header and STOP, to become part of another pickle.

    Up to protocol 3, the objects that a pickle refers to again have explicit numbers, from 0 on. In a pickle of several
    bodies, each assigns them again before it refers to them, and so refers to none of another body.
    """
    return _body(pickle.dumps(value, PROTOCOL))


def _body(pickled: bytes) -> bytes:
    return pickled[len(pickle.PROTO) + 1 : -len(pickle.STOP)]


class SpooledResults(Sequence[Result]):
    """{"id", "prediction", "target"} of each protein, in the order of the data set; added in any order.

    Args:
        proteins: number of proteins.
        folder: on whose disk the temporary file is, which need not exist yet; None: the system's folder
            for temporary files.
    """

    def __init__(self, proteins: int, folder: Path | None = None) -> None:
        self._folder = nearest_existing(Path(tempfile.gettempdir()) if folder is None else folder)
        self._file = tempfile.SpooledTemporaryFile(_IN_MEMORY, "w+b", dir=str(self._folder))  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._places: list[tuple[int, int] | None] = [None] * proteins
        self._end = 0

    def add(self, index: int, result: Result) -> None:
        """Store the result of the protein ``index``.

        Raises:
            OutputError: the disk of the temporary file is full.
        """
        self._append(index, pickle.dumps(result, PROTOCOL))

    def exchange(self, context: DistributedContext) -> None:
        """Add the results of all ranks to those of each.

        Raises:
            ProteinLMError: a protein is missing or was evaluated twice.
            OutputError: the disk of the temporary file is full.
        """
        if context.is_distributed:
            own = [index for index, place in enumerate(self._places) if place is not None]
            parts = list(self._parts(own))
            rounds = max(all_gather_lists([len(parts)], context))
            for number in range(rounds):
                sent = [(i, self._bytes(i)) for i in parts[number]] if number < len(parts) else []
                for rank, received in all_gather_lists([(context.rank, sent)], context):
                    if rank != context.rank:
                        for index, content in received:
                            self._append(index, content)
        missing = self._places.count(None)
        if missing:
            raise ProteinLMError(f"evaluated {len(self) - missing} of {len(self)} proteins")  # the plan is wrong

    def bodies(self) -> Iterator[bytes]:
        """The :func:`pickle_body` of each result in order, as it was added, without unpickling it."""
        return (_body(self._bytes(index)) for index in range(len(self)))

    def __len__(self) -> int:
        return len(self._places)

    @overload
    def __getitem__(self, index: int) -> Result: ...

    @overload
    def __getitem__(self, index: slice) -> list[Result]: ...

    def __getitem__(self, index: int | slice) -> Result | list[Result]:
        if isinstance(index, slice):
            return [self[position] for position in range(*index.indices(len(self)))]
        result: Result = restricted_loads(self._bytes(index), f"prediction {index}")
        return result

    def _append(self, index: int, content: bytes) -> None:
        if self._places[index] is not None:
            raise ProteinLMError(f"protein {index} was evaluated twice")  # the plan is wrong
        with output_errors(self._folder / "predictions"):
            self._file.seek(self._end)
            self._file.write(content)
        self._places[index] = (self._end, len(content))
        self._end += len(content)

    def _bytes(self, index: int) -> bytes:
        place = self._places[index]
        if place is None:
            raise KeyError(index)
        start, size = place
        self._file.seek(start)
        return self._file.read(size)

    def _parts(self, indices: Sequence[int]) -> Iterator[list[int]]:
        """The indices in parts of at most ``_EXCHANGED`` bytes, but at least one result."""
        part: list[int] = []
        size = 0
        for index in indices:
            place = self._places[index]
            length = 0 if place is None else place[1]
            if part and size + length > _EXCHANGED:
                yield part
                part, size = [], 0
            part.append(index)
            size += length
        if part:
            yield part
