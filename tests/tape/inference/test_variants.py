"""Notation of variants, and errors for invalid ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.errors import DataError, UnknownResidueError
from tape.inference.variants import apply_mutations, read_proteins, read_variants
from tape.io.records import RecordOptions


def test_a_variant_may_have_several_mutations() -> None:
    assert apply_mutations("A3G:V1L", "VMAK", 1, "here") == ("LMGK", (0, 2))
    assert apply_mutations("a103g", "VMAK", 101, "here") == ("VMGK", (2,))
    assert apply_mutations("WT", "VMAK", 1, "here") == ("VMAK", ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A3", "'A3' is not a mutation; write A123G"),
        ("", "'' is not a mutation"),
        ("V3G", "here: V3G: residue 3 is A, not V"),
        ("A5G", "A5G: no residue 5; the protein has 1 to 4"),
        ("A0G", "no residue 0"),
        ("A3G:A3V", "residue 3 is substituted twice"),
    ],
)
def test_a_variant_that_contradicts_its_protein_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        apply_mutations(text, "VMAK", 1, "here")


def test_long_residue_strings_are_not_taken_for_file_names() -> None:
    assert read_proteins("MKVA" * 100) == {"wild type": "MKVA" * 100}  # more than a file's name can have


def test_a_table_of_variants_of_one_protein_is_read(tmp_path: Path) -> None:
    file = tmp_path / "v.csv"
    file.write_text("mutant,score\nA3G,1.5\nV1L:K4R,2\n")
    variants = read_variants(str(file), {"p": "VMAK"})
    assert [(v.protein, v.sequence, v.positions) for v in variants] == [("p", "VMGK", (2,)), ("p", "LMAR", (0, 3))]
    assert variants[0].fields["score"] == "1.5"


def test_a_table_of_variants_of_several_proteins_is_read(tmp_path: Path) -> None:
    fasta, file = tmp_path / "p.fasta", tmp_path / "v.csv"
    fasta.write_text(">one\nVMAK\n>two\nMKVL\n")
    proteins = read_proteins(str(fasta))
    assert proteins == {"one": "VMAK", "two": "MKVL"}
    file.write_text("protein,mutations\ntwo,M1A\none,V1A\n")
    assert [v.sequence for v in read_variants(str(file), proteins)] == ["AKVL", "AMAK"]
    file.write_text("protein,mutations\ntwo,M1A\nthree,V1A\n")
    with pytest.raises(DataError, match=r"v\.csv, record 2: unknown protein 'three'; there are 'one', 'two'"):
        read_variants(str(file), proteins)
    file.write_text("mutations\nM1A\n")
    with pytest.raises(DataError, match=r"v\.csv, record 1: no column 'protein'; there are 'one', 'two'"):
        read_variants(str(file), proteins)


def test_malformed_tables_of_variants_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "v.csv"
    file.write_text("mutations\nA3G\nK3A\n")
    with pytest.raises(DataError, match=r"v\.csv, record 2, protein 'p': K3A: residue 3 is A, not K"):
        read_variants(str(file), {"p": "VMAK"})
    file.write_text("change\nA3G\n")
    with pytest.raises(DataError, match=r"v\.csv, record 1: no column mutations or mutant; it has change"):
        read_variants(str(file), {"p": "VMAK"})
    file.write_text("mutations\n")
    with pytest.raises(DataError, match="contains no variant"):
        read_variants(str(file), {"p": "VMAK"})


def test_the_wild_type_may_be_given_as_residues(tmp_path: Path) -> None:
    assert read_proteins("vmak") == {"wild type": "VMAK"}
    with pytest.raises(UnknownResidueError):
        read_proteins("VM4K")
    with pytest.raises(DataError, match=r"absent\.fasta"):
        read_proteins(str(tmp_path / "absent.fasta"))
    double = tmp_path / "p.fasta"
    double.write_text(">one\nVMAK\n>one\nMKVL\n")
    with pytest.raises(DataError, match="a second protein named 'one'"):
        read_proteins(str(double))


def test_a_stop_of_the_wild_type_is_removed_and_gaps_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.fasta").write_text(">one\nVMAK*\n>two\nMKVL\n")
    assert read_proteins(str(tmp_path / "p.fasta")) == {"one": "VMAK", "two": "MKVL"}
    (tmp_path / "p.fasta").write_text(">one\nVMAK\n>two\nM-VL\n")
    with pytest.raises(DataError, match=r"p\.fasta, record 2 \(two\): unknown residue '-' at position 2"):
        read_proteins(str(tmp_path / "p.fasta"))


def test_two_columns_of_mutations_are_refused_unless_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("mutant,mutations\nM1A,K2R\n")
    with pytest.raises(DataError, match=r"record 1: 'mutations' and 'mutant' may both be .* --mutation_column NAME"):
        read_variants(str(tmp_path / "x.csv"), {"p": "MKV"})
    variants = read_variants(str(tmp_path / "x.csv"), {"p": "MKV"}, mutation_column="mutant")
    assert [variant.sequence for variant in variants] == ["AKV"]


def test_format_and_columns_of_the_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "variants").write_text("mutations\tprotein\nM1A\tP1\n")
    (tmp_path / "wild").write_text("accession,text,sequence\nP1,of a protein,MKV\n")
    proteins = read_proteins(str(tmp_path / "wild"), RecordOptions("csv", "sequence", "accession"))
    assert proteins == {"P1": "MKV"}
    variants = read_variants(str(tmp_path / "variants"), proteins, options=RecordOptions("tsv"))
    assert [variant.sequence for variant in variants] == ["AKV"]


def test_a_protein_that_is_no_name_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.jsonl").write_text('{"mutations": "M1A", "protein": ["p"]}\n')
    with pytest.raises(DataError, match=r"record 1: unknown protein \['p'\]"):
        read_variants(str(tmp_path / "x.jsonl"), {"p": "MKV"})
