#!/usr/bin/env python
"""Families of variants in a set without wild types, such as TAPE's fluorescence and stability test sets.

    python benchmarks/variant_families.py DATA_DIR stability --split test --out families.tsv

The variants of one protein have the same length and few substitutions, so that the most frequent residue at each
position is the wild type's. A protein of other variants is not near, which a set of unrelated proteins shows. The
command writes the table that `tape-compare --groups` reads: id, group (a number, the largest family first) and
substitutions of each protein. Proteins in no family, such as those with deletions, have a group each.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

import numpy as np

from tape.cli.parser import ArgumentParser
from tape.datasets.index import index_of, load_split
from tape.errors import ConfigError, DataError, run_cli
from tape.evaluation.groups import GROUP_COLUMN
from tape.io.writing import check_output_file, write_text
from tape.registry import registry
from tape.tasks import TaskType

MOST_SUBSTITUTIONS = 15  # in a variant of TAPE's fluorescence set
SMALLEST_FAMILY = 10
_LARGEST_SHARE = 4  # of the residues may be substituted: one in four
_MOST_GROUPS = 1000
_ITERATIONS = 10
_WORD = 5  # residues


@dataclass(frozen=True)
class Family:
    """The variants of one protein.

    Attributes:
        wild_type: (L,) the most frequent token at each position.
        members: indices of the variants in the set.
        substitutions: (members,) number of positions at which each differs from the wild type.
    """

    wild_type: np.ndarray
    members: np.ndarray
    substitutions: np.ndarray


@dataclass(frozen=True)
class Families:
    """All families of a set, the largest first.

    Attributes:
        families: those whose variants differ from the wild type by substitutions only.
        shifted: number of variants with deletions or insertions, which have no score from substitutions.
        single: number of variants in families of fewer than :data:`SMALLEST_FAMILY`, whose wild type is uncertain.
    """

    families: tuple[Family, ...]
    shifted: int
    single: int

    def numbers(self, proteins: int) -> np.ndarray:
        """(proteins,) number of each protein's family, from 1; proteins in no family have the numbers after these."""
        numbers = np.zeros(proteins, dtype=np.int64)
        for number, family in enumerate(self.families, start=1):
            numbers[family.members] = number
        alone = np.flatnonzero(numbers == 0)
        numbers[alone] = len(self.families) + 1 + np.arange(alone.size)
        return numbers


def open_split(data_dir: str, task: str, split: str, given: str) -> Any:
    """A split of a regression task, whose vocabulary is ``iupac``.

    Args:
        data_dir, task, split: names.
        given: how the task was given, for messages.

    Raises:
        ConfigError: the task is no regression of proteins.
        ProteinLMError: the split can't be used.
    """
    spec = registry.get_task_spec(task)
    if spec.task_type != TaskType.VALUE:
        raise ConfigError(f"{given} has no value per protein")
    return load_split(spec.dataset_class, data_dir, split, "iupac")


def read_split(dataset: Any) -> tuple[list[np.ndarray], np.ndarray]:
    """Token ids without special tokens, and labels, of a split of a regression task."""
    items = [dataset[index] for index in range(len(dataset))]
    return [np.asarray(item[0])[1:-1] for item in items], np.array([float(item[2]) for item in items])


