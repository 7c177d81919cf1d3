"""Converts protein files to training data: TAPE's LMDB folders and a tokenized corpus.

    proteinlm prepare SOURCE TARGET     (in a clone: python scripts/prepare_data.py SOURCE TARGET)

SOURCE is a directory. Those of the data sets below that are found in it are written. Or SOURCE is one file of a split:
a structure file, records of a task (.jsonl, .json, .lmdb, .fasta with labels) or sequences. Its task is --tasks, or
inferred from its name or labels; its split is the end of its name (_valid), or train.

  data set (--tasks)        files in SOURCE                                  written to TARGET
  corpus                    corpus/*, corpus*.SUFFIX, pfam/*.lmdb            corpus/{split}_text_document.{bin,idx,json}
  secondary_structure       secondary_structure_{split}.SUFFIX, structures/  secondary_structure/
  contact_prediction        proteinnet_{split}.SUFFIX, structures/           proteinnet/
  remote_homology           remote_homology_{split}.SUFFIX                   remote_homology/
  fluorescence              fluorescence_{split}.SUFFIX                      fluorescence/
  stability                 stability_{split}.SUFFIX                         stability/
  masked_language_modeling  as corpus; only when named in --tasks            pfam/

A task's folder gets {folder}_{split}.lmdb for each split, and dataset.json with the origin of the data.

The files of a task are searched in SOURCE itself, SOURCE/tape/ and SOURCE/{folder}/. Splits are train, valid and test;
secondary_structure also has casp12, ts115, cb513; remote_homology has train, valid, test_fold_holdout,
test_family_holdout, test_superfamily_holdout. A corpus file ending in _train, _valid, _test or _holdout belongs to that
split, any other to train.

Columns, in files of any of these suffixes (.jsonl, .json, .csv, .tsv, .fasta, .lmdb; all but the last also with
.gz, .bz2, .xz or .zst after it): the sequence under `primary`, `sequence` or `text`, an optional `id`, and

  secondary_structure  ss3: letters H E C (or numbers 0 1 2), one per residue; or ss8: DSSP letters G H I B E S T C,
                       which determine ss3. X, -, a blank, -1 or null: no label. Optional valid_mask: 0 or 1 per
                       residue; 0 excludes it from scores.
  proteinnet           tertiary: one [x, y, z] per residue, the C-alpha atom in Angstrom, null where unresolved.
                       Optional valid_mask, ss3, ss8.
  remote_homology      fold_label: 0 to 1194
  fluorescence         log_fluorescence: a number
  stability            stability_score: a number

  fluorescence_train.csv      primary,log_fluorescence          secondary_structure_valid.jsonl
                              MSKGEELFT,3.72                    {"id": "1abc-A", "primary": "MKVL", "ss3": "CHHC"}
  remote_homology_train.fasta >d1abc_ fold_label=51             corpus_train.fasta.gz
                              PKKVLTGVVVSD                      any FASTA, Stockholm, JSON lines, CSV or text file

structures/ contains chains for contact_prediction, and for secondary_structure if that has no file of its own (or with
--structures-as-labels):

  structures/{split}/*.cif    structure files: .pdb, .ent, .cif, .mmcif, .bcif (extra structures). Files that are in
                              structures/ or SOURCE itself are divided 80 : 10 : 10, with equal sequences in one split.
                              Secondary structure is by DSSP 4, if mkdssp or dssp is on the PATH.
  structures/NAME_{split}.tsv.xz, NAME_{split}.ca.i2.xz    tables of chains with DSSP states, and their coordinates

SOURCE/provenance.json may be {"datasets": {folder: {"name": ..., "source": ..., "licence": ..., "simulated": true}}};
it is stored in dataset.json and shown with every score.

A second run writes only what has changed: it skips splits that were completed with the same options, if the SHA-256
sums of their input and output files are those of that time.
"""

from __future__ import annotations

import argparse
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

from tqdm.auto import tqdm

