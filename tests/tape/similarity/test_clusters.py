"""Clusters of related proteins, with MMseqs2 where it is installed and by shared k-mers."""

from __future__ import annotations

import numpy as np
import pytest

from tape.errors import ConfigError, ProteinLMError
from tape.similarity import clusters, mmseqs
from tape.similarity.clusters import cluster_proteins
from tape.similarity.mmseqs import find_mmseqs
from tests.support.known_identities import QUERY, mutated, random_sequence

METHODS = (
    pytest.param("mmseqs2", marks=pytest.mark.skipif(find_mmseqs() is None, reason="needs MMseqs2")),
    "kmers",
)


@pytest.mark.parametrize("method", METHODS)
def test_relatives_are_in_one_cluster_and_random_sequences_in_their_own(method: str) -> None:
    relatives = [QUERY, mutated(QUERY, 6), QUERY[:100] + random_sequence(10, 3) + QUERY[100:], QUERY[40:]]
    unrelated = [random_sequence(200, 100 + number) for number in range(5)]
    found = cluster_proteins([*unrelated[:2], *relatives, *unrelated[2:]], method=method)
    assert found.labels.tolist() == [0, 1, 2, 2, 2, 2, 3, 4, 5]
    assert found.count == 6


def test_a_chain_of_relatives_is_one_cluster() -> None:
    """Its ends share too little to be linked, which clusters around a representative would separate."""
    chain = [random_sequence(100, seed) for seed in range(4)]
    members = [chain[0] + chain[1], chain[1] + chain[2], chain[2] + chain[3]]
    assert cluster_proteins(members, method="kmers").labels.tolist() == [0, 0, 0]
    assert cluster_proteins(members[::2], method="kmers").count == 2


def test_chance_links_no_proteins_of_a_large_set() -> None:
    generator = np.random.default_rng(1)
    proteins = [random_sequence(int(length), seed) for seed, length in enumerate(generator.integers(30, 600, 1500))]
    proteins += [random_sequence(20_000, 5000), "A" * 300]
    assert cluster_proteins(proteins, method="kmers").count == len(proteins)


def test_a_higher_identity_separates_more() -> None:
    pair = [QUERY, mutated(QUERY, 6)]
    assert cluster_proteins(pair, 0.5, method="kmers").count == 1
    assert cluster_proteins(pair, 0.95, method="kmers").count == 2


@pytest.mark.parametrize("method", METHODS)
def test_equal_sequences_are_in_one_cluster_whatever_their_length(method: str) -> None:
    assert cluster_proteins(["MKT", QUERY, "MKT", "GGW"], method=method).labels.tolist() == [0, 1, 0, 2]


def test_no_proteins_are_no_clusters() -> None:
    assert cluster_proteins([], method="kmers").count == 0


def test_the_method_is_that_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clusters, "find_mmseqs", lambda: None)
    method = "connected components of shared 4-mers as of identity 0.5, or identity >= 0.9 without gaps"
    assert cluster_proteins([QUERY]).method == method
    with pytest.raises(ConfigError, match="no program mmseqs on the PATH; apt install mmseqs2"):
        cluster_proteins([QUERY], method="mmseqs2")


def test_identities_and_methods_that_do_not_exist_are_refused() -> None:
    with pytest.raises(ConfigError, match="can't find relatives of 30% identity, only of 50% and more"):
        cluster_proteins([QUERY], 0.3, method="kmers")
    with pytest.raises(ConfigError, match="an identity of 30; it is a fraction above 0 and at most 1"):
        cluster_proteins([QUERY], 30, method="kmers")
    with pytest.raises(ConfigError, match="method 'cd-hit'; allowed are auto, mmseqs2, kmers"):
        cluster_proteins([QUERY], method="cd-hit")


@pytest.mark.parametrize("written", ["0\t0\n", "0\tzero\t1\t9\t9\t1\t9\t9\n"])
def test_incomplete_output_of_mmseqs2_is_an_error(monkeypatch: pytest.MonkeyPatch, written: str) -> None:
    def write_result(command: list[str], log: object) -> None:
        with open(command[4], "w", encoding="ascii") as stream:
            stream.write(written)

    monkeypatch.setattr(clusters, "find_mmseqs", lambda: "mmseqs")
    monkeypatch.setattr(clusters, "mmseqs_version", lambda program: "1")
    monkeypatch.setattr(mmseqs, "run_mmseqs", write_result)
    with pytest.raises(ProteinLMError, match="MMseqs2 wrote hits without query, target, qstart"):
        cluster_proteins([QUERY, random_sequence(50, 2)], method="mmseqs2")


@pytest.mark.skipif(find_mmseqs() is None, reason="needs MMseqs2")
@pytest.mark.parametrize("length", [12, 13, 14])
def test_mmseqs2_finds_short_proteins(length: int) -> None:
    """Also where no others are; residues that differ are at an end, so that they are not near copies."""
    peptide = random_sequence(length, 1)
    assert cluster_proteins([peptide, peptide + "WW", "MKT"], method="mmseqs2").labels.tolist() == [0, 0, 1]
