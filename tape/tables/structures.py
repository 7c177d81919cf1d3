"""Structure files as a table: a record per protein chain, with its coordinates and, by DSSP, its secondary structure.

=============  =====================================================================================================
column         content
=============  =====================================================================================================
``tertiary``   (L, 3) float32, the point of each residue in Angstrom; NaN where unresolved
``ss8, ss3``   a letter per residue, ``-`` where there is none; only if one of them is the target
``split``      of files in folders that are named after splits, such as ``train/1abc.cif``
=============  =====================================================================================================
"""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any

from tape.errors import ConfigError, DataError
from tape.io.records import Record, RecordOptions
from tape.io.records.labels import SS3_CLASSES, SS3_LETTERS, SS8_LETTERS
from tape.io.structures import ProteinChain, StructureOptions, find_structure_files, is_structure_file, read_structures
from tape.io.structures.dssp import INSTALL, UNASSIGNED, find_dssp
from tape.similarity.splits import SPLIT_SYNONYMS, SPLITS
from tape.targets import COORDINATES

from .options import SPLIT_COLUMN, TableOptions

logger = logging.getLogger(__name__)
STATES: dict[str, tuple[str, ...]] = {"ss3": tuple(SS3_LETTERS), "ss8": tuple(SS8_LETTERS)}  # column -> its classes
_SPLIT_FOLDERS = frozenset({*SPLITS, *SPLIT_SYNONYMS})


def structure_files(path: Path) -> tuple[Path, ...]:
    """The structure files that a table is read from: one, or those in a folder or below it; none for other files.

    Raises:
        DataError: two of them have the same name.
    """
    candidates = path.rglob("*") if path.is_dir() else (path,)
    return tuple(find_structure_files([path])) if any(map(is_structure_file, candidates)) else ()


def read_structure_records(options: TableOptions, files: tuple[Path, ...]) -> list[Record]:
    """A record for each protein chain, named ``FILE-CHAIN``.

    Args:
        options: the table; its target determines whether DSSP is needed.
        files: its structure files.

    Raises:
        DataError: a file can't be used, or only a part of the files is in folders of splits.
        ConfigError: an option is not for structures, or gemmi or DSSP is not installed.
    """
    if options.records != RecordOptions():
        raise ConfigError(f"--data {options.path}: structure files have no columns of sequences or ids to be named")
    if options.labels is not None:
        raise ConfigError(
            f"--labels {options.labels}: labels of structure files are read from these; to join the table, give the"
            " sequences of the chains, such as FASTA, as --data"
        )
    if options.target not in (COORDINATES, *STATES):
        other = "" if options.target is None else f", not {options.target}"
        raise ConfigError(
            f"--data {options.path}: structure files have contacts (--task-type contact) and secondary structure"
            f" (--target ss3 or ss8){other}; give one of them"
        )
    dssp = None
    if options.target in STATES:
        dssp = find_dssp()
        if dssp is None:
            raise ConfigError(
                f"--target {options.target}: secondary structure of structure files needs DSSP 4 on the PATH: {INSTALL}"
            )
    states = tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    records, notices = _records(options.path, files, states, StructureOptions(options.atom or "CA", dssp=dssp))
    for notice in notices:
        logger.warning(notice)
    return list(records)


@lru_cache(maxsize=1)  # a command reads its table twice: for its options, and for the run
def _records(
    path: Path, files: tuple[Path, ...], states: tuple[tuple[int, int], ...], options: StructureOptions
) -> tuple[tuple[Record, ...], tuple[str, ...]]:
    """The chains, and what the reader announces: also if they are read once."""
    folders = _split_folders(path, files)
    groups: dict[str | None, list[Path]] = {}
    for file, split in zip(files, folders, strict=True):
        groups.setdefault(split, []).append(file)
    notices: list[str] = []
    chains = [
        (chain, split)
        for split, group in groups.items()
        for chain in read_structures(group, options, warn=notices.append)
    ]
    records = tuple(
        Record(chain.identifier, chain.primary, chain.where, number, _fields(chain, split))
        for number, (chain, split) in enumerate(chains)
    )
    return records, tuple(notices)


def _split_folders(path: Path, files: tuple[Path, ...]) -> list[str | None]:
    """Name of the split whose folder each file is in; None for all if the folders below ``path`` are no splits."""
    if not path.is_dir():
        return [None] * len(files)
    places = [file.relative_to(path).parts for file in files]
    folders = [parts[0].lower() if len(parts) > 1 else None for parts in places]
    if not _SPLIT_FOLDERS.intersection(filter(None, folders)):
        return [None] * len(files)
    loose = next((file for file, folder in zip(files, folders, strict=True) if folder is None), None)
    if loose is not None:
        raise DataError(f"{loose}: not in the folder of a split, but other files of {path} are; move it into one")
    return folders


def _fields(chain: ProteinChain, split: str | None) -> dict[str, Any]:
    fields: dict[str, Any] = {COORDINATES: chain.tertiary}
    if chain.ss8 is not None:
        fields["ss8"] = chain.ss8
        fields["ss3"] = "".join(map(_three_state, chain.ss8))
    return fields if split is None else {**fields, SPLIT_COLUMN: split}


def _three_state(letter: str) -> str:
    return UNASSIGNED if letter == UNASSIGNED else SS3_LETTERS[SS3_CLASSES[letter]]
