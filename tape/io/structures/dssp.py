"""Secondary structure by DSSP (Kabsch and Sander 1983), the program ``mkdssp`` or ``dssp`` on the PATH, version 4.

The program gets a PDB file with nothing but the backbones of the proteins, since it refuses much of what other programs
write, or leaves it out without an error: mmCIF files without some categories, long names of chains, PDB files without a
HEADER, components that it does not know.
"""

from __future__ import annotations

import shutil
import string
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tape.errors import ProteinLMError
from tape.io.records.labels import SS8_LETTERS
from tape.io.writing.temporary import scratch_directory

from .files import require_gemmi

PROGRAMS = ("mkdssp", "dssp")
INSTALL = "apt install dssp, or conda install -c conda-forge dssp"
UNASSIGNED = "-"
_BACKBONE = ("N", "CA", "C", "O")
_COIL = "C"  # DSSP writes a blank, and P for a polyproline II helix
_SECONDS = 600
# Of the PDB format: chains have names of one character, residues numbers of four digits.
_CHAIN_NAMES = string.ascii_uppercase + string.ascii_lowercase + string.digits
_MOST_RESIDUES = 9_999
_FIRST_LINE = "HEADER    PROTEIN                                 01-JAN-00   1ABC\n"  # without it, mmCIF is expected
_HEADER = "  #  RESIDUE"
_LAST_LINES = 10


def find_dssp() -> str | None:
    """Path of the program; None if it is not installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def assign_states(program: str, proteins: Mapping[str, Any], path: Path) -> dict[str, dict[str, str]] | None:
    """DSSP states of the residues of some chains, with the hydrogen bonds between them.

    Args:
        program: path of DSSP.
        proteins: name of the chain -> its polymer.
        path: the file of the structure, for messages.

    Returns:
        Name of the chain -> number and insertion code of a residue -> one of :data:`SS8_LETTERS`. Residues with an
        incomplete backbone are not there. None if the structure is larger than the PDB format allows.

    Raises:
        ProteinLMError: the program can't be run or fails.
    """
    if len(proteins) > len(_CHAIN_NAMES) or max(map(len, proteins.values())) > _MOST_RESIDUES:
        return None
    copy, origins = _renumbered(proteins)
    with scratch_directory("dssp-") as folder:
        source, target = folder / "proteins.pdb", folder / "proteins.dssp"
        source.write_text(_FIRST_LINE + copy.make_minimal_pdb(), encoding="ascii")
        _run([program, "--output-format", "dssp", str(source), str(target)], path)
        lines = target.read_text(encoding="utf-8", errors="replace").splitlines()
    states: dict[str, dict[str, str]] = {name: {} for name in proteins}
    for residue, letter in _parse(lines):
        chain, seqid = origins[residue]
        states[chain][seqid] = letter
    return states


def _renumbered(proteins: Mapping[str, Any]) -> tuple[Any, dict[tuple[str, int], tuple[str, str]]]:
    """A structure of the chains' backbones, and (chain, number) of a residue in it -> its chain and number before."""
    gemmi = require_gemmi()
    copy, model = gemmi.Structure(), gemmi.Model(1)
    copy.cell = gemmi.UnitCell(1, 1, 1, 90, 90, 90)
    origins: dict[tuple[str, int], tuple[str, str]] = {}
    for letter, (name, polymer) in zip(_CHAIN_NAMES, proteins.items(), strict=False):
        chain = gemmi.Chain(letter)
        for number, residue in enumerate(polymer.first_conformer(), start=1):
            origins[letter, number] = (name, str(residue.seqid))
            chain.add_residue(_backbone(gemmi, residue, number))
        model.add_chain(chain)
    copy.add_model(model)
    return copy, origins


def _backbone(gemmi: Any, residue: Any, number: int) -> Any:
    """The backbone of a residue, as one that DSSP knows; all but proline have a hydrogen to bond with."""
    copy = gemmi.Residue()
    copy.name = "PRO" if residue.name == "PRO" else "ALA"
    copy.seqid = gemmi.SeqId(str(number))
    copy.het_flag = "A"
    for name in _BACKBONE:
        atoms = [atom for atom in residue if atom.name == name]
        if atoms:
            best = max(atoms, key=lambda atom: atom.occ).clone()
            best.altloc = "\0"
            copy.add_atom(best)
    return copy


def _run(command: list[str], path: Path) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=_SECONDS, check=False)
    except OSError as error:
        raise ProteinLMError(f"{command[0]}: can't be run ({error}); install DSSP 4: {INSTALL}") from error
    except subprocess.TimeoutExpired as error:
        raise ProteinLMError(f"{path}: DSSP was not finished after {_SECONDS} s") from error
    if done.returncode:
        end = (done.stdout + done.stderr).splitlines()[-_LAST_LINES:]
        raise ProteinLMError(
            f"{path}: DSSP failed (exit code {done.returncode}); it must be version 4; the end of its output:",
            details=end,
        )


def _parse(lines: list[str]) -> list[tuple[tuple[str, int], str]]:
    """((chain, number), state) of each residue in the lines of DSSP's own format."""
    start = next((place for place, line in enumerate(lines) if line.startswith(_HEADER)), len(lines))
    residues = [line for line in lines[start + 1 :] if line[13:14] not in ("!", "")]  # "!" is a break of the chain
    return [((line[11], int(line[5:10])), line[16] if line[16] in SS8_LETTERS else _COIL) for line in residues]
