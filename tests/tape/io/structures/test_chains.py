"""Protein chains of structures: sequences, unresolved residues, alternatives, modified residues, and refusals."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gemmi
import numpy as np
import pytest

from tape.errors import ConfigError, DataError
from tape.io.structures import ProteinChain, StructureOptions, find_structure_files, read_structures
from tests.support.structure_files import (
    THREE_LETTERS,
    add_chain,
    backbone,
    new_structure,
    set_sequence,
    write_structure,
)


def read(path: Path, **options: Any) -> list[ProteinChain]:
    return list(read_structures([path], StructureOptions(**options)))


def names_of(sequence: str) -> list[str]:
    return [THREE_LETTERS[letter] for letter in sequence]


@pytest.mark.parametrize("suffix", ["pdb", "cif", "bcif"])
def test_every_format_has_the_chains_that_were_written(tmp_path: Path, suffix: str) -> None:
    structure = new_structure({"A": "MKVLAAGIW", "B": "ACDEFGH"})
    first, second = read(write_structure(tmp_path / f"1abc.{suffix}", structure))
    assert (first.identifier, first.primary, first.ss8) == ("1abc-A", "MKVLAAGIW", None)
    assert (second.identifier, second.primary) == ("1abc-B", "ACDEFGH")
    np.testing.assert_allclose(first.tertiary, backbone(9)[:, 1], atol=6e-4)  # PDB has three decimals
    assert (first.tertiary.dtype, first.valid_mask.all()) == (np.float32, True)


@pytest.mark.parametrize("suffix", ["pdb", "cif", "bcif"])
def test_residues_of_the_sequence_without_coordinates_are_unresolved(tmp_path: Path, suffix: str) -> None:
    structure = new_structure({"A": "MKVLAAGIW"})
    del structure[0]["A"][4:6]
    set_sequence(structure, "A", names_of("GS" + "MKVLAAGIW" + "HH"))
    (chain,) = read(write_structure(tmp_path / f"x.{suffix}", structure))
    assert chain.primary == "GSMKVLAAGIWHH"
    assert "".join(map(str, chain.valid_mask.astype(int))) == "0011110011100"
    np.testing.assert_allclose(chain.tertiary[8], backbone(9)[6, 1], atol=6e-4)


def test_a_chain_without_a_sequence_consists_of_its_residues_with_a_notice(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    structure = new_structure()
    add_chain(structure[0], "A", names_of("MKVLA"), ["1", "2", "7", "8", "9"])
    (chain,) = read(write_structure(tmp_path / "x.pdb", structure))
    assert chain.primary == "MKVLA"
    assert (
        "chains without a sequence (SEQRES), which consist of their residues with coordinates: 1 (x-A)" in caplog.text
    )


def test_the_c_beta_atom_is_that_of_casp_with_the_c_alpha_atom_of_glycine(tmp_path: Path) -> None:
    structure = new_structure({"A": "MKG"})
    structure[0]["A"][1].remove_atom("CB", "\0", gemmi.Element("C"))
    path = write_structure(tmp_path / "x.pdb", structure)
    (chain,) = read(path, atom="CB")
    np.testing.assert_allclose(chain.tertiary[[0, 2]], [backbone(3)[0, 4], backbone(3)[2, 1]], atol=6e-4)
    assert chain.valid_mask.tolist() == [True, False, True]
    assert read(path)[0].valid_mask.all()
    with pytest.raises(ConfigError, match="one of CA, CB, not 'N'"):
        StructureOptions(atom="N")


def _alternative(residue: Any, occupancy: float, shift: float, altloc: str) -> None:
    atom = residue["CA"][0].clone()
    atom.altloc, atom.occ, atom.pos = altloc, occupancy, atom.pos + gemmi.Position(shift, 0, 0)
    residue.add_atom(atom)


def test_the_alternate_location_of_the_highest_occupancy_counts(tmp_path: Path) -> None:
    structure = new_structure({"A": "MKV"})
    for place, occupancies in ((0, (0.4, 0.6)), (1, (0.5, 0.5))):
        residue = structure[0]["A"][place]
        for shift, (altloc, occupancy) in enumerate(zip("AB", occupancies, strict=True)):
            _alternative(residue, occupancy, float(shift), altloc)
        residue.remove_atom("CA", "\0", gemmi.Element("C"))
    (chain,) = read(write_structure(tmp_path / "x.cif", structure))
    np.testing.assert_allclose(chain.tertiary[0], backbone(3)[0, 1] + [1, 0, 0], atol=1e-4)
    np.testing.assert_allclose(chain.tertiary[1], backbone(3)[1, 1], atol=1e-4)  # the first of equal ones


def test_residues_that_share_a_place_are_alternatives(tmp_path: Path) -> None:
    structure = new_structure()
    chain = add_chain(structure[0], "A", names_of("MSTK"), ["1", "2", "2", "3"])
    for place, (altloc, occupancy) in ((1, ("A", 0.3)), (2, ("B", 0.7))):
        for atom in chain[place]:
            atom.altloc, atom.occ = altloc, occupancy
    (read_chain,) = read(write_structure(tmp_path / "x.cif", structure))
    assert read_chain.primary == "MTK"
    np.testing.assert_allclose(read_chain.tertiary[1], backbone(4)[2, 1], atol=1e-4)


def test_modified_residues_have_the_letter_of_their_parent(tmp_path: Path) -> None:
    structure = new_structure()
    add_chain(structure[0], "A", ["ALA", "MSE", "SEC", "ZZ9", "QQ1", "GLY"])
    set_sequence(structure, "A", [residue.name for residue in structure[0]["A"]])
    path = write_structure(tmp_path / "x.pdb", structure)
    assert read(path)[0].primary == "AMUXXG"
    path.write_text("MODRES 1ABC QQ1 A    5  LYS  A COMMENT\n" + path.read_text())
    assert read(path)[0].primary == "AMUXKG"
    mmcif = gemmi.read_pdb(str(path))
    assert read(write_structure(tmp_path / "x.cif", mmcif))[0].primary == "AMUXKG"


def test_residues_with_insertion_codes_are_in_the_order_of_the_file(tmp_path: Path) -> None:
    structure = new_structure()
    add_chain(structure[0], "A", names_of("MKVLA"), ["51", "52", "52A", "52B", "53"])
    (chain,) = read(write_structure(tmp_path / "x.pdb", structure))
    assert chain.primary == "MKVLA"
    assert chain.valid_mask.all()


def test_the_first_of_several_models_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    structure = new_structure({"A": "MKV"})
    add_chain(structure.add_model(gemmi.Model(2)), "A", names_of("MKV"), shift=50.0)
    (chain,) = read(write_structure(tmp_path / "x.pdb", structure))
    np.testing.assert_allclose(chain.tertiary, backbone(3)[:, 1], atol=6e-4)
    assert "several models, of which the first is read: 1 (x)" in caplog.text


def test_nucleic_acids_are_left_out_with_a_notice(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    structure = new_structure({"A": "MKV"})
    add_chain(structure[0], "B", ["DA", "DC", "DG"])
    path = write_structure(tmp_path / "x.pdb", structure)
    assert [chain.identifier for chain in read(path)] == ["x-A"]
    assert "chains that are no protein and are left out: 1 (x-B)" in caplog.text
    structure[0].remove_chain("A")
    with pytest.raises(DataError, match=r"y\.pdb: has no protein chain; its chains are B"):
        read(write_structure(tmp_path / "y.pdb", structure))


def test_chosen_chains_are_read_and_others_are_named(tmp_path: Path) -> None:
    path = write_structure(tmp_path / "x.pdb", new_structure({"A": "MKV", "B": "ACD"}))
    assert [chain.primary for chain in read(path, chains=("B",))] == ["ACD"]
    with pytest.raises(DataError, match=r"x\.pdb: has no protein chain C; its protein chains are A, B"):
        read(path, chains=("C",))


def test_a_chain_without_a_name_gets_one(tmp_path: Path) -> None:
    path = write_structure(tmp_path / "model.pdb", new_structure({"A": "MKV"}))
    lines = [line[:21] + " " + line[22:] for line in path.read_text().splitlines() if line.startswith("ATOM")]
    path.write_text("\n".join(lines))
    assert [(chain.identifier, chain.primary) for chain in read(path)] == [("model-A", "MKV")]


def _twice(structure: Any) -> None:
    structure[0]["A"][1].add_atom(structure[0]["A"][1]["CA"][0])


def _two_chains_of_one_name(structure: Any) -> None:
    for residue in new_structure({"A": "MKV"})[0]["A"]:
        structure[0]["A"].add_residue(residue)


def _other_residue(structure: Any) -> None:
    set_sequence(structure, "A", names_of("MKV"))
    structure[0]["A"][1].name = "TRP"


def _not_in_the_sequence(structure: Any) -> None:
    set_sequence(structure, "A", names_of("MK"))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_twice, "residue LYS 2 has the atom CA more than once"),
        (_two_chains_of_one_name, "residue MET 1 .*(twice|more than once)"),
        (_other_residue, r"residue TRP 2 (has coordinates where .* has LYS, residue 2|is not in the chain's sequence)"),
        (_not_in_the_sequence, "residue VAL 3 is not in the chain's sequence"),
    ],
)
@pytest.mark.parametrize("suffix", ["pdb", "cif"])
def test_contradictions_are_refused(tmp_path: Path, suffix: str, damage: Callable[[Any], None], message: str) -> None:
    structure = new_structure({"A": "MKV"})
    structure.setup_entities()
    damage(structure)
    with pytest.raises(DataError, match=rf"x\.{suffix}, chain A: {message}"):
        read(write_structure(tmp_path / f"x.{suffix}", structure))


def test_a_summary_of_notices_is_logged_once_for_all_files(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number in range(7):
        write_structure(tmp_path / f"{number}.pdb", new_structure({"A": "MKV"}))
    with caplog.at_level(logging.WARNING):
        assert len(list(read_structures(find_structure_files([tmp_path])))) == 7
    assert [record.getMessage().rpartition(": ")[2] for record in caplog.records] == ["7 (0-A, 1-A, 2-A, 3-A, 4-A ...)"]
