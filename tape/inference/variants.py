"""Reading substitution variants such as ``A123G`` or ``A123G:V7L``, and checking them against the wild type.

A file of variants is a table (.csv, .tsv, .jsonl ..., optionally compressed) with the column ``mutations`` (or
``mutant``, as in ProteinGym, but not both) and, if there are several proteins, ``protein``. Other columns are kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.errors import DataError, UnknownResidueError, listed, quoted
from tape.io.records import Record, RecordOptions, Row, open_records, open_rows
from tape.tokenizers import normalize_sequence

# The scores of a variant; :mod:`tape.inference.variant_effects` has their formulas.
METHODS = (
    "wild_type_marginal",
    "masked_marginal",
    "mutant_marginal",
    "pseudo_likelihood_ratio",
    "pseudo_perplexity",
)
MUTATION_COLUMNS = ("mutations", "mutant")
PROTEIN_COLUMN = "protein"
_MUTATION = re.compile(r"([A-Z])(\d+)([A-Z])")
_WILD_TYPE = frozenset({"WT", "_WT"})


@dataclass(frozen=True)
class Variant:
    """One variant of a protein.

    Attributes:
        protein: name of the protein.
        sequence: sequence of the variant.
        positions: substituted positions from 0, in ascending order; empty for the wild type.
        fields: the variant's row of the table.
    """

    protein: str
    sequence: str
    positions: tuple[int, ...]
    fields: Mapping[str, Any]


def read_proteins(source: str, options: RecordOptions = RecordOptions()) -> dict[str, str]:
    """Read wild-type sequences by name.

    Args:
        source: a sequence file, or a single sequence.
        options: format and columns of the file.

    Raises:
        DataError: ``source`` is neither a valid file nor a sequence, or two proteins have the same name.
    """
    path = Path(source)
    # not Path.exists(), which raises if the name is too long for a file
    if path.suffix == "" and path.name == source and not os.path.exists(path):
        return {"wild type": normalize_sequence(source, drop_gaps=False, drop_stop=True)[0]}
    proteins: dict[str, str] = {}
    for record in open_records(path, options):
        if record.name in proteins:
            raise DataError(f"{record.where}: a second protein named {quoted(record.name)}; names must be unique")
        proteins[record.name] = _wild_type(record)
    if not proteins:
        raise DataError(f"{path}: contains no protein")
    return proteins


def _wild_type(record: Record) -> str:
    try:
        return normalize_sequence(record.residues, drop_gaps=False, drop_stop=True)[0]
    except UnknownResidueError as error:
        raise UnknownResidueError(f"{record.where}: {error}") from None


def read_variants(
    path: str,
    proteins: Mapping[str, str],
    first_residue: int = 1,
    options: RecordOptions = RecordOptions(),
    mutation_column: str | None = None,
) -> list[Variant]:
    """Read the variants of a file, in file order.

    Args:
        path: the table.
        proteins: wild-type sequences by name.
        first_residue: number of the first residue of a sequence in the notation of the variants.
        options: format of the table.
        mutation_column: column with the mutations; None: ``mutations`` or ``mutant``.

    Raises:
        DataError: the file or a column is missing, a protein is unknown, or a variant does not match its wild type.
            Names file and record.
    """
    variants = []
    for row in open_rows(path, options):
        column = _mutation_column(row, mutation_column)
        name = _protein_name(row.fields, proteins, row.where)
        where = f"{row.where}, protein {quoted(name)}"
        sequence, positions = apply_mutations(str(row.fields[column]), proteins[name], first_residue, where)
        variants.append(Variant(name, sequence, positions, row.fields))
    if not variants:
        raise DataError(f"{path}: contains no variant")
    return variants


def _mutation_column(row: Row, requested: str | None) -> str:
    allowed = MUTATION_COLUMNS if requested is None else (requested,)
    present = [name for name in allowed if row.fields.get(name) is not None]
    if not present:
        names = " or ".join(MUTATION_COLUMNS) if requested is None else quoted(requested)
        raise DataError(f"{row.where}: no column {names}; it has {listed(row.fields)}")
    if len(present) > 1:
        raise DataError(
            f"{row.where}: {' and '.join(map(repr, present))} may both be the mutations; choose one with"
            " --mutation_column NAME"
        )
    return present[0]


def _protein_name(fields: Mapping[str, Any], proteins: Mapping[str, str], where: str) -> str:
    if PROTEIN_COLUMN not in fields and len(proteins) == 1:
        return next(iter(proteins))
    name = fields.get(PROTEIN_COLUMN)
    if not isinstance(name, str | int) or str(name) not in proteins:
        problem = f"unknown protein {quoted(name)}" if PROTEIN_COLUMN in fields else f"no column {PROTEIN_COLUMN!r}"
        raise DataError(f"{where}: {problem}; there are {listed(map(quoted, proteins), 10)}")
    return str(name)


def apply_mutations(text: str, sequence: str, first_residue: int, where: str) -> tuple[str, tuple[int, ...]]:
    """Apply substitutions to a sequence.

    Args:
        text: ``A123G``, several of these separated by ``:``, or ``WT`` for none.
        sequence: the wild type.
        first_residue: number of its first residue.
        where: file and record, for error messages.

    Returns:
        The sequence of the variant, and the substituted positions from 0 in ascending order.

    Raises:
        DataError: ``text`` has another form, a position is outside the sequence or occurs twice, or the wild type has
            another residue there.
    """
    residues, positions = list(sequence), []
    words = [] if text.strip().upper() in _WILD_TYPE else text.strip().upper().split(":")
    for word in words:
        match = _MUTATION.fullmatch(word.strip())
        if match is None:
            raise DataError(
                f"{where}: {quoted(word)} is not a mutation; write A123G, several as A123G:V7L, or WT for none"
            )
        position = int(match[2]) - first_residue
        if not 0 <= position < len(sequence):
            last = first_residue + len(sequence) - 1
            raise DataError(f"{where}: {word}: no residue {match[2]}; the protein has {first_residue} to {last}")
        if sequence[position] != match[1]:
            raise DataError(f"{where}: {word}: residue {match[2]} is {sequence[position]}, not {match[1]}")
        if position in positions:
            raise DataError(f"{where}: {text}: residue {match[2]} is substituted twice")
        residues[position] = match[3]
        positions.append(position)
    return normalize_sequence("".join(residues), drop_gaps=False)[0], tuple(sorted(positions))
