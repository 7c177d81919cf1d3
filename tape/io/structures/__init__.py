"""Protein chains of structure files: sequences, coordinates and DSSP states of ``.pdb``, ``.cif`` and ``.bcif`` files.

============  ==================  ============================================================================
format        suffixes            content
============  ==================  ============================================================================
PDB           .pdb .ent           ATOM, HETATM, SEQRES and MODRES records
PDBx/mmCIF    .cif .mmcif         ``atom_site``, with ``entity_poly_seq`` for the complete sequence
BinaryCIF     .bcif               the same, see :mod:`.binary_cif`
============  ==================  ============================================================================

Each may be compressed, with the additional suffix .gz, .bz2, .xz or .zst. Gemmi (Wojdyr 2022) reads the first two and
interprets all three; it is the extra ``structures`` of this package.
"""

from .chains import ATOMS, ProteinChain, StructureOptions, read_structures
from .files import STRUCTURE_SUFFIXES, find_structure_files, is_structure_file

__all__ = [
    "ATOMS",
    "STRUCTURE_SUFFIXES",
    "ProteinChain",
    "StructureOptions",
    "find_structure_files",
    "is_structure_file",
    "read_structures",
]
