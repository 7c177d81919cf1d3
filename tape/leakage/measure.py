"""The identity of test proteins to training data, from the configuration to the written table (``tape-leakage``)."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from tape.errors import ConfigError, listed
from tape.io.text_files import display_name
from tape.io.writing import check_output_file
from tape.registry import registry
from tape.similarity.mmseqs import INSTALL, find_mmseqs, mmseqs_version

from .alignment import biopython_version, search_exact
from .bins import BINS, bin_numbers
from .config import LeakageConfig
from .hits import Hit
from .mmseqs import mmseqs_options, search_mmseqs
from .proteins import ReferenceFile, read_test_proteins
from .table import LeakageHead, ProteinFile, is_table, write_table

logger = logging.getLogger(__name__)

TRAINING_SPLIT = "train"


def measure_leakage(config: LeakageConfig) -> Path:
    """Write the highest identity of each test protein to each file of training proteins; returns the file written.

    Raises:
        ProteinLMError: a file can't be used, or the search is not possible.
    """
    test, against, output = _files(config)
    _check_output(output, (test, *against))
    references = [ReferenceFile(path, config.records) for path in against]
    _check_names(references)
    method = _choose_method(config.method)
    proteins, sha256 = read_test_proteins(test, config.records)
    places = {residues: place for place, residues in enumerate(dict.fromkeys(p.residues for p in proteins))}
    described = _described(config, method)
    hits = []
    for reference in references:
        names = len(proteins), display_name(test), reference.path, described["tool"], described["tool_version"]
        logger.info("%d proteins of %s against %s with %s %s", *names)
        found = _search(config, method, list(places), reference)
        hits.append([found[places[protein.residues]] for protein in proteins])
        if reference.sha256 == sha256:
            logger.warning("%s is the file of the test proteins itself", reference.path)
    files = [ProteinFile(r.name, str(r.path), r.sha256, r.proteins) for r in references]
    tested = {"path": display_name(test), "sha256": sha256, "proteins": len(proteins)}
    head = LeakageHead(tested, tuple(files), described)
    write_table(output, head, proteins, hits)
    for reference, found in zip(references, hits, strict=True):
        logger.info("proteins by identity to %s: %s", reference.name, summary(found))
    logger.info("wrote %s", output)
    return output


def summary(hits: Sequence[Hit | None]) -> str:
    """Number of proteins in each bin, as text: ``< 20 %: 716, 20 to 30 %: 1 ...``."""
    identities = np.asarray([np.nan if hit is None else hit.identity for hit in hits], dtype=np.float64)
    counts = np.bincount(bin_numbers(identities), minlength=len(BINS)).tolist()
    parts = [f"{one.label}: {count:,}" for one, count in zip(BINS, counts, strict=True)]
    return f"{', '.join(parts)} ({int(np.isnan(identities).sum()):,} without a hit)"


def leakage_file(split_file: Path, split: str) -> Path:
    """Where the table of a split is written by default, and where an evaluation looks for it.

    Args:
        split_file: the split's file in the folder of the task's data.
        split: its name.
    """
    return split_file.parent / f"leakage_{split}.tsv"


def _files(config: LeakageConfig) -> tuple[Path, tuple[Path, ...], Path]:
    """File of the test proteins, files to compare it with, and output."""
    if config.test is not None:
        if config.task is not None:
            raise ConfigError("give TEST or --task, not both")
        if not config.against:
            raise ConfigError("--against FILE is missing: what the model was trained on")
        if config.output is None:
            raise ConfigError("--output FILE is missing")
        return config.test, config.against, config.output
    if config.task is None:
        raise ConfigError("give a file of test proteins, or --task and --split")
    test, train = (_split_file(config, split) for split in (config.split, TRAINING_SPLIT))
    output = config.output or leakage_file(test, config.split)
    return test, (train, *config.against), output


def _split_file(config: LeakageConfig, split: str) -> Path:
    from tape.datasets.task_dataset import open_split  # imports torch

    task = registry.get_task_spec(str(config.task)).task
    if not task.folder:
        raise ConfigError(f"task {config.task} has no folder of data; give files: tape-leakage TEST --against TRAIN")
    return open_split(config.data_dir, task.folder, split, options=config.records).path


def _check_output(output: Path, inputs: Sequence[Path]) -> None:
    """Check that the output can be written, and that it replaces nothing but an earlier table."""
    check_output_file(output, "--output")
    if output.exists() and (not output.is_file() or not is_table(output)):
        raise ConfigError(f"--output {output}: exists and is not a table of tape-leakage; choose another name")
    missing = [path for path in inputs if str(path) != "-" and not path.exists()]
    if missing:
        raise ConfigError(f"{missing[0]}: no such file")


def _check_names(references: Sequence[ReferenceFile]) -> None:
    names = [reference.name for reference in references]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ConfigError(f"two files to compare with are named {listed(repeated)}; rename one of them")


def _choose_method(method: str) -> str:
    """``mmseqs2`` or ``exact``, after a check that it is installed."""
    if method == "auto":
        method = "exact" if find_mmseqs() is None else "mmseqs2"
    if method == "mmseqs2" and find_mmseqs() is None:
        raise ConfigError(f"MMseqs2 is not installed: {INSTALL}")
    if method == "exact":
        biopython_version()
    return method


def _search(config: LeakageConfig, method: str, queries: Sequence[str], reference: ReferenceFile) -> list[Hit | None]:
    program = find_mmseqs()
    if method == "exact" or program is None:
        return search_exact(queries, reference, config.settings, reference.name)
    return search_mmseqs(program, queries, reference, config.settings)


def _described(config: LeakageConfig, method: str) -> dict[str, object]:
    """Which alignments count, and how they were found, for the head of the table."""
    settings = asdict(config.settings)
    conditions = {name: settings[name] for name in ("e_value", "coverage")}
    program = find_mmseqs()
    if method == "exact" or program is None:
        return {"tool": "Biopython", "tool_version": biopython_version(), "scoring": "blastp", **conditions}
    options = " ".join(mmseqs_options(config.settings))
    return {"tool": "MMseqs2", "tool_version": mmseqs_version(program), **conditions, "options": options}
