"""Notations of protein variants: ``A123G``, ``A123G:V7L``, and the protein level of HGVS (varnomen.hgvs.org).

Of HGVS, residues may have one letter or three, and ``p.``, the name of a reference sequence and the parentheses of a
predicted change may be left out:

====================================  =========================================================
``p.Ala4Gly``, ``p.(A4G)``            substitution
``p.Ala4=``, ``p.=``                  no change
``p.Ala4del``, ``p.Ala4_Gly6del``     deletion
``p.Ala4dup``, ``p.Ala4_Gly6dup``     duplication, directly after the original
``p.Ala4_Gly5insSerThr``              insertion between two neighbors
``p.Ala4_Gly6delinsTrpVal``           deletion and insertion in its place
``p.[Ala4Gly;Val7Leu]``               several changes of one protein
====================================  =========================================================

Stops, frameshifts, extensions, an unknown effect (``p.?``), a lost start (``p.Met1?``) and an absent protein (``p.0``)
name no sequence of residues that a model could score; the error says so.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tape.errors import DataError, UnknownResidueError, quoted
from tape.tokenizers import normalize_sequence

_THREE_LETTERS = {
    "ALA": "A",
    "ARG": "R",
    "ASN": "N",
    "ASP": "D",
    "CYS": "C",
    "GLN": "Q",
    "GLU": "E",
    "GLY": "G",
    "HIS": "H",
    "ILE": "I",
    "LEU": "L",
    "LYS": "K",
    "MET": "M",
    "PHE": "F",
    "PRO": "P",
    "SER": "S",
    "THR": "T",
    "TRP": "W",
    "TYR": "Y",
    "VAL": "V",
    "SEC": "U",
    "PYL": "O",
    "ASX": "B",
    "GLX": "Z",
    "XLE": "J",
    "XAA": "X",
    "TER": "*",
}
_WILD_TYPE = frozenset({"WT", "_WT", "=", "P.=", "P.(=)"})
_REFERENCE = re.compile(r"(?:[^\s:]+:)?p\.", re.IGNORECASE)  # NP_003997.1:p.
_RESIDUE = r"(?:[A-Z]{3}|[A-Z*])"
_CHANGE = re.compile(
    rf"(?P<first>{_RESIDUE})(?P<from>\d+)(?:_(?P<last>{_RESIDUE})(?P<to>\d+))?"
    rf"(?:(?P<operation>=|DELINS|DEL|DUP|INS)(?P<inserted>.*)|(?P<substituted>{_RESIDUE}))"
)
_UNDETERMINED = (
    (re.compile(rf"{_RESIDUE}\d+{_RESIDUE}?FS.*"), "a frameshift"),
    (re.compile(rf"{_RESIDUE}\d+{_RESIDUE}?EXT.*"), "an extension"),
    (re.compile(rf"(?:{_RESIDUE}\d+)?\?"), "an unknown effect"),
    (re.compile(r"0\??"), "an absent protein"),
)
_FORMS = "write A123G, several as A123G:V7L, p.Ala123Gly or another form of HGVS, or WT for none"


@dataclass(frozen=True)
class Edit:
    """A replacement of the residues from ``start`` to ``stop`` (from 0, ``stop`` excluded) by others."""

    start: int
    stop: int
    residues: str

    @property
    def keeps_length(self) -> bool:
        return len(self.residues) == self.stop - self.start


def apply_mutations(text: str, sequence: str, first_residue: int = 1) -> tuple[str, tuple[int, ...] | None]:
    """Apply the mutations of a variant to its wild type.

    Args:
        text: mutations in one of the notations of this module, or ``WT`` for none.
        sequence: the wild type.
        first_residue: number of its first residue.

    Returns:
        The sequence of the variant, and the substituted positions from 0 in ascending order; None if residues are
        inserted or deleted.

    Raises:
        DataError: ``text`` has another form, a position is outside the sequence or occurs twice, the wild type has
            another residue there, or the variant has no sequence that a model could score, such as a stop.
    """
    edits = parse_mutations(text, sequence, first_residue)
    changed = sequence
    for edit in reversed(edits):
        changed = changed[: edit.start] + edit.residues + changed[edit.stop :]
    changed = normalize_sequence(changed, drop_gaps=False)[0]
    if not changed:
        raise DataError(f"{text.strip()}: no residue is left")
    return changed, _substituted(edits, sequence) if all(edit.keeps_length for edit in edits) else None


def _substituted(edits: Sequence[Edit], sequence: str) -> tuple[int, ...]:
    """Positions of substitutions; of several residues that are replaced together, those that differ."""
    return tuple(
        position
        for edit in edits
        for position, residue in enumerate(edit.residues, edit.start)
        if len(edit.residues) == 1 or residue != sequence[position]
    )


def parse_mutations(text: str, sequence: str, first_residue: int = 1) -> list[Edit]:
    """The edits of a variant in the order of their positions; see :func:`apply_mutations`."""
    stripped = text.strip()
    if stripped.upper() in _WILD_TYPE:
        return []
    edits = [edit for word in _words(stripped) if (edit := _edit(word, sequence, first_residue)) is not None]
    edits.sort(key=lambda edit: (edit.start, edit.stop))
    for before, after in pairwise(edits):
        if after.start < before.stop or (before.start, before.stop) == (after.start, after.stop):
            raise DataError(f"{stripped}: residue {after.start + first_residue} is changed twice")
    return edits


def _words(text: str) -> list[str]:
    """Single changes, without ``p.``, brackets and parentheses."""
    match = _REFERENCE.match(text)
    body = text[match.end() :] if match else text
    separator = ":" if match is None else ";"
    if body.startswith("[") and body.endswith("]"):
        body, separator = body[1:-1], ";"
    return [_without_parentheses(word.strip()) for word in _without_parentheses(body).split(separator)]


def _without_parentheses(text: str) -> str:
    """A text without the parentheses around it, if there are no others in it."""
    inner = text[1:-1]
    return inner if text == f"({inner})" and not {"(", ")"} & set(inner) else text


def _edit(word: str, sequence: str, first_residue: int) -> Edit | None:
    """The edit of one change; None for no change."""
    upper = word.upper()
    if upper == "=":
        return None
    _refuse_undetermined(word, upper)
    match = _CHANGE.fullmatch(upper)
    if match is None:
        raise DataError(f"{quoted(word)} is not a mutation; {_FORMS}")
    start = _position(word, match["first"], match["from"], sequence, first_residue)
    stop = start + 1
    if match["last"] is not None:
        stop = _position(word, match["last"], match["to"], sequence, first_residue) + 1
        if stop - 1 <= start:
            raise DataError(f"{word}: the second residue must come after the first")
    three = len(match["first"]) == 3
    return _operation(word, match, Edit(start, stop, sequence[start:stop]), three)


def _refuse_undetermined(word: str, upper: str) -> None:
    for pattern, effect in _UNDETERMINED:
        if pattern.fullmatch(upper):
            raise DataError(f"{word}: can't be scored, because {effect} does not determine the variant's residues")


def _operation(word: str, match: re.Match[str], original: Edit, three: bool) -> Edit | None:
    start, stop = original.start, original.stop
    if match["substituted"] is not None:
        if match["last"] is not None:
            raise DataError(f"{quoted(word)} is not a mutation; several residues are replaced by delins; {_FORMS}")
        return Edit(start, stop, _residues(word, match["substituted"], three))
    operation, rest = match["operation"], match["inserted"]
    if operation in ("=", "DEL", "DUP"):
        if rest and not (operation == "DEL" and _named(rest, three) == original.residues):
            raise DataError(f"{quoted(word)} is not a mutation; nothing follows {operation.lower()}")
        return {"=": None, "DEL": Edit(start, stop, ""), "DUP": Edit(stop, stop, original.residues)}[operation]
    inserted = _residues(word, rest, three)
    if operation == "DELINS":
        return Edit(start, stop, inserted)
    if match["last"] is None or stop - start != 2:
        raise DataError(f"{word}: an insertion is between two neighbors, such as p.Ala4_Gly5insSer")
    return Edit(start + 1, start + 1, inserted)


def _position(word: str, residue: str, number: str, sequence: str, first_residue: int) -> int:
    """Place from 0 of a residue that must be in the wild type."""
    expected = _residues(word, residue, len(residue) == 3)
    position = int(number) - first_residue if len(number) < 10 else -1
    if not 0 <= position < len(sequence):
        last = first_residue + len(sequence) - 1
        raise DataError(f"{word}: no residue {number}; the protein has {first_residue} to {last}")
    if sequence[position] != expected:
        raise DataError(f"{word}: residue {number} is {sequence[position]}, not {expected}")
    return position


def _residues(word: str, text: str, three: bool) -> str:
    """Residues as one-letter codes."""
    residues = _named(text, three)
    if not residues:
        raise DataError(f"{word}: {quoted(text)} are no residues; {_FORMS}")
    if "*" in residues:
        raise DataError(f"{word}: can't be scored, because models have no token for a stop")
    try:
        return normalize_sequence(residues, drop_gaps=False)[0]
    except UnknownResidueError:
        raise DataError(f"{word}: {quoted(text)} are no residues; {_FORMS}") from None


def _named(text: str, three: bool) -> str:
    """One-letter codes of residues, in codes of three letters or one; empty if one is unknown.

    A word with three-letter positions may have a single letter such as ``*`` or ``X`` as its residue.
    """
    if not three or len(text) == 1:
        return text
    codes: Sequence[str] = [text[place : place + 3] for place in range(0, len(text), 3)]
    return "".join(_THREE_LETTERS[code] for code in codes) if all(code in _THREE_LETTERS for code in codes) else ""
