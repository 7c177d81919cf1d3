"""Dividing test proteins into groups, from the configuration to the written table (``tape-groups``)."""

from __future__ import annotations

import logging
from pathlib import Path

import numpy as np

from tape.datasets.index import index_of, load_split, sequence_of
from tape.datasets.sources import file_of
from tape.errors import ConfigError, DataError, quoted
from tape.io.text_files import display_name
from tape.io.writing import check_output_file, write_text
from tape.leakage.proteins import Protein, read_test_proteins, sequence_digest
from tape.registry import registry
from tape.similarity.clusters import cluster_proteins
from tape.similarity.variant_families import SMALLEST_FAMILY, find_families

from .group_resampling import groups_file
from .groups import DIGEST_COLUMN, GROUP_COLUMN, is_groups_table
from .groups_config import GroupsConfig

logger = logging.getLogger(__name__)


def make_groups(config: GroupsConfig) -> Path:
    """Write the group of each protein; returns the file written.

    Raises:
        ProteinLMError: a file can't be used, there are fewer than two groups, or MMseqs2 failed.
    """
    if config.test is not None and config.output is not None:  # the second is checked by the configuration
        _check_output(config.output)
        proteins, _ = read_test_proteins(config.test, config.records)
        title, output = display_name(config.test), config.output
    else:
        proteins, title, output = _proteins_of_split(config)
    numbers, described = _numbers(config, proteins, title)
    rows: dict[str, str] = {}
    for protein, number in zip(proteins, numbers.tolist(), strict=True):
        row = f"{protein.identifier}\t{number}\t{sequence_digest(protein.residues)}\n"
        if rows.setdefault(protein.identifier, row) != row:
            raise DataError(
                f"{title}: the id {quoted(protein.identifier)} is that of several proteins, which a table of groups"
                " can't tell apart; give each an id of its own"
            )
    if len(np.unique(numbers)) < 2:
        higher = "" if config.method == "variants" else "give a higher --identity, or "
        raise DataError(
            f"{title}: all proteins ({len(proteins):,}) are in one group, over which there is no interval; {higher}"
            "evaluate without groups, for intervals over proteins"
        )
    write_text(output, f"id\t{GROUP_COLUMN}\t{DIGEST_COLUMN}\n{''.join(rows.values())}")
    sizes = np.unique(numbers, return_counts=True)[1]
    logger.info(
        "%s: %d proteins in %d groups of %d to %d (%s); wrote %s",
        *(title, len(proteins), len(sizes), sizes.min(), sizes.max(), described, output),
    )
    return output


def _numbers(config: GroupsConfig, proteins: list[Protein], title: str) -> tuple[np.ndarray, str]:
    """The number of each protein's group, from 1, the largest first, and the method in words."""
    sequences = [protein.residues for protein in proteins]
    if config.method == "variants":
        letters = [np.frombuffer(sequence.encode("ascii"), dtype=np.uint8) for sequence in sequences]
        families = find_families(letters, title)
        described = f"variants of {len(families.families)} proteins, and {families.single} in families of fewer than"
        return families.numbers(len(proteins)), f"{described} {SMALLEST_FAMILY}"
    clusters = cluster_proteins(sequences, config.identity, threads=config.threads)
    order = np.argsort(-np.bincount(clusters.labels), kind="stable")
    return np.argsort(order)[clusters.labels] + 1, clusters.method


def _proteins_of_split(config: GroupsConfig) -> tuple[list[Protein], str, Path]:
    """The proteins of a split by the ids that an evaluation gives them, its title, and the output."""
    spec = registry.get_task_spec(str(config.task))
    if not spec.task.folder:
        raise ConfigError(f"task {config.task} has no folder of data; give a file: tape-groups TEST --output FILE")
    dataset = load_split(spec.dataset_class, config.data_dir, config.split, "iupac", config.records)
    index, path = index_of(dataset), file_of(dataset)
    if index is None or path is None:
        raise ConfigError(f"{config.task}: {type(dataset).__name__} does not describe the proteins of its examples")
    output = config.output or groups_file(path, config.split)
    _check_output(output)
    source = dataset.data
    sequences = (sequence_of(source, place, source[place])[0] for place in range(len(source)))
    proteins = [Protein(name, sequence) for name, sequence in zip(index.identifiers, sequences, strict=True)]
    return proteins, f"{config.task} {config.split}", output


def _check_output(output: Path) -> None:
    """Check that the output can be written, and that it replaces nothing but an earlier table."""
    check_output_file(output, "--output")
    if output.suffix != ".tsv":  # by which the format is known when it is read
        raise ConfigError(f"--output {output}: the table is tab-separated; give a name that ends in .tsv")
    if output.exists() and not is_groups_table(output):
        raise ConfigError(f"--output {output}: exists and is not a table of tape-groups; choose another name")
