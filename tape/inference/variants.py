"""Reading variants such as ``A123G`` or ``A123G:V7L``, and checking them against the wild type.

A file of variants is a table (.csv, .tsv, .jsonl ..., optionally compressed) with the column ``mutations`` (or
``mutation``, or ``mutant`` as in ProteinGym, but only one of them), in a notation of
:mod:`tape.inference.mutation_notation`, or with the column ``mutated_sequence`` with the variants' residues; and, if
there are several proteins, ``protein``. A mutated sequence beside mutations must be what they make of the wild type.
Other columns are kept.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.errors import DataError, UnknownResidueError, listed, quoted
from tape.io.records import Record, RecordOptions, Row, open_records, open_rows
from tape.tokenizers import normalize_sequence

from .mutation_notation import apply_mutations

# The scores of a variant; :mod:`tape.inference.variant_effects` has their formulas.
MARGINALS = ("wild_type_marginal", "masked_marginal", "mutant_marginal")  # of substitutions only
PSEUDO_LIKELIHOODS = ("pseudo_likelihood_ratio", "pseudo_perplexity")
METHODS = (*MARGINALS, *PSEUDO_LIKELIHOODS)
SINGLE_METHODS = MARGINALS[:2]  # one forward pass of which gives the scores of all substitutions of a residue
MUTATION_COLUMNS = ("mutations", "mutation", "mutant")
SEQUENCE_COLUMN = "mutated_sequence"
PROTEIN_COLUMN = "protein"
_LEAST_SEQUENCE = 10  # residues of a sequence in a column of mutations, which can't be taken for a word


@dataclass(frozen=True)
class Variant:
    """One variant of a protein.

    Attributes:
        protein: name of the protein.
        sequence: sequence of the variant; empty if it can't be scored.
        positions: substituted positions from 0, in ascending order; empty for the wild type, None if residues are
            inserted or deleted.
        fields: the variant's row of the table.
        problem: why it can't be scored; empty if it can.
    """

    protein: str
    sequence: str
    positions: tuple[int, ...] | None
    fields: Mapping[str, Any]
    problem: str = ""


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
    *,
    strict: bool = True,
) -> list[Variant]:
    """Read the variants of a file, in file order.

    Args:
        path: the table.
        proteins: wild-type sequences by name.
        first_residue: number of the first residue of a sequence in the notation of the variants.
        options: format of the table.
        mutation_column: column with the mutations or the mutated sequences; None: the one that exists.
        strict: refuse a table with variants that can't be scored; otherwise they are returned with the reason.

    Raises:
        DataError: the file or a column is missing, all variants can't be scored, or, if ``strict``, one of them:
            its protein is unknown, it does not match its wild type, or has no residues that a model could score.
            Names file and record.
    """
    variants, problem = [], ""
    for row, variant in _read(path, proteins, first_residue, options, mutation_column):
        if variant.problem:
            name = f", protein {quoted(variant.protein)}" if variant.protein else ""
            problem = problem or f"{row.where}{name}: {variant.problem}"
            if strict:
                raise DataError(problem)
        variants.append(variant)
    if not variants:
        raise DataError(f"{path}: contains no variant")
    if all(variant.problem for variant in variants):
        number = "its only variant" if len(variants) == 1 else f"none of its {len(variants):,} variants"
        raise DataError(f"{path}: {number} can{'not' if len(variants) == 1 else ''} be scored; the first: {problem}")
    return variants


def _read(
    path: str, proteins: Mapping[str, str], first_residue: int, options: RecordOptions, mutation_column: str | None
) -> Iterator[tuple[Row, Variant]]:
    for number, row in enumerate(open_rows(path, options)):
        name = ""
        try:
            columns = _columns(row.fields, proteins, mutation_column)
        except DataError as error:
            if not number:  # a table, all of whose rows have the same columns
                raise DataError(f"{row.where}: {error}") from None
            yield row, Variant("", "", None, row.fields, str(error))
            continue
        try:
            name = _protein_name(row.fields, proteins)
            sequence, positions = _mutated(row.fields, columns, proteins[name], first_residue)
            yield row, Variant(name, sequence, positions, row.fields)
        except DataError as error:
            yield row, Variant(name, "", None, row.fields, str(error))


def _columns(
    fields: Mapping[str, Any], proteins: Mapping[str, str], requested: str | None
) -> tuple[str | None, str | None]:
    """The columns of the mutations and of the mutated sequence, at least one of which exists."""
    if PROTEIN_COLUMN not in fields and len(proteins) > 1:
        raise DataError(f"no column {PROTEIN_COLUMN!r}; there are {listed(map(quoted, proteins), 10)}")
    if requested is not None:
        if requested not in fields:
            raise DataError(f"no column {quoted(requested)}; it has {listed(fields)}")
        return (None, requested) if requested == SEQUENCE_COLUMN else (requested, None)
    present = [name for name in MUTATION_COLUMNS if fields.get(name) is not None]
    if len(present) > 1:
        raise DataError(
            f"{' and '.join(map(repr, present))} may both be the mutations; choose one with --mutation_column NAME"
        )
    present = present or [name for name in MUTATION_COLUMNS if name in fields][:1]
    sequence = SEQUENCE_COLUMN if SEQUENCE_COLUMN in fields else None
    if not present and sequence is None:
        names = " or ".join((*MUTATION_COLUMNS, SEQUENCE_COLUMN))
        raise DataError(f"no column {names}; it has {listed(fields)}")
    return (present[0] if present else None), sequence


def _protein_name(fields: Mapping[str, Any], proteins: Mapping[str, str]) -> str:
    if PROTEIN_COLUMN not in fields:
        return next(iter(proteins))
    name = fields[PROTEIN_COLUMN]
    if not isinstance(name, str | int) or str(name) not in proteins:
        raise DataError(f"unknown protein {quoted(name)}; there are {listed(map(quoted, proteins), 10)}")
    return str(name)


def _mutated(
    fields: Mapping[str, Any], columns: tuple[str | None, str | None], wild_type: str, first_residue: int
) -> tuple[str, tuple[int, ...] | None]:
    """Sequence and substituted positions of a row's variant, see :func:`apply_mutations`."""
    text, residues = ("" if name is None else _text(fields[name], name) for name in columns)
    if columns[0] is None or (residues and text == residues):
        return compare_sequences(residues, wild_type)
    if _is_sequence(text, wild_type):
        return compare_sequences(text, wild_type)
    sequence, positions = apply_mutations(text, wild_type, first_residue)
    if residues and sequence != _normalized(residues):
        raise DataError(f"{SEQUENCE_COLUMN} is not what {text} makes of the wild type")
    return sequence, positions