from pretrain.data.preprocessing import SMALL_CORPUS, preprocess
from pretrain.data.tokenization import DEFAULT_MAX_UNKNOWN_FRACTION, DEFAULT_MAX_X_FRACTION, REPLACED_MEANING
from proteinlm.data.data_sources import CORPUS, FOLDERS, Dataset, SplitFiles, find_datasets
from proteinlm.data.labeled_records import chain_record, make_record
from proteinlm.data.prepared_state import (
    STATE_FILE,
    STATE_VERSION,
    check_replacement,
    fingerprint,
    is_state,
    read_json_if_any,
)
from proteinlm.data.single_file import find_datasets_of_file, is_single_file
from proteinlm.data.structure_files import read_chains
from proteinlm.data.structure_splits import ChainReader
from tape.cli.parser import ArgumentParser
from tape.errors import ConfigError, DataError, UnknownResidueError, print_notice, quoted
from tape.io.lmdb_store import write_lmdb
from tape.io.records import RecordOptions, open_records
from tape.io.structures import ATOMS, StructureOptions
from tape.io.structures.dssp import INSTALL as DSSP_INSTALL
from tape.io.structures.dssp import UNASSIGNED, find_dssp
from tape.io.text_files import file_size
from tape.io.writing import atomic_directory, atomic_write, check_output_directory, check_replaceable, write_json
from tape.runtime.progress import progress_bar
from tape.tokenizers import normalize_sequence


@dataclass(frozen=True)
class Options:
    """Options of the preparation.

    Attributes:
        tasks: names in FOLDERS; None: all data sets in SOURCE except masked_language_modeling.
        limit: maximum number of records per split; None: no limit.
        corpus_workers: number of processes that tokenize the corpus.
        overwrite: write everything again, and replace folders that were not written by this command.
        structures_as_labels: take secondary structure from ``structures/`` even if it has files of its own.
        skip_empty, max_unknown_fraction, max_x_fraction, allow_nucleotides: options of the corpus, see
            :func:`pretrain.data.preprocessing.preprocess`.
        records: columns of the sequence and the id.
        structures: atom and chains of structure files.
    """

    tasks: tuple[str, ...] | None = None
    limit: int | None = None
    corpus_workers: int = 1
    overwrite: bool = False
    structures_as_labels: bool = False
    skip_empty: bool = False
    max_unknown_fraction: float = DEFAULT_MAX_UNKNOWN_FRACTION
    allow_nucleotides: bool = False
    max_x_fraction: float | None = None
    records: RecordOptions = RecordOptions()
    structures: StructureOptions = StructureOptions()

    def __post_init__(self) -> None:
        if self.limit is not None and self.limit < 1:
            raise ConfigError(f"--limit must be at least 1, not {self.limit}")


@dataclass(frozen=True)
class PreparedSplit:
    """Result for one split."""

    folder: str
    split: str
    records: int
    unchanged: bool
    substitutions: dict[str, int]


def prepare(source: Path, target: Path, options: Options = Options()) -> list[PreparedSplit]:
    """Write the data sets of ``source`` into ``target`` (see this module's docstring).

    Raises:
        DataError: a file or record is invalid; the message names both.
        ConfigError: a folder in ``target`` contains other data and ``options.overwrite`` is not set.
    """
    if is_single_file(source) and not options.structures_as_labels:
        found = find_datasets_of_file(source, options.tasks, options.records)
    else:
        found = find_datasets(source, options.structures_as_labels)
    _announce_missing_dssp(source, found, options.tasks)
    datasets = _select(source, found, options.tasks)
    return [split for dataset in datasets for split in _prepare_folder(target / dataset.folder, dataset, options)]


def _announce_missing_dssp(source: Path, found: Mapping[str, Dataset], tasks: Sequence[str] | None) -> None:
    """Explain why structure files give no secondary structure.

    Raises:
        DataError: it is asked for.
    """
    contacts = found.get("proteinnet")
    if contacts is None or "secondary_structure" in found or not any(f.structures for f in contacts.splits.values()):
        return
    message = f"secondary structure of structure files needs DSSP 4 on the PATH: {DSSP_INSTALL}"
    if tasks is not None and "secondary_structure" in tasks:
        raise DataError(f"{source}: {message}")
    if tasks is None:
        print_notice(f"note: {message}; only contact_prediction is written")


def _prepare_folder(path: Path, dataset: Dataset, options: Options) -> list[PreparedSplit]:
    if options.overwrite and path.exists():  # the old content is kept until the new one is complete
        check_replaceable(path, partial(_is_output, dataset.folder), "--overwrite:")
        with atomic_directory(path, overwrite=True) as fresh:
            return _Folder(fresh, dataset, options).prepare()
    return _Folder(path, dataset, options).prepare()


def _is_output(folder: str, name: str) -> bool:
    """Whether a name in a folder of the target is one that this command, or an archive of TAPE, writes."""
    if name in (STATE_FILE, "dataset.json"):
        return True
    if folder == CORPUS:
        return re.fullmatch(r".+_text_document\.(bin|idx|json)|.+_first_\d+\.fasta", name) is not None
    return re.fullmatch(rf"{re.escape(folder)}_.+\.lmdb", name) is not None


