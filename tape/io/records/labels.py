"""Values of label columns: a number or class per protein, a class or point per residue.

The same rules hold for every format. A list may be a list, an array, or in tables its JSON text; classes and masks of
residues may also be text with a character per residue (``HHEC``, ``0121``), with or without blanks or commas between
them. A residue without a label has ``X``, ``-``, a blank, -1 or null.

Secondary structure is written with the letters of DSSP (Kabsch and Sander 1983; P since DSSP 4), of which three states
are made as in NetSurfP-2.0 (Klausen et al. 2019) and TAPE:

===================  ===========================================  ======  ======
letter               structure                                    of 8    of 3
===================  ===========================================  ======  ======
``G``                3-10 helix                                   G 0     H 0
``H``                alpha helix                                  H 1     H 0
``I``                pi helix                                     I 2     H 0
``B``                isolated beta bridge                         B 3     E 1
``E``                beta strand                                  E 4     E 1
``S``                bend                                         S 5     C 2
``T``                turn                                         T 6     C 2
``C``, ``L``         coil (a blank in DSSP's files)               C 7     C 2
``P``                polyproline II helix                         C 7     C 2
===================  ===========================================  ======  ======
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from tape.errors import DataError, quoted
from tape.io.json_files import parse_json

SS8_LETTERS = "GHIBESTC"  # in the order of NetSurfP-2.0 and TAPE
SS3_LETTERS = "HEC"  # 0, 1, 2 in TAPE's LMDB files
SS8_CLASSES: dict[str, int] = {**{letter: code for code, letter in enumerate(SS8_LETTERS)}, "L": 7, "P": 7}
_THREE_OF_EIGHT = np.array([0, 0, 0, 1, 1, 2, 2, 2])
SS3_CLASSES: dict[str, int] = {letter: int(_THREE_OF_EIGHT[code]) for letter, code in SS8_CLASSES.items()}
UNLABELED = -1
_UNRESOLVED = (None, None, None)
_WITHOUT_LABEL = frozenset({"X", "-", "", "-1"})
_LARGEST = float(np.finfo(np.float32).max)
_NEGATIVE_NUMBER = re.compile(r"-\d")


def three_states(eight: np.ndarray) -> np.ndarray:
    """Classes of three states for classes of eight; -1 stays -1."""
    return np.where(eight < 0, UNLABELED, _THREE_OF_EIGHT[np.maximum(eight, 0)])


def number_of(value: Any, name: str, where: str) -> float:
    """The number in a field that holds one.

    Args:
        value: the field: a number, its text, or a list or array with one of them.
        name: name of the field, for messages.
        where: file and record, for messages.

    Raises:
        DataError: it holds several values or none, or one that is not a finite float32 number.
    """
    value = _single(_parsed(value), name, where)
    try:
        if isinstance(value, (bool, np.bool_, np.complexfloating)):
            raise TypeError
        if not isinstance(value, (int, float, str, np.generic)):
            raise TypeError
        if isinstance(value, str) and ("_" in value or not value.isascii()):  # float("1_5") is 15
            raise ValueError
        number = float(value)
    except OverflowError:
        number = float("inf")
    except (TypeError, ValueError):
        raise DataError(f"{where}: field {name!r} does not contain a number, but {quoted(value)}") from None
    if not abs(number) <= _LARGEST:
        raise DataError(f"{where}: field {name!r} is {quoted(value)}, not a finite number")
    return number


def class_of(value: Any, num_classes: int, name: str, where: str) -> int:
    """The class in a field that holds one.

    Args:
        value: the field's value, a number or text that denotes one.
        num_classes: classes are 0 to ``num_classes`` - 1.
        name: the field's name, for the message.
        where: file and record, for the message.

    Raises:
        DataError: it is not an integer from 0 to ``num_classes`` - 1.
    """
    number = number_of(value, name, where)
    if number != int(number):
        raise DataError(f"{where}: field {name!r} is not an integer, but {quoted(value)}")
    if not 0 <= number < num_classes:
        raise DataError(f"{where}: field {name!r} has class {int(number)}; allowed are 0 to {num_classes - 1}")
    return int(number)


def residue_classes(
    value: Any,
    letters: Mapping[str, int],
    num_classes: int,
    length: int,
    name: str,
    where: str,
    valid: np.ndarray | None = None,
) -> np.ndarray:
    """One class per residue, (L,) int64, -1 at residues without a label.

    Args:
        value: the field.
        letters: class of each letter.
        num_classes: number of classes.
        length: number of residues L.
        name, where: field, and file and record, for messages.
        valid: (L,) bool; where it is False, a number that is no class means that there is no label. None: all True.

    Raises:
        DataError: another number of entries, or an entry that is no class.
    """
    value = _parsed(value)
    _refuse_booleans(value, name, where)
    items = _entries(value, length, name, where)
    if items.dtype.kind in "OU":
        codes = [_code(item, letters) for item in items.tolist()]
        wrong = next((place for place, code in enumerate(codes) if code is None), None)
        if wrong is not None:
            raise DataError(
                f"{where}: field {name!r} has {quoted(items.tolist()[wrong])} at residue {wrong + 1}; allowed are"
                f" {' '.join(letters)}, 0 to {num_classes - 1}, and X, - or -1 for no label"
            )
        items = np.array(codes, dtype=np.float64)
    if items.dtype.kind == "f" and not (np.isfinite(items) & (items == np.rint(items))).all():
        raise DataError(f"{where}: field {name!r} does not contain integers")
    outside = (items < UNLABELED) | (items >= num_classes)
    refused = items[outside if valid is None else outside & valid]
    if refused.size:
        allowed = f"allowed are 0 to {num_classes - 1}, and -1"
        raise DataError(f"{where}: field {name!r} has class {refused[0]:.15g}; {allowed}")
    return np.where(outside, UNLABELED, items).astype(np.int64)


def residue_mask(value: Any, length: int, name: str, where: str) -> np.ndarray:
    """One flag per residue, (L,) bool, from 0 and 1, or false and true.

    Args:
        value: the field's value: a list, an array, or text of either.
        length: number of residues, L.
        name: the field's name, for the message.
        where: file and record, for the message.

    Raises:
        DataError: another number of entries, or other values.
    """
    items = _entries(value, length, name, where)
    if items.dtype.kind in "OU":
        codes = {"0": 0, "1": 1, "False": 0, "True": 1}
        items = np.array([codes.get(str(item), -1) for item in items.tolist()])
    if not np.isin(items, (0, 1)).all():
        raise DataError(f"{where}: field {name!r} has entries other than 0 and 1 (false and true)")
    return items.astype(bool)


def residue_points(value: Any, length: int, name: str, where: str) -> np.ndarray:
    """One point [x, y, z] per residue, (L, 3) float64, NaN where a coordinate is null or NaN.

    Args:
        value: the field's value: a list, an array, or text of either.
        length: number of residues, L.
        name: the field's name, for the message.
        where: file and record, for the message.

    Raises:
        DataError: another number of points, or coordinates that are no finite float32 numbers.
    """
    value = _parsed(value)
    entries = (
        len(value) if isinstance(value, (list, tuple)) or (isinstance(value, np.ndarray) and value.ndim) else length
    )
    if entries != length:
        raise DataError(f"{where}: field {name!r} has {entries} entries for {length} residues")
    if isinstance(value, (list, tuple)):
        value = [_UNRESOLVED if point is None else point for point in value]
        if any(isinstance(point, (list, tuple)) and any(map(_is_collection, point)) for point in value):
            value = None
    for point in value if isinstance(value, (list, tuple)) else [value]:
        _refuse_booleans(point, name, where)
    try:
        points = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.empty(0)
    if points.ndim == 2 and points.shape != (length, 3):
        raise DataError(f"{where}: field {name!r} has shape {points.shape}, not {(length, 3)}")
    if points.ndim != 2:
        raise DataError(
            f"{where}: field {name!r} does not contain {length} points [x, y, z] of numbers, null where unresolved"
        )
    if (np.abs(points) > _LARGEST).any():  # false for NaN
        raise DataError(f"{where}: field {name!r} has an infinite or too large coordinate")
    return points


def resolved_points(tertiary: Any, mask: Any, length: int, where: str) -> tuple[np.ndarray, np.ndarray]:
    """The fields ``tertiary`` and ``valid_mask`` of a record.

    Args:
        tertiary: see :func:`residue_points`.
        mask: see :func:`residue_mask`; None: all residues with coordinates are valid.
        length: number of residues L.
        where: file and record, for messages.

    Returns:
        Coordinates (L, 3) float64, NaN where they are unknown, and (L,) bool, whether a residue is valid.

    Raises:
        DataError: a field can't be used, or there is no mask and several residues are at (0, 0, 0), which is where
            ProteinNet has the unresolved ones.
    """
    points = residue_points(tertiary, length, "tertiary", where)
    if mask is not None:
        valid = residue_mask(mask, length, "valid_mask", where)
    elif (at_origin := (points == 0).all(axis=1)).sum() > 1:
        raise DataError(
            f"{where}: field 'tertiary' has {at_origin.sum()} residues at (0, 0, 0), as ProteinNet has the unresolved"
            " ones; write null for those, or give a valid_mask"
        )
    else:
        valid = np.ones(length, dtype=bool)
    return points, valid & np.isfinite(points).all(axis=1)


def _parsed(value: Any) -> Any:
    """The list in JSON text; any other value as it is."""
    if isinstance(value, bytes):
        value = value.decode("latin-1")
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            return parse_json(value)
        except (ValueError, RecursionError):
            return value
    return value


def _single(value: Any, name: str, where: str) -> Any:
    if isinstance(value, np.ndarray) and value.size <= 1:
        value = value.reshape(-1).tolist()
    while isinstance(value, (list, tuple, np.ndarray)):
        if len(value) > 1:
            raise DataError(f"{where}: field {name!r} has {len(value)} values, where one is meant")
        value = value[0] if len(value) else None
    if value is None or value == "":
        raise DataError(f"{where}: field {name!r} has no value")
    return value


def _entries(value: Any, length: int, name: str, where: str) -> np.ndarray:
    """The entries of a field with one per residue, (L,): numbers, text, or objects if they are mixed."""
    value = _parsed(value)
    if isinstance(value, str):
        value = _split_text(value, length)
    # Not np.asarray(value) for lists in lists, which can stand for 2**60 numbers.
    is_nested = isinstance(value, (list, tuple)) and any(map(_is_collection, value))
    items = np.empty((0, 0)) if is_nested else np.asarray(value)
    if items.dtype.kind == "b":
        items = items.astype(np.int64)
    if items.dtype.kind not in "iufOU" or items.ndim > 1:
        raise DataError(f"{where}: field {name!r} does not contain one number or letter per residue")
    if items.ndim == 0 or len(items) != length:
        found = "a single value" if items.ndim == 0 else f"{len(items)} entries"
        raise DataError(f"{where}: field {name!r} has {found} for {length} residues")
    return items


def _split_text(text: str, length: int) -> list[str]:
    """Entries of text with a character per residue, or with blanks or commas between entries."""
    if len(text) == length and not any(character.isspace() and character != " " for character in text):
        return list(text)  # in which a blank is a residue without a label
    words = text.replace(",", " ").split()
    if len(words) == length or any(map(_NEGATIVE_NUMBER.match, words)):  # -1 is one entry, not two
        return words
    return list("".join(words))


def _refuse_booleans(value: Any, name: str, where: str) -> None:
    """Refuse true and false in a list or array of numbers, where numpy takes them as 1 and 0."""
    if isinstance(value, np.ndarray):
        place = 0 if value.dtype.kind == "b" and value.size else None
    else:
        items = value if isinstance(value, (list, tuple)) else ()
        place = next((i for i, item in enumerate(items) if isinstance(item, (bool, np.bool_))), None)
    if place is not None:
        found = quoted(bool(np.ravel(value)[place]) if isinstance(value, np.ndarray) else bool(value[place]))
        raise DataError(f"{where}: field {name!r} has {found} at position {place + 1}, which is not a number")


def _is_collection(value: Any) -> bool:
    return isinstance(value, (list, tuple, dict, set, np.ndarray))


def _code(item: Any, letters: Mapping[str, int]) -> float | None:
    """Class of an entry; None if it is none."""
    if item is None:
        return UNLABELED
    if isinstance(item, str):
        text = item.strip()
        if text in _WITHOUT_LABEL:
            return UNLABELED
        if text in letters:
            return letters[text]
        return float(text) if text.isascii() and text.isdigit() and len(text) < 9 else None
    return float(item) if isinstance(item, (int, float)) and abs(item) < 1 << 53 else None
