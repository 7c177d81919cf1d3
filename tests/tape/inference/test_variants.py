"""Reading tables of variants, and errors for invalid ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.errors import DataError, UnknownResidueError
from tape.inference.variants import compare_sequences, read_proteins, read_variants
from tape.io.records import RecordOptions


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
    with pytest.raises(
        DataError,
        match=r"v\.csv, record 1: no column mutations or mutation or mutant or mutated_sequence; it has change",
    ):
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


def test_a_variant_that_cannot_be_scored_is_marked_unless_strict(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text('mutant\nA3G\nK3A\nV1*\n""\n')
    variants = read_variants(str(tmp_path / "v.csv"), {"p": "VMAK"}, strict=False)
    assert [variant.sequence for variant in variants] == ["VMGK", "", "", ""]
    assert [variant.problem.partition(";")[0] for variant in variants] == [
        "",
        "K3A: residue 3 is A, not K",
        "V1*: can't be scored, because models have no token for a stop",
        "'' is not a mutation",
    ]
    with pytest.raises(DataError, match=r"v\.csv, record 2, protein 'p': K3A: residue 3 is A, not K"):
        read_variants(str(tmp_path / "v.csv"), {"p": "VMAK"}, strict=True)


def test_a_table_without_any_scored_variant_is_refused(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("mutant\nA1G\nK3A\n")
    with pytest.raises(DataError, match=r"none of its 2 variants can be scored; the first: .*v\.csv, record 1"):
        read_variants(str(tmp_path / "v.csv"), {"p": "VMAK"}, strict=False)


def test_an_unknown_protein_is_a_variant_that_cannot_be_scored(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("protein,mutant\none,V1A\nthree,V1A\n")
    variants = read_variants(str(tmp_path / "v.csv"), {"one": "VMAK", "two": "MKVL"}, strict=False)
    assert [variant.problem for variant in variants] == ["", "unknown protein 'three'; there are 'one', 'two'"]


def test_a_later_record_without_mutations_is_marked(tmp_path: Path) -> None:
    (tmp_path / "v.jsonl").write_text('{"mutant": "V1A"}\n{"note": "none"}\n{"mutant": 7}\n')
    variants = read_variants(str(tmp_path / "v.jsonl"), {"p": "VMAK"}, strict=False)
    assert ["no column mutations" in variants[1].problem, variants[2].problem] == [
        True,
        "'mutant' must be text, not int",
    ]


def test_mutated_sequences_are_compared_with_the_wild_type(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("mutated_sequence\nVMGK\nvmak*\nVMK\nV*AK\n")
    variants = read_variants(str(tmp_path / "v.csv"), {"p": "VMAK"}, strict=False)
    assert [(v.sequence, v.positions) for v in variants] == [("VMGK", (2,)), ("VMAK", ()), ("VMK", None), ("", None)]
    assert variants[3].problem.startswith("mutated_sequence: unknown residue '*' at position 2")
    assert compare_sequences("GMAG", "VMAK") == ("GMAG", (0, 3))


def test_a_mutated_sequence_that_ends_with_a_stop_is_no_deletion(tmp_path: Path) -> None:
    """Its pseudo-likelihood would be that of a shorter protein, which is larger for any protein."""
    (tmp_path / "v.csv").write_text("mutated_sequence\nVM*\nVM\nVK*\nVMAK*\n")
    variants = read_variants(str(tmp_path / "v.csv"), {"p": "VMAK"}, strict=False)
    assert variants[0].problem.startswith("a stop after residue 2 of 4: can't be scored")
    assert [(v.sequence, v.problem) for v in variants[1:]] == [("VM", ""), ("VK", ""), ("VMAK", "")]


def test_a_mutated_sequence_must_be_what_the_mutations_make(tmp_path: Path) -> None:
    (tmp_path / "v.csv").write_text("mutant,mutated_sequence\nA3G,VMGK\nA3G,VMCK\n")
    variants = read_variants(str(tmp_path / "v.csv"), {"p": "VMAK"}, strict=False)
    assert [v.problem for v in variants] == ["", "mutated_sequence is not what A3G makes of the wild type"]
    chosen = read_variants(str(tmp_path / "v.csv"), {"p": "VMAK"}, mutation_column="mutated_sequence")
    assert [v.sequence for v in chosen] == ["VMGK", "VMCK"]


def test_a_column_of_mutations_may_have_sequences_as_in_indel_tables_of_proteingym(tmp_path: Path) -> None:
    wild_type = "MKVLAGWYACDEFG"
    (tmp_path / "v.csv").write_text(f"mutant\n{wild_type[1:]}\nWT\nhigh\n")
    variants = read_variants(str(tmp_path / "v.csv"), {"p": wild_type}, strict=False)
    assert [(v.sequence, v.positions) for v in variants[:2]] == [(wild_type[1:], None), (wild_type, ())]
    assert variants[2].problem.startswith("'high' is not a mutation")