def _select(source: Path, found: dict[str, Dataset], tasks: Sequence[str] | None) -> list[Dataset]:
    """The data sets to write, in the order of FOLDERS."""
    if CORPUS in found:
        found = {**found, "pfam": Dataset("pfam", found[CORPUS].provenance, found[CORPUS].splits)}
    wanted = [task for task in FOLDERS if task != "masked_language_modeling"] if tasks is None else tasks
    missing = [task for task in wanted if FOLDERS[task] not in found]
    if missing and tasks is not None:
        raise DataError(f"{source}: nothing found for {', '.join(missing)}; --help lists the expected files")
    if len(missing) == len(wanted):
        raise DataError(f"{source}: no data set found; --help lists the expected files")
    return [found[FOLDERS[task]] for task in FOLDERS if task in wanted and task not in missing]


class _Folder:
    """One folder of the target: writes its splits and records the files they were made from."""

    def __init__(self, path: Path, dataset: Dataset, options: Options) -> None:
        self.path = path
        self.dataset = dataset
        self.options = options
        self.state: dict[str, Any] = self._read_state()
        dssp = find_dssp() if dataset.folder == "secondary_structure" else None
        self.chains = ChainReader(replace(options.structures, dssp=dssp))

    def prepare(self) -> list[PreparedSplit]:
        self._save()  # marks the folder as written by this command, even if this run is killed
        done = [self._split(split, files) for split, files in self.dataset.splits.items()]
        self._save()
        return done

    def _read_state(self) -> dict[str, Any]:
        provenance = asdict(self.dataset.provenance)
        fresh = {"version": STATE_VERSION, "provenance": provenance, "splits": {}}
        if not self.path.exists() or not any(self.path.iterdir()):
            return fresh
        file = self.path / STATE_FILE
        if not file.exists():
            raise ConfigError(f"{self.path} was not made by this command; --overwrite replaces it")
        state = read_json_if_any(file)
        if state is None or not is_state(state):
            raise ConfigError(f"{file}: damaged, or of another version; --overwrite writes the folder again")
        differences = [
            f"{'' if name == 'name' else f'{name} '}{quoted(state['provenance'].get(name))}, not {quoted(value)}"
            for name, value in provenance.items()
            if state["provenance"].get(name) != value
        ]
        if differences:
            raise ConfigError(
                f"{self.path} contains {'; '.join(differences)}: choose another TARGET, or --overwrite to replace it"
            )
        return state

    def _save(self) -> None:
        write_json(self.path / STATE_FILE, self.state)
        counts = {split: entry["records"] for split, entry in self.state["splits"].items()}
        shortened = {} if self.options.limit is None else {"limit": self.options.limit}
        write_json(self.path / "dataset.json", {**self.dataset.describe(counts), **shortened})

    def _split(self, split: str, files: SplitFiles) -> PreparedSplit:
        made_from = self._made_from(files)
        entry = self.state["splits"].get(split)
        unchanged = entry is not None and entry["made_from"] == made_from and self._is_as_written(split, entry)
        if not unchanged:
            if entry is not None and self.dataset.is_of_file:
                check_replacement(self.path, split, entry["made_from"], made_from)
            records, substitutions = self._write(split, files)
            entry = {
                "made_from": made_from,
                "written": [fingerprint(path) for path in self._outputs(split)],
                "records": records,
                "substitutions": dict(sorted(substitutions.items())),
            }
            self.state["splits"][split] = entry
            self._save()
        return PreparedSplit(self.dataset.folder, split, entry["records"], unchanged, entry["substitutions"])

    def _made_from(self, files: SplitFiles) -> dict[str, Any]:
        """The input files of a split, and the options on which its content depends."""
        columns = {name: value for name, value in asdict(self.options.records).items() if value is not None}
        of_corpus = ("skip_empty", "max_unknown_fraction", "allow_nucleotides") if self._is_corpus else ()
        x_limit = self.options.max_x_fraction if self._is_corpus else None
        return {
            "files": [fingerprint(path) for path in files.all_paths],
            "limit": self.options.limit,
            **({"columns": columns} if columns else {}),
            **({} if x_limit is None else {"max_x_fraction": x_limit}),
            **({"structures": self._of_structures(files)} if files.structures else {}),
            **{name: getattr(self.options, name) for name in of_corpus},
        }

    def _of_structures(self, files: SplitFiles) -> dict[str, Any]:
        options = self.options.structures
        states = self.dataset.folder == "secondary_structure"
        return {
            "atom": options.atom,
            "chains": options.chains and list(options.chains),
            "dssp": states,
            "share": files.share,
        }

    @property
    def _is_corpus(self) -> bool:
        return self.dataset.folder == CORPUS

    def _output(self, split: str) -> Path:
        return self.path / (split if self._is_corpus else f"{self.dataset.folder}_{split}.lmdb")

    def _outputs(self, split: str) -> list[Path]:
        """The files and LMDB directories of a split."""
        output = self._output(split)
        if not self._is_corpus:
            return [output]
        return [output.with_name(f"{output.name}_text_document.{end}") for end in ("bin", "idx", "json")]

    def _is_as_written(self, split: str, entry: Mapping[str, Any]) -> bool:
        """Whether the outputs are those of the entry; not if a killed run or another command replaced them since."""
        try:
            return entry.get("written") == [fingerprint(path) for path in self._outputs(split)]
        except (OSError, DataError):  # missing, or not readable
            return False

    def _write(self, split: str, files: SplitFiles) -> tuple[int, Counter[str]]:
        if self._is_corpus:
            return _write_corpus(files, self._output(split), self.options)
        changes: Counter[str] = Counter()
        title = f"{self.dataset.folder} {split}"
        with progress_bar(title, sum(map(file_size, files.paths)), "B") as bar:
            records = islice(self._records(files, changes, bar), self.options.limit)
            count = write_lmdb(self._output(split), _at_least_one(records, title, files), overwrite=True)
        return count, changes

    def _records(self, files: SplitFiles, changes: Counter[str], bar: Any) -> Iterator[dict[str, Any]]:
        folder, without_states = self.dataset.folder, 0
        if not files.structures:
            yield from _records_of_files(folder, files, self.options.records, changes, bar)
            return
        for chain in self.chains.read(files.paths, files.share, bar.update):
            if chain.ss8 is not None and not chain.ss8.strip(UNASSIGNED):
                without_states += 1
            else:
                yield chain_record(folder, chain, changes)
        if without_states:
            print_notice(f"note: {folder}: {without_states} chains to which DSSP assigned no state are left out")


