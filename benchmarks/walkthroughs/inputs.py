"""The inputs of the walkthroughs: a table, sequences and structure files, as a person with own proteins has them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.own_tables import KINDS, SPLITS, Protein, read_proteins
from proteinlm.data.structure_files import Chain, read_chains
from tape.errors import ConfigError, import_extra
from tape.io.writing import write_text

COLUMN = "stability_kJ_mol"
NEW = "new"  # proteins without labels
TABLE, NEW_FASTA, FASTA, STRUCTURES, NEW_CHAINS = (
    "my.csv",
    "new.fasta",
    "proteins.fasta",
    "structures",
    "new_chains.fasta",
)
# the stability score is a difference of log10 EC50 (Rocklin et al. 2017): times RT ln 10 at 298.15 K, an energy
_KJ_PER_MOL = 8.314462618e-3 * 298.15 * float(np.log(10))
_RESIDUES = (50, 100)


@dataclass(frozen=True)
class Sizes:
    """Numbers of proteins.

    Attributes:
        table: rows of each split of the table, and proteins to predict (``new``).
        chains: structures of each split, and chains to predict.
        embedded: proteins of the FASTA file.
    """

    table: dict[str, int]
    chains: dict[str, int]
    embedded: int


SIZES = Sizes(
    table={"train": 240, "valid": 40, "test": 120, NEW: 10},
    chains={"train": 40, "valid": 8, "test": 20, NEW: 2},
    embedded=100,
)


def write_inputs(data_dir: Path, folder: Path, sizes: Sizes, seed: int) -> None:
    """Write the inputs of all walkthroughs.

    Args:
        data_dir: the source of the LMDB folders, with ``tape`` and ``structures``.
        folder: an empty folder.
        sizes: numbers of proteins.
        seed: which ones are drawn.

    Raises:
        ConfigError: a source has too few proteins, or Gemmi is not installed.
    """
    rng = np.random.default_rng(seed)
    _write_table(folder, _drawn(read_proteins(data_dir, KINDS[0]), sizes.table, rng, KINDS[0].source))
    chains = {split: _chains(data_dir, split, sizes, rng) for split in SPLITS}
    unlabeled = chains["test"][sizes.chains["test"] :]
    _write_fasta(folder / NEW_CHAINS, ((chain.identifier, chain.primary) for chain in unlabeled))
    embedded = chains["train"][: sizes.embedded]
    _write_fasta(folder / FASTA, ((chain.identifier, chain.primary) for chain in embedded))
    for split in SPLITS:
        for number, chain in enumerate(chains[split][: sizes.chains[split]]):
            suffix = ".cif" if number % 2 else ".pdb"
            write_structure(folder / STRUCTURES / split / f"{chain.identifier.lower()}{suffix}", chain)


def _drawn(
    proteins: Sequence[Protein], counts: dict[str, int], rng: np.random.Generator, source: str
) -> dict[str, list[Protein]]:
    if len(proteins) < sum(counts.values()):
        raise ConfigError(f"{source}: {len(proteins)} proteins to draw {sum(counts.values())} from")
    order = iter(rng.permutation(len(proteins)))
    return {split: [proteins[place] for place in islice(order, count)] for split, count in counts.items()}


def _write_table(folder: Path, drawn: dict[str, list[Protein]]) -> None:
    lines, number = [f"id,sequence,{COLUMN},split"], 0
    for split in SPLITS:
        for protein in drawn[split]:
            number += 1
            value = f"{float(protein.label) * _KJ_PER_MOL:.2f}"
            lines.append(f"protein{number},{protein.sequence},{value},{split}")
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / TABLE, "\n".join(lines) + "\n")
    _write_fasta(folder / NEW_FASTA, ((f"new{place}", one.sequence) for place, one in enumerate(drawn[NEW], start=1)))


def _chains(data_dir: Path, split: str, sizes: Sizes, rng: np.random.Generator) -> list[Chain]:
    """Chains of 50 to 100 residues of a split, in random order, with those that are only predicted or embedded."""
    source = data_dir / "structures" / f"pdb_{split}.tsv.xz"
    found = [chain for chain in read_chains(source) if _RESIDUES[0] <= len(chain.primary) <= _RESIDUES[1]]
    more = {"train": max(0, sizes.embedded - sizes.chains["train"]), "test": sizes.chains[NEW]}.get(split, 0)
    count = sizes.chains[split] + more
    if len(found) < count:
        raise ConfigError(
            f"{source}: {len(found)} chains of {_RESIDUES[0]} to {_RESIDUES[1]} residues to draw {count} from"
        )
    return [found[place] for place in rng.permutation(len(found))[:count]]


def _write_fasta(path: Path, proteins: Iterable[tuple[str, str]]) -> None:
    write_text(path, "".join(f">{name}\n{sequence}\n" for name, sequence in proteins))


def write_structure(path: Path, chain: Chain) -> None:
    """Write a ``.pdb`` or ``.cif`` file with the C-alpha atoms of a chain and its complete sequence (SEQRES)."""
    gemmi: Any = import_extra("gemmi", "structure files need gemmi", "structures")
    names = gemmi.expand_one_letter_sequence(chain.primary, gemmi.ResidueKind.AA)
    structure = gemmi.Structure()
    structure.name = path.stem
    structure.cell = gemmi.UnitCell(1, 1, 1, 90, 90, 90)
    residues = structure.add_model(gemmi.Model(1)).add_chain(gemmi.Chain("A"))
    for number, (name, position) in enumerate(zip(names, chain.tertiary, strict=True), start=1):
        residue, atom = gemmi.Residue(), gemmi.Atom()
        residue.name, residue.seqid, residue.het_flag = name, gemmi.SeqId(str(number)), "A"
        atom.name, atom.element, atom.pos = "CA", gemmi.Element("C"), gemmi.Position(*map(float, position))
        residue.add_atom(atom)
        residues.add_residue(residue)
    structure.setup_entities()
    structure.get_entity_of(residues.get_polymer()).full_sequence = names
    structure.assign_label_seq_id(force=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".pdb":
        write_text(path, structure.make_pdb_string())
    else:
        write_text(path, structure.make_mmcif_document().as_string())
