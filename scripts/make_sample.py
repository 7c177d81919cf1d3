#!/usr/bin/env python
"""Makes the embedded sample: a small subset of real PDB chains and three simulated data sets.

    python scripts/make_sample.py ../shared/data tape/sample

SOURCE/structures must contain pdb_train, pdb_valid and pdb_test (.tsv.xz, .ca.i2.xz; scripts/structure_files.py).
Written to TARGET:

- structures/: chains of 40 to 150 residues with DSSP states and C-alpha coordinates, taken from the three splits of
  SOURCE, which share no cluster at 30 % identity, for secondary structure and contact prediction.
- corpus/: further chains of pdb_train, sequences only; with the chains of structures/pdb_train they are the corpus.
  The corpus' own validation chains share at most 3 % of their 6-mers with any training chain.
- tape/: simulated fluorescence, stability and remote homology (models: scripts/simulated_sets.py).
- provenance.json and README.md.

The result depends only on SOURCE and the seed.
"""

from __future__ import annotations

import argparse
import json
import lzma
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

import numpy as np

from proteinlm.data.structure_files import Chain, read_chains, write_chains
from scripts.simulated_sets import (
    RESIDUES,
    Records,
    simulate_fluorescence,
    simulate_remote_homology,
    simulate_stability,
)
from tape.cli.parser import ArgumentParser
from tape.errors import ConfigError, run_cli
from tape.io.writing import atomic_directory, atomic_write, write_json

SEED = 20240607
LARGEST_BYTES = 2_000_000
SHORTEST, LONGEST = 40, 150  # residues of chains with structure; keeps finetuning on two CPU cores short
TRAIN_CHAINS = 560
CORPUS_RESIDUES = 2_650_000
CORPUS_LONGEST = 512
VALID_CHAINS = 100  # in the corpus
KMER = 6
LARGEST_KMER_OVERLAP = 0.03
SIMULATED_SIZES = {"train": 600, "valid": 100, "test": 200}
HOMOLOGY_SIZES = {"train": 600, "valid": 120, "test_fold_holdout": 240}
PARENT_LENGTHS = range(56, 65)

_PDB = {
    "source": "PDB chains with DSSP states, Debian package promod3-data 3.2.1+ds-6; cut by scripts/make_sample.py",
    "licence": "Apache-2.0 (PDB content CC0)",
    "simulated": False,
}
_SIMULATED = {
    "source": "SIMULATED: no measurement; generative model in scripts/simulated_sets.py, seeded",
    "licence": "Apache-2.0",
    "simulated": True,
}
PROVENANCE: dict[str, Any] = {
    "corpus_files": {
        "train": ["corpus/chains_train.fasta.xz", "structures/pdb_train.tsv.xz"],
        "valid": ["corpus/chains_valid.fasta.xz"],
    },
    "datasets": {
        "corpus": {"name": "PDB chains (embedded sample)", **_PDB},
        "secondary_structure": {"name": "PDB chains, DSSP three-state (embedded sample)", **_PDB},
        "proteinnet": {"name": "PDB chains (not ProteinNet; embedded sample)", **_PDB},
        "fluorescence": {"name": "simulated fluorescence", **_SIMULATED},
        "stability": {"name": "simulated stability", **_SIMULATED},
        "remote_homology": {"name": "simulated remote homology", **_SIMULATED},
    },
}


def make_sample(source: Path, target: Path, seed: int = SEED, overwrite: bool = False) -> None:
    """Write the sample of ``source`` to ``target`` atomically.

    Raises:
        DataError: the structures of ``source`` are missing or damaged.
        ConfigError: the result would be larger than 2 MB, or ``target`` exists and ``overwrite`` is False.
    """
    rng = np.random.default_rng(seed)
    chains = {split: _usable(source / "structures" / f"pdb_{split}.tsv.xz") for split in ("train", "valid", "test")}
    structures = {split: _with_structure(chains[split]) for split in chains}
    structures["train"] = _choose(structures["train"], TRAIN_CHAINS, rng)
    corpus = _choose_corpus(chains["train"], structures["train"], rng)
    parent = next(chain for chain in structures["train"] if len(chain.primary) in PARENT_LENGTHS)
    simulated = {
        "fluorescence": simulate_fluorescence(parent, SIMULATED_SIZES, rng),
        "stability": simulate_stability(SIMULATED_SIZES, rng),
        "remote_homology": simulate_remote_homology(HOMOLOGY_SIZES, rng),
    }
    with atomic_directory(target, overwrite=overwrite) as folder:
        for split in structures:
            write_chains(folder / "structures" / f"pdb_{split}.tsv.xz", structures[split])
        for split in corpus:
            _write_xz(folder / "corpus" / f"chains_{split}.fasta.xz", _fasta_lines(corpus[split]))
        for name, records in simulated.items():
            _write_simulated(folder / "tape", name, records)
        write_json(folder / "provenance.json", PROVENANCE)
        _write_readme(folder, structures, corpus, simulated, parent, seed)
        _check_size(folder)


def _usable(table: Path) -> list[Chain]:
    """Chains made only of the twenty standard residues, as the simulated data sets require."""
    return [chain for chain in read_chains(table) if set(chain.primary) <= set(RESIDUES)]


def _with_structure(chains: Sequence[Chain]) -> list[Chain]:
    return [chain for chain in chains if SHORTEST <= len(chain.primary) <= LONGEST]


def _choose(chains: Sequence[Chain], count: int, rng: np.random.Generator) -> list[Chain]:
    """``count`` random chains, in their original order."""
    return [chains[index] for index in sorted(rng.permutation(len(chains))[:count])]