def _records_of_files(
    folder: str, files: SplitFiles, options: RecordOptions, changes: Counter[str], bar: Any
) -> Iterator[dict[str, Any]]:
    """LMDB records of one split of a task."""
    for path in files.paths:
        if files.chains:
            yield from (chain_record(folder, chain, changes) for chain in read_chains(path, bar.update))
        elif folder == "pfam":
            yield from _unlabeled_records(path, options, changes, bar)
        else:
            labeled = open_records(path, options, with_fields=True, progress=bar.update)
            yield from (make_record(folder, record, changes) for record in labeled)


def _at_least_one(records: Iterable[dict[str, Any]], title: str, files: SplitFiles) -> Iterator[dict[str, Any]]:
    """The records; raises a DataError if there are none."""
    count = 0
    for record in records:
        count += 1
        yield record
    if not count:
        others = f" and {len(files.paths) - 1} other files" if len(files.paths) > 1 else ""
        raise DataError(f"{files.paths[0]}{others}: no records for {title}; --tasks leaves data sets out")


def _unlabeled_records(path: Path, options: RecordOptions, changes: Counter[str], bar: Any) -> Iterator[dict[str, Any]]:
    """Records for TAPE's Pfam folder; clan and family are -1 (unknown)."""
    for record in open_records(path, options, progress=bar.update):
        try:
            sequence, counts = normalize_sequence(record.sequence, drop_gaps=True)
        except UnknownResidueError as error:
            raise UnknownResidueError(f"{record.where}: {error}") from error
        changes.update(counts)
        name = {} if record.identifier is None else {"id": record.identifier}
        yield {**name, "primary": sequence, "protein_length": len(sequence), "clan": -1, "family": -1}


def _write_corpus(files: SplitFiles, prefix: Path, options: Options) -> tuple[int, Counter[str]]:
    """Tokenize one split of the corpus into ``{prefix}_text_document.{bin,idx,json}``."""
    paths, columns = files.paths, options.records
    if options.limit is not None:
        paths = (_first_sequences(paths, columns, prefix, options.limit),)
        columns = RecordOptions()  # of the FASTA file
    with tqdm(desc=f"corpus {prefix.name}", bar_format="{desc} [{elapsed}]{postfix}", disable=None) as bar:
        summary = preprocess(
            paths,
            prefix,
            workers=options.corpus_workers,
            max_unknown_fraction=options.max_unknown_fraction,
            records=columns,
            allow_nucleotides=options.allow_nucleotides,
            skip_empty=options.skip_empty,
            max_x_fraction=options.max_x_fraction,
            progress=print_notice if bar.disable else bar.set_postfix_str,
        )
    description = summary.corpora[0].description
    return description.documents, Counter(description.substitutions)


