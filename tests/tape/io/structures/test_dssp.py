"""DSSP: states along a chain, by the program itself where it is installed, and what it prints when it fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.errors import ProteinLMError
from tape.io.structures import StructureOptions, read_structures
from tape.io.structures.dssp import _parse, find_dssp
from tests.support.structure_files import THREE_LETTERS, add_chain, new_structure, set_sequence, write_structure

PROGRAM = find_dssp()

LINES = """\
  #  RESIDUE AA STRUCTURE BP1 BP2  ACC     N-H-->O
    1    1 A A     >        0   0  109      0, 0.0
    2    2 A A  H  >  +     0   0   69      1,-0.2
    3        !*             0   0    0      0, 0.0
    4    9 B P  P     +     0   0   63      4,-1.4
""".splitlines()


@pytest.mark.skipif(PROGRAM is None, reason="needs DSSP: apt install dssp")
def test_a_helix_is_a_helix_and_unresolved_residues_have_no_state(tmp_path: Path) -> None:
    structure = new_structure()
    names = ["MSE", *(THREE_LETTERS[letter] for letter in "KVLAAGIVELC")]
    add_chain(structure[0], "A", names, ["52", "52A", *map(str, range(53, 63))])
    add_chain(structure[0], "LONG", names, shift=30.0)
    del structure[0]["A"][11]
    set_sequence(structure, "A", ["GLY", *names])
    path = write_structure(tmp_path / "x.cif", structure)
    first, second = read_structures([path], StructureOptions(dssp=PROGRAM))
    assert first.primary == "GMKVLAAGIVELC"
    assert first.ss8 == "-CHHHHHHHHHC-"
    assert second.ss8 == "CHHHHHHHHHHC"


def test_the_lines_of_dssp_are_read() -> None:
    assert _parse(LINES) == [(("A", 1), "C"), (("A", 2), "H"), (("B", 9), "C")]
    assert _parse([]) == []


def test_files_too_large_for_the_format_have_no_states(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    structure = new_structure()
    for number in range(63):
        add_chain(structure[0], f"A{number}", ["MET", "LYS"], shift=9.0 * number)
    chains = list(read_structures([write_structure(tmp_path / "x.cif", structure)], StructureOptions(dssp="none")))
    assert {chain.ss8 for chain in chains} == {"--"}
    assert "files too large for DSSP, without secondary structure: 1 (x)" in caplog.text


def test_the_output_of_a_failure_is_shown(tmp_path: Path) -> None:
    program = tmp_path / "mkdssp"
    program.write_text("#!/bin/sh\necho 'unrecognized option' >&2\nexit 3\n")
    program.chmod(0o755)
    path = write_structure(tmp_path / "x.pdb", new_structure({"A": "MKV"}))
    with pytest.raises(ProteinLMError, match=r"x\.pdb: DSSP failed \(exit code 3\)") as caught:
        list(read_structures([path], StructureOptions(dssp=str(program))))
    assert caught.value.details == ["unrecognized option"]
    with pytest.raises(ProteinLMError, match="missing: can't be run"):
        list(read_structures([path], StructureOptions(dssp=str(tmp_path / "missing"))))


def test_chains_of_c_alpha_atoms_have_no_states_with_a_notice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    program = tmp_path / "mkdssp"
    program.write_text(f"#!/bin/sh\nprintf '%s\\n' '{LINES[0]}' '{LINES[1]}' > \"$4\"\n")
    program.chmod(0o755)
    path = write_structure(tmp_path / "x.pdb", new_structure({"A": "MKV", "B": "ACD"}))
    first, second = read_structures([path], StructureOptions(dssp=str(program)))
    assert (first.ss8, second.ss8) == ("C--", "---")
    assert "such as C-alpha atoms alone, without secondary structure: 1 (x-B)" in caplog.text
