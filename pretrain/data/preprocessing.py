"""Tokenization of sequence files into corpora: ``PREFIX_KEY_document.{bin,idx}`` and the sidecar ``.json``."""

from __future__ import annotations

import hashlib
import os
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from tape.errors import ConfigError, DataError, print_notice
from tape.io.records import Nucleotides, Record, RecordOptions, ResidueBlock, open_blocks
from tape.io.text_files import display_name, file_size, is_stream
from tape.io.vocabulary_files import VocabularyFile
from tape.io.writing import check_output_directory
from tape.runtime.run_lock import lock_beside, run_lock
from tape.tokenizers import TAPETokenizer

from .corpus import CorpusDescription, CorpusSource
from .deduplication import DigestSet
from .indexed_dataset import IndexedDatasetWriter
from .prefetching import prefetched
from .tokenization import (
    DEFAULT_MAX_UNKNOWN_FRACTION,
    DEFAULT_MAX_X_FRACTION,
    REPLACED_MEANING,
    UNKNOWN_MEANING,
    Filters,
    replaced_in,
    tokenize_batches,
)
from .vocabulary import id_output_table

DEFAULT_KEY = "text"
_BATCH_RESIDUES = 1 << 19
_BATCHES_AHEAD = 4  # read by a thread while earlier ones are tokenized
_PROGRESS_SECONDS = 5.0
SMALL_CORPUS = 1_000_000  # residues; below, a few proteins with masked regions change the fraction of X

Progress = Callable[[str], None]


@dataclass(frozen=True)
class OutputIds:
    """The ids in which residues are stored.

    Attributes:
        name, fingerprint: the vocabulary, recorded in the sidecar.
        vocab_size: its number of tokens.
        table: the stored id of each id of TAPE's; None if they are the same.
    """

    name: str
    fingerprint: str
    vocab_size: int
    table: np.ndarray | None = None

    @classmethod
    def of(cls, vocabulary: VocabularyFile | None) -> OutputIds:
        """The ids of a vocabulary file; None: TAPE's.

        Raises:
            VocabularyMismatchError: if it lacks a residue.
        """
        tokenizer = TAPETokenizer()
        if vocabulary is None or vocabulary.fingerprint == tokenizer.fingerprint:
            return cls("iupac", tokenizer.fingerprint, tokenizer.vocab_size)
        table = id_output_table(vocabulary, tokenizer)
        return cls(vocabulary.path.name, vocabulary.fingerprint, len(vocabulary.tokens), table)

    def of_residues(self, ids: np.ndarray) -> np.ndarray:
        """The stored ids of TAPE's residue ids."""
        return ids if self.table is None else self.table[ids]


@dataclass(frozen=True)
class CorpusSummary:
    """A corpus that was written."""

    prefix: Path
    description: CorpusDescription
    seconds: float


@dataclass(frozen=True)
class PreprocessSummary:
    """The corpora that :func:`preprocess` wrote, one per JSON key."""

    corpora: tuple[CorpusSummary, ...]

    @property
    def prefix(self) -> Path:
        """Prefix of the first corpus, as ``--data-path`` takes it."""
        return self.corpora[0].prefix

    @property
    def documents(self) -> int:
        return sum(corpus.description.documents for corpus in self.corpora)

    @property
    def tokens(self) -> int:
        return sum(corpus.description.tokens for corpus in self.corpora)


