"""Small structures with the geometry of real proteins, written to files by Gemmi, and BinaryCIF files."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import gemmi
import msgpack
import numpy as np

THREE_LETTERS = dict(
    zip(
        "ACDEFGHIKLMNPQRSTVWY",
        gemmi.expand_one_letter_sequence("ACDEFGHIKLMNPQRSTVWY", gemmi.ResidueKind.AA),
        strict=True,
    )
)
HELIX = (-57.0, -47.0)  # phi and psi in degrees


def _placed(a: np.ndarray, b: np.ndarray, c: np.ndarray, length: float, angle: float, torsion: float) -> np.ndarray:
    """The atom d with |cd|, the angle bcd and the torsion abcd; angles in degrees."""
    angle, torsion = np.radians([angle, torsion])
    axis = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, axis)
    normal /= np.linalg.norm(normal)
    across = np.cross(normal, axis)
    return c + length * (-np.cos(angle) * axis + np.sin(angle) * (np.cos(torsion) * across + np.sin(torsion) * normal))


def backbone(length: int, angles: tuple[float, float] = HELIX) -> np.ndarray:
    """(length, 5, 3) positions of N, CA, C, O and CB of a chain with the same phi and psi everywhere."""
    phi, psi = angles
    atoms = [np.zeros(3), np.array([1.458, 0, 0]), np.array([2.0, 1.42, 0])]
    for _ in range(length - 1):
        for bond, angle, torsion in ((1.329, 116.6, psi), (1.458, 121.7, 180.0), (1.525, 111.0, phi)):
            atoms.append(_placed(*atoms[-3:], bond, angle, torsion))
    residues = []
    for n, ca, c in np.array(atoms).reshape(-1, 3, 3):
        oxygen = _placed(n, ca, c, 1.231, 120.5, psi + 180)
        residues.append([n, ca, c, oxygen, _placed(c, n, ca, 1.53, 110.5, -122.5)])
    return np.array(residues)


def add_chain(
    model: Any, name: str, residues: Sequence[str], numbers: Sequence[str] | None = None, shift: float = 0.0
) -> Any:
    """Add a helix of residues (names of three letters) with numbers such as ``52A``; returns the ``gemmi.Chain``."""
    chain = model.add_chain(gemmi.Chain(name))
    positions = backbone(len(residues)) + shift
    for place, residue_name in enumerate(residues):
        residue = gemmi.Residue()
        residue.name = residue_name
        residue.seqid = gemmi.SeqId(str(place + 1) if numbers is None else numbers[place])
        residue.het_flag = "A"
        for atom_name, position in zip(("N", "CA", "C", "O", "CB"), positions[place], strict=True):
            if atom_name == "CB" and residue_name == "GLY":
                continue
            residue.add_atom(_atom(atom_name, position))
        chain.add_residue(residue)
    return chain


def _atom(name: str, position: np.ndarray) -> Any:
    atom = gemmi.Atom()
    atom.name, atom.element = name, gemmi.Element(name[0])
    atom.pos, atom.occ, atom.b_iso = gemmi.Position(*position), 1.0, 10.0
    return atom


def new_structure(chains: Mapping[str, str] | None = None) -> Any:
    """A ``gemmi.Structure`` with a model of chains: name -> sequence in one-letter code."""
    structure = gemmi.Structure()
    structure.cell = gemmi.UnitCell(1, 1, 1, 90, 90, 90)
    model = structure.add_model(gemmi.Model(1))
    for number, (name, sequence) in enumerate((chains or {}).items()):
        add_chain(model, name, [THREE_LETTERS[letter] for letter in sequence], shift=12.0 * number)
    return structure


def set_sequence(structure: Any, chain: str, names: Sequence[str]) -> None:
    """Give a chain its complete sequence (SEQRES); to be called when all chains are there."""
    structure.setup_entities()
    structure.get_entity_of(structure[0][chain].get_polymer()).full_sequence = list(names)
    structure.assign_label_seq_id(force=True)


def write_structure(path: Path, structure: Any) -> Path:
    """Write ``.pdb``, ``.cif`` or ``.bcif``."""
    structure.setup_entities()
    if path.suffix == ".pdb":
        structure.write_pdb(str(path))
    elif path.suffix == ".cif":
        structure.make_mmcif_document().write_file(str(path))
    else:
        path.write_bytes(binary_cif(structure.make_mmcif_document()[0]))
    return path


# --- BinaryCIF ------------------------------------------------------------------------------------------------------


def binary_cif(block: Any) -> bytes:
    """BinaryCIF of a ``gemmi.cif.Block``, with every kind of encoding in ``atom_site``."""
    categories = []
    for name in block.get_mmcif_category_names():
        values = block.get_mmcif_category(name)
        rows = len(next(iter(values.values())))
        columns = [_column(f"{name}{column}", entries) for column, entries in values.items()]
        categories.append({"name": name.rstrip("."), "rowCount": rows, "columns": columns})
    content = {"version": "0.3.0", "encoder": "tests", "dataBlocks": [{"header": block.name, "categories": categories}]}
    packed: bytes = msgpack.packb(content)
    return packed


def _column(name: str, entries: Sequence[Any]) -> dict[str, Any]:
    mask = [1 if value is False else 2 if value is None else 0 for value in entries]
    if name in _ENCODERS:
        data = _ENCODERS[name](np.array([float(value or 0) for value in entries]))
    else:
        data = strings([value if isinstance(value, str) else "" for value in entries])
    return {
        "name": name.rpartition(".")[2],
        "data": data,
        "mask": byte_array(np.array(mask, dtype=np.uint8)) if any(mask) else None,
    }


def byte_array(values: np.ndarray) -> dict[str, Any]:
    kinds = {"i1": 1, "i2": 2, "i4": 3, "u1": 4, "u2": 5, "u4": 6, "f4": 32, "f8": 33}
    encoding = {"kind": "ByteArray", "type": kinds[values.dtype.str[1:]]}
    return {"data": values.astype(values.dtype.newbyteorder("<")).tobytes(), "encoding": [encoding]}


def _with(encoding: dict[str, Any], inner: dict[str, Any]) -> dict[str, Any]:
    return {"data": inner["data"], "encoding": [encoding, *inner["encoding"]]}


def fixed_point(values: np.ndarray) -> dict[str, Any]:
    encoding = {"kind": "FixedPoint", "factor": 1000, "srcType": 32}
    return _with(encoding, delta(np.rint(values * 1000).astype(np.int64)))


def delta(values: np.ndarray) -> dict[str, Any]:
    encoding = {"kind": "Delta", "origin": int(values[0]), "srcType": 3}
    return _with(encoding, integer_packing(np.diff(values, prepend=values[0])))


def integer_packing(values: np.ndarray) -> dict[str, Any]:
    packed: list[int] = []
    for value in values.tolist():
        limit = 127 if value >= 0 else -128
        while value not in range(-127, 127):
            packed.append(limit)
            value -= limit
        packed.append(value)
    encoding = {"kind": "IntegerPacking", "byteCount": 1, "srcSize": len(values), "isUnsigned": False}
    return _with(encoding, byte_array(np.array(packed, dtype=np.int8)))


def run_length(values: np.ndarray) -> dict[str, Any]:
    whole = values.astype(np.int32)
    starts = np.flatnonzero(np.diff(whole, prepend=whole[0] - 1))
    pairs = np.stack([whole[starts], np.diff(starts, append=len(whole))], axis=1).ravel().astype(np.int32)
    return _with({"kind": "RunLength", "srcType": 3, "srcSize": len(whole)}, byte_array(pairs))


def interval_quantization(values: np.ndarray) -> dict[str, Any]:
    encoding = {"kind": "IntervalQuantization", "min": 0.0, "max": 100.0, "numSteps": 101, "srcType": 32}
    return _with(encoding, byte_array(np.rint(values).astype(np.uint8)))


def strings(values: Sequence[str]) -> dict[str, Any]:
    unique = sorted(set(values))
    offsets = byte_array(np.cumsum([0, *map(len, unique)]).astype(np.int32))
    places = byte_array(np.array([unique.index(value) for value in values], dtype=np.int32))
    encoding = {
        "kind": "StringArray",
        "stringData": "".join(unique),
        "offsets": offsets["data"],
        "offsetEncoding": offsets["encoding"],
        "dataEncoding": places["encoding"],
    }
    return {"data": places["data"], "encoding": [encoding]}


_ENCODERS = {
    "_atom_site.Cartn_x": fixed_point,
    "_atom_site.Cartn_y": fixed_point,
    "_atom_site.Cartn_z": lambda values: byte_array(values.astype(np.float64)),
    "_atom_site.id": lambda values: delta(values.astype(np.int64)),
    "_atom_site.B_iso_or_equiv": lambda values: byte_array(values.astype(np.float32)),
    "_atom_site.pdbx_PDB_model_num": run_length,
}
