"""Substitution variants as people write them, ``A123G`` or ``A123G:V7L``, checked against the protein they change.

A file of variants is a table (.csv, .tsv, .jsonl ..., compressed or not) with the column ``mutations`` (or ``mutant``,
ProteinGym's name) and, when there are several proteins, ``protein``. Other columns are kept.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.errors import DataError, UnknownResidueError
from tape.io.sequences import SequenceRecord, read_rows, read_sequences
from tape.tokenizers import normalize_sequence

# The ways to score a variant; :mod:`tape.inference.variant_effects` has their formulas.
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
        protein: the protein's name.
        sequence: of the variant.
        positions: substituted positions, from 0, ascending; none for the wild type itself.
        fields: its row as it was read.
    """

    protein: str
    sequence: str
    positions: tuple[int, ...]
    fields: Mapping[str, Any]


def read_proteins(source: str) -> dict[str, str]:
    """Wild-type sequences by name: of a file, or the one sequence that ``source`` itself is.

    Raises:
        DataError: neither a readable file nor residues, or two proteins of one name.
    """
    path = Path(source)
    # os.path's exists(), since Path's raises for a name longer than a file's can be
    if path.suffix == "" and path.name == source and not os.path.exists(path):
        return {"wild type": normalize_sequence(source, drop_gaps=False, drop_stop=True)[0]}
    proteins: dict[str, str] = {}
    for record in read_sequences(path):
        if record.identifier in proteins:
            raise DataError(f"{record.where}: a second protein named {record.identifier!r}; variants are found by name")
        proteins[record.identifier] = _wild_type(record)
    if not proteins:
        raise DataError(f"{path}: holds no protein")
    return proteins


def _wild_type(record: SequenceRecord) -> str:
    try:
        return normalize_sequence(record.sequence, drop_gaps=False, drop_stop=True)[0]
    except UnknownResidueError as error:
        raise UnknownResidueError(f"{record.where}: {error}") from None


def read_variants(path: str, proteins: Mapping[str, str], first_residue: int = 1) -> list[Variant]:
    """The variants of a file, in its order.

    Args:
        path: the table.
        proteins: wild-type sequences by name.
        first_residue: the number that variants give the first residue of a sequence.

    Raises:
        DataError: no such file or column, an unknown protein, or a variant that does not fit; names file and record.
    """
    variants = []
    for row in read_rows(path):
        column = next((name for name in MUTATION_COLUMNS if row.fields.get(name) is not None), None)
        if column is None:
            raise DataError(
                f"{row.where}: no column {' or '.join(MUTATION_COLUMNS)}; it has {', '.join(map(str, row.fields))}"
            )
        name = _protein_name(row.fields, proteins, row.where)
        where = f"{row.where}, protein {name!r}"
        sequence, positions = apply_mutations(str(row.fields[column]), proteins[name], first_residue, where)
        variants.append(Variant(name, sequence, positions, row.fields))
    if not variants:
        raise DataError(f"{path}: holds no variant")
    return variants


def _protein_name(fields: Mapping[str, Any], proteins: Mapping[str, str], where: str) -> str:
    if PROTEIN_COLUMN not in fields and len(proteins) == 1:
        return next(iter(proteins))
    name = fields.get(PROTEIN_COLUMN)
    if name not in proteins:
        said = f"protein {name!r} is not known" if PROTEIN_COLUMN in fields else f"no column {PROTEIN_COLUMN!r}"
        raise DataError(f"{where}: {said}; there are {', '.join(map(repr, list(proteins)[:10]))}")
    return str(name)


def apply_mutations(text: str, sequence: str, first_residue: int, where: str) -> tuple[str, tuple[int, ...]]:
    """Substitute residues.

    Args:
        text: ``A123G``, several separated by ``:``, or ``WT`` for none.
        sequence: of the wild type.
        first_residue: the number of its first residue.
        where: for messages.

    Returns:
        The variant's sequence and the substituted positions, from 0, ascending.

    Raises:
        DataError: not of this form, outside the sequence, another wild-type residue there, or a position twice.
    """
    residues, positions = list(sequence), []
    words = [] if text.strip().upper() in _WILD_TYPE else text.strip().upper().split(":")
    for word in words:
        match = _MUTATION.fullmatch(word.strip())
        if match is None:
            raise DataError(f"{where}: {word!r} is no mutation; write A123G, several as A123G:V7L, or WT for none")
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
