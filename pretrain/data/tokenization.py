"""Normalization, filtering and tokenization of sequence records, in batches, in this process or in several.

preprocess_data.py applies it to every protein.
"""

from __future__ import annotations

import string
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial

import numpy as np

from tape.errors import ConfigError, DataError
from tape.io.records import Record, ResidueBlock
from tape.tokenizers import IUPAC_VOCAB, TAPETokenizer, normalize_sequence

from .deduplication import DigestSet, protein_digest
from .worker_processes import map_in_processes

DEFAULT_MAX_UNKNOWN_FRACTION = 0.001
DEFAULT_MAX_X_FRACTION = 0.01
UNKNOWN_MEANING = "residues stored as X: X in the input, J, and characters other than letters, gaps and stops"
REPLACED_MEANING = "J and characters other than letters, gaps and stops, which are stored as X"
_REPLACED = ("J_to_X", "other_to_X")  # changes that store another character as X
_NEEDS_NORMALIZATION = 255
_UNKNOWN_ID = IUPAC_VOCAB["X"]
_VALID_CHARACTERS = frozenset(string.ascii_letters + "-.*")  # input of normalize_sequence; X and J are unknown


@dataclass(frozen=True)
class Filters:
    """Rules that omit records or end preprocessing with an error. Omitted records are counted by reason.

    Attributes:
        min_length: minimum number of residues; shorter proteins are omitted.
        max_length: maximum number of residues; longer proteins are omitted. None: no maximum.
        skip_empty: omit empty records and empty files, instead of ending with an error at the first.
        deduplicate: omit proteins whose residues are all equal to those of an earlier one.
        max_unknown_fraction: maximum fraction of characters that are stored as X because the vocabulary has no token
            for them (:data:`REPLACED_MEANING`). X in the input is none of them.
        max_x_fraction: maximum fraction of X in the input, which is a legal residue; None: DEFAULT_MAX_X_FRACTION, and
            a small corpus with more of them causes a notice instead of an error.

    Raises:
        ConfigError: if a value is out of range.
    """

    min_length: int = 1
    max_length: int | None = None
    skip_empty: bool = False
    deduplicate: bool = False
    max_unknown_fraction: float = DEFAULT_MAX_UNKNOWN_FRACTION
    max_x_fraction: float | None = None

    def __post_init__(self) -> None:
        for option, value in (("unknown", self.max_unknown_fraction), ("x", self.max_x_fraction)):
            if value is not None and not 0.0 <= value <= 1.0:  # false for nan too
                raise ConfigError(f"--max-{option}-fraction must lie in [0, 1], not {value}")
        if self.max_length is not None and self.max_length < self.min_length:
            raise ConfigError(f"--max-length {self.max_length} is less than --min-length {self.min_length}")

    def reason(self, length: int, record: Record) -> str | None:
        """The reason for omitting a protein of ``length`` residues; None if it is kept.

        Raises:
            DataError: if it is empty and ``skip_empty`` is not set; the message names file and record.
        """
        if not length:
            if self.skip_empty:
                return "empty"
            raise DataError(f"{record.where}: the record has no residues, only gaps; --skip-empty omits such records")
        if length < self.min_length:
            return "too_short"
        if self.max_length is not None and length > self.max_length:
            return "too_long"
        return None


