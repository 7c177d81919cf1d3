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
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[2])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

from pretrain.data.indexed_dataset import LAYOUTS
from pretrain.data.preprocessing import DEFAULT_KEY, SMALL_CORPUS, CorpusSummary, preprocess
from pretrain.data.tokenization import DEFAULT_MAX_UNKNOWN_FRACTION, DEFAULT_MAX_X_FRACTION, REPLACED_MEANING
from tape.cli.parser import ArgumentParser
from tape.errors import print_notice, run_cli
from tape.io.records import FORMATS, RecordOptions
from tape.io.vocabulary_files import read_vocabulary_file
from tape.tokenizers import TAPETokenizer

FORMAT_HELP = f"format of the input, for the standard input and unusual names: {', '.join(FORMATS)} (or with .gz ...)"
TOKENIZER_TYPES = ("iupac", "BertWordPieceLowerCase", "BertWordPieceCase")


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    parser = make_parser()
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
        max_x_fraction=options.max_x_fraction,
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


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
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
        help="column with the sequence in JSON, tables and LMDB (default: text, primary, sequence or a usual name)",
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
        help=f"maximum fraction of unknown residues (default %(default)s): {REPLACED_MEANING}",
    )
    data.add_argument(
        "--max-x-fraction",
        type=float,
        metavar="F",
        help=f"maximum fraction of X in the input (default: {DEFAULT_MAX_X_FRACTION}; in a corpus of less than"
        f" {SMALL_CORPUS:,} residues, more of them cause a notice)",
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
