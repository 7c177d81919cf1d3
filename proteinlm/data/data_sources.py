"""Finds the data sets in a directory of protein files, with their splits and provenance.

A data set may be stored in the directory SOURCE in four ways:

- ``SOURCE/tape/{folder}_{split}.jsonl.xz``: TAPE's data sets as JSON lines (their provenance is known);
- ``SOURCE/structures/NAME_{split}.tsv.xz`` and ``.ca.i2.xz``: chains with coordinates (scripts/structure_files.py);
- ``SOURCE/structures/{split}/``: structure files (tape.io.structures), also without the folder of a split, or in SOURCE
  itself; then the chains are divided into splits by :mod:`proteinlm.data.structure_splits`;
- ``SOURCE/{folder}_{split}.SUFFIX`` or ``SOURCE/{folder}/{folder}_{split}.SUFFIX``: the user's own data.

``SOURCE/provenance.json`` may state their provenance, see :func:`read_provenance`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from proteinlm.data.structure_files import coordinate_file
from proteinlm.data.structure_splits import STRUCTURE_SPLITS
from tape.errors import DataError, quoted
from tape.io.json_files import read_json_object
from tape.io.records import LABELED_SUFFIXES, is_sequence_file, list_suffixes
from tape.io.structures import find_structure_files, is_structure_file
from tape.io.structures.dssp import find_dssp
from tape.io.text_files import split_suffix

CORPUS = "corpus"
FOLDERS = {  # task -> folder
    CORPUS: CORPUS,
    "secondary_structure": "secondary_structure",
    "contact_prediction": "proteinnet",
    "remote_homology": "remote_homology",
    "fluorescence": "fluorescence",
    "stability": "stability",
    "masked_language_modeling": "pfam",
}
SPLITS: dict[str, tuple[str, ...]] = {
    "secondary_structure": ("train", "valid", "test", "casp12", "ts115", "cb513"),
    "proteinnet": ("train", "train_unfiltered", "valid", "test"),
    "remote_homology": ("train", "valid", "test_fold_holdout", "test_family_holdout", "test_superfamily_holdout"),
    "fluorescence": ("train", "valid", "test"),
    "stability": ("train", "valid", "test"),
}
_CORPUS_SPLITS = {"train": "train", "valid": "valid", "validation": "valid", "test": "test", "holdout": "holdout"}
PROVENANCE_FILE = "provenance.json"


@dataclass(frozen=True)
class Provenance:
    """Origin of a data set, stored and shown with it: display name, source, license, and whether it is simulated."""

    name: str
    source: str
    licence: str
    simulated: bool = False


@dataclass(frozen=True)
class SplitFiles:
    """The files of one split.

    Attributes:
        paths: the files.
        chains: whether they are tables with coordinates.
        structures: whether they are structure files.
        share: of structure files that are not divided into folders, the split whose chains are meant; None: all.
    """

    paths: tuple[Path, ...]
    chains: bool = False
    structures: bool = False
    share: str | None = None

    @property
    def all_paths(self) -> tuple[Path, ...]:
        """The paths, and the coordinate files of chains."""
        return self.paths + (tuple(map(coordinate_file, self.paths)) if self.chains else ())


@dataclass(frozen=True)
class Dataset:
    """One data set: name of its folder, provenance, and splits in a fixed order.

    Attributes:
        is_of_file: whether it is a single file, with one split; others of the folder are from other files.
    """

    folder: str
    provenance: Provenance
    splits: dict[str, SplitFiles] = field(default_factory=dict)
    is_of_file: bool = False

    def describe(self, counts: Mapping[str, int]) -> dict[str, Any]:
        """The content of dataset.json; ``counts`` are the records per split."""
        return {**asdict(self.provenance), "splits": dict(counts)}


_MIT = "MIT"
# Provenance of the files in SOURCE/tape, SOURCE/structures and SOURCE/corpus/swissprot_*.
_KNOWN: dict[str, Provenance] = {
    "tape/secondary_structure": Provenance("NetSurfP-2.0 and CB513", "NetSurfP-2.0 via FLIP, CB513", "AFL-3.0"),
    "tape/remote_homology": Provenance("TAPE remote homology", "DeepSF / TAPE via nadavbra/protein_bert", _MIT),
    "tape/fluorescence": Provenance(
        "TAPE fluorescence", "Sarkisyan 2016 via gitter-lab/nn4dms, valid rows by nadavbra/protein_bert", _MIT
    ),
    "tape/stability": Provenance("TAPE stability", "Rocklin 2017 via nadavbra/protein_bert", _MIT),
    "structures/pdb": Provenance(
        "PDB chains (not ProteinNet)",
        "PDB chains with DSSP states, Debian package promod3-data 3.2.1+ds-6; splits share no 30 % identity cluster",
        "Apache-2.0 (PDB content CC0)",
    ),
    "corpus/swissprot": Provenance(
        "Swiss-Prot 2014_01",
        "UniProt via the Debian package metastudent-data 2.0.1-8",
        "GPL-2+ (content of UniProt: CC BY 4.0)",
    ),
}


def find_datasets(source: Path, structures_as_labels: bool = False) -> dict[str, Dataset]:
    """The data sets in ``source`` by folder name, including ``corpus``.

    Args:
        source: the directory.
        structures_as_labels: take secondary structure from ``structures/`` even if there is a file of its own.

    Raises:
        DataError: ``source`` is not a directory, a file's split is unknown, or two files are for the same split.
    """
    if not source.is_dir():
        raise DataError(f"{source}: no such {'directory' if source.exists() else 'file or directory'}")
    stated = read_provenance(source)
    found = {folder: _find_labeled(source, folder, stated) for folder in SPLITS}
    chains = _find_chains(source)
    structures = _find_structures(source)
    if chains and structures:
        both = next(iter(chains.values())).paths[0], next(iter(structures.values())).paths[0]
        raise DataError(f"{source}: has chains both as tables ({both[0]}) and as structure files ({both[1]}); keep one")
    for folder in ("proteinnet", "secondary_structure"):
        forced = folder == "secondary_structure" and structures_as_labels
        if not forced and found[folder].splits:
            continue
        if chains:
            found[folder] = Dataset(
                folder, dataset_provenance(source, folder, stated, "structures/pdb", chains), chains
            )
        elif structures and (folder == "proteinnet" or find_dssp() is not None):
            found[folder] = Dataset(folder, dataset_provenance(source, folder, stated, "", structures), structures)
    found[CORPUS] = _find_corpus(source, stated)
    return {folder: dataset for folder, dataset in found.items() if dataset.splits}


def read_provenance(source: Path) -> dict[str, Any]:
    """The content of ``provenance.json``; empty if there is no such file.

    It may contain ``datasets``: {folder: {"name", "source", "licence", "simulated"}} and ``corpus_files``:
    {split: [file, ...]} for a corpus made of files that other data sets use too.
    """
    path = source / PROVENANCE_FILE
    if not path.exists():
        return {}
    content = read_json_object(path, DataError)
    files = content.get("corpus_files", {})
    if not isinstance(content.get("datasets", {}), dict) or not isinstance(files, dict):
        raise DataError(f"{path}: datasets and corpus_files should be JSON objects")
    if not all(isinstance(names, list) and all(isinstance(name, str) for name in names) for names in files.values()):
        raise DataError(f"{path}: corpus_files should contain lists of file names, {{split: [file, ...]}}")
    return content


def dataset_provenance(
    source: Path, folder: str, stated: Mapping[str, Any], known: str, splits: Mapping[str, SplitFiles]
) -> Provenance:
    """From provenance.json, else from the known layout, else 'the user's own files'."""
    entry = stated.get("datasets", {}).get(folder)
    if entry is not None:
        names = {"name", "source", "licence", "simulated"}
        if not isinstance(entry, dict) or set(entry) - names or "name" not in entry:
            raise DataError(f"{source / PROVENANCE_FILE}: datasets.{folder} needs name, and may have {sorted(names)}")
        for name, value in entry.items():
            kind, text = (bool, "true or false") if name == "simulated" else (str, "text")
            if not isinstance(value, kind):
                raise DataError(
                    f"{source / PROVENANCE_FILE}: datasets.{folder}.{name} must be {text}, not {quoted(value)}"
                )
        return Provenance(**{"source": "not stated", "licence": "not stated", **entry})
    if known in _KNOWN and all(_is_known(path, source, known) for files in splits.values() for path in files.paths):
        return _KNOWN[known]
    return Provenance(f"{source.resolve().name}: {folder}", "the user's own files", "not stated")


