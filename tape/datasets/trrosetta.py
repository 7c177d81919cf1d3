"""trRosetta's training data (Yang et al. 2020): an alignment and the geometry of residue pairs, one .npz per protein.

The distance has 36 bins from 2 to 20 Angstrom, and bin 0 for larger distances. The dihedrals omega and theta have 24
bins of 15 degrees, the angle phi has 12; pairs more than 20 Angstrom apart have bin 0, and their angles are not scored.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tape.errors import DataError, quoted
from tape.tokenizers import TAPETokenizer, as_tokenizer

from .index import DatasetIndex
from .sources import NPZDataset, Record
from .task_dataset import DrawnExamples, TaskDataset, pad_sequences, task_record

SYMBOLS = 21
_DISTANCE_EDGES = np.arange(2, 20.1, 0.5)  # Angstrom
_DIHEDRAL_EDGES = np.deg2rad(np.arange(-165, 180, 15))
_PLANAR_EDGES = np.deg2rad(np.arange(15, 180, 15))
_MOST_SEQUENCES = 20_000
_FEWEST_TO_SAMPLE = 10
_GEOMETRY = ("dist6d", "omega6d", "theta6d", "phi6d")

Item = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def bin_geometry(
    distance: np.ndarray, omega: np.ndarray, theta: np.ndarray, phi: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Compute the labels of one protein, each (L, L) int64.

    Args:
        distance: (L, L) in Angstrom; 0 for pairs more than 20 Angstrom apart.
        omega, theta, phi: (L, L) in radians; omega and theta in [-pi, pi], phi in [0, pi].

    Returns:
        Distance bins 0 to 36, -1 on the diagonal and for non-finite values; bins 1 to 24 of omega and theta and 1 to 12
        of phi, 0 where they are not scored.
    """
    angles = (omega, theta, phi)
    known = np.isfinite(distance) & np.logical_and.reduce([np.isfinite(angle) for angle in angles])
    near = known & (distance > 0) & (distance < _DISTANCE_EDGES[-1])
    labels = np.where(near, np.clip(np.digitize(distance, _DISTANCE_EDGES), 1, 36), 0)
    labels[~known] = -1
    np.fill_diagonal(labels, -1)
    edges = (_DIHEDRAL_EDGES, _DIHEDRAL_EDGES, _PLANAR_EDGES)
    binned = [np.where(near, np.digitize(angle, edge) + 1, 0) for angle, edge in zip(angles, edges, strict=True)]
    return (labels, *binned)  # type: ignore[return-value]  # four of them