def preprocess(
    inputs: Sequence[str | os.PathLike[str]],
    output_prefix: str | os.PathLike[str],
    json_keys: Sequence[str] = (DEFAULT_KEY,),
    workers: int = 1,
    max_unknown_fraction: float = DEFAULT_MAX_UNKNOWN_FRACTION,
    *,
    records: RecordOptions = RecordOptions(),
    allow_nucleotides: bool = False,
    level: str = "document",
    dataset_impl: str = "mmap",
    vocabulary: VocabularyFile | None = None,
    skip_empty: bool = False,
    min_length: int = 1,
    max_length: int | None = None,
    deduplicate: bool = False,
    max_x_fraction: float | None = None,
    progress: Progress | None = None,
    notify: Progress = print_notice,
) -> PreprocessSummary:
    """Tokenize files into ``{output_prefix}_{key}_{level}.{bin,idx,json}``. After an error, no output exists.

    Args:
        inputs: files in any format of tape.io.records; ``-`` is the standard input.
        output_prefix: beginning of the path of the output.
        json_keys: fields of JSON records; one corpus is written per key. With only the default key, the sequence may
            also be ``primary`` or ``sequence``.
        workers: number of processes that tokenize; 1: this process.
        records: format of the inputs, and their column with the sequence.
        allow_nucleotides: read files whose letters are almost all those of nucleotides.
        level: ``document``, or ``sentence`` as in Megatron-LM's ``--split-sentences`` output; in both cases a protein
            is one document with one sequence.
        dataset_impl: layout of the index: mmap, lazy or cached.
        vocabulary: the vocabulary of the ids to write, for another program; None: TAPE's.
        max_unknown_fraction, max_x_fraction, skip_empty, min_length, max_length, deduplicate: see :class:`Filters`.
        progress: called with a line of text every few seconds.
        notify: called with a notice, such as that of many X in a small corpus.

    Raises:
        ConfigError: if an argument is invalid.
        DataError: if a file or record is invalid, or too many characters are no residue or are X; the message names
            file and record.
    """
    if not inputs:
        raise ConfigError("no input files")
    if workers < 1:
        raise ConfigError(f"the number of workers must be at least 1, not {workers}")
    if len(set(json_keys)) < len(json_keys):
        raise ConfigError(f"--json-keys {' '.join(json_keys)}: every key makes one corpus; give it only once")
    check_output_directory(Path(output_prefix).parent, "--output-prefix: the directory")
    filters = Filters(min_length, max_length, skip_empty, deduplicate, max_unknown_fraction, max_x_fraction)
    paths = [Path(path) for path in inputs]
    _check_keys(paths, json_keys, records)
    nucleotides = Nucleotides.ALLOW if allow_nucleotides else Nucleotides.REFUSE
    corpora, ids, report = [], OutputIds.of(vocabulary), progress or (lambda line: None)
    with ExitStack() as stack:  # the corpora are published together, when all are complete
        prefixes = {key: Path(f"{os.fspath(output_prefix)}_{key}_{level}") for key in json_keys}
        for prefix in prefixes.values():
            stack.enter_context(run_lock(lock_beside(prefix), prefix, "choose another --output-prefix"))
        for key, prefix in prefixes.items():
            column = records if tuple(json_keys) == (DEFAULT_KEY,) else replace(records, sequence_column=key)
            reader = _Reader(paths, column, filters.skip_empty, nucleotides)
            writer = stack.enter_context(IndexedDatasetWriter(prefix, ids.vocab_size, dataset_impl))
            corpora.append(_write_corpus(writer, reader, workers, filters, ids, report, notify))
            writer.complete()
    return PreprocessSummary(tuple(corpora))


def _check_keys(paths: Sequence[Path], json_keys: Sequence[str], records: RecordOptions) -> None:
    if records.sequence_column is not None and tuple(json_keys) != (DEFAULT_KEY,):
        raise ConfigError(
            f"--sequence-column {records.sequence_column} and --json-keys {' '.join(json_keys)} both name the column of"
            " the sequence; give one of them"
        )
    streams = [path for path in paths if is_stream(path)]
    if len(json_keys) > 1 and streams:
        raise ConfigError(f"{display_name(streams[0])}: can be read only once, but --json-keys names several columns")


def _write_corpus(
    writer: IndexedDatasetWriter,
    reader: _Reader,
    workers: int,
    filters: Filters,
    output: OutputIds,
    progress: Progress,
    notify: Progress,
) -> CorpusSummary:
    started = reported = time.monotonic()
    changes: Counter[str] = Counter()
    filtered: Counter[str] = Counter()
    seen = DigestSet()
    unknown, first_x, first_replaced = 0, "", ""
    with (
        closing(reader.batches()) as read,
        closing(tokenize_batches(read, workers, filters)) as batches,  # an error here also kills the workers
    ):
        for batch in batches:
            batch = batch.without_duplicates(seen) if filters.deduplicate else batch
            writer.add(output.of_residues(batch.ids), batch.sizes, np.ones(len(batch.sizes), dtype=np.int64))
            changes.update(batch.changes)
            filtered.update(batch.filtered)
            unknown += batch.unknown
            first_x = first_x or batch.first_x
            first_replaced = first_replaced or batch.first_replaced
            if time.monotonic() - reported >= _PROGRESS_SECONDS:
                reported = time.monotonic()
                progress(_progress_line(writer, reader, reported - started))
    filtered.update(+Counter(empty=reader.empty))
    names = ", ".join(display_name(path) for path in reader.paths[:3]) + (" ..." if len(reader.paths) > 3 else "")
    if not writer.tokens:
        raise DataError(f"{names}: no records, or none that passed the filters")
    replaced = min(unknown, replaced_in(changes))  # duplicates that were omitted are among the changes only
    _check_replaced(names, writer.tokens, replaced, first_replaced, filters.max_unknown_fraction)
    _check_x(names, writer.tokens, unknown - replaced, first_x, filters.max_x_fraction, notify)
    description = CorpusDescription(
        documents=writer.documents,
        tokens=writer.tokens,
        tokenizer=output.name,
        vocabulary_fingerprint=output.fingerprint,
        sources=tuple(reader.sources),
        substitutions=dict(sorted(changes.items())),
        filtered=dict(sorted(filtered.items())),
        unknown={"residues": unknown, "meaning": UNKNOWN_MEANING},
    )
    writer.describe(description.to_dict())
    seconds = time.monotonic() - started
    progress(_progress_line(writer, reader, seconds))
    return CorpusSummary(writer.prefix, description, seconds)