def _is_known(path: Path, source: Path, known: str) -> bool:
    return path.absolute().relative_to(source.absolute()).as_posix().startswith(f"{known}_")


def _find_labeled(source: Path, folder: str, stated: Mapping[str, Any]) -> Dataset:
    splits: dict[str, SplitFiles] = {}
    unread: list[Path] = []
    for path in _files(source, source / "tape", source / folder):
        if not path.name.startswith(f"{folder}_"):
            continue
        if split_suffix(path)[0] not in LABELED_SUFFIXES:
            unread.append(path)
            continue
        split = file_stem(path).removeprefix(f"{folder}_")
        if split not in SPLITS[folder]:
            raise DataError(f"{path}: unknown split {quoted(split)}; {folder} has {', '.join(SPLITS[folder])}")
        if split in splits:
            raise DataError(f"{path} and {splits[split].paths[0]} are both {folder}'s {split} split; keep one")
        splits[split] = SplitFiles((path,))
    for path in unread:  # not if the split is there in another format, as with checksums beside it
        if (split := path.name.removeprefix(f"{folder}_").partition(".")[0]) in SPLITS[folder] and split not in splits:
            raise DataError(
                f"{path}: labels can't be read from this format; it must be {list_suffixes(LABELED_SUFFIXES)}"
            )
    ordered = {split: splits[split] for split in SPLITS[folder] if split in splits}
    return Dataset(folder, dataset_provenance(source, folder, stated, f"tape/{folder}", ordered), ordered)


