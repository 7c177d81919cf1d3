"""The splits of a table: from a column, or drawn with a seed. Copies of a sequence are always in one split.

``splits.tsv`` in the directory of a run has the columns ``id``, ``split`` and ``sha256``, the digest of the normalized
sequence, by which an evaluation recognizes the proteins of the run in any table; and, if whole clusters were kept
together, ``cluster``, the number of the protein's cluster.

``splits.json`` beside it has the schema "proteinlm-splits", version 1, and where the splits are from: ``column``; or
the ``fractions`` and the ``seed`` that they were drawn with, and ``clusters`` {method, identity, count, largest}, each
null if it does not apply; and ``proteins``, the number of proteins by split.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tape.errors import CheckpointError, ConfigError, DataError, listed, quoted
from tape.io.records import Record, open_rows
from tape.io.writing import write_json, write_text
from tape.runtime.cpu import usable_cores
from tape.similarity.clusters import Clusters, cluster_proteins
from tape.similarity.mmseqs import INSTALL, find_mmseqs
from tape.similarity.splits import DEFAULT_FRACTIONS, SPLIT_SYNONYMS, SPLITS, draw_splits
from tape.tokenizers import normalize_sequence

from .options import SPLIT_COLUMN, TableOptions

SPLITS_NAME, ORIGIN_NAME = "splits.tsv", "splits.json"
NEW_PROTEINS, ALL_PROTEINS = "new", "all"  # splits of an evaluation
_CARVED = 0.1  # of train, if a split column has no valid


@dataclass(frozen=True)
class Division:
    """The splits of N proteins, and where they are from.

    Attributes:
        splits: N names of splits.
        column: the column that has them.
        fractions, seed: what they were drawn with; of a column without ``valid``, the seed of its part of ``train``.
        clusters: the clusters that were kept together.
        file: ``splits.tsv`` of the resumed run that they are taken from.
        has_drawn_valid: whether ``valid`` was drawn from ``train``, since the column has none.
        unused: columns that also seem to have splits, while these are drawn.
        place: the column in words, or the folders of structure files that it stands for.
    """

    splits: list[str]
    column: str | None = None
    fractions: tuple[float, float, float] | None = None
    seed: int | None = None
    clusters: Clusters | None = None
    file: Path | None = None
    has_drawn_valid: bool = False
    unused: tuple[str, ...] = ()
    place: str = ""

    @property
    def origin(self) -> str:
        """Where the splits are from, in words."""
        if self.file is not None:
            return f"of {self.file}"
        if self.fractions is None:
            return f"of {self.place}"
        shown = ",".join(f"{part:g}" for part in self.fractions)
        return f"drawn {shown} with seed {self.seed}" + (", clusters together" if self.clusters else "")

    @property
    def notices(self) -> list[str]:
        """Lines for the log."""
        lines = [f"splits {self.origin}: {describe_splits(self.splits)}"]
        if self.has_drawn_valid:
            lines.append(
                f"{self.place}: no split valid, so a tenth of train was drawn with seed {self.seed}; add one to choose"
                " it"
            )
        if self.unused:
            example = self.unused[0]
            lines.append(f"not used, but with names of splits: {listed(self.unused)}; --split-column {example} uses it")
        if self.clusters is not None:
            found = self.clusters
            lines.append(
                f"{found.count} clusters of {len(self.splits)} proteins, the largest of {found.largest}: {found.method}"
            )
            if find_mmseqs() is None:
                lines.append(f"MMseqs2, which also finds more distant relatives, is not installed ({INSTALL})")
        return lines

    def write(self, folder: Path, identifiers: Sequence[str], digests: Sequence[str]) -> None:
        """Write ``splits.tsv`` and ``splits.json`` into the directory of a run; of a resumed one, they are there."""
        if self.file is not None:
            return
        found = self.clusters
        clusters = None if found is None else [str(number) for number in found.labels.tolist()]
        write_splits(folder / SPLITS_NAME, identifiers, digests, self.splits, clusters)
        content = {
            "schema": "proteinlm-splits",
            "version": 1,
            "column": self.column,
            "fractions": self.fractions,
            "seed": self.seed,
            "clusters": None
            if found is None
            else {"method": found.method, "identity": found.identity, "count": found.count, "largest": found.largest},
            "proteins": Counter(self.splits),
        }
        write_json(folder / ORIGIN_NAME, content)


def digest_of(sequence: str) -> str:
    """SHA-256 of a normalized sequence."""
    return hashlib.sha256(_normalized(sequence).encode()).hexdigest()


def _normalized(sequence: str) -> str:
    return normalize_sequence(sequence, drop_gaps=False, drop_stop=False)[0]


def divide_records(
    records: Sequence[Record], digests: Sequence[str], classes: Sequence[object] | None, options: TableOptions
) -> Division:
    """The splits of the records of a table for training.

    Args:
        records: N records.
        digests: digest of each sequence; see :func:`digest_of`.
        classes: class of each record; None if there are none.
        options: the options of the table, which name a column, or state how splits are drawn.

    Raises:
        ProteinLMError: the column can't be used, a cluster or its program fails, or there are too few proteins or
            clusters for the splits.
    """
    if options.splits_file is not None:
        return Division(_splits_of_run(records, digests, options.splits_file), file=options.splits_file)
    column = options.split_column
    if column is None and options.fractions is None:
        column = _split_column(records, options.path)
        if column is not None and options.split_by is not None:
            raise ConfigError(
                f"{options.path}: has a column {column}, and --split-by draws splits; leave out --split-by to use the"
                " column, or give --split TRAIN,VALID,TEST, too, to draw them anyway"
            )
    if column is not None:
        has_valid = any(_split_in(record, column) == "valid" for record in records)
        has_folders = column == SPLIT_COLUMN and options.path.is_dir()
        place = f"the folders in {options.path}" if has_folders else f"column {column}"
        splits = splits_of_column(records, digests, column, options.seed, place)
        return Division(splits, column, seed=options.seed, has_drawn_valid=not has_valid, place=place)
    clusters, remedies = None, ["fewer splits (a proportion of 0)", "a --split-column"]
    if options.split_by == "identity":
        residues = tuple(_normalized(record.residues) for record in records)
        clusters = _clusters_of(residues, options.split_identity, find_mmseqs())
        if clusters.count == 1:
            remedies[0] = "--split-by sequence (which leaves variants of one protein in all splits)"
        remedies.insert(0, "a higher --split-identity")
    fractions, seed = options.fractions or DEFAULT_FRACTIONS, options.seed
    try:
        numbers = None if clusters is None else clusters.labels.tolist()
        splits = draw_splits(digests, fractions, seed, numbers, classes)
    except DataError as error:
        raise DataError(
            f"{options.path}: {error}; give {', or '.join([', '.join(remedies[:-1]), remedies[-1]])}"
        ) from None
    unused = () if options.fractions else _columns_of_splits(records)
    return Division(splits, None, fractions, seed, clusters, unused=unused)


def _split_column(records: Sequence[Record], path: Path) -> str | None:
    """The column ``split``, or one of this name in other letter case, if it has nothing but splits; else None.

    Raises:
        ConfigError: there are several.
    """
    if any(SPLIT_COLUMN in record.fields for record in records):
        return SPLIT_COLUMN
    found = {name for name in _columns_of_splits(records) if name.lower() == SPLIT_COLUMN}
    if len(found) > 1:
        raise ConfigError(f"{path}: {' and '.join(sorted(found))} may be the splits; choose one with --split-column")
    return next(iter(found), None)


def _columns_of_splits(records: Sequence[Record]) -> tuple[str, ...]:
    """The columns that seem to have the splits: ``train`` and another split, and nothing else."""
    found = []
    for name in records[0].fields if records else ():
        cells = set()
        for record in records:
            cells.add(_name_of(record.fields.get(name)))
            if not cells <= set(SPLITS):
                break
        else:
            if isinstance(name, str) and len(cells) > 1 and "train" in cells:
                found.append(name)
    return tuple(found)


@lru_cache(maxsize=1)  # a command reads its table twice: for its options, and for the run
def _clusters_of(sequences: tuple[str, ...], identity: float | None, program: str | None) -> Clusters:
    return cluster_proteins(sequences, identity, "kmers" if program is None else "mmseqs2", usable_cores())


def _splits_of_run(records: Sequence[Record], digests: Sequence[str], file: Path) -> list[str]:
    known = read_splits(file)
    for record, digest in zip(records, digests, strict=True):
        if digest not in known:
            raise DataError(
                f"{record.where}: not in {file}; a run is resumed with the proteins that it was started with. To train"
                " on more, start a new run from its model (--from_pretrained without --resume_from_checkpoint)"
            )
    return [known[digest] for digest in digests]


def splits_of_column(
    records: Sequence[Record], digests: Sequence[str], column: str, seed: int, source: str
) -> list[str]:
    """The splits in a column; without any ``valid``, a tenth of ``train`` is drawn for it.

    Names are those of the column, but ``validation``, ``val`` and ``dev`` are ``valid``, and ``training`` is ``train``.

    Args:
        records: N records.
        digests: digest of each sequence.
        column: the column.
        seed: of the drawn splits.
        source: the column in words, for messages, or the folders that it stands for.

    Raises:
        DataError: a cell is empty, there is no ``train``, or copies of a sequence have different splits.
    """
    splits = [_split_in(record, column) for record in records]
    if "train" not in splits:
        raise DataError(
            f"{source}: no split train, but {listed(sorted(set(splits)))}; one must be called train. To draw splits"
            " instead, give --split 80,10,10"
        )
    if "valid" not in splits:
        train = [place for place, split in enumerate(splits) if split == "train"]
        drawn = draw_splits([digests[place] for place in train], (1 - _CARVED, _CARVED, 0), seed)
        for place, split in zip(train, drawn, strict=True):
            splits[place] = split
    _check_copies(records, digests, splits)
    return splits


def _split_in(record: Record, column: str) -> str:
    value = record.fields.get(column)
    name = _name_of(value)
    if not name:
        found = f"the record has {listed(record.fields)}" if column not in record.fields else f"it has {quoted(value)}"
        raise DataError(
            f"{record.where}: no split in column {quoted(column)}; {found}. To draw splits instead, give"
            " --split 80,10,10"
        )
    return name


def _name_of(value: object) -> str:
    """The split that a cell names; empty if it names none."""
    name = value.strip().lower() if isinstance(value, str) else ""
    return SPLIT_SYNONYMS.get(name, name)


def own_split(record: Record) -> str | None:
    """The split in the column ``split`` of a record, or in one of this name in other letter case; None without one."""
    if SPLIT_COLUMN in record.fields:
        return _name_of(record.fields[SPLIT_COLUMN]) or None
    names = [_name_of(value) for name, value in record.fields.items() if str(name).lower() == SPLIT_COLUMN]
    return next((name for name in names if name in SPLITS), None)


def _check_copies(records: Sequence[Record], digests: Sequence[str], splits: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for place, digest in enumerate(digests):
        other = first.setdefault(digest, place)
        if splits[other] != splits[place]:
            raise DataError(
                f"{records[place].where}: in split {splits[place]}, with the same sequence as {records[other].name} in"
                f" {splits[other]}; give copies one split, or remove all but one"
            )


def describe_splits(splits: Sequence[str]) -> str:
    """Numbers of proteins by split, in words: train, valid and test first."""
    counts = Counter({name: 0 for name in SPLITS})
    counts.update(splits)
    return ", ".join(f"{name} {count}" for name, count in counts.items() if count)


def write_splits(
    path: Path,
    identifiers: Sequence[str],
    digests: Sequence[str],
    splits: Sequence[str],
    clusters: Sequence[str] | None = None,
) -> None:
    """Write ``splits.tsv``, with the numbers of the clusters if there are any."""
    columns = {"id": identifiers, "split": splits, "sha256": digests}
    if clusters is not None:
        columns["cluster"] = clusters
    rows = [tuple(columns), *zip(*columns.values(), strict=True)]
    write_text(path, "".join("\t".join(row) + "\n" for row in rows))


def read_splits(path: Path) -> Mapping[str, str]:
    """The split of each digest in a ``splits.tsv``; empty if there is no such file.

    Raises:
        CheckpointError: it is damaged.
    """
    if not path.is_file():
        return {}
    found: dict[str, str] = {}
    for row in open_rows(path):
        if not {"split", "sha256"} <= row.fields.keys():
            raise CheckpointError(f"{row.where}: not the splits of a run: no column split or sha256")
        found[row.fields["sha256"]] = row.fields["split"]
    return found