def _progress_line(writer: IndexedDatasetWriter, reader: _Reader, seconds: float) -> str:
    left = seconds / reader.fraction - seconds if reader.fraction else 0.0
    return (
        f"{reader.fraction:4.0%} | {writer.sequences:,} sequences, {writer.tokens:,} residues | "
        f"{writer.tokens / seconds:,.0f} residues/s, {writer.sequences / seconds:,.0f} sequences/s | {left:.0f} s left"
    )


def _check_replaced(names: str, residues: int, replaced: int, first: str, limit: float) -> None:
    """Refuse files with too many characters that are no residue, such as those of another alphabet."""
    if replaced > limit * residues:
        raise DataError(
            f"{names}: {replaced:,} of {residues:,} residues ({replaced / residues:.2%}) are unknown, more than "
            f"{limit:.2%}; the first is in {first} (unknown are {REPLACED_MEANING}); if this is intended, "
            "increase --max-unknown-fraction"
        )


def _check_x(names: str, residues: int, count: int, first: str, limit: float | None, notify: Progress) -> None:
    """Refuse a corpus with too many X, or, if it is small and no limit is given, give notice of them."""
    allowed = DEFAULT_MAX_X_FRACTION if limit is None else limit
    if count <= allowed * residues:
        return
    text = f"{names}: {count:,} of {residues:,} residues ({count / residues:.2%}) are X, more than {allowed:.2%}; the"
    if limit is None and residues < SMALL_CORPUS:
        notify(f"note: {text} first is in {first}; --max-x-fraction makes a limit of it")
    else:
        raise DataError(f"{text} first is in {first}; if this is intended, increase --max-x-fraction")


class _Reader:
    """Yields batches of the records of all files in order, and records the count and hash of every finished file."""

    def __init__(
        self, paths: Sequence[Path], options: RecordOptions, skip_empty: bool, nucleotides: Nucleotides
    ) -> None:
        self.paths = paths
        self.sources: list[CorpusSource] = []
        self.empty = 0
        self._options, self._skip_empty, self._nucleotides = options, skip_empty, nucleotides
        self._size = sum(file_size(path) for path in paths if path.exists())
        self._taken = 0

    def batches(self) -> Generator[list[Record] | ResidueBlock, None, None]:
        """The records of all files, in order; read by a thread, unless a pipe could make it wait forever."""
        if any(map(is_stream, self.paths)):
            yield from self._batches()
        else:
            yield from prefetched(self._batches(), _BATCHES_AHEAD)

    def _batches(self) -> Iterator[list[Record] | ResidueBlock]:
        batch: list[Record] = []
        residues = 0
        for path in self.paths:
            for item in self._items(path):
                if isinstance(item, Record):
                    batch.append(item)
                    residues += len(item.sequence)
                if batch and (residues >= _BATCH_RESIDUES or isinstance(item, ResidueBlock)):
                    yield batch
                    batch, residues = [], 0
                if isinstance(item, ResidueBlock):
                    yield item
        if batch:
            yield batch

    @property
    def fraction(self) -> float:
        """Fraction of the input bytes that have been read."""
        return min(1.0, self._taken / max(1, self._size))

    def _items(self, path: Path) -> Iterator[Record | ResidueBlock]:
        sequences = 0
        digest = hashlib.sha256()
        items = open_blocks(
            path,
            self._options,
            progress=self._note_taken,
            on_empty=self._note_empty if self._skip_empty else _refuse_empty,
            nucleotides=self._nucleotides,
            digest=digest,
        )
        for item in items:
            sequences += 1 if isinstance(item, Record) else len(item)
            yield item
        if not sequences and not self._skip_empty:
            raise DataError(
                f"{display_name(path)}: no records; omit the file, or give --skip-empty to skip empty files"
            )
        self.sources.append(CorpusSource(str(path), digest.hexdigest(), sequences))

    def _note_empty(self, where: str) -> None:
        self.empty += 1

    def _note_taken(self, size: int) -> None:
        self._taken += size


def _refuse_empty(where: str) -> None:
    raise DataError(f"{where}: empty record: a header without residues; --skip-empty omits such records")