@dataclass(frozen=True)
class TokenizedBatch:
    """Residue ids of n proteins.

    Attributes:
        ids: concatenated residue ids, uint8 because the vocabulary is small and batches are sent between processes.
        sizes: (n,) number of residues of each protein.
        changes: residues that ``normalize_sequence`` changed, by kind of change.
        filtered: number of omitted records, by reason.
        digests: concatenated digests of the proteins; empty without deduplication.
        first_x, first_replaced: file, record and position of the first X of the input, and of the first other
            character that is stored as X, for messages; empty if there is none.
    """

    ids: np.ndarray
    sizes: np.ndarray
    changes: Counter[str]
    filtered: Counter[str]
    digests: bytes = b""
    first_x: str = ""
    first_replaced: str = ""

    @property
    def unknown(self) -> int:
        """Number of unknown residues: X in the input, and other characters that are stored as X."""
        return int(np.count_nonzero(self.ids == _UNKNOWN_ID))

    def without_duplicates(self, seen: DigestSet) -> TokenizedBatch:
        """Remove proteins that are in ``seen`` or occur earlier in the batch; the others are added to ``seen``."""
        new = seen.add(self.digests)
        if new.all():
            return self
        ids = self.ids[np.repeat(new, self.sizes)]
        counts = self.filtered + Counter(duplicate=int(len(new) - new.sum()))
        return replace(self, ids=ids, sizes=self.sizes[new], filtered=counts, digests=b"")


def tokenize_batches(
    batches: Iterable[list[Record] | ResidueBlock], workers: int, filters: Filters
) -> Generator[TokenizedBatch, None, None]:
    """Tokenize batches, in order; memory is bounded, because only a few batches per worker are in flight.

    Args:
        batches: batches of records, or blocks of a FASTA file.
        workers: number of processes; 1: this process.
        filters: rules that omit records.

    Raises:
        DataError: if a record is empty and that is not allowed; the message names file and record.
        WorkerExitedError: if a worker process exits before its work is done.
    """
    tokenize = partial(_tokenize, filters=filters)
    if workers == 1:
        yield from map(tokenize, batches)
        return
    yield from map_in_processes(tokenize, batches, workers)


def _tokenize(batch: list[Record] | ResidueBlock, filters: Filters) -> TokenizedBatch:
    return tokenize_block(batch, filters) if isinstance(batch, ResidueBlock) else tokenize_batch(batch, filters)


def tokenize_block(block: ResidueBlock, filters: Filters) -> TokenizedBatch:
    """Filter and tokenize a block of a FASTA file; as :func:`tokenize_batch` of its records, but all at once."""
    ids, sizes = _residue_ids(block.codes), block.sizes.astype(np.int32)
    if ids is None:
        return tokenize_batch(list(block.records()), filters)
    filtered = Counter[str]()
    kept = np.ones(len(sizes), dtype=bool)
    for reason, omitted in (("too_short", sizes < filters.min_length), ("too_long", sizes > _longest(filters))):
        filtered += Counter({reason: int(omitted.sum())})
        kept &= ~omitted
    if not kept.all():
        ids, sizes = ids[np.repeat(kept, sizes)], sizes[kept]
    proteins = np.split(ids, np.cumsum(sizes)[:-1]) if filters.deduplicate else []
    digests = b"".join(map(protein_digest, proteins)) if len(sizes) else b""
    unknown = _first_with_unknown(ids, sizes)  # an X: all characters of the block are residues
    first_x = "" if unknown is None else _place_of(_is_x, block.record(int(np.flatnonzero(kept)[unknown])))
    return TokenizedBatch(ids, sizes, Counter(), filtered, digests, first_x)


def _longest(filters: Filters) -> int:
    return np.iinfo(np.int32).max if filters.max_length is None else filters.max_length


def tokenize_batch(records: Sequence[Record], filters: Filters) -> TokenizedBatch:
    """Normalize, filter and tokenize a batch of records.

    The characters of all records are looked up at once; only records with other characters than upper-case residues
    are normalized one by one.
    """
    letters = "".join(record.sequence for record in records).encode("latin-1", "replace")
    ids = _residue_table()[np.frombuffer(letters, dtype=np.uint8)]
    ends = np.cumsum([len(record.sequence) for record in records])
    unusual = set(np.searchsorted(ends, np.flatnonzero(ids == _NEEDS_NORMALIZATION), side="right").tolist())
    kept, origins, changes, filtered, start = [], [], Counter[str](), Counter[str](), 0
    for number, (record, end) in enumerate(zip(records, ends.tolist(), strict=True)):
        protein, changed = _normalize(record) if number in unusual else (ids[start:end], None)
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
    first_x = first_replaced = ""
    if (unknown := _first_with_unknown(joined, sizes)) is not None:
        first_x = _first_place(_is_x, origins[unknown:])
        first_replaced = _first_place(_is_replaced, origins[unknown:]) if replaced_in(changes) else ""
    return TokenizedBatch(joined, sizes, changes, filtered, digests, first_x, first_replaced)


