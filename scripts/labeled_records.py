"""Converts a labeled protein, a row of a file, to a checked record of TAPE's LMDB files.

Columns by data set (in addition to the sequence under ``primary``, ``sequence`` or ``text``, and an optional ``id``):

| data set | columns |
|---|---|
| secondary_structure | ``ss3``: one of the letters H E C per residue, or numbers 0 1 2; or ``ss8``: DSSP letters G H I B E S T C, which determine ss3; optional ``valid_mask``: 0 or 1 per residue |
| proteinnet | ``tertiary``: L coordinates [x, y, z] of the C-alpha atoms in Angstrom, null where unresolved; optional ``valid_mask``, ``ss3``, ``ss8`` |
| remote_homology | ``fold_label``: 0 to 1194; optional ``superfamily_label``, ``family_label``, ``class_label`` |
| fluorescence | ``log_fluorescence``: a number; optional ``num_mutations`` |
| stability | ``stability_score``: a number |

Lists may be JSON lists or, in tables, their JSON text; letters and masks may be plain strings ("HHEC", "1101").
"""  # noqa: E501 - table rows cannot be wrapped

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from scripts.structure_files import SS3_LETTERS, SS8_LETTERS, Chain, three_state
from tape.errors import DataError, UnknownResidueError
from tape.io.sequences import IDENTIFIER_KEYS
from tape.tokenizers import normalize_sequence

PRIMARY_KEYS = ("primary", "sequence", "text")
FOLDS = 1195  # TAPE's number of classes
Fields = Mapping[str, Any]


def make_record(folder: str, fields: Fields, where: str, changes: Counter[str]) -> dict[str, Any]:
    """The LMDB record of one row.

    Args:
        folder: the data set's folder, ``secondary_structure`` ... ``stability``.
        fields: the row.
        where: file and record, for error messages.
        changes: counts of substitutions (lower case, J), which are added to.

    Raises:
        DataError: a column is missing, has the wrong length or an invalid value.
    """
    sequence = _sequence(fields, where, changes)
    record: dict[str, Any] = {"primary": sequence, "protein_length": len(sequence)}
    identifier = next((fields[key] for key in IDENTIFIER_KEYS if fields.get(key) not in (None, "")), None)
    if identifier is not None:
        record["id"] = str(identifier)
    record.update(_LABELS[folder](fields, len(sequence), where))
    return record


def chain_record(folder: str, chain: Chain, changes: Counter[str]) -> dict[str, Any]:
    """The LMDB record of a PDB chain, for ``proteinnet`` (with coordinates) or ``secondary_structure`` (without)."""
    fields = {
        "id": chain.identifier,
        "primary": chain.primary,
        "ss3": three_state(chain.ss8),
        "ss8": chain.ss8,
        "tertiary": chain.tertiary,
    }
    return make_record(folder, fields, chain.where, changes)


def _sequence(fields: Fields, where: str, changes: Counter[str]) -> str:
    text = next((fields[key] for key in PRIMARY_KEYS if fields.get(key) is not None), None)
    if not isinstance(text, str):
        raise _missing(fields, " or ".join(PRIMARY_KEYS), where)
    try:
        sequence, counts = normalize_sequence(text, drop_gaps=False)
    except UnknownResidueError as error:
        raise UnknownResidueError(f"{where}: {error}") from error
    if not sequence:
        raise DataError(f"{where}: empty record: no residues")
    changes.update(counts)
    return sequence


def _missing(fields: Fields, column: str, where: str) -> DataError:
    return DataError(f"{where}: missing column {column}; the columns are {', '.join(map(str, fields)) or 'nothing'}")


def _value(fields: Fields, name: str) -> Any:
    """The value of a field; a list in JSON text (as in tables) is decoded, and empty text is None."""
    value = fields.get(name)
    if isinstance(value, str):
        value = value.strip()
        if value.startswith("["):
            try:
                return json.loads(value)
            except json.JSONDecodeError:
                return value
        return value or None
    return value


def _number(fields: Fields, name: str, where: str) -> float:
    value = _value(fields, name)
    if value is None:
        raise _missing(fields, name, where)
    if isinstance(value, (list, tuple, np.ndarray)) and len(value) == 1:
        value = value[0]
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise DataError(f"{where}: {name} should be a number, found {value!r}") from None
    if not np.isfinite(number):
        raise DataError(f"{where}: {name} should be finite, found {value!r}")
    return number


def _integer(fields: Fields, name: str, where: str, allowed: range | None = None) -> int:
    number = _number(fields, name, where)
    if number != int(number) or (allowed is not None and int(number) not in allowed):
        span = f" from {allowed.start} to {allowed.stop - 1}" if allowed is not None else ""
        raise DataError(f"{where}: {name} should be a whole number{span}, found {fields[name]!r}")
    return int(number)


