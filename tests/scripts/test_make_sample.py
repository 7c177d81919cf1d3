"""The embedded sample: size, provenance, disjoint splits, and reproduction by the script."""

from __future__ import annotations

import json
import lzma
from pathlib import Path

import numpy as np
import pytest

from proteinlm.data.structure_files import read_chains
from scripts.make_sample import KMER, make_sample
from tape.io.records import open_records, open_rows


@pytest.fixture(scope="module")
def sample(repository_root: Path) -> Path:
    return repository_root / "tape" / "sample"


def test_the_sample_is_between_1_and_2_megabytes(sample: Path) -> None:
    size = sum(path.stat().st_size for path in sample.rglob("*") if path.is_file())
    assert 1_000_000 < size <= 2_000_000


def test_simulated_data_are_marked(sample: Path) -> None:
    datasets = json.loads((sample / "provenance.json").read_text())["datasets"]
    simulated = {name for name, entry in datasets.items() if entry["simulated"]}
    assert simulated == {"fluorescence", "stability", "remote_homology"}
    assert all("simulated" in datasets[name]["name"] for name in simulated)
    assert "not ProteinNet" in datasets["proteinnet"]["name"]
    readme = (sample / "README.md").read_text()
    assert "promod3-data" in readme
    assert "Apache-2.0" in readme
    assert "simulated" in readme


def test_no_valid_or_test_chain_is_in_the_corpus(sample: Path) -> None:
    files = json.loads((sample / "provenance.json").read_text())["corpus_files"]
    corpus = {
        split: [record.sequence for name in names for record in open_records(sample / name)]
        for split, names in files.items()
    }
    chains = {
        split: {chain.primary for chain in read_chains(sample / "structures" / f"pdb_{split}.tsv.xz")}
        for split in ("train", "valid", "test")
    }
    assert chains["train"] <= set(corpus["train"])
    assert not (chains["valid"] | chains["test"]) & set(corpus["train"] + corpus["valid"])
    assert not chains["train"] & (chains["valid"] | chains["test"])
    assert not chains["valid"] & chains["test"]
    words = {sequence[i : i + KMER] for sequence in corpus["train"] for i in range(len(sequence) - KMER + 1)}
    held_out = corpus["valid"]
    shared = [
        np.mean([sequence[i : i + KMER] in words for i in range(len(sequence) - KMER + 1)]) for sequence in held_out
    ]
    assert np.mean(shared) < 0.2  # by chance, over all training chains; a single one shares at most 3 %


def test_chain_lengths_and_split_sizes(sample: Path) -> None:
    for split, count in (("train", 560), ("valid", 85), ("test", 116)):
        chains = list(read_chains(sample / "structures" / f"pdb_{split}.tsv.xz"))
        assert len(chains) == count
        assert all(40 <= len(chain.primary) <= 150 for chain in chains)
    for name in ("fluorescence", "stability"):
        sizes = [
            sum(1 for _ in open_rows(sample / "tape" / f"{name}_{split}.jsonl.xz"))
            for split in ("train", "valid", "test")
        ]
        assert sizes == [600, 100, 200]


@pytest.mark.slow
def test_the_script_reproduces_the_sample(sample: Path, shared_data: Path, tmp_path: Path) -> None:
    fresh = tmp_path / "sample"
    make_sample(shared_data, fresh)
    names = [path.relative_to(sample) for path in sorted(sample.rglob("*")) if path.is_file()]
    assert names == [path.relative_to(fresh) for path in sorted(fresh.rglob("*")) if path.is_file()]
    for name in names:
        old, new = (sample / name).read_bytes(), (fresh / name).read_bytes()
        if name.suffix == ".xz":  # the compressed bytes may differ between versions of liblzma
            old, new = lzma.decompress(old), lzma.decompress(new)
        assert old == new, name
