"""Splits of a table that keep clusters of related proteins together."""

from __future__ import annotations

import csv
import json
from collections import Counter, defaultdict
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tape.errors import ConfigError, DataError
from tape.io.records import open_records
from tape.tables.options import TableOptions
from tape.tables.table import Table, table_for_training
from tests.support.fake_mmseqs import VERSION, install_fake_mmseqs
from tests.support.known_identities import mutated, random_sequence

ROOT = Path(__file__).resolve().parents[3]
FRACTIONS = {"train": 0.8, "valid": 0.1, "test": 0.1}


@pytest.fixture(autouse=True)
def program_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder on the PATH, without MMseqs2."""
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def table(folder: Path, sequences: list[str], **options: Any) -> Table:
    path = folder / "my.csv"
    lines = [f"p{number},{sequence},{number / 2 + 0.25}" for number, sequence in enumerate(sequences)]
    path.write_text("\n".join(["id,sequence,Tm", *lines]) + "\n", encoding="utf-8")
    return table_for_training(TableOptions(path, "Tm", **{"split_by": "identity", **options}))


def families(count: int, members: int = 4) -> list[str]:
    """Proteins of families of more than 80 % identity, which have nothing in common with each other."""
    founders = [random_sequence(60, seed) for seed in range(count)]
    return [mutated(founder, 9 + number) for founder in founders for number in range(members)]


def related_proteins(most: int = 200) -> list[str]:
    """Proteins of the embedded sample that have ten residues in a row in common with another one."""
    records = open_records(ROOT / "tape" / "sample" / "corpus" / "chains_train.fasta.xz")
    proteins = [record.residues for record in records if 60 <= len(record.residues) <= 200]
    owners: dict[str, set[int]] = defaultdict(set)
    for number, protein in enumerate(proteins):
        for start in range(len(protein) - 9):
            owners[protein[start : start + 10]].add(number)
    related = {number for found in owners.values() if len(found) > 1 for number in found}
    return [proteins[number] for number in sorted(related)][:most]


def identity(one: str, other: str) -> float:
    """Share of the shorter protein's residues that are equal in the best alignment without gaps."""
    first, second = (np.frombuffer(protein.encode(), dtype=np.uint8) for protein in (one, other))
    row, column = np.nonzero(first[:, None] == second[None])
    return float(np.bincount(row - column + len(other)).max() / min(len(one), len(other)))


def test_no_relatives_of_real_proteins_are_in_two_splits(tmp_path: Path) -> None:
    proteins = related_proteins()
    relatives = [
        pair for pair in combinations(range(len(proteins)), 2) if identity(*(proteins[number] for number in pair)) > 0.5
    ]
    assert len(relatives) > 20

    def separated(found: Table) -> int:
        return sum(found.splits[one] != found.splits[other] for one, other in relatives)

    found = table(tmp_path, proteins)
    assert separated(found) == 0
    assert separated(table(tmp_path, proteins, split_by="sequence")) > 5
    assert found.division is not None
    clusters = found.division.clusters
    assert clusters is not None
    assert len(set(zip(clusters.labels.tolist(), found.splits, strict=True))) == clusters.count
    sizes = Counter(found.splits)
    assert all(sizes[name] - share * len(proteins) <= clusters.largest for name, share in FRACTIONS.items())
    assert min(sizes[name] for name in FRACTIONS) >= 10


def test_a_split_depends_on_the_seed_alone(tmp_path: Path) -> None:
    first, again, other = (table(tmp_path, families(30), seed=seed).splits for seed in (1, 1, 2))
    assert first == again
    assert first != other
    assert Counter(first) == {"train": 96, "valid": 12, "test": 12}


def test_copies_do_not_change_the_splits_of_others(tmp_path: Path) -> None:
    proteins = families(20)
    plain, with_copies = table(tmp_path, proteins), table(tmp_path, [*proteins, *proteins[:7]])
    assert with_copies.splits == (*plain.splits, *plain.splits[:7])


