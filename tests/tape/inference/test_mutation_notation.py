"""Notations of variants, and errors for what can't be scored."""

from __future__ import annotations

import pytest

from tape.errors import DataError
from tape.inference.mutation_notation import apply_mutations

WILD_TYPE = "MKVACGWY"


@pytest.mark.parametrize(
    ("text", "sequence", "positions"),
    [
        ("A4G", "MKVGCGWY", (3,)),
        ("a4g", "MKVGCGWY", (3,)),
        ("A4G:V3L", "MKLGCGWY", (2, 3)),
        ("WT", WILD_TYPE, ()),
        ("p.Ala4Gly", "MKVGCGWY", (3,)),
        ("p.(Ala4Gly)", "MKVGCGWY", (3,)),
        ("p.A4G", "MKVGCGWY", (3,)),
        ("NP_003997.1:p.Ala4Gly", "MKVGCGWY", (3,)),
        ("p.[Ala4Gly;Val3Leu]", "MKLGCGWY", (2, 3)),
        ("p.[(Ala4Gly);(Val3Leu)]", "MKLGCGWY", (2, 3)),
        ("p.Ala4=", WILD_TYPE, ()),
        ("p.=", WILD_TYPE, ()),
        ("p.Ala4del", "MKVCGWY", None),
        ("p.Ala4_Gly6del", "MKVWY", None),
        ("A4_G6del", "MKVWY", None),
        ("p.Ala4dup", "MKVAACGWY", None),
        ("p.Ala4_Gly6dup", "MKVACGACGWY", None),
        ("p.Ala4_Cys5insSerThr", "MKVASTCGWY", None),
        ("p.A4_C5insST", "MKVASTCGWY", None),
        ("p.A4_C5insEXT", "MKVAEXTCGWY", None),  # residues, no extension
        ("p.A4_C5insFS", "MKVAFSCGWY", None),
        ("p.Ala4delinsTrpVal", "MKVWVCGWY", None),
        ("p.Ala4_Gly6delinsTrpCysSer", "MKVWCSWY", (3, 5)),  # residue 5 stays
        ("p.[Lys2del;Val3Ile]", "MIACGWY", None),
    ],
)
def test_each_notation_gives_the_sequence_of_the_variant(
    text: str, sequence: str, positions: tuple[int, ...] | None
) -> None:
    assert apply_mutations(text, WILD_TYPE) == (sequence, positions)


def test_the_first_residue_may_have_any_number() -> None:
    assert apply_mutations("A103G", "VMAK", 101) == ("VMGK", (2,))
    assert apply_mutations("p.Ala103_Lys104del", "VMAK", 101) == ("VM", None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("A4", "'A4' is not a mutation; write A123G"),
        ("", "'' is not a mutation"),
        ("A4G;V3L", "is not a mutation"),
        ("V4G", "^V4G: residue 4 is A, not V"),
        ("p.Val4Gly", "Val4Gly: residue 4 is A, not V"),
        ("A9G", "A9G: no residue 9; the protein has 1 to 8"),
        ("A0G", "no residue 0"),
        ("A4G:A4V", "residue 4 is changed twice"),
        ("p.[Val3_Cys5del;Ala4Gly]", "residue 4 is changed twice"),
        ("p.Ala4_Val3del", "the second residue must come after the first"),
        ("p.Ala4insSer", "an insertion is between two neighbors"),
        ("p.Ala4_Gly6insSer", "an insertion is between two neighbors"),
        ("p.Ala4_Cys5ins5", "'5' are no residues"),
        ("p.Ala4_Gly6Ser", "several residues are replaced by delins"),
        ("p.Ala4dupSer", "nothing follows dup"),
        ("p.Ala4[10]", "is not a mutation"),
        ("p.[Ala4Gly];[Val3Leu]", "is not a mutation"),  # two proteins, one of each allele
        ("p.Met1_Tyr8del", "no residue is left"),
        ("p.Ala4Ter", "can't be scored, because models have no token for a stop"),
        ("p.A4*", "no token for a stop"),
        ("A4*", "no token for a stop"),
        ("p.Ala4_Gly6delinsSerTer", "no token for a stop"),
        ("p.Ala4fs", "a frameshift does not determine"),
        ("p.Ala4GlyfsTer5", "a frameshift does not determine"),
        ("p.A4Gfs*5", "a frameshift does not determine"),
        ("p.Ter9GlnextTer17", "an extension does not determine"),
        ("p.Met1?", "an unknown effect does not determine"),
        ("p.?", "an unknown effect does not determine"),
        ("p.0", "an absent protein does not determine"),
    ],
)
def test_a_variant_that_cannot_be_scored_is_refused(text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        apply_mutations(text, WILD_TYPE)