def _optional_integers(fields: Fields, names: tuple[str, ...], where: str) -> dict[str, int]:
    return {name: _integer(fields, name, where) for name in names if _value(fields, name) is not None}


def _residue_labels(fields: Fields, name: str, letters: str, length: int, where: str) -> np.ndarray | None:
    """Labels of shape (length,) from letters or numbers; None if there is no such column."""
    value = _value(fields, name)
    if value is None:
        return None
    codes = {**{letter: code for code, letter in enumerate(letters)}, **{str(c): c for c in range(len(letters))}}
    items = "".join(value.split()) if isinstance(value, str) else value
    _check_length(items, name, length, where)
    labels = [codes.get(str(item).strip()) for item in items]
    if None in labels:
        position = labels.index(None)
        allowed = f"{' '.join(letters)} or 0 to {len(letters) - 1}"
        raise DataError(
            f"{where}: {name} has {str(items[position])!r} at residue {position + 1}; allowed are {allowed}"
        )
    return np.array(labels, dtype=np.int64)


def _check_length(items: Any, name: str, length: int, where: str) -> None:
    if not isinstance(items, (list, tuple, str, np.ndarray)):
        raise DataError(f"{where}: {name} should have one value per residue, found {type(items).__name__}")
    if len(items) != length:
        raise DataError(f"{where}: {name} has {len(items)} values, but the sequence has {length} residues")


def _valid_mask(fields: Fields, length: int, where: str) -> np.ndarray:
    """Bool (length,); all True if there is no such column."""
    value = fields.get("valid_mask")
    if isinstance(value, (list, tuple, np.ndarray)):  # JSON's true and false, or a bool array
        value = [int(item) if isinstance(item, (bool, np.bool_)) else item for item in value]
    mask = _residue_labels({"valid_mask": value}, "valid_mask", "01", length, where)
    return np.ones(length, dtype=bool) if mask is None else mask.astype(bool)


def _secondary_structure(fields: Fields, length: int, where: str) -> dict[str, Any]:
    labels: dict[str, Any] = {"valid_mask": _valid_mask(fields, length, where)}
    labels.update(_structure_states(fields, length, where))
    if "ss3" not in labels:
        raise _missing(fields, "ss3 or ss8", where)
    return labels


def _structure_states(fields: Fields, length: int, where: str) -> dict[str, np.ndarray]:
    """``ss3`` and ``ss8`` if the row has them; a missing ss3 is derived from ss8."""
    three = _residue_labels(fields, "ss3", SS3_LETTERS, length, where)
    eight = _residue_labels(fields, "ss8", SS8_LETTERS, length, where)
    if three is None and eight is not None:
        reduced = np.array([SS3_LETTERS.index(letter) for letter in three_state(SS8_LETTERS)], dtype=np.int64)
        three = reduced[eight]
    return {name: value for name, value in (("ss3", three), ("ss8", eight)) if value is not None}


def _contacts(fields: Fields, length: int, where: str) -> dict[str, Any]:
    value = _value(fields, "tertiary")
    if value is None:
        raise _missing(fields, "tertiary", where)
    _check_length(value, "tertiary", length, where)
    unresolved = [None, None, None]
    try:
        tertiary = np.array([unresolved if point is None else point for point in value], dtype=np.float32)
    except (TypeError, ValueError):
        tertiary = np.empty(0, dtype=np.float32)
    if tertiary.shape != (length, 3):
        raise DataError(f"{where}: tertiary should be {length} points [x, y, z], null where unresolved")
    resolved = np.asarray(np.isfinite(tertiary).all(axis=1))
    record = {
        "tertiary": np.where(resolved[:, None], tertiary, np.float32(0)),
        "valid_mask": resolved & _valid_mask(fields, length, where),
    }
    return {**record, **_structure_states(fields, length, where)}


def _remote_homology(fields: Fields, length: int, where: str) -> dict[str, Any]:
    others = _optional_integers(fields, ("superfamily_label", "family_label", "class_label"), where)
    return {"fold_label": _integer(fields, "fold_label", where, range(FOLDS)), **others}


def _fluorescence(fields: Fields, length: int, where: str) -> dict[str, Any]:
    score = _number(fields, "log_fluorescence", where)
    return {"log_fluorescence": [score], **_optional_integers(fields, ("num_mutations",), where)}


def _stability(fields: Fields, length: int, where: str) -> dict[str, Any]:
    return {"stability_score": [_number(fields, "stability_score", where)]}


_LABELS: dict[str, Callable[[Fields, int, str], dict[str, Any]]] = {
    "secondary_structure": _secondary_structure,
    "proteinnet": _contacts,
    "remote_homology": _remote_homology,
    "fluorescence": _fluorescence,
    "stability": _stability,
}