def test_method_and_clusters_are_announced_and_saved(tmp_path: Path) -> None:
    proteins = families(12)
    found = table(tmp_path, proteins, fractions=(50.0, 25.0, 25.0), seed=3)
    notices = "\n".join(found.notices)
    assert "splits drawn 50,25,25 with seed 3, clusters together: " in notices
    method = "connected components of shared 4-mers as of identity 0.5, or identity >= 0.9 without gaps"
    assert f"12 clusters of 48 proteins, the largest of 4: {method}" in notices
    assert "MMseqs2, which also finds more distant relatives, is not installed (apt install mmseqs2" in notices
    assert found.division is not None
    found.division.write(tmp_path, found.identifiers, found.digests)
    with (tmp_path / "splits.tsv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream, delimiter="\t"))
    assert [int(row["cluster"]) for row in rows] == [number // 4 for number in range(48)]
    assert tuple(row["split"] for row in rows) == found.splits
    assert json.loads((tmp_path / "splits.json").read_text(encoding="utf-8")) == {
        "schema": "proteinlm-splits",
        "version": 1,
        "column": None,
        "fractions": [50.0, 25.0, 25.0],
        "seed": 3,
        "clusters": {"method": method, "identity": 0.5, "count": 12, "largest": 4},
        "proteins": {"train": 24, "valid": 12, "test": 12},
    }


def test_mmseqs2_finds_the_clusters_where_it_is_installed(tmp_path: Path, program_path: Path) -> None:
    program = install_fake_mmseqs(program_path)
    found = table(tmp_path, families(10))
    assert found.division is not None
    assert found.division.clusters is not None
    assert found.division.clusters.labels.tolist() == [number // 4 for number in range(40)]
    assert (
        f"10 clusters of 40 proteins, the largest of 4: connected components of MMseqs2 {VERSION}, identity >= 0.3"
        in ("\n".join(found.notices))
    )
    assert "is not installed" not in "\n".join(found.notices)
    table(tmp_path, families(10), split_identity=0.75)
    words = (program.parent / "arguments").read_text(encoding="utf-8").splitlines()
    assert words[words.index("--min-seq-id") + 1] == "0.75"


def test_classes_are_divided_in_every_split(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    lines = [f"{sequence},{'ab'[number // 4 % 2]}" for number, sequence in enumerate(families(40))]
    path.write_text("\n".join(["sequence,place", *lines]) + "\n", encoding="utf-8")
    found = table_for_training(TableOptions(path, "place", split_by="identity"))
    counts = Counter(zip(found.splits, found.labels, strict=True))
    assert [counts[split, kind] for split in FRACTIONS for kind in (0, 1)] == [64, 64, 8, 8, 8, 8]


def test_too_few_clusters_are_an_error(tmp_path: Path) -> None:
    message = (
        r"my\.csv: 3 splits \(train, valid, test\) can't be drawn from 2 clusters of 20 different sequences; give a"
        r" higher --split-identity, fewer splits \(a proportion of 0\), or a --split-column"
    )
    with pytest.raises(DataError, match=message):
        table(tmp_path, families(2, 10))
    assert Counter(table(tmp_path, families(2, 10), fractions=(80, 20, 0)).splits) == {"train": 10, "valid": 10}


def test_variants_of_one_protein_are_one_cluster(tmp_path: Path) -> None:
    message = (
        r"can't be drawn from 1 cluster of 20 different sequences; give a higher --split-identity, --split-by sequence"
        r" \(which leaves variants of one protein in all splits\), or a --split-column$"
    )
    with pytest.raises(DataError, match=message):
        table(tmp_path, families(1, 20))


def test_an_identity_that_kmers_can_not_find_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="can't find relatives of 30% identity, only of 50% and more; install MMseqs2"
    ):
        table(tmp_path, families(10), split_identity=0.3)


def test_a_column_of_splits_is_not_replaced_without_a_word(tmp_path: Path) -> None:
    path = tmp_path / "my.csv"
    names = ["train", "valid"] * 20
    lines = [f"{s},{n / 2},{name}" for n, (s, name) in enumerate(zip(families(10), names, strict=True))]
    path.write_text("\n".join(["sequence,Tm,split", *lines]) + "\n", encoding="utf-8")
    with pytest.raises(ConfigError, match="has a column split, and --split-by draws splits; leave out --split-by"):
        table_for_training(TableOptions(path, "Tm", split_by="identity"))
    found = table_for_training(TableOptions(path, "Tm", split_by="identity", fractions=(80.0, 10.0, 10.0)))
    assert Counter(found.splits) == {"train": 32, "valid": 4, "test": 4}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split_by": "identity", "split_column": "fold"}, "--split-by draws a split, and --split-column reads one"),
        ({"split_identity": 0.5}, "--split-identity is for --split-by identity; give both"),
        ({"split_by": "sequence", "split_identity": 0.5}, "--split-identity is for --split-by identity"),
        ({"split_by": "identity", "split_identity": 30}, "--split-identity 30: a fraction above 0 and at most 1"),
        ({"split_by": "identity", "split_identity": float("nan")}, "--split-identity nan: a fraction above 0"),
    ],
)
def test_options_that_contradict_each_other_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TableOptions(Path("t.csv"), "Tm", **options)
