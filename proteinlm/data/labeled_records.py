"""Converts a labeled protein, a record of a file, to a checked record of TAPE's LMDB files.

Columns by data set (in addition to the sequence and an optional id), read by the rules of :mod:`tape.io.records.labels`:

| data set | columns |
|---|---|
| secondary_structure | ``ss3``: one of the letters H E C per residue, or numbers 0 1 2; or ``ss8``: DSSP letters G H I B E S T C, which determine ss3; optional ``valid_mask``: 0 or 1 per residue. Residues with X, -, a blank, -1 or null have no label |
| proteinnet | ``tertiary``: L coordinates [x, y, z] of the C-alpha atoms in Angstrom, null where unresolved; optional ``valid_mask``, ``ss3``, ``ss8`` |
| remote_homology | ``fold_label``: 0 to 1194; optional ``superfamily_label``, ``family_label``, ``class_label`` |
| fluorescence | ``log_fluorescence``: a number; optional ``num_mutations`` |
| stability | ``stability_score``: a number |
"""  # noqa: E501 - table rows cannot be wrapped

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from proteinlm.data.structure_files import Chain
from tape.errors import DataError, UnknownResidueError, listed
from tape.io.records import Record
from tape.io.records.labels import (
    SS3_CLASSES,
    SS8_CLASSES,
    class_of,
    number_of,
    residue_classes,
    residue_mask,
    resolved_points,
    three_states,
)
from tape.io.structures import ProteinChain
from tape.tokenizers import normalize_sequence

FOLDS = 1195  # TAPE's number of classes
_MOST_CLASSES = 1 << 53  # of columns that are copied
Fields = Mapping[str, Any]


def make_record(folder: str, record: Record, changes: Counter[str]) -> dict[str, Any]:
    """The LMDB record of one protein.

    Args:
        folder: the data set's folder, ``secondary_structure`` ... ``stability``.
        record: the protein, with its other columns.
        changes: counts of substitutions (lower case, J), which are added to.

    Raises:
        DataError: a column is missing, has the wrong length or an invalid value.
    """
    sequence = _sequence(record, changes)
    made: dict[str, Any] = {"primary": sequence, "protein_length": len(sequence)}
    if record.identifier is not None:
        made["id"] = record.identifier
    made.update(_LABELS[folder](record.fields, len(sequence), record.where))
    return made


def chain_record(folder: str, chain: Chain | ProteinChain, changes: Counter[str]) -> dict[str, Any]:
    """The LMDB record of a PDB chain, for ``proteinnet`` (with coordinates) or ``secondary_structure`` (without)."""
    states = {} if chain.ss8 is None else {"ss8": chain.ss8}
    fields = {**states, "tertiary": chain.tertiary}
    return make_record(folder, Record(chain.identifier, chain.primary, chain.where, fields=fields), changes)


def _sequence(record: Record, changes: Counter[str]) -> str:
    try:
        sequence, counts = normalize_sequence(record.sequence, drop_gaps=False)
    except UnknownResidueError as error:
        raise UnknownResidueError(f"{record.where}: {error}") from error
    changes.update(counts)
    return sequence


def _required(fields: Fields, column: str, where: str) -> Any:
    if not _is_given(fields, column):
        if any(name in fields for name in column.split(" or ")):
            raise DataError(f"{where}: column {column} has no value")
        raise DataError(f"{where}: missing column {column}; the columns are {listed(fields)}")
    return fields[column]


def _is_given(fields: Fields, column: str) -> bool:
    value = fields.get(column)
    return value is not None and not (isinstance(value, str) and not value)


def _optional_integers(fields: Fields, names: tuple[str, ...], where: str) -> dict[str, int]:
    return {name: class_of(fields[name], _MOST_CLASSES, name, where) for name in names if _is_given(fields, name)}


def _valid_mask(fields: Fields, length: int, where: str) -> np.ndarray:
    """Bool (length,); all True if there is no such column."""
    if not _is_given(fields, "valid_mask"):
        return np.ones(length, dtype=bool)
    return residue_mask(fields["valid_mask"], length, "valid_mask", where)


def _secondary_structure(fields: Fields, length: int, where: str) -> dict[str, Any]:
    valid = _valid_mask(fields, length, where)
    states = _structure_states(fields, length, where)
    if "ss3" not in states:
        _required(fields, "ss3 or ss8", where)
    # Labels of residues that are not valid are kept: accuracy_all_residues is over them too.
    return {"valid_mask": valid & (states["ss3"] >= 0), **states}


def _structure_states(fields: Fields, length: int, where: str) -> dict[str, np.ndarray]:
    """``ss3`` and ``ss8`` if the row has them; a missing ss3 is derived from ss8."""
    states = {
        name: residue_classes(fields[name], letters, count, length, name, where)
        for name, letters, count in (("ss3", SS3_CLASSES, 3), ("ss8", SS8_CLASSES, 8))
        if _is_given(fields, name)
    }
    if "ss8" in states and "ss3" not in states:
        states["ss3"] = three_states(states["ss8"])
    return states


def _contacts(fields: Fields, length: int, where: str) -> dict[str, Any]:
    mask = fields["valid_mask"] if _is_given(fields, "valid_mask") else None
    points, valid = resolved_points(_required(fields, "tertiary", where), mask, length, where)
    known = np.isfinite(points).all(axis=1)
    record = {"tertiary": np.where(known[:, None], points, 0).astype(np.float32), "valid_mask": valid}
    return {**record, **_structure_states(fields, length, where)}


def _remote_homology(fields: Fields, length: int, where: str) -> dict[str, Any]:
    others = _optional_integers(fields, ("superfamily_label", "family_label", "class_label"), where)
    return {"fold_label": class_of(_required(fields, "fold_label", where), FOLDS, "fold_label", where), **others}


def _fluorescence(fields: Fields, length: int, where: str) -> dict[str, Any]:
    score = number_of(_required(fields, "log_fluorescence", where), "log_fluorescence", where)
    return {"log_fluorescence": [score], **_optional_integers(fields, ("num_mutations",), where)}


def _stability(fields: Fields, length: int, where: str) -> dict[str, Any]:
    return {"stability_score": [number_of(_required(fields, "stability_score", where), "stability_score", where)]}


_LABELS: dict[str, Callable[[Fields, int, str], dict[str, Any]]] = {
    "secondary_structure": _secondary_structure,
    "proteinnet": _contacts,
    "remote_homology": _remote_homology,
    "fluorescence": _fluorescence,
    "stability": _stability,
}