def find_families(proteins: Sequence[np.ndarray], where: str) -> Families:
    """Divide a set into families.

    Args:
        proteins: token ids of each protein, without special tokens.
        where: name of the set, for messages.

    Raises:
        DataError: there is no family, or the set has too many proteins that are no variants of each other.
    """
    lengths = np.array([len(protein) for protein in proteins])
    groups: list[Family] = []
    for length in np.unique(lengths):
        indices = np.flatnonzero(lengths == length)
        tokens = np.stack([proteins[index] for index in indices])
        while indices.size:
            if len(groups) == _MOST_GROUPS:
                raise DataError(f"{where}: more than {_MOST_GROUPS} families, so not a set of variants of few proteins")
            wild_type, distances = _nearest_wild_type(tokens)
            near = distances <= _radius(int(length))
            groups.append(Family(wild_type, indices[near], distances[near]))
            indices, tokens = indices[~near], tokens[~near]
    groups.sort(key=lambda group: -len(group.members))
    families: list[Family] = []
    shifted = single = 0
    for group in groups:
        if any(_is_shifted(group, family) for family in families):
            shifted += len(group.members)
        elif len(group.members) < SMALLEST_FAMILY:
            single += len(group.members)
        else:
            families.append(group)
    if not families:
        raise DataError(f"{where}: no {SMALLEST_FAMILY} of its proteins are variants of one protein")
    return Families(tuple(families), shifted, single)


def _radius(length: int) -> int:
    return min(MOST_SUBSTITUTIONS, length // _LARGEST_SHARE)


def _nearest_wild_type(tokens: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The wild type of the first protein's family, and each protein's distance from it.

    Starts with the first protein itself, which is in the result: if the wild type moves too far away from it, it is a
    family of its own.
    """
    wild_type = tokens[0]
    distances = (tokens != wild_type).sum(axis=1)
    for _ in range(_ITERATIONS):
        consensus = _consensus(tokens[distances <= _radius(tokens.shape[1])])
        if (consensus == wild_type).all():
            break
        wild_type, distances = consensus, (tokens != consensus).sum(axis=1)
    if distances[0] > _radius(tokens.shape[1]):
        return tokens[0], np.where(np.arange(len(tokens)) == 0, 0, tokens.shape[1])
    return wild_type, distances


def _consensus(tokens: np.ndarray) -> np.ndarray:
    return np.array([np.bincount(column).argmax() for column in tokens.T], dtype=tokens.dtype)


def _is_shifted(group: Family, family: Family) -> bool:
    """Whether a group of another length has most of its words in common with a family: its variants have a gap."""
    if len(group.wild_type) == len(family.wild_type):
        return False
    words = _words(group.wild_type)
    return 2 * len(words & _words(family.wild_type)) > len(words)


def _words(tokens: np.ndarray) -> set[bytes]:
    return {tokens[start : start + _WORD].tobytes() for start in range(len(tokens) - _WORD + 1)}


def main(words: Sequence[str] | None = None) -> None:
    """Write the table of families of a split."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", help="directory with TAPE's folders, as scripts/prepare_data.py writes them")
    parser.add_argument("task", help="task with one value per protein, such as stability")
    parser.add_argument("--split", default="test", help="default: %(default)s")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE.tsv", help="the table")
    options = parser.parse_args(words)
    check_output_file(options.out, "--out")
    if options.out.suffix != ".tsv":  # by which tape-compare knows the format
        raise ConfigError(f"--out {options.out}: the table is tab-separated; give a name that ends in .tsv")
    dataset = open_split(options.data_dir, options.task, options.split, options.task)
    proteins, _ = read_split(dataset)
    found = find_families(proteins, f"{options.task} {options.split}")
    substitutions = np.zeros(len(proteins), dtype=np.int64)
    for family in found.families:
        substitutions[family.members] = family.substitutions
    index = index_of(dataset)
    names = range(len(proteins)) if index is None else index.identifiers  # as in results_SPLIT.pkl
    rows = zip(names, found.numbers(len(proteins)), substitutions, strict=True)
    lines = [f"id\t{GROUP_COLUMN}\tsubstitutions", *("\t".join(map(str, row)) for row in rows)]
    write_text(options.out, "\n".join(lines) + "\n")
    sizes = [len(family.members) for family in found.families]
    alone = found.shifted + found.single
    print(f"{len(sizes)} families of {min(sizes):,} to {max(sizes):,} proteins, and {alone:,} in none: {options.out}")


if __name__ == "__main__":
    sys.exit(run_cli(main))
