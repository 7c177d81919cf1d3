"""Finds the data sets of a single file: one split of the task that it is for.

The split is named at the end of the file's name, as in ``fluorescence_valid.jsonl``, and is printed; a file without one
is train. The task is given, or the one at the beginning of the file's name, or the one whose labels its first record
has.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from proteinlm.data.data_sources import (
    CORPUS,
    FOLDERS,
    SPLITS,
    Dataset,
    SplitFiles,
    corpus_split,
    dataset_provenance,
    file_stem,
    read_provenance,
)
from tape.errors import DataError, listed, print_notice, quoted
from tape.io.records import SEQUENCE_SUFFIXES, RecordOptions, is_sequence_file, list_suffixes, open_records
from tape.io.records.formats import format_of_suffix, has_columns
from tape.io.structures import STRUCTURE_SUFFIXES, is_structure_file
from tape.io.structures.dssp import find_dssp
from tape.similarity.splits import SPLIT_SYNONYMS

_LABELS = {  # task -> columns of which a record has one
    "secondary_structure": ("ss3", "ss8"),
    "contact_prediction": ("tertiary",),
    "remote_homology": ("fold_label",),
    "fluorescence": ("log_fluorescence",),
    "stability": ("stability_score",),
}
_OF_STRUCTURES = ("contact_prediction", "secondary_structure")
_TABLES = ("csv", "tsv", "parquet")
_ALL_SPLITS = {*SPLIT_SYNONYMS, *(split for splits in SPLITS.values() for split in splits)}


def is_single_file(source: Path) -> bool:
    """Whether a source is a file, or an LMDB directory, rather than a directory of files."""
    return source.is_file() or (source.is_dir() and format_of_suffix(source) == "lmdb")


def find_datasets_of_file(file: Path, tasks: Sequence[str] | None, records: RecordOptions) -> dict[str, Dataset]:
    """The data sets that one file gives, by folder name, as :func:`.data_sources.find_datasets` has them.

    Args:
        file: a structure file, records of one task, or sequences.
        tasks: names in FOLDERS; None: inferred, and printed on stderr.
        records: columns of the sequence and the id.

    Raises:
        DataError: the file is a table, has another format, or is for no task or several.
    """
    if is_structure_file(file):
        found = _tasks_of_structures(file, tasks)
    elif format_of_suffix(file) in _TABLES:
        raise DataError(
            f"{file}: a single table is trained on as it is: tape-train transformer --data {file} --target COLUMN; as"
            " data of a task, name it TASK_SPLIT, such as fluorescence_train.csv, and give its directory"
        )
    elif is_sequence_file(file):
        found = [_task_of_records(file, records)] if tasks is None else [*tasks]
    else:
        suffixes = list_suffixes((*SEQUENCE_SUFFIXES, *STRUCTURE_SUFFIXES))
        raise DataError(f"{file}: can't be read as proteins; it must be {suffixes}, or a directory of such files")
    home = _directory_of(file)
    datasets = {}
    for task in found:
        folder = CORPUS if task == "masked_language_modeling" else FOLDERS[task]  # both are made of the same files
        split = corpus_split(file) if folder == CORPUS else _split_of(file, task, folder)
        splits = {split: SplitFiles((file,), structures=is_structure_file(file))}
        known = "corpus/swissprot" if folder == CORPUS else f"tape/{folder}"
        provenance = dataset_provenance(home, folder, read_provenance(home), known, splits)
        datasets[folder] = Dataset(folder, provenance, splits, is_of_file=True)
        print_notice(
            f"note: {file}: task {task}, split {split}" + ("; --tasks names another task" if not tasks else "")
        )
    return datasets


def _tasks_of_structures(file: Path, tasks: Sequence[str] | None) -> list[str]:
    wrong = [task for task in tasks or () if task not in _OF_STRUCTURES]
    if wrong:
        raise DataError(
            f"{file}: a structure file is for the tasks {' and '.join(_OF_STRUCTURES)}, not for {', '.join(wrong)}"
        )
    if find_dssp() is None:  # the caller names the missing program
        return [_OF_STRUCTURES[0]]
    return [*(tasks or _OF_STRUCTURES)]


def _task_of_records(file: Path, options: RecordOptions) -> str:
    """The task that a file's name begins with, else that of the labels in its first record."""
    stem = file_stem(file)
    for task, folder in FOLDERS.items():
        if any(stem == name or stem.startswith(f"{name}_") for name in (task, folder)):
            return CORPUS if folder == "pfam" else task
    first = next(open_records(file, options, with_fields=True), None)
    if first is None:
        raise DataError(f"{file}: no records")
    fitting = [task for task, columns in _LABELS.items() if any(column in first.fields for column in columns)]
    if len(fitting) == 1:
        return fitting[0]
    if not fitting and not has_columns(file):
        return CORPUS
    kinds = f"several tasks ({', '.join(fitting)})" if fitting else "no task"
    allowed = "; ".join(f"{' or '.join(columns)}: {task}" for task, columns in _LABELS.items())
    raise DataError(
        f"{first.where}: has labels of {kinds}; its other columns are {listed(first.fields)}. Name the task,"
        f" --tasks TASK (corpus for sequences alone), or give a column that tells it: {allowed}"
    )


def _split_of(file: Path, task: str, folder: str) -> str:
    """The split at the end of the file's name, which all of it names after ``TASK_``; train if there is none.

    Raises:
        DataError: the name has another split than those of the task.
    """
    stem = file_stem(file)
    rest = next((stem.removeprefix(f"{name}_") for name in (task, folder) if stem.startswith(f"{name}_")), None)
    ends = sorted((end for end in _ALL_SPLITS if stem == end or stem.endswith(f"_{end}")), key=len)
    named = rest or (ends[-1] if ends else "train")
    split = SPLIT_SYNONYMS.get(named, named)
    if split not in SPLITS[folder]:
        raise DataError(f"{file}: unknown split {quoted(named)}; {folder} has {', '.join(SPLITS[folder])}")
    return split


def _directory_of(file: Path) -> Path:
    """The directory of the data sets, which may have provenance.json: the file's, or the one above a data set's."""
    folder = file.absolute().parent
    return folder.parent if folder.name in ("tape", "structures", "pfam", CORPUS, *SPLITS) else folder