def _text(value: Any, column: str) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        raise DataError(f"{column!r} must be text, not {type(value).__name__}")
    return "".join(value.split())


def _is_sequence(text: str, wild_type: str) -> bool:
    """Whether a column of mutations has the variant's residues, as in ProteinGym's tables of indels."""
    return text.isalpha() and len(text) >= max(_LEAST_SEQUENCE, len(wild_type) // 2)


def compare_sequences(residues: str, wild_type: str) -> tuple[str, tuple[int, ...] | None]:
    """Sequence of a variant, and the positions at which it differs from a wild type of the same length.

    Args:
        residues: of the variant; a stop ``*`` at its end is removed.
        wild_type: the wild type.

    Returns:
        The sequence and the positions from 0, or None if the lengths differ.

    Raises:
        DataError: there are no residues, one is unknown, such as a stop inside the sequence, or a stop is all that
            makes the wild type shorter.
    """
    sequence = _normalized(residues)
    if not sequence:
        raise DataError("no mutation and no residues")
    if len(sequence) != len(wild_type):
        if residues.endswith("*") and wild_type.startswith(sequence):
            raise DataError(
                f"a stop after residue {len(sequence)} of {len(wild_type)}: can't be scored, because models have no"
                " token for a stop"
            )
        return sequence, None
    return sequence, tuple(i for i, (one, other) in enumerate(zip(sequence, wild_type, strict=True)) if one != other)


def _normalized(residues: str) -> str:
    try:
        return normalize_sequence(residues, drop_gaps=False, drop_stop=True)[0]
    except UnknownResidueError as error:
        raise DataError(f"{SEQUENCE_COLUMN}: {error}") from None
