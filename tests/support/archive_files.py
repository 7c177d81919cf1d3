"""PDBx/mmCIF and PDB files in the form that the wwPDB distributes, as text, without a library for structures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

Point = tuple[float, float, float]

# Position of an atom relative to the C-alpha atom of its residue, in Angstrom.
_ATOMS = {
    "N": (-1.2, 0.6, 0.4),
    "CA": (0.0, 0.0, 0.0),
    "C": (0.9, 1.0, 0.7),
    "O": (0.6, 2.1, 0.9),
    "CB": (0.5, -1.3, 0.6),
}
_SECOND_MODEL = 40.0  # Angstrom from the first
OF_SECOND_NAME = 2.0  # Angstrom in x from the residue that has the first name at the same place
_ATOM_SITE = """group_PDB id type_symbol label_atom_id label_alt_id label_comp_id label_asym_id label_entity_id
    label_seq_id
    pdbx_PDB_ins_code Cartn_x Cartn_y Cartn_z occupancy B_iso_or_equiv pdbx_formal_charge auth_seq_id auth_comp_id
    auth_asym_id auth_atom_id pdbx_PDB_model_num"""
_POLY_SEQ_SCHEME = """asym_id entity_id seq_id mon_id ndb_seq_num pdb_seq_num auth_seq_num pdb_mon_id auth_mon_id
    pdb_strand_id pdb_ins_code hetero"""


@dataclass(frozen=True)
class Residue:
    """A place in a sequence.

    Attributes:
        names: its component; with two, the second has the higher occupancy.
        number: ``auth_seq_id``.
        point: its C-alpha atom; None if it is not resolved.
        icode: insertion code.
    """

    names: tuple[str, ...]
    number: int
    point: Point | None
    icode: str = "?"


@dataclass(frozen=True)
class Chain:
    """A chain that the authors call ``author`` and the archive ``label``; each is an entity of its own."""

    label: str
    author: str
    residues: Sequence[Residue]


def archive_mmcif(chains: Sequence[Chain], code: str = "1ABC") -> str:
    """A file with two models, MSE as HETATM, and waters, a calcium ion and a free glycine in each author's chain."""
    entity = {chain.label: str(number) for number, chain in enumerate(chains, start=1)}
    ligands = {name: str(len(chains) + number) for number, name in enumerate(("CA", "GLY", "HOH"), start=1)}
    polymers = [[entity[chain.label], "polymer", "man", f"'{chain.label} protein'"] for chain in chains]
    others = [[number, "water" if name == "HOH" else "non-polymer", "syn", name] for name, number in ligands.items()]
    places = [(chain, seq, residue) for chain in chains for seq, residue in enumerate(chain.residues, start=1)]
    sequence = [
        [entity[chain.label], seq, name, "y" if len(residue.names) > 1 else "n"]
        for chain, seq, residue in places
        for name in residue.names
    ]
    scheme = []
    for chain, seq, residue in places:
        seen = ["?"] * 3 if residue.point is None else [residue.number, residue.names[0], residue.names[0]]
        icode = residue.icode.replace("?", ".")
        ends = [chain.author, icode, "y" if len(residue.names) > 1 else "n"]
        scheme.append([chain.label, entity[chain.label], seq, residue.names[0], seq, residue.number, *seen, *ends])
    rows = [row for model in (1, 2) for row in _atom_rows(chains, entity, ligands, model)]
    return "\n".join(
        [
            f"data_{code}\n#\n_entry.id   {code}\n#",
            _loop("entity", "id type src_method pdbx_description", polymers + others),
            _loop(
                "entity_poly", "entity_id type nstd_linkage", [[e, "'polypeptide(L)'", "no"] for e in entity.values()]
            ),
            _loop("entity_poly_seq", "entity_id num mon_id hetero", sequence),
            _loop("pdbx_poly_seq_scheme", _POLY_SEQ_SCHEME, scheme),
            _loop("atom_site", _ATOM_SITE, [[row[0], number, *row[1:]] for number, row in enumerate(rows, start=1)]),
        ]
    )


def _loop(category: str, columns: str, rows: Iterable[Sequence[object]]) -> str:
    head = ["loop_", *(f"_{category}.{column} " for column in columns.split())]
    return "\n".join([*head, *(" ".join(map(str, row)) + " " for row in rows), "#"])


def _atom_rows(
    chains: Sequence[Chain], entity: dict[str, str], ligands: dict[str, str], model: int
) -> Iterator[list[object]]:
    """Rows of one model without ``atom_site.id``."""
    shift = _SECOND_MODEL * (model - 1)
    for chain in chains:
        for seq, residue in enumerate(chain.residues, start=1):
            if residue.point is None:
                continue
            for rank, name in enumerate(residue.names):
                altloc, occupancy = (".", "1.00") if len(residue.names) == 1 else ("AB"[rank], ("0.35", "0.65")[rank])
                group = "HETATM" if name == "MSE" else "ATOM"
                for atom, offset in _ATOMS.items():
                    if (name, atom) == ("GLY", "CB"):
                        continue
                    x, y, z = (a + b + shift for a, b in zip(residue.point, offset, strict=True))
                    position = [f"{x + OF_SECOND_NAME * rank:.3f}", f"{y:.3f}", f"{z:.3f}", occupancy, "20.00", "?"]
                    labels = [atom[0], atom, altloc, name, chain.label, entity[chain.label], seq, residue.icode]
                    yield [group, *labels, *position, residue.number, name, chain.author, atom, model]
    asyms = iter("UVWXYZ")
    for number, (name, atom) in enumerate((("CA", "CA"), ("GLY", "CA"), ("HOH", "O")), start=1):
        for chain in chains:  # with the number of a residue of the protein, as old entries had
            labels = [atom if name == "CA" else atom[0], atom, ".", name, next(asyms), ligands[name], ".", "?"]
            position = [f"{1.5 * number + shift:.3f}", "0.100", "0.200", "1.00", "20.00", "?"]
            yield ["HETATM", *labels, *position, 900 + number, name, chain.author, atom, model]
