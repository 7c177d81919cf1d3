"""Protein chains of structures, as the contact and residue tasks need them.

- The sequence is the complete one of the chain's entity (SEQRES, ``entity_poly_seq``), onto which the residues with
  coordinates are placed; residues without coordinates are unresolved. A chain without such a sequence consists of its
  residues with coordinates.
- A modified residue has the letter of its parent, by the file's own table of modified residues or else by that of
  Gemmi (MSE is M); X if it has none.
- The point of a residue is its C-alpha atom, as in ProteinNet and TAPE, or its C-beta atom as in CASP, where that of
  glycine is the C-alpha atom. A residue without that atom is unresolved.
- Of alternate locations, the one with the highest occupancy counts, the first of equal ones; of several models, the
  first.
- Chains other than L-peptides, such as DNA, are left out with a notice.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tape.errors import ConfigError, DataError, listed, quoted
from tape.io.text_files import ReadCallback

from .dssp import UNASSIGNED, assign_states
from .files import read_structure, require_gemmi, structure_name
from .placement import parents_of, residue_letter

ATOMS = ("CA", "CB")
_NO_BACKBONE = "chains without a complete backbone, such as C-alpha atoms alone, without secondary structure"
_MOST_NAMED = 5  # chains in a notice

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProteinChain:
    """One chain of L residues.

    Attributes:
        identifier: name of the file and of the chain, ``1abc-A``.
        primary: the sequence, one letter per residue.
        tertiary: (L, 3) float32, the point of each residue in Angstrom; NaN where unresolved.
        ss8: DSSP state of each residue, ``-`` where there is none; None if states were not asked for.
        where: file and chain, for messages.
    """

    identifier: str
    primary: str
    tertiary: np.ndarray
    ss8: str | None
    where: str

    @property
    def valid_mask(self) -> np.ndarray:
        """(L,) bool: whether a residue is resolved."""
        return np.asarray(np.isfinite(self.tertiary).all(axis=1))


@dataclass(frozen=True)
class StructureOptions:
    """What is read of structures.

    Attributes:
        atom: the atom whose position is that of its residue, one of :data:`ATOMS`.
        chains: names of the chains (``auth_asym_id``) to read of each file; None: all.
        dssp: path of DSSP, which assigns ``ss8``; None: no states. See :func:`tape.io.structures.dssp.find_dssp`.

    Raises:
        ConfigError: there is no such atom.
    """

    atom: str = "CA"
    chains: tuple[str, ...] | None = None
    dssp: str | None = None

    def __post_init__(self) -> None:
        if self.atom not in ATOMS:
            raise ConfigError(f"the atom of a residue is one of {', '.join(ATOMS)}, not {quoted(self.atom)}")


def read_structures(
    files: Iterable[Path],
    options: StructureOptions = StructureOptions(),
    progress: ReadCallback | None = None,
    warn: Callable[[str], None] = logger.warning,
) -> Iterator[ProteinChain]:
    """Yield the protein chains of structure files, one file in memory at a time.

    What was left out or assumed is announced, each kind in one line, when all files are read.

    Args:
        files: see :func:`tape.io.structures.find_structure_files`.
        options: which chains, atoms and states.
        progress: called with the number of bytes just read from a file.
        warn: called with these lines; by default, they are logged as warnings.

    Raises:
        DataError: a file can't be read, has no protein or not the chosen chain, or contradicts itself.
        ConfigError: gemmi is not installed.
    """
    require_gemmi()
    notices: dict[str, list[str]] = defaultdict(list)
    for path in files:
        try:
            chains = list(_read_file(path, options, progress, notices))
        except UnicodeDecodeError as error:  # from the name of an atom, a residue or a chain
            raise DataError(f"{path}: damaged: a name has characters other than ASCII ({error})") from error
        yield from chains
    for notice, names in notices.items():
        more = " ..." if len(names) > _MOST_NAMED else ""
        warn(f"{notice}: {len(names)} ({listed(names[:_MOST_NAMED])}{more})")


def _read_file(
    path: Path, options: StructureOptions, progress: ReadCallback | None, notices: dict[str, list[str]]
) -> Iterator[ProteinChain]:
    structure, name = read_structure(path, progress), structure_name(path)
    if len(structure) > 1:
        notices["files with several models, of which the first is read"].append(name)
    proteins = {}
    for chain in structure[0]:
        polymer = chain.get_polymer()
        if not len(polymer):
            continue
        if _is_protein(structure, polymer):
            proteins[chain.name] = polymer
        else:
            notices["chains that are no protein and are left out"].append(f"{name}-{chain.name}")
    if not proteins:
        raise DataError(f"{path}: has no protein chain; its chains are {listed(c.name for c in structure[0])}")
    states = None if options.dssp is None else assign_states(options.dssp, proteins, path)
    if options.dssp is not None and states is None:
        notices["files too large for DSSP, without secondary structure"].append(name)
    for chosen in _chosen(proteins, options.chains, path):
        layout = _Layout(structure, proteins[chosen], chosen, path)
        if layout.without_sequence:
            notices["chains without a sequence (SEQRES), which consist of their residues with coordinates"].append(
                f"{name}-{chosen}"
            )
        if states is not None and not states[chosen]:
            notices[_NO_BACKBONE].append(f"{name}-{chosen}")
        letters = None if options.dssp is None else layout.letters({} if states is None else states[chosen])
        yield ProteinChain(f"{name}-{chosen}", layout.primary, layout.points(options.atom), letters, layout.where)


def _is_protein(structure: Any, polymer: Any) -> bool:
    gemmi = require_gemmi()
    entity = structure.get_entity_of(polymer)
    kind = gemmi.PolymerType.Unknown if entity is None else entity.polymer_type
    if kind in (gemmi.PolymerType.Unknown, gemmi.PolymerType.Other):
        kind = polymer.check_polymer_type()
    return bool(kind == gemmi.PolymerType.PeptideL)


def _chosen(proteins: dict[str, Any], chains: Sequence[str] | None, path: Path) -> Sequence[str]:
    if chains is None:
        return tuple(proteins)
    missing = [name for name in chains if name not in proteins]
    if missing:
        raise DataError(f"{path}: has no protein chain {listed(missing)}; its protein chains are {listed(proteins)}")
    return chains


class _Layout:
    """Residues of a polymer placed onto its sequence.

    Args:
        structure: a ``gemmi.Structure`` with entities.
        polymer: the polymer of the chain.
        chain: name of the chain.
        path: its file, for messages.

    Raises:
        DataError: a residue is there twice, or isn't that of the sequence.
    """

    def __init__(self, structure: Any, polymer: Any, chain: str, path: Path) -> None:
        self.where = f"{path}, chain {chain}"
        self._parents = parents_of(structure)
        entity = structure.get_entity_of(polymer)
        names = [] if entity is None else list(entity.full_sequence)
        self.without_sequence = not names
        self._residues: dict[int, list[Any]] = defaultdict(list)  # place in the sequence, from 0 -> residues there
        if names:
            self._place(polymer, names)
        else:
            names = self._place_in_order(polymer)
        self.primary = "".join(self._letter(name) for name in names)

    def _place(self, polymer: Any, names: Sequence[str]) -> None:
        for residue in polymer:
            number = residue.label_seq
            if number is None or not 1 <= number <= len(names):
                raise DataError(f"{self._named(residue)} is not in the chain's sequence (SEQRES)")
            expected = names[number - 1].split(",")  # several names: residues that share a place, by occupancy
            if residue.name not in expected and len({self._letter(n) for n in (residue.name, *expected)}) > 1:
                raise DataError(
                    f"{self._named(residue)} has coordinates where the chain's sequence (SEQRES) has {expected[0]},"
                    f" residue {number}; correct either"
                )
            self._add(number - 1, residue)

    def _place_in_order(self, polymer: Any) -> list[str]:
        places: dict[str, int] = {}
        for residue in polymer:  # residues with the same number and insertion code are alternatives
            self._add(places.setdefault(str(residue.seqid), len(places)), residue)
        best = (max(found, key=_occupancy) for found in self._residues.values())  # the first of equal ones
        return [residue.name for residue in best]

    def _add(self, place: int, residue: Any) -> None:
        if any(other.name == residue.name for other in self._residues[place]):
            raise DataError(f"{self._named(residue)} is there twice")
        self._residues[place].append(residue)

    def _named(self, residue: Any) -> str:
        return f"{self.where}: residue {residue.name} {residue.seqid}"

    def _letter(self, names: str) -> str:
        return residue_letter(names, self._parents)

    def points(self, atom: str) -> np.ndarray:
        """(L, 3) float32, positions of the atoms of that name, NaN where there is none."""
        points = np.full((len(self.primary), 3), np.nan, dtype=np.float32)
        for place, residues in self._residues.items():
            name = "CA" if self.primary[place] == "G" else atom
            atoms = [found for residue in residues for found in self._atoms(residue, name)]
            if atoms:
                points[place] = max(atoms, key=lambda found: found.occ).pos.tolist()  # the first of equal ones
        return points

    def _atoms(self, residue: Any, name: str) -> list[Any]:
        atoms = [atom for atom in residue if atom.name == name]
        if len({atom.altloc for atom in atoms}) < len(atoms):
            raise DataError(
                f"{self._named(residue)} has the atom {name} more than once without different alternate locations;"
                " are two chains of the same name in the file?"
            )
        if not all(np.isfinite(atom.pos.tolist()).all() for atom in atoms):
            raise DataError(f"{self._named(residue)}: a coordinate of the atom {name} is not a number")
        return atoms

    def letters(self, states: dict[str, str]) -> str:
        """DSSP states along the sequence, from those of the residues by number and insertion code."""
        found = [UNASSIGNED] * len(self.primary)
        for place, residues in self._residues.items():
            found[place] = states.get(str(residues[0].seqid), UNASSIGNED)
        return "".join(found)


def _occupancy(residue: Any) -> float:
    return max((atom.occ for atom in residue if atom.name == "CA"), default=0.0)