class TRRosettaDataset(DrawnExamples, TaskDataset):
    """Proteins named in ``DATA/trrosetta/SPLIT_files.txt``, from ``DATA/trrosetta/npz/``.

    For training, a random subset of the alignment's sequences (always with the first one) and a random window of at
    most ``max_seqlen`` residues are drawn anew in every epoch. Other splits are complete, except that at most 20,000
    sequences of an alignment are used.

    Args:
        data_path: the data directory, which contains ``trrosetta``.
        split: name of the split, part of the list's file name.
        tokenizer, in_memory: accepted for TAPE's signature; alignments consist of numbers from 0 to 20 already.
        max_seqlen: maximum number of residues of a training example; 0 or less means no limit.
        seed: seed of the random subsets and windows.

    Raises:
        DataError: the list, or a file that it names, is missing.
    """

    task = task_record("trrosetta")

    def __init__(
        self,
        data_path: str | os.PathLike[str],
        split: str,
        tokenizer: str | TAPETokenizer = "iupac",
        in_memory: bool = False,
        max_seqlen: int = 300,
        seed: int = 42,
    ) -> None:
        self.tokenizer = as_tokenizer(tokenizer)
        folder = Path(data_path) / self.task.folder
        self.data: NPZDataset = NPZDataset(folder / "npz", in_memory, split_files=_listed(folder, split))
        self._is_training = split == "train"
        self._max_seqlen = max_seqlen if self._is_training and max_seqlen > 0 else None
        self._seed = seed
        self._index: DatasetIndex | None = None

    def build_index(self) -> DatasetIndex:
        """Lengths and names, read from the headers of the arrays, whose shapes are checked."""
        if self._index is None:
            shapes = [self.data.shape_of(index, "msa") for index in range(len(self))]
            for index, shape in enumerate(shapes):
                if len(shape) != 2:
                    raise DataError(f"{self.data.where(index)}: 'msa' has shape {shape}, not (sequences, residues)")
                self._check_shapes(index, (shape[1], shape[1]))
            lengths = np.array([shape[1] for shape in shapes], dtype=np.int64)
            if self._max_seqlen is not None:
                lengths = np.minimum(lengths, self._max_seqlen)
            self._index = DatasetIndex(lengths, self.data.names, Counter())
        return self._index

    def _check_shapes(self, index: int, expected: tuple[int, int]) -> None:
        for name in _GEOMETRY:
            found = self.data.shape_of(index, name)
            if found != expected:
                raise DataError(f"{self.data.where(index)}: field {name!r} has shape {found}, not {expected}")

    def __getitem__(self, index: int) -> Item:
        record = self.data[index]
        msa, geometry = self._checked(index, record)
        if self._is_training:
            rng = self.generator(index)
            msa = _sample_sequences(msa, rng)
            window = _window(msa.shape[1], self._max_seqlen, rng)
            msa, geometry = msa[:, window], [field[window, window] for field in geometry]
        return (msa[:_MOST_SEQUENCES], *bin_geometry(*geometry))

    def _checked(self, index: int, record: Record) -> tuple[np.ndarray, list[np.ndarray]]:
        where = self.data.where(index, record)
        msa = np.asarray(self.label(index, record, "msa"))
        if msa.ndim != 2 or 0 in msa.shape or not np.issubdtype(msa.dtype, np.integer):
            raise DataError(
                f"{where}: 'msa' must be integers of shape (sequences, residues), not {msa.dtype} of shape {msa.shape}"
            )
        if msa.min() < 0 or msa.max() >= SYMBOLS:
            raise DataError(
                f"{where}: 'msa' has values from {int(msa.min())} to {int(msa.max())}; allowed are 0 to {SYMBOLS - 1}"
            )
        expected = (msa.shape[1], msa.shape[1])
        geometry = []
        for name in _GEOMETRY:
            field = np.asarray(self.label(index, record, name), dtype=np.float64)
            if field.shape != expected:
                raise DataError(f"{where}: field {name!r} has shape {field.shape}, not {expected}")
            geometry.append(field)
        return msa, geometry

    def collate_fn(self, batch: Sequence[Item]) -> dict[str, Tensor]:
        """Pad to one batch: ``msa1hot`` (B, sequences, L, 21) float32, 0 at padding, and the labels (B, L, L) int64
        ``dist``, padded with -1, and ``omega``, ``theta``, ``phi``, padded with 0."""
        alignments, *labels = zip(*batch, strict=True)
        hot = np.eye(SYMBOLS, dtype=np.float32)
        collated = {"msa1hot": torch.from_numpy(pad_sequences([hot[msa] for msa in alignments], 0))}
        for name, fields in zip(("dist", "omega", "theta", "phi"), labels, strict=True):
            collated[name] = torch.from_numpy(pad_sequences(fields, -1 if name == "dist" else 0, np.int64))
        return collated


def _listed(folder: Path, split: str) -> list[str]:
    """Names in the split's list, after checking that all files exist."""
    file = folder / f"{split}_files.txt"
    if not file.is_file():
        present = sorted(path.name.removesuffix("_files.txt") for path in folder.glob("*_files.txt"))
        raise DataError(f"{file}: no split {quoted(split)}; splits there: {', '.join(present) or 'none'}")
    try:
        text = file.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 text ({error.reason} at byte {error.start})") from error
    names = [Path(name).name.removesuffix(".npz") for name in text.split()]
    if not names:
        raise DataError(f"{file}: lists no protein")
    # os.path.isfile is False for a name that no file can have
    missing = [name for name in names if not os.path.isfile(folder / "npz" / f"{name}.npz")]
    if missing:
        first = quoted(f"{missing[0]}.npz")
        raise DataError(f"{file}: {len(missing)} of {len(names)} files are not in {folder / 'npz'}: {first} ...")
    return names


def _sample_sequences(msa: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The first sequence and, for a deep alignment, a random subset whose size is uniform on a logarithmic scale."""
    depth = len(msa)
    if depth < _FEWEST_TO_SAMPLE:
        return msa
    kept = int(10 ** rng.uniform(np.log10(_FEWEST_TO_SAMPLE), np.log10(depth)) - _FEWEST_TO_SAMPLE)
    others = 1 + rng.choice(depth - 1, size=min(max(kept, 0), depth - 1, _MOST_SEQUENCES), replace=False)
    return msa[np.concatenate([[0], np.sort(others)])]


def _window(length: int, longest: int | None, rng: np.random.Generator) -> slice:
    if longest is None or length <= longest:
        return slice(0, length)
    start = int(rng.integers(length - longest + 1))
    return slice(start, start + longest)
