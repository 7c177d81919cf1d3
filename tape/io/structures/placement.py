"""Places of the residues of a PDB file in their chain's sequence, by the numbers of the residues.

A PDB file doesn't say which residue of SEQRES one with coordinates is. An alignment finds it except in repeats, such as
tags and linkers, next to unresolved residues. There the numbers decide:

- with those of the unresolved residues in REMARK 465, all residues in the order of their numbers are the sequence;
- without them, numbers that differ from the places in the sequence by the same amount everywhere are taken.

Chains whose numbers don't fit the sequence in either way are left to the alignment.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_Number = tuple[int, str]  # number and insertion code

# "REMARK 465   M RES C SSSEQI": model (NMR), residue, chain, number and insertion code
_UNRESOLVED = re.compile(r"REMARK 465\s+(?:(\d+)\s+)?([A-Z0-9]{1,3})\s+(\S)\s+(-?\d+)([A-Za-z]?)\s*$")


def place_by_numbers(structure: Any) -> None:
    """Set ``label_seq`` of the residues in the first model of a ``gemmi.Structure`` with entities, where found."""
    if not len(structure):
        return
    unresolved = _unresolved_residues(structure.raw_remarks)
    for chain in structure[0]:
        polymer = chain.get_polymer()
        entity = structure.get_entity_of(polymer) if len(polymer) else None
        if entity is None or not entity.full_sequence:
            continue
        sequence = list(entity.full_sequence)
        observed = [((residue.seqid.num, residue.seqid.icode.strip()), residue.name) for residue in polymer]
        places = _places_by_order(observed, unresolved[chain.name], sequence) or _places_by_shift(observed, sequence)
        if places is None:
            continue
        for residue, (number, _) in zip(polymer, observed, strict=True):
            residue.label_seq = places[number]


def _unresolved_residues(remarks: Iterable[str]) -> defaultdict[str, dict[_Number, str]]:
    """Chain -> number -> name of its residues in REMARK 465, of the first model if there are several."""
    found: defaultdict[str, dict[_Number, str]] = defaultdict(dict)
    for match in filter(None, map(_UNRESOLVED.match, remarks)):
        model, name, chain, number, icode = match.groups()
        if model in (None, "1"):
            found[chain][int(number), icode] = name
    return found


def _places_by_order(
    observed: Sequence[tuple[_Number, str]], unresolved: Mapping[_Number, str], sequence: Sequence[str]
) -> dict[_Number, int] | None:
    """Place of each number, from 1, if all residues sorted by number are the sequence; otherwise None."""
    names: defaultdict[_Number, set[str]] = defaultdict(set)  # several at a number: alternatives
    for number, name in (*observed, *unresolved.items()):
        names[number].add(name)
    numbers = sorted(names)
    if len(numbers) != len(sequence):
        return None
    places = {number: place for place, number in enumerate(numbers, start=1)}
    return places if all(sequence[places[number] - 1] in names[number] for number in numbers) else None


def _places_by_shift(observed: Sequence[tuple[_Number, str]], sequence: Sequence[str]) -> dict[_Number, int] | None:
    """Place of each number, from 1, if the residues fit the sequence at one shift of their numbers; otherwise None.

    Of several shifts, the numbers as they are count.
    """
    names: defaultdict[int, set[str]] = defaultdict(set)
    for (number, icode), name in observed:
        if icode:
            return None
        names[number].add(name)
    lowest, highest = 1 - min(names), len(sequence) - max(names)
    shifts = [
        shift
        for shift in range(lowest, highest + 1)
        if all(sequence[number + shift - 1] in found for number, found in names.items())
    ]
    if len(shifts) != 1 and 0 not in shifts:
        return None
    shift = shifts[0] if len(shifts) == 1 else 0
    return {(number, ""): number + shift for number in names}
