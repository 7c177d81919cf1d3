#!/usr/bin/env python
"""Tokenize sequence files into a corpus: ``PREFIX_KEY_document.{bin,idx}`` and its sidecar ``.json``.

Reads one or more files in any format of tape.io.records (FASTA, a3m, Stockholm, JSON lines, JSON, CSV, TSV, text,
TAPE's LMDB; also .gz, .bz2, .xz and .zst), or the standard input, as a stream: memory does not grow with the corpus.
Accepts Megatron-LM's options.

    python pretrain/tools/preprocess_data.py --input swissprot.fasta.xz --output-prefix corpus/swissprot

One process is fastest for FASTA, because a thread reads it while its residues are tokenized; more ``--workers`` are for
files that are tokenized record by record.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, replace
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[2])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

import numpy as np

from pretrain.data.corpus import CorpusDescription, CorpusSource
from pretrain.data.deduplication import DigestSet
from pretrain.data.indexed_dataset import LAYOUTS, IndexedDatasetWriter
from pretrain.data.prefetching import prefetched
from pretrain.data.tokenization import DEFAULT_MAX_UNKNOWN_FRACTION, UNKNOWN_MEANING, Filters, tokenize_batches
from pretrain.data.vocabulary import id_output_table
from tape.cli.parser import ArgumentParser
from tape.errors import ConfigError, DataError, print_notice, run_cli
from tape.io.records import FORMATS, Nucleotides, Record, RecordOptions, ResidueBlock, open_blocks
from tape.io.text_files import display_name, file_size, is_stream
from tape.io.vocabulary_files import VocabularyFile, read_vocabulary_file
from tape.io.writing import check_output_directory
from tape.runtime.run_lock import lock_beside, run_lock
from tape.tokenizers import TAPETokenizer

DEFAULT_KEY = "text"
FORMAT_HELP = f"format of the input, for the standard input and unusual names: {', '.join(FORMATS)} (or with .gz ...)"
TOKENIZER_TYPES = ("iupac", "BertWordPieceLowerCase", "BertWordPieceCase")
_BATCH_RESIDUES = 1 << 19
_BATCHES_AHEAD = 4  # read by a thread while earlier ones are tokenized
_PROGRESS_SECONDS = 5.0

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
    progress: Progress | None = None,
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
        max_unknown_fraction, skip_empty, min_length, max_length, deduplicate: see :class:`Filters`.
        progress: called with a line of text every few seconds.

    Raises:
        ConfigError: if an argument is invalid.
        DataError: if a file or record is invalid, or too many residues are unknown; the message names file and record.
    """
    if not inputs:
        raise ConfigError("no input files")
    if workers < 1:
        raise ConfigError(f"the number of workers must be at least 1, not {workers}")
    if len(set(json_keys)) < len(json_keys):
        raise ConfigError(f"--json-keys {' '.join(json_keys)}: every key makes one corpus; give it only once")
    check_output_directory(Path(output_prefix).parent, "--output-prefix: the directory")
    filters = Filters(min_length, max_length, skip_empty, deduplicate, max_unknown_fraction)
    paths = [Path(path) for path in inputs]
    _check_keys(paths, json_keys, records)
    nucleotides = Nucleotides.ALLOW if allow_nucleotides else Nucleotides.REFUSE
    corpora, ids = [], OutputIds.of(vocabulary)
    with ExitStack() as stack:  # the corpora are published together, when all are complete
        prefixes = {key: Path(f"{os.fspath(output_prefix)}_{key}_{level}") for key in json_keys}
        for prefix in prefixes.values():
            stack.enter_context(run_lock(lock_beside(prefix), prefix, "choose another --output-prefix"))
        for key, prefix in prefixes.items():
            column = records if tuple(json_keys) == (DEFAULT_KEY,) else replace(records, sequence_column=key)
            reader = _Reader(paths, column, filters.skip_empty, nucleotides)
            writer = stack.enter_context(IndexedDatasetWriter(prefix, ids.vocab_size, dataset_impl))
            corpora.append(_write_corpus(writer, reader, workers, filters, ids, progress or (lambda line: None)))
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
    writer: IndexedDatasetWriter, reader: _Reader, workers: int, filters: Filters, output: OutputIds, progress: Progress
) -> CorpusSummary:
    started = reported = time.monotonic()
    changes: Counter[str] = Counter()
    filtered: Counter[str] = Counter()
    seen = DigestSet()
    unknown, first_unknown = 0, ""
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
            first_unknown = first_unknown or batch.first_unknown
            if time.monotonic() - reported >= _PROGRESS_SECONDS:
                reported = time.monotonic()
                progress(_progress_line(writer, reader, reported - started))
    filtered.update(+Counter(empty=reader.empty))
    _check_content(reader.paths, writer.tokens, unknown, first_unknown, filters.max_unknown_fraction)
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


