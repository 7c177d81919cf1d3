#!/usr/bin/env python
"""Sequences -> tokenised corpus: ``PREFIX_KEY_document.{bin,idx}`` and its sidecar ``.json``.

Reads every format of tape.io.sequences (FASTA, Stockholm, JSON lines, JSON, CSV, text, TAPE's LMDB; also .gz, .xz and
.zst), one file or many, and streams: memory does not grow with the corpus. Takes Megatron's options.

    python pretrain/tools/preprocess_data.py --input swissprot.fasta.xz --output-prefix corpus/swissprot --workers 2
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[2])

import numpy as np

from pretrain.data.corpus import CorpusDescription, CorpusSource
from pretrain.data.deduplication import DigestSet
from pretrain.data.indexed_dataset import LAYOUTS, IndexedDatasetWriter
from pretrain.data.tokenization import DEFAULT_MAX_UNKNOWN_FRACTION, UNKNOWN_MEANING, Filters, tokenize_batches
from tape.errors import ConfigError, DataError, run_cli
from tape.io.checksums import sha256_of
from tape.io.sequences import SEQUENCE_KEYS, SequenceRecord, read_sequences
from tape.io.text_files import file_size
from tape.io.vocabulary_files import read_vocabulary_file
from tape.tokenizers import TAPETokenizer

DEFAULT_KEY = "text"
TOKENIZER_TYPES = ("iupac", "BertWordPieceLowerCase", "BertWordPieceCase")
_BATCH_RESIDUES = 1 << 19
_PROGRESS_SECONDS = 5.0

Progress = Callable[[str], None]


@dataclass(frozen=True)
class CorpusSummary:
    """One corpus that was written."""

    prefix: Path
    description: CorpusDescription
    seconds: float


@dataclass(frozen=True)
class PreprocessSummary:
    """What :func:`preprocess` wrote: one corpus a JSON key."""

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
    level: str = "document",
    dataset_impl: str = "mmap",
    skip_empty: bool = False,
    min_length: int = 1,
    max_length: int | None = None,
    deduplicate: bool = False,
    progress: Progress | None = None,
) -> PreprocessSummary:
    """Tokenise files into ``{output_prefix}_{key}_{level}.{bin,idx,json}``, all of it or nothing.

    Args:
        inputs: files in any format of tape.io.sequences.
        output_prefix: beginning of the output's path.
        json_keys: one corpus is written for each. With the default alone, ``primary`` and ``sequence`` are tried too.
        workers: processes that tokenise (1: this one).
        level: ``document``, or ``sentence`` as Megatron names its ``--split-sentences`` output; one protein is one
            document of one sequence either way.
        dataset_impl: layout of the index: mmap, lazy or cached.
        max_unknown_fraction, skip_empty, min_length, max_length, deduplicate: see :class:`Filters`.
        progress: takes one line of text now and then.

    Raises:
        DataError: a file or record can't be used, or too many residues are unknown; names file and record.
    """
    if not inputs:
        raise ConfigError("no input files")
    if workers < 1:
        raise ConfigError(f"the number of workers must be at least 1, not {workers}")
    if len(set(json_keys)) < len(json_keys):
        raise ConfigError(f"--json-keys {' '.join(json_keys)}: each key makes one corpus, so give it once")
    filters = Filters(min_length, max_length, skip_empty, deduplicate, max_unknown_fraction)
    paths = [Path(path) for path in inputs]
    for path in paths:
        if path.is_fifo():  # opening one waits for a writer, and a second reading, for its hash, would wait for ever
            raise DataError(f"{path}: a pipe; inputs are read twice, so write it to a file first")
    corpora = []
    with ExitStack() as stack:  # no corpus takes its name before all are whole
        for key in json_keys:
            keys = SEQUENCE_KEYS if tuple(json_keys) == (DEFAULT_KEY,) else (key,)
            prefix = Path(f"{os.fspath(output_prefix)}_{key}_{level}")
            writer = stack.enter_context(IndexedDatasetWriter(prefix, TAPETokenizer().vocab_size, dataset_impl))
            corpora.append(_write_corpus(writer, paths, keys, workers, filters, progress or (lambda line: None)))
            writer.complete()
    return PreprocessSummary(tuple(corpora))


def _write_corpus(
    writer: IndexedDatasetWriter,
    paths: Sequence[Path],
    keys: Sequence[str],
    workers: int,
    filters: Filters,
    progress: Progress,
) -> CorpusSummary:
    started = reported = time.monotonic()
    reader = _Reader(paths, keys, filters.skip_empty)
    changes: Counter[str] = Counter()
    filtered: Counter[str] = Counter()
    seen = DigestSet()
    unknown, first_unknown = 0, ""
    with closing(tokenize_batches(reader, workers, filters)) as batches:  # an error here also kills the workers
        for batch in batches:
            batch = batch.without_duplicates(seen) if filters.deduplicate else batch

            writer.add(batch.ids, batch.sizes, np.ones(len(batch.sizes), dtype=np.int64))
            changes.update(batch.changes)
            filtered.update(batch.filtered)
            unknown += batch.unknown
            first_unknown = first_unknown or batch.first_unknown
            if time.monotonic() - reported >= _PROGRESS_SECONDS:
                reported = time.monotonic()
                progress(_progress_line(writer, reader, reported - started))
    filtered.update(+Counter(empty=reader.empty))
    _check_content(paths, writer.tokens, unknown, first_unknown, filters.max_unknown_fraction)
    description = CorpusDescription(
        documents=writer.documents,
        tokens=writer.tokens,
        tokenizer="iupac",
        vocabulary_fingerprint=TAPETokenizer().fingerprint,
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
    names = ", ".join(str(path) for path in paths[:3]) + (" ..." if len(paths) > 3 else "")
    if not residues:
        raise DataError(f"{names}: no record there, or none that passed the filters")
    if unknown > limit * residues:
        raise DataError(
            f"{names}: {unknown:,} of {residues:,} residues ({unknown / residues:.2%}) are unknown, more than "
            f"{limit:.2%}; the first is in {first_unknown} (unknown are {UNKNOWN_MEANING}); if that is right, raise "
            "--max-unknown-fraction"
        )


class _Reader:
    """Batches of records of all files in order; keeps the count and hash of every file it has gone through."""

    def __init__(self, paths: Sequence[Path], keys: Sequence[str], skip_empty: bool) -> None:
        self.sources: list[CorpusSource] = []
        self.empty = 0
        self._paths, self._keys, self._skip_empty = paths, keys, skip_empty
        self._size = sum(file_size(path) for path in paths if path.exists())
        self._taken = 0

    def __iter__(self) -> Iterator[list[SequenceRecord]]:
        batch: list[SequenceRecord] = []
        residues = 0
        for path in self._paths:
            for record in self._records(path):
                batch.append(record)
                residues += len(record.sequence)
                if residues >= _BATCH_RESIDUES:
                    yield batch
                    batch, residues = [], 0
        if batch:
            yield batch

    @property
    def fraction(self) -> float:
        """Part of the input, in bytes, that was taken in."""
        return min(1.0, self._taken / max(1, self._size))

    def _records(self, path: Path) -> Iterator[SequenceRecord]:
        sequences = 0
        on_empty = self._note_empty if self._skip_empty else _refuse_empty
        for record in read_sequences(path, self._keys, self._note_taken, on_empty):
            sequences += 1
            yield record
        if not sequences and not self._skip_empty:
            raise DataError(f"{path}: no record there; leave it out, or give --skip-empty to pass over empty files")
        self.sources.append(CorpusSource(str(path), sha256_of(path / "data.mdb" if path.is_dir() else path), sequences))

    def _note_empty(self, where: str) -> None:
        self.empty += 1

    def _note_taken(self, size: int) -> None:
        self._taken += size


def _refuse_empty(where: str) -> None:
    raise DataError(f"{where}: empty record: a header without residues; give --skip-empty to leave such records out")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    options = _parser().parse_args(arguments)
    for line in _notices(options):
        print(line, file=sys.stderr)
    signal.signal(signal.SIGTERM, _interrupt)  # a terminated run cleans up as an interrupted one does
    summary = preprocess(
        options.input,
        options.output_prefix,
        options.json_keys,
        options.workers,
        options.max_unknown_fraction,
        level="sentence" if options.split_sentences else "document",
        dataset_impl=options.dataset_impl,
        skip_empty=options.skip_empty,
        min_length=options.min_length,
        max_length=options.max_length,
        deduplicate=options.deduplicate,
        progress=lambda line: print(line, file=sys.stderr, flush=True),
    )
    for corpus in summary.corpora:
        _print_summary(corpus)


def _interrupt(number: int, frame: object) -> None:
    raise KeyboardInterrupt


def _print_summary(corpus: CorpusSummary) -> None:
    description = corpus.description
    print(f"{corpus.prefix}: {description.documents:,} documents, {description.tokens:,} residues")
    for title, counts in (("changed", description.substitutions), ("left out", description.filtered)):
        if counts:
            print(f"  {title}: " + ", ".join(f"{name} {count:,}" for name, count in counts.items()))
    if description.unknown["residues"]:
        unknown = description.unknown["residues"]
        print(f"  unknown residues: {unknown:,} ({unknown / description.tokens:.4%})")


def _notices(options: argparse.Namespace) -> Iterator[str]:
    """What the user asked for that has no effect here, and why."""
    if options.vocab_file is not None:
        vocabulary = read_vocabulary_file(options.vocab_file)
        if vocabulary.fingerprint != TAPETokenizer().fingerprint:
            yield (
                f"note: {options.vocab_file} has {len(vocabulary.tokens)} tokens; the ids written are those of TAPE's "
                f"{TAPETokenizer().vocab_size}, by token name"
            )
    ignored = {
        "--merge-file": (options.merge_file, "proteins are not split into byte pairs"),
        "--append-eod": (options.append_eod, "pretraining puts <cls> and <sep> around every protein"),
        "--keep-newlines": (options.keep_newlines, "white space is no residue"),
    }
    yield from (f"note: {name} is ignored: {reason}" for name, (given, reason) in ignored.items() if given)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    data = parser.add_argument_group("input")
    data.add_argument("--input", nargs="+", required=True, metavar="FILE", help="one file or many")
    data.add_argument("--json-keys", nargs="+", default=[DEFAULT_KEY], help="fields of JSON; a corpus for each")
    data.add_argument("--split-sentences", action="store_true", help="name the output _sentence (a protein is one)")
    data.add_argument("--keep-newlines", action="store_true", help="Megatron's; no effect")
    data.add_argument("--skip-empty", action="store_true", help="leave out empty records and files; counted")
    data.add_argument("--min-length", type=int, default=1, metavar="N", help="leave out shorter proteins")
    data.add_argument("--max-length", type=int, default=None, metavar="N", help="leave out longer proteins")
    data.add_argument("--deduplicate", action="store_true", help="keep the first of equal proteins, count the others")
    data.add_argument(
        "--max-unknown-fraction",
        type=float,
        default=DEFAULT_MAX_UNKNOWN_FRACTION,
        metavar="F",
        help=f"largest part of residues that may be unknown (default %(default)s): {UNKNOWN_MEANING}",
    )
    tokens = parser.add_argument_group("vocabulary")
    tokens.add_argument(
        "--tokenizer-type", choices=(*TOKENIZER_TYPES, "GPT2BPETokenizer"), type=_tokenizer, default="iupac"
    )
    tokens.add_argument("--vocab-file", default=None, help="checked and named; ids written are always TAPE's")
    tokens.add_argument("--merge-file", default=None, help="Megatron's; no effect")
    tokens.add_argument("--append-eod", action="store_true", help="Megatron's; no effect")
    output = parser.add_argument_group("output")
    output.add_argument("--output-prefix", required=True, help="path of the output without _KEY_document and suffix")
    output.add_argument("--dataset-impl", choices=sorted(LAYOUTS), default="mmap")
    output.add_argument("--workers", type=int, default=1, help="processes that tokenise")
    output.add_argument("--log-interval", type=int, default=100, help="Megatron's; progress is shown every 5 seconds")
    return parser


def _tokenizer(name: str) -> str:
    if name == "GPT2BPETokenizer":
        raise argparse.ArgumentTypeError("byte pairs do not fit proteins; use iupac or BertWordPieceCase")
    return name


if __name__ == "__main__":
    sys.exit(run_cli(main))