def replaced_in(changes: Mapping[str, int]) -> int:
    """The number of characters that were replaced by X, among changes of residues by kind."""
    return sum(changes.get(kind, 0) for kind in _REPLACED)


@cache
def _residue_table() -> np.ndarray:
    """(256,) residue id of each character code; all but upper-case residues are marked for normalization."""
    tokenizer = TAPETokenizer()
    table = np.full(256, _NEEDS_NORMALIZATION, dtype=np.uint8)
    for residue in tokenizer.residue_ids.tolist():
        table[ord(tokenizer.tokens[residue])] = residue
    return table


def _residue_ids(codes: np.ndarray) -> np.ndarray | None:
    """Ids of upper-case residues; None if there are other characters.

    The ids of the residues follow the alphabet, so that they are a difference, which numpy computes three times as fast
    as it looks them up.

    Args:
        codes: uint8 codes of one character or more, in ASCII.
    """
    first, last, omitted = _residue_letters()
    if codes.min() < first or codes.max() > last or any((codes == letter).any() for letter in omitted):
        return None
    ids = codes - (first - _residue_table()[first])
    for letter in omitted:
        ids -= (codes > letter).view(np.uint8)
    return ids


@cache
def _residue_letters() -> tuple[np.uint8, np.uint8, tuple[np.uint8, ...]]:
    """Codes of the first and the last letter that are residues, and of those between them that are not."""
    table = _residue_table()
    letters = np.flatnonzero(table != _NEEDS_NORMALIZATION).astype(np.uint8)
    omitted = np.setdiff1d(np.arange(letters[0], letters[-1], dtype=np.uint8), letters)
    return letters[0], letters[-1], tuple(omitted)


def _normalize(record: Record) -> tuple[np.ndarray, Counter[str]]:
    invalid = "".join(_invalid_characters(record.sequence))
    text = record.sequence.translate(str.maketrans(invalid, "X" * len(invalid)))
    sequence, changed = normalize_sequence(text, drop_gaps=True)
    if invalid:
        changed["other_to_X"] = sum(map(record.sequence.count, invalid))
    return TAPETokenizer().encode_residues(sequence).astype(np.uint8), changed


def _invalid_characters(sequence: str) -> set[str]:
    return {character for character in set(sequence) - _VALID_CHARACTERS if not character.isspace()}


def _first_with_unknown(ids: np.ndarray, sizes: np.ndarray) -> int | None:
    """Number of the first protein with an unknown residue."""
    position = int((ids == _UNKNOWN_ID).argmax()) if len(ids) else 0
    if not len(ids) or ids[position] != _UNKNOWN_ID:
        return None
    return int(np.searchsorted(np.cumsum(sizes), position, side="right"))


def _is_x(character: str) -> bool:
    return character in "Xx"


def _is_replaced(character: str) -> bool:
    return character in "Jj" or (character not in _VALID_CHARACTERS and not character.isspace())


def _first_place(condition: Callable[[str], bool], records: Iterable[Record]) -> str:
    """File, record, position and character of the first character of that kind; empty if there is none."""
    places = (_place_of(condition, record) for record in records if any(map(condition, set(record.sequence))))
    return next(places, "")


def _place_of(condition: Callable[[str], bool], record: Record) -> str:
    """File, record, position and character of the first character of that kind in a record that has one."""
    position, letter = next((number, letter) for number, letter in enumerate(record.sequence, 1) if condition(letter))
    return f"{record.where}: {letter!r} at position {position}"