def _choose_corpus(
    chains: Sequence[Chain], structures: Sequence[Chain], rng: np.random.Generator
) -> dict[str, list[Chain]]:
    """Training chains up to CORPUS_RESIDUES that are not in ``structures``, and validation chains dissimilar to all."""
    used = {chain.primary for chain in structures}
    order = [chains[index] for index in rng.permutation(len(chains))]
    order = [chain for chain in order if chain.primary not in used and len(chain.primary) <= CORPUS_LONGEST]
    lengths = np.cumsum([len(chain.primary) for chain in order])
    count = int(np.searchsorted(lengths, CORPUS_RESIDUES))
    train = order[:count]
    valid = _unlike(order[count:], [*train, *structures])[:VALID_CHAINS]
    identifiers = {chain.identifier: index for index, chain in enumerate(chains)}
    return {
        split: sorted(part, key=lambda chain: identifiers[chain.identifier])
        for split, part in (("train", train), ("valid", valid))
    }


def _unlike(candidates: Sequence[Chain], others: Sequence[Chain]) -> list[Chain]:
    """Candidates that share at most LARGEST_KMER_OVERLAP of their 6-mers with any single one of ``others``."""
    holders: defaultdict[str, set[int]] = defaultdict(set)
    for index, chain in enumerate(others):
        for word in _kmers(chain.primary):
            holders[word].add(index)
    return [chain for chain in candidates if _largest_overlap(chain, holders) <= LARGEST_KMER_OVERLAP]


def _kmers(sequence: str) -> set[str]:
    return {sequence[start : start + KMER] for start in range(len(sequence) - KMER + 1)}


def _largest_overlap(chain: Chain, holders: defaultdict[str, set[int]]) -> float:
    words = _kmers(chain.primary)
    shared = [index for word in words if word in holders for index in holders[word]]
    return int(np.bincount(shared).max()) / len(words) if shared else 0.0


def _fasta_lines(chains: Iterable[Chain]) -> list[str]:
    return [f">{chain.identifier}\n{chain.primary}" for chain in chains]


def _write_simulated(folder: Path, name: str, records: Records) -> None:
    for split, members in records.items():
        lines = [json.dumps(record, separators=(",", ":")) for record in members]
        _write_xz(folder / f"{name}_{split}.jsonl.xz", lines)


def _write_xz(path: Path, lines: Sequence[str]) -> None:
    with atomic_write(path) as stream:
        stream.write(lzma.compress("".join(f"{line}\n" for line in lines).encode(), preset=9 | lzma.PRESET_EXTREME))


def _write_readme(
    folder: Path,
    structures: dict[str, list[Chain]],
    corpus: dict[str, list[Chain]],
    simulated: dict[str, Records],
    parent: Chain,
    seed: int,
) -> None:
    rows = [
        *(_row(f"corpus/chains_{split}.fasta.xz", part, "sequences") for split, part in corpus.items()),
        *(
            _row(f"structures/pdb_{split}.tsv.xz", part, "sequences, DSSP, C-alpha")
            for split, part in structures.items()
        ),
    ]
    for name, records in simulated.items():
        sizes = " / ".join(str(len(members)) for members in records.values())
        rows.append(f"| `tape/{name}_{{{','.join(records)}}}.jsonl.xz` | {sizes} | **simulated** |")
    text = _README.format(rows="\n".join(rows), seed=seed, parent=parent.identifier)
    with atomic_write(folder / "README.md", "w") as stream:
        stream.write(text)


def _row(name: str, chains: Sequence[Chain], content: str) -> str:
    residues = sum(len(chain.primary) for chain in chains)
    return f"| `{name}` | {len(chains):,} chains, {residues:,} residues | real: {content} |"


_README = """# Embedded sample

A subset of real protein chains and three simulated data sets, small enough to be part of the repository. The quickstart
runs on them; scores show that the pipeline works, not how good a model is. `python scripts/make_sample.py SOURCE
tape/sample` wrote this directory (seed {seed}), and `python scripts/prepare_data.py tape/sample TARGET` converts it.

| file | size | content |
|---|---|---|
{rows}

**Provenance and license.** The chains are PDB chains with DSSP states and C-alpha coordinates as distributed in the
Debian package `promod3-data` 3.2.1+ds-6 (Apache-2.0; content of the Protein Data Bank: CC0). Coordinates are in 0.1
Angstrom as in the source, relative to the center of the chain; contacts at 8 Angstrom are those of the source. Chains
with structure have 40 to 150 residues. The splits of `structures/` share no cluster at 30 % identity, and no valid or
test chain of `structures/` is in the corpus. The validation chains of the corpus share at most 3 % of their 6-mers with
any of its training chains. The contact set is a substitute for ProteinNet, not ProteinNet.

**Simulated.** Fluorescence (mutants of chain {parent}), stability and remote homology come from the generative models
described in `scripts/simulated_sets.py`. They contain no measurements, and are marked as simulated in
`provenance.json` and in every table.
"""


def _check_size(folder: Path) -> None:
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    if size > LARGEST_BYTES:
        raise ConfigError(f"the sample has {size:,} bytes, more than {LARGEST_BYTES:,}; lower CORPUS_RESIDUES")
    print(f"{size:,} bytes")


def main(arguments: Sequence[str] | None = None) -> None:
    """Write the sample of the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="directory with structures/")
    parser.add_argument("target", type=Path, metavar="TARGET", help="directory to write, tape/sample")
    parser.add_argument("--seed", type=int, default=SEED, help=f"random seed (default {SEED})")
    parser.add_argument("--overwrite", action="store_true", help="replace TARGET")
    options = parser.parse_args(arguments)
    make_sample(options.source, options.target, options.seed, options.overwrite)


if __name__ == "__main__":
    sys.exit(run_cli(main))
