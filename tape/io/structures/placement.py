"""Places of the residues of a PDB file in their chain's sequence, by the numbers of the residues.

A PDB file doesn't say which residue of SEQRES one with coordinates is. An alignment finds it except in repeats, such as
tags and linkers, next to unresolved residues. There the numbers decide:

- with those of the unresolved residues in REMARK 465 merged into the order of the file, all residues are the sequence
  (the order of insertion codes differs: 184A can precede 184);
- without them, numbers that differ from the places in the sequence by the same amount everywhere are taken.

Chains whose numbers don't fit the sequence in either way are left to the alignment. A residue fits a place in the
sequence if both have the same letter, as selenomethionine and methionine.
"""

from __future__ import annotations

import heapq
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from operator import itemgetter
from typing import Any

UNKNOWN = "X"

_Number = tuple[int, str]  # number and insertion code

# "REMARK 465   M RES C SSSEQI": model (NMR), residue, chain, number and insertion code
_UNRESOLVED = re.compile(r"REMARK 465\s+(?:(\d+)\s+)?([A-Z0-9]{1,3})\s+(\S)\s+(-?\d+)([A-Za-z]?)\s*$")


def place_by_numbers(structure: Any) -> None:
    """Set ``label_seq`` of the residues in the first model of a ``gemmi.Structure`` with entities, where found."""
    if not len(structure):
        return
    unresolved, parents = _unresolved_residues(structure.raw_remarks), parents_of(structure)

    def letter(name: str) -> str:
        return residue_letter(name, parents)

    for chain in structure[0]:
        polymer = chain.get_polymer()
        entity = structure.get_entity_of(polymer) if len(polymer) else None
        if entity is None or not entity.full_sequence:
            continue
        sequence = list(map(letter, entity.full_sequence))
        observed = [((residue.seqid.num, residue.seqid.icode.strip()), letter(residue.name)) for residue in polymer]
        missing = [(number, letter(name)) for number, name in unresolved[chain.name].items()]
        places = _places_by_order(observed, missing, sequence) or _places_by_shift(observed, sequence)
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


def parents_of(structure: Any) -> dict[str, str]:
    """Modified residue -> the residue that it was, by the MODRES records of a ``gemmi.Structure``."""
    return {residue.res_id.name: residue.parent_comp_id for residue in structure.mod_residues}


def residue_letter(names: str, parents: Mapping[str, str]) -> str:
    """The letter of a residue, or of the first of several names, by gemmi's table or by its parent; else ``X``."""
    name = names.partition(",")[0]
    letters = map(_tabulated_letter, (name, parents.get(name, "")))
    return next((letter for letter in letters if letter.isalpha()), UNKNOWN)


@cache
def _tabulated_letter(name: str) -> str:
    import gemmi  # an extra

    return str(gemmi.find_tabulated_residue(name).one_letter_code.upper()).replace(UNKNOWN, "")


def _places_by_order(
    observed: Sequence[tuple[_Number, str]], missing: Sequence[tuple[_Number, str]], sequence: Sequence[str]
) -> dict[_Number, int] | None:
    """Place of each number, from 1, if all residues in their order have the letters of the sequence; otherwise None."""
    letters: dict[_Number, set[str]] = {}  # several at a number: alternatives
    for number, letter in heapq.merge(observed, missing, key=itemgetter(0)):
        letters.setdefault(number, set()).add(letter)
    if len(letters) != len(sequence):
        return None
    places = {number: place for place, number in enumerate(letters, start=1)}
    return places if all(sequence[places[number] - 1] in letters[number] for number in letters) else None


def _places_by_shift(observed: Sequence[tuple[_Number, str]], sequence: Sequence[str]) -> dict[_Number, int] | None:
    """Place of each number, from 1, if the residues fit the sequence at one shift of their numbers; otherwise None.

    Of several shifts, the numbers as they are count. Numbers that decrease or have insertion codes are no places.
    """
    letters: defaultdict[int, set[str]] = defaultdict(set)
    numbers = [number for (number, _), _ in observed]
    if any(icode for (_, icode), _ in observed) or numbers != sorted(numbers):
        return None
    for (number, _), letter in observed:
        letters[number].add(letter)
    lowest, highest = 1 - min(letters), len(sequence) - max(letters)
    shifts = [
        shift
        for shift in range(lowest, highest + 1)
        if all(sequence[number + shift - 1] in found for number, found in letters.items())
    ]
    if len(shifts) != 1 and 0 not in shifts:
        return None
    shift = shifts[0] if len(shifts) == 1 else 0
    return {(number, ""): number + shift for number in letters}