def _find_chains(source: Path) -> dict[str, SplitFiles]:
    """Tables in ``structures/`` by split; their names end in ``_train``, ``_valid`` or ``_test``."""
    found: dict[str, SplitFiles] = {}
    for split in ("train", "valid", "test"):
        for path in _files(source / "structures"):
            if split_suffix(path)[0] == ".tsv" and file_stem(path).endswith(f"_{split}"):
                if split in found:
                    raise DataError(
                        f"{path} and {found[split].paths[0]} are both chains of the {split} split; keep one"
                    )
                found[split] = SplitFiles((path,), chains=True)
    return found


def _find_structures(source: Path) -> dict[str, SplitFiles]:
    """Structure files by split: those of ``structures/{split}``, or else those of ``structures`` and ``source``."""
    folders = {split: source / "structures" / split for split in STRUCTURE_SPLITS}
    folders = {split: folder for split, folder in folders.items() if folder.is_dir()}
    loose = [path for path in _files(source / "structures", source) if path.is_file() and is_structure_file(path)]
    if not folders and not loose:
        return {}
    if folders and loose:
        raise DataError(
            f"{loose[0]}: is in no split, while {next(iter(folders.values()))} is one; move all structure files into"
            f" folders of splits ({', '.join(STRUCTURE_SPLITS)}), or none"
        )
    files = tuple(find_structure_files([*folders.values(), *loose]))
    if not folders:
        return {split: SplitFiles(files, structures=True, share=split) for split in STRUCTURE_SPLITS}
    return {
        split: SplitFiles(tuple(path for path in files if path.is_relative_to(folder)), structures=True)
        for split, folder in folders.items()
    }


def _find_corpus(source: Path, stated: Mapping[str, Any]) -> Dataset:
    paths = [(split, source / name) for split, names in stated.get("corpus_files", {}).items() for name in names]
    if not paths:
        candidates = [path for path in _files(source) if path.name.startswith(CORPUS)]
        candidates += [*_files(source / CORPUS), *(path for path in _files(source / "pfam") if path.suffix == ".lmdb")]
        paths = [(corpus_split(path), path) for path in candidates if is_sequence_file(path)]
    grouped: dict[str, tuple[Path, ...]] = {}
    for split, path in paths:
        grouped[split] = (*grouped.get(split, ()), path)
    splits = {split: SplitFiles(grouped[split]) for split in dict.fromkeys(_CORPUS_SPLITS.values()) if split in grouped}
    return Dataset(CORPUS, dataset_provenance(source, CORPUS, stated, "corpus/swissprot", splits), splits)


def corpus_split(path: Path) -> str:
    """The split at the end of the file's name; train if there is none."""
    return _CORPUS_SPLITS.get(file_stem(path).rpartition("_")[2], "train")


def _files(*folders: Path) -> Iterator[Path]:
    """Entries of the folders that exist, sorted; hidden entries are skipped."""
    for folder in folders:
        if folder.is_dir():
            yield from sorted(path for path in folder.iterdir() if not path.name.startswith("."))


def file_stem(path: Path) -> str:
    """The file's name without the suffixes of format and compression."""
    return path.name[: len(path.name) - len("".join(split_suffix(path)))]