def _check_content(paths: Sequence[Path], residues: int, unknown: int, first_unknown: str, limit: float) -> None:
    names = ", ".join(display_name(path) for path in paths[:3]) + (" ..." if len(paths) > 3 else "")
    if not residues:
        raise DataError(f"{names}: no records, or none that passed the filters")
    if unknown > limit * residues:
        raise DataError(
            f"{names}: {unknown:,} of {residues:,} residues ({unknown / residues:.2%}) are unknown, more than "
            f"{limit:.2%}; the first is in {first_unknown} (unknown are {UNKNOWN_MEANING}); if this is intended, "
            "increase --max-unknown-fraction"
        )


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


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.vocab_file_ids and options.vocab_file is None:
        parser.error("--vocab-file-ids writes the ids of --vocab-file, which is missing")
    for line in _notices(options):
        print_notice(line)
    summary = preprocess(
        options.input,
        options.output_prefix,
        options.json_keys,
        options.workers,
        options.max_unknown_fraction,
        records=RecordOptions(options.format, options.sequence_column),
        allow_nucleotides=options.allow_nucleotides,
        level="sentence" if options.split_sentences else "document",
        dataset_impl=options.dataset_impl,
        vocabulary=read_vocabulary_file(options.vocab_file) if options.vocab_file_ids else None,
        skip_empty=options.skip_empty,
        min_length=options.min_length,
        max_length=options.max_length,
        deduplicate=options.deduplicate,
        progress=print_notice,
    )
    for corpus in summary.corpora:
        _print_summary(corpus)


def _print_summary(corpus: CorpusSummary) -> None:
    description = corpus.description
    print(f"{corpus.prefix}: {description.documents:,} documents, {description.tokens:,} residues")
    for title, counts in (("changed", description.substitutions), ("omitted", description.filtered)):
        if counts:
            print(f"  {title}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    if description.unknown["residues"]:
        unknown = description.unknown["residues"]
        print(f"  unknown residues: {unknown:,} ({unknown / description.tokens:.4%})")


def _notices(options: argparse.Namespace) -> Iterator[str]:
    """One line per option that has no effect, with the reason."""
    if options.vocab_file is not None and not options.vocab_file_ids:
        vocabulary = read_vocabulary_file(options.vocab_file)
        if vocabulary.fingerprint != TAPETokenizer().fingerprint:
            yield (
                f"note: {options.vocab_file} has {len(vocabulary.tokens)} tokens; the ids written are those of TAPE's "
                f"{TAPETokenizer().vocab_size}, by token name (--vocab-file-ids writes those of the file)"
            )
    ignored = {
        "--merge-file": (options.merge_file, "proteins are not split into byte pairs"),
        "--append-eod": (options.append_eod, "pretraining puts <cls> and <sep> around every protein"),
        "--keep-newlines": (options.keep_newlines, "white space is removed from sequences"),
    }
    yield from (f"note: {name} is ignored: {reason}" for name, (given, reason) in ignored.items() if given)


def _parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_argument_group("input")
    data.add_argument(
        "--input", nargs="+", required=True, metavar="FILE", help="one or more files; - is the standard input"
    )
    data.add_argument("--format", metavar="FORMAT", help=FORMAT_HELP)
    data.add_argument(
        "--sequence-column",
        "--sequence_column",
        metavar="NAME",
        help="column with the sequence in JSON, tables and LMDB (default: text, primary or sequence)",
    )
    data.add_argument(
        "--allow-nucleotides",
        action="store_true",
        help="accept files whose letters are almost all A, C, G, T, U and N, and the suffixes .fna .ffn .frn",
    )
    data.add_argument("--json-keys", nargs="+", default=[DEFAULT_KEY], help="JSON fields; one corpus each")
    data.add_argument("--split-sentences", action="store_true", help="name the output _sentence, as Megatron-LM")
    data.add_argument("--keep-newlines", action="store_true", help="Megatron-LM's; no effect")
    data.add_argument("--skip-empty", action="store_true", help="omit and count empty records and files")
    data.add_argument("--min-length", type=int, default=1, metavar="N", help="omit shorter proteins")
    data.add_argument("--max-length", type=int, default=None, metavar="N", help="omit longer proteins")
    data.add_argument("--deduplicate", action="store_true", help="keep only the first of identical proteins")
    data.add_argument(
        "--max-unknown-fraction",
        type=float,
        default=DEFAULT_MAX_UNKNOWN_FRACTION,
        metavar="F",
        help=f"maximum fraction of unknown residues (default %(default)s): {UNKNOWN_MEANING}",
    )
    tokens = parser.add_argument_group("vocabulary")
    tokens.add_argument(
        "--tokenizer-type", choices=(*TOKENIZER_TYPES, "GPT2BPETokenizer"), type=_tokenizer, default="iupac"
    )
    tokens.add_argument("--vocab-file", default=None, help="checked; the ids written are TAPE's")
    tokens.add_argument(
        "--vocab-file-ids",
        action="store_true",
        help="write the ids of --vocab-file instead, for Megatron-LM; pretrain_tape.py then needs the same file",
    )
    tokens.add_argument("--merge-file", default=None, help="Megatron-LM's; no effect")
    tokens.add_argument("--append-eod", action="store_true", help="Megatron-LM's; no effect")
    output = parser.add_argument_group("output")
    output.add_argument("--output-prefix", required=True, help="output path without _KEY_document and suffix")
    output.add_argument("--dataset-impl", choices=sorted(LAYOUTS), default="mmap")
    output.add_argument("--workers", type=int, default=1, help="processes that tokenize; 1 is fastest for FASTA")
    output.add_argument("--log-interval", type=int, default=100, help="no effect; progress is shown every 5 seconds")
    return parser


def _tokenizer(name: str) -> str:
    if name == "GPT2BPETokenizer":
        raise argparse.ArgumentTypeError("byte pairs are not supported for proteins; use iupac or BertWordPieceCase")
    return name


if __name__ == "__main__":
    sys.exit(run_cli(main))
