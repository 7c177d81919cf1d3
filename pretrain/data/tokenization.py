"""Records -> residue ids, in batches, by this process or several: what preprocess_data.py does to every protein."""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from tape.errors import ConfigError, DataError
from tape.io.sequences import SequenceRecord
from tape.tokenizers import IUPAC_VOCAB, TAPETokenizer, normalize_sequence

from .deduplication import DigestSet, protein_digest
from .worker_processes import map_in_processes

DEFAULT_MAX_UNKNOWN_FRACTION = 0.001
UNKNOWN_MEANING = "residues stored as X: X in the input, J, and characters other than letters, gaps and stops"
_NO_RESIDUE = 255
_UNKNOWN = IUPAC_VOCAB["X"]
_READABLE = frozenset(string.ascii_letters + "-.*")  # what normalize_sequence takes; X and J are unknown


@dataclass(frozen=True)
class Filters:
    """Which records are left out, and what stops the run.

    Attributes:
        min_length, max_length: residues; records outside are left out and counted.
        skip_empty: leave out and count empty records instead of stopping at the first, and pass over empty files.
        deduplicate: leave out and count proteins that are equal, residue by residue, to an earlier one.
        max_unknown_fraction: largest part of residues that may be unknown: X, and what is written as X because the
            vocabulary has nothing for it, J and characters that are no residue (see :data:`UNKNOWN_MEANING`).
    """

    min_length: int = 1
    max_length: int | None = None
    skip_empty: bool = False
    deduplicate: bool = False
    max_unknown_fraction: float = DEFAULT_MAX_UNKNOWN_FRACTION

    def __post_init__(self) -> None:
        if not 0.0 <= self.max_unknown_fraction <= 1.0:  # false for nan too
            raise ConfigError(f"--max-unknown-fraction must lie in [0, 1], not {self.max_unknown_fraction}")
        if self.max_length is not None and self.max_length < self.min_length:
            raise ConfigError(f"--max-length {self.max_length} is less than --min-length {self.min_length}")

    def reason(self, length: int, record: SequenceRecord) -> str | None:
        """Why a protein of so many residues is left out, None when it is kept.

        Raises:
            DataError: it is empty, and that wasn't allowed.
        """
        if not length:
            if self.skip_empty:
                return "empty"
            raise DataError(
                f"{record.where}: empty record: nothing but gaps; give --skip-empty to leave such records out"
            )
        if length < self.min_length:
            return "too_short"
        if self.max_length is not None and length > self.max_length:
            return "too_long"
        return None


@dataclass(frozen=True)
class TokenisedBatch:
    """Several proteins.

    Attributes:
        ids: residues of all of them, one after another, uint8: the vocabulary is small, and it travels.
        sizes: (n,) residues of each.
        changes: what normalize_sequence changed, by kind.
        filtered: records left out, by reason.
        digests: of each protein, joined; empty unless duplicates are wanted out.
        first_unknown: where the first unknown residue stands and what it is, for a message; empty when there is none.
    """

    ids: np.ndarray
    sizes: np.ndarray
    changes: Counter[str]
    filtered: Counter[str]
    digests: bytes = b""
    first_unknown: str = ""

    @property
    def unknown(self) -> int:
        """Residues that are X."""
        return int(np.count_nonzero(self.ids == _UNKNOWN))

    def without_seen(self, seen: DigestSet) -> TokenisedBatch:
        """The batch without proteins that ``seen`` holds or that come twice; they are added to it."""
        new = seen.add(self.digests)
        if new.all():
            return self
        ids = self.ids[np.repeat(new, self.sizes)]
        counts = self.filtered + Counter(duplicate=int(len(new) - new.sum()))
        return replace(self, ids=ids, sizes=self.sizes[new], filtered=counts, digests=b"")


def tokenise_all(
    batches: Iterable[list[SequenceRecord]], workers: int, filters: Filters
) -> Generator[TokenisedBatch, None, None]:
    """Tokenised batches in order. At most a few a worker are under way, so that memory is bounded.

    Raises:
        DataError: a record is empty; names file and record.
        WorkerEndedError: a process ended before its work was done.
    """
    tokenise = partial(tokenise_batch, filters=filters)
    if workers == 1:
        yield from map(tokenise, batches)
        return
    yield from map_in_processes(tokenise, batches, workers)


def tokenise_batch(records: Sequence[SequenceRecord], filters: Filters) -> TokenisedBatch:
    """Normalise, filter and tokenise some records.

    All letters are looked up at once; only records that hold anything but upper-case residues are taken apart.
    """
    letters = "".join(record.sequence for record in records).encode("latin-1", "replace")
    ids = _residue_table()[np.frombuffer(letters, dtype=np.uint8)]
    ends = np.cumsum([len(record.sequence) for record in records])
    unusual = set(np.searchsorted(ends, np.flatnonzero(ids == _NO_RESIDUE), side="right").tolist())
    kept, origins, changes, filtered, start = [], [], Counter[str](), Counter[str](), 0
    for number, (record, end) in enumerate(zip(records, ends.tolist(), strict=True)):
        protein, changed = _normalised(record) if number in unusual else (ids[start:end], None)
        start = end
        reason = filters.reason(len(protein), record)
        if reason:
            filtered[reason] += 1
            continue
        if changed:
            changes.update(changed)
        kept.append(protein)
        origins.append(record)
    sizes = np.array([len(protein) for protein in kept], dtype=np.int32)
    digests = b"".join(map(protein_digest, kept)) if filters.deduplicate else b""
    joined = np.concatenate(kept) if kept else np.zeros(0, dtype=np.uint8)
    return TokenisedBatch(joined, sizes, changes, filtered, digests, _first_unknown(origins, joined, sizes))


@cache
def _residue_table() -> np.ndarray:
    """Character code -> id of the upper-case residues; everything else, also what needs a change, is marked."""
    tokenizer = TAPETokenizer()
    table = np.full(256, _NO_RESIDUE, dtype=np.uint8)
    for residue in tokenizer.residue_ids.tolist():
        table[ord(tokenizer.tokens[residue])] = residue
    return table


def _normalised(record: SequenceRecord) -> tuple[np.ndarray, Counter[str]]:
    others = "".join(_unreadable(record.sequence))
    text = record.sequence.translate(str.maketrans(others, "X" * len(others)))
    sequence, changed = normalize_sequence(text, drop_gaps=True)
    if others:
        changed["other_to_X"] = sum(map(record.sequence.count, others))
    return TAPETokenizer().encode_residues(sequence).astype(np.uint8), changed


def _unreadable(sequence: str) -> set[str]:
    return {character for character in set(sequence) - _READABLE if not character.isspace()}


def _first_unknown(records: Sequence[SequenceRecord], ids: np.ndarray, sizes: np.ndarray) -> str:
    """File, record and place of the first X among the ids of so many records, and what the file has there."""
    unknown = np.flatnonzero(ids == _UNKNOWN)
    if not len(unknown):
        return ""
    record = records[int(np.searchsorted(np.cumsum(sizes), unknown[0], side="right"))]
    letters = _unreadable(record.sequence) | set("XxJj")
    position = next(number for number, letter in enumerate(record.sequence) if letter in letters)
    return f"{record.where}: {record.sequence[position]!r} at position {position + 1}"
