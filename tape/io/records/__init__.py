"""Reading files of proteins, with and without labels, for every command.

============  ======================================  ==========================================================
format        suffixes                                content
============  ======================================  ==========================================================
fasta         .fasta .fa .fas .faa .fsa .pep .aa      FASTA; ``;`` begins a comment line; see :mod:`.fasta`
              .mpfa .fna .ffn .frn
a3m           .a3m                                    alignment; gaps are removed, insertions are residues
stockholm     .sto .stk .stockholm                    alignments; gaps are removed
jsonl, json   .jsonl .json                            JSON objects, one per line or in a list
csv, tsv      .csv .tsv                               tables with a header line; see :mod:`.tables`
parquet       .parquet                                tables with columns of any type; see :mod:`.parquet`
text          .txt .tab                               one sequence per line, or ``id<TAB>sequence``
lmdb          .lmdb                                   TAPE's LMDB directories
============  ======================================  ==========================================================

All but Parquet and LMDB may be compressed, with the additional suffix .gz, .bz2, .xz or .zst (which needs the package
``zstandard``). In JSON, tables, Parquet and LMDB, the sequence is the column ``text``, ``primary`` or
``sequence``; a file with several of them is refused, unless one is named. White space inside a sequence ("G C T V") is
removed; everything else is left to :func:`tape.tokenizers.normalize_sequence`. Files are streamed: memory does not grow
with their size (but for Parquet), and a line or record has a limit.
"""

from .formats import FORMATS, LABELED_SUFFIXES, SEQUENCE_SUFFIXES, is_sequence_file, list_suffixes
from .nucleotides import NucleotideCounter
from .reader import Nucleotides, open_blocks, open_records, open_rows
from .record import (
    ID_COLUMNS,
    Record,
    RecordOptions,
    Row,
    check_identifier,
    id_columns,
    names_of,
    sequence_columns,
)
from .residue_blocks import ResidueBlock

__all__ = [
    "FORMATS",
    "ID_COLUMNS",
    "LABELED_SUFFIXES",
    "SEQUENCE_SUFFIXES",
    "NucleotideCounter",
    "Nucleotides",
    "Record",
    "RecordOptions",
    "ResidueBlock",
    "Row",
    "check_identifier",
    "id_columns",
    "is_sequence_file",
    "list_suffixes",
    "names_of",
    "open_blocks",
    "open_records",
    "open_rows",
    "sequence_columns",
]