def _first_sequences(paths: Sequence[Path], options: RecordOptions, prefix: Path, limit: int) -> Path:
    """A FASTA file of the first ``limit`` sequences, stored next to the corpus made from it."""
    short = prefix.with_name(f"{prefix.name}_first_{limit}.fasta")
    records = islice((record for path in paths for record in open_records(path, options)), limit)
    with atomic_write(short, "w") as stream:
        stream.writelines(f">{record.name}\n{record.sequence}\n" for record in records)
    return short


def _print_summary(done: Sequence[PreparedSplit], target: Path) -> None:
    for split in done:
        state = "unchanged" if split.unchanged else "written"
        changed = ", ".join(f"{name} {count:,}" for name, count in split.substitutions.items())
        notes = f"{state}; substitutions: {changed}" if changed else state
        print(f"{split.folder:<20} {split.split:<24} {split.records:>11,} records  {notes}")
    for folder in dict.fromkeys(split.folder for split in done):
        description = read_json_if_any(target / folder / "dataset.json") or {}
        kind = "  SIMULATED" if description.get("simulated") else ""
        print(f"{target / folder}: {description.get('name')}{kind}")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="directory of the input files, or one file")
    parser.add_argument("target", type=Path, metavar="TARGET", help="directory to write to, such as data/")
    parser.add_argument(
        "--tasks", nargs="+", choices=FOLDERS, metavar="TASK", help=f"data sets to write: {' '.join(FOLDERS)}"
    )
    parser.add_argument(
        "--limit", type=int, metavar="N", help="only the first N records of each split, for a quick trial"
    )
    parser.add_argument(
        "--corpus-workers", type=int, default=1, metavar="N", help="number of processes that tokenize the corpus"
    )
    parser.add_argument(
        "--overwrite", action="store_true", help="write everything again, also over folders not written by this command"
    )
    parser.add_argument(
        "--structures-as-labels",
        action="store_true",
        help="secondary structure from structures/ even if there are secondary_structure files",
    )
    parser.add_argument(
        "--chain", nargs="+", metavar="NAME", help="chains to take from each structure file (default: all proteins)"
    )
    parser.add_argument(
        "--atom",
        choices=ATOMS,
        default="CA",
        help="atom whose position is that of a residue of a structure file: C-alpha, as in TAPE, or C-beta (C-alpha of"
        " glycine), as in CASP (default %(default)s)",
    )
    parser.add_argument("--skip-empty", action="store_true", help="skip and count empty records of the corpus")
    parser.add_argument(
        "--max-unknown-fraction",
        type=float,
        default=DEFAULT_MAX_UNKNOWN_FRACTION,
        metavar="F",
        help=f"maximum fraction of the corpus that may be unknown (default %(default)s): {REPLACED_MEANING}",
    )
    parser.add_argument(
        "--max-x-fraction",
        type=float,
        metavar="F",
        help=f"maximum fraction of X in the corpus (default: {DEFAULT_MAX_X_FRACTION}; in a corpus of less than"
        f" {SMALL_CORPUS:,} residues, more of them cause a notice)",
    )
    parser.add_argument(
        "--allow-nucleotides", action="store_true", help="accept a corpus of nucleotide sequences, which is refused"
    )
    parser.add_argument(
        "--sequence-column",
        "--sequence_column",
        metavar="NAME",
        help="column with the sequence (default: primary, sequence, text or a usual name)",
    )
    parser.add_argument(
        "--id-column", "--id_column", metavar="NAME", help="column with the id (default: id, identifier, name)"
    )
    return parser


def main(arguments: Sequence[str] | None = None) -> None:
    """Prepare the data sets of the command line."""
    options = make_parser().parse_args(arguments)
    chosen = Options(
        tuple(options.tasks) if options.tasks else None,
        options.limit,
        options.corpus_workers,
        options.overwrite,
        options.structures_as_labels,
        options.skip_empty,
        options.max_unknown_fraction,
        options.allow_nucleotides,
        options.max_x_fraction,
        RecordOptions(None, options.sequence_column, options.id_column),
        StructureOptions(options.atom, None if options.chain is None else tuple(options.chain)),
    )
    check_output_directory(options.target, "TARGET")
    try:
        done = prepare(options.source, options.target, chosen)
    except OSError as error:  # errors of reading are raised as DataError, those of a disk as OutputError
        raise DataError(f"{error.filename or options.target}: {error.strerror or error}") from error
    _print_summary(done, options.target)
