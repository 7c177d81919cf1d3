"""Files in the form that the wwPDB distributes: numbers and names of authors and of the archive, and old PDB files."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tape.io.structures import ProteinChain, StructureOptions, read_structures
from tests.support.archive_files import OF_SECOND_NAME, Chain, Residue, archive_mmcif


def read(path: Path, atom: str = "CA") -> dict[str, ProteinChain]:
    return {chain.identifier: chain for chain in read_structures([path], StructureOptions(atom=atom))}


def mask_of(chain: ProteinChain) -> str:
    return "".join(map(str, chain.valid_mask.astype(int)))


def residues_of(row: str) -> list[Residue]:
    """Of words such as ``27A:SER/THR@1,2,3``, or ``5:GLY@`` without coordinates."""
    found = []
    for word in row.split():
        place, _, point = word.partition("@")
        number, _, names = place.partition(":")
        icode = number[-1] if number[-1].isalpha() else "?"
        x, y, z = map(float, (point or "0,0,0").split(","))
        position = (x, y, z) if point else None
        found.append(Residue(tuple(names.split("/")), int(number.rstrip("AB")), position, icode))
    return found


HEAVY = (
    "0:GLY@ 1:SER@ 2:MSE@1,0,0 27:LYS@2,5,0 27A:SER/THR@3,5,9 27B:ALA@4,0,1 40:ALA@ 41:ALA@ 28:ALA@7,0,2 29:GLY@9,1,3"
)
LIGHT = "-3:HIS@ -2:HIS@-1,7,7 -1:HIS@-2,8,7 1:HIS@-3,9,7 2:VAL@-4,9,8 1001:TRP@ 1002:HIS@-6,1,8 1003:HIS@ 1004:HIS@"


@pytest.mark.parametrize("atom", ["CA", "CB"])
def test_residues_have_the_archives_places_and_the_authors_chains(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, atom: str
) -> None:
    path = tmp_path / "1abc.cif"
    path.write_text(archive_mmcif([Chain("A", "B", residues_of(HEAVY)), Chain("B", "A", residues_of(LIGHT))]))
    found = read(path, atom=atom)
    assert sorted(found) == ["1abc-A", "1abc-B"]
    heavy, light = found["1abc-B"], found["1abc-A"]
    assert (heavy.primary, mask_of(heavy)) == ("GSMKSAAAAG", "0011110011")
    assert (light.primary, mask_of(light)) == ("HHHHVWHHH", "011110100")
    beta = np.array([0.5, -1.3, 0.6]) if atom == "CB" else np.zeros(3)
    expected = np.array([[1, 0, 0], [2, 5, 0], [3 + OF_SECOND_NAME, 5, 9], [4, 0, 1], [7, 0, 2], [9, 1, 3]]) + beta
    expected[-1] -= beta  # a glycine
    np.testing.assert_allclose(heavy.tertiary[[2, 3, 4, 5, 8, 9]], expected, atol=1e-5)
    assert "several models, of which the first is read: 1 (1abc)" in caplog.text


# Chain A: a selenomethionine, an insertion code, alternate locations and an unresolved serine among others; chain B: a
# tag of histidines without number 2, half of which is unresolved.
PDB_FILE = """\
HEADER    HYDROLASE                               01-JAN-99   1XYZ
REMARK 465
REMARK 465 MISSING RESIDUES
REMARK 465 THE FOLLOWING RESIDUES WERE NOT LOCATED IN THE
REMARK 465 EXPERIMENT. (M=MODEL NUMBER; RES=RESIDUE NAME; C=CHAIN
REMARK 465 IDENTIFIER; SSSEQ=SEQUENCE NUMBER; I=INSERTION CODE.)
REMARK 465
REMARK 465   M RES C SSSEQI
REMARK 465     GLY A    50
REMARK 465     SER A    51
REMARK 465     SER A    53
REMARK 465   1 HIS B    -1
REMARK 465   1 HIS B     1
REMARK 465   1 HIS B     4
REMARK 465   2 HIS B     2
SEQRES   1 A    8  GLY SER MSE SER SER SER LYS GLY
SEQRES   1 B    6  HIS HIS HIS HIS HIS TRP
MODRES 1XYZ MSE A   52  MET  SELENOMETHIONINE
MODEL        1
HETATM    1  CA  MSE A  52       1.000   0.000   0.000  1.00 20.00          SE
ATOM      2  CA  SER A  52A      2.000   5.000   0.000  1.00 20.00           C
ATOM      3  CA ASER A  54       3.000   5.000   9.000  0.40 20.00           C
ATOM      4  CA BSER A  54       3.500   5.000   9.000  0.60 20.00           C
ATOM      5  CA  LYS A  55       7.000   0.000   2.000  1.00 20.00           C
ATOM      6  CA  GLY A  56       9.000   1.000   3.000  1.00 20.00           C
TER       7      GLY A  56
ATOM      8  CA  HIS B   0      -1.000   7.000   7.000  1.00 20.00           C
ATOM      9  CA  HIS B   3      -2.000   8.000   7.000  1.00 20.00           C
ATOM     10  CA  TRP B   5      -3.000   9.000   7.000  1.00 20.00           C
TER      11      TRP B   5
HETATM   12 CA    CA A 100       0.000   1.000   1.000  1.00 20.00          CA2+
HETATM   13  O   HOH A  53       0.000   0.000   1.000  1.00 20.00           O
HETATM   14  O   HOH B 101       0.000   0.000   2.000  1.00 20.00           O
ENDMDL
MODEL        2
ATOM      1  CA  MSE A  52      41.000   0.000   0.000  1.00 20.00           C
ENDMDL
END
"""
CHAIN_A = np.array([[1, 0, 0], [2, 5, 0], [3.5, 5, 9], [7, 0, 2], [9, 1, 3]])


@pytest.mark.parametrize("legacy", [False, True])
def test_an_old_pdb_file(tmp_path: Path, legacy: bool) -> None:
    text = PDB_FILE
    if legacy:  # code and number of the line in columns 73 to 80
        lines = text.splitlines()
        text = "\n".join(f"{line[:72]:72}1XYZ{number:4}" for number, line in enumerate(lines, start=120))
    path = tmp_path / "pdb1xyz.ent"
    path.write_text(text, encoding="ascii")
    found = read(path)
    assert sorted(found) == ["1xyz-A", "1xyz-B"]
    first, second = found["1xyz-A"], found["1xyz-B"]
    assert (first.primary, mask_of(first)) == ("GSMSSSKG", "00110111")
    np.testing.assert_allclose(first.tertiary[first.valid_mask], CHAIN_A, atol=1e-5)
    assert (second.primary, mask_of(second)) == ("HHHHHW", "010101")


def pdb_lines(sequence: str, numbers: dict[int, str]) -> list[str]:
    """Chain A: its sequence in names of three letters, and the number and name of the residues with coordinates."""
    names = sequence.split()
    lines = [f"SEQRES   1 A {len(names):4}  {sequence}"]
    for serial, (number, name) in enumerate(numbers.items(), start=1):
        x = 3.8 * number
        lines.append(f"ATOM  {serial:5}  CA  {name} A{number:4}    {x:8.3f}   0.000   0.000  1.00 20.00           C")
    return lines


@pytest.mark.parametrize(
    ("sequence", "numbers", "expected"),
    [
        ("GLY SER GLY SER GLY SER TRP", {2: "SER", 5: "GLY", 6: "SER"}, "0100110"),  # as they are
        ("GLY SER GLY SER GLY SER TRP", {22: "SER", 25: "GLY", 27: "TRP"}, "0100101"),  # shifted by 20
        ("GLY SER GLY SER GLY SER TRP", {2: "SER", 7: "GLY", 8: "SER", 9: "TRP"}, "0100111"),  # two gaps: aligned
    ],
    ids=["numbers", "shifted", "aligned"],
)
def test_numbers_place_the_residues_of_repeats(
    tmp_path: Path, sequence: str, numbers: dict[int, str], expected: str
) -> None:
    path = tmp_path / "x.pdb"
    path.write_text("\n".join([*pdb_lines(sequence, numbers), "TER", "END"]), encoding="ascii")
    (chain,) = read(path).values()
    assert mask_of(chain) == expected
    np.testing.assert_allclose(chain.tertiary[chain.valid_mask][:, 0], [3.8 * number for number in numbers], rtol=1e-5)


@pytest.mark.parametrize(
    ("sequence", "remarks", "atoms", "expected"),
    [
        # as in trypsin, residue 184A precedes 184
        ("TRP GLY GLY TYR LYS", (), ("TRP  183 ", "GLY  184A", "GLY  184 ", "TYR  185 ", "LYS  186 "), "11111"),
        # as in thrombin, codes descend, here before a residue without coordinates
        ("GLY GLY GLY GLY ALA", ("ALA A    2 ",), ("GLY    1C", "GLY    1B", "GLY    1A", "GLY    1 "), "11110"),
        # selenomethionine where SEQRES has methionine, without MODRES
        ("HIS HIS HIS MET TRP", ("HIS A   -1 ", "HIS A    1 "), ("HIS    0 ", "MSE    2 ", "TRP    3 "), "01011"),
    ],
    ids=["184A", "1C", "MSE"],
)
def test_residues_stay_in_the_order_of_the_file(
    tmp_path: Path, sequence: str, remarks: tuple[str, ...], atoms: tuple[str, ...], expected: str
) -> None:
    lines = [f"REMARK 465     {remark}" for remark in remarks]
    lines.append(f"SEQRES   1 A {len(sequence.split()):4}  {sequence}")
    for serial, atom in enumerate(atoms, start=1):
        name, number = atom[:3], atom[4:]
        lines.append(
            f"ATOM  {serial:5}  CA  {name} A{number}   {3.8 * serial:8.3f}   0.000   0.000  1.00 20.00           C"
        )
    path = tmp_path / "x.pdb"
    path.write_text("\n".join([*lines, "TER", "END"]), encoding="ascii")
    (chain,) = read(path).values()
    assert mask_of(chain) == expected
    np.testing.assert_allclose(
        chain.tertiary[chain.valid_mask][:, 0], [3.8 * serial for serial in range(1, len(atoms) + 1)], rtol=1e-5
    )
