"""The proteins that all tools process, and the file in which workers receive them masked.

Padded batches waste least if all proteins of a file are sorted by length, which takes many more proteins than a
measurement has time for. :func:`similar_lengths` therefore chooses groups of neighbors in that order, at equal
distances: batches have as little padding as those of the whole file, and the lengths have its distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from pretrain.data.packing import EpochPlanner, PackingConfig
from tape.errors import ConfigError
from tape.io.records import open_records
from tape.masking import mask_tokens
from tape.tokenizers import TAPETokenizer

if TYPE_CHECKING:  # imports torch, which --help of the comparisons doesn't need
    from pretrain.data.samples import PackedRow

SEED = 1234


def read_proteins(path: Path) -> list[str]:
    """The sequences of a file, shortest first."""
    return sorted((record.sequence for record in open_records(path)), key=len)


def similar_lengths(proteins: Sequence[str], number: int, group: int) -> list[str]:
    """Choose proteins that fill batches of similar length.

    Args:
        proteins: all proteins, sorted by length.
        number: how many to choose, rounded down to whole groups.
        group: proteins per group, the largest batch.

    Raises:
        ConfigError: there are not enough.
    """
    groups = number // group
    if not 0 < groups * group <= len(proteins):
        raise ConfigError(f"{number} proteins in groups of {group} can't be chosen from {len(proteins)} proteins")
    starts = [round((index + 0.5) / groups * len(proteins) - group / 2) for index in range(groups)]
    return [protein for start in starts for protein in proteins[max(0, start) : max(0, start) + group]]


def packed_rows(proteins: Sequence[str], seq_length: int) -> list[PackedRow]:
    """Mask the proteins and pack them into rows, as pretraining does in its first epoch.

    Args:
        proteins: the sequences; what is longer than a row is truncated.
        seq_length: tokens per row.
    """
    from pretrain.data.samples import PackedRow

    packing = PackingConfig(seq_length, long_documents="truncate", seed=SEED)
    tokenizer, generator = TAPETokenizer(), np.random.default_rng(SEED)
    encoded = [tokenizer.encode(protein[: packing.capacity]) for protein in proteins]
    masked = [mask_tokens(ids, tokenizer, generator) for ids in encoded]
    plan = EpochPlanner(np.array([len(ids) - 2 for ids in encoded]), packing).plan(0)
    rows = [[masked[piece.protein] for piece in plan.row(number)] for number in range(plan.rows)]
    return [
        PackedRow(
            np.concatenate([ids for ids, _ in row]),
            np.concatenate([labels for _, labels in row]),
            [len(ids) for ids, _ in row],
        )
        for row in rows
    ]


def write_rows(path: Path, rows: Sequence[PackedRow]) -> None:
    """Write rows to an ``.npz`` file.

    It has ``input_ids`` and ``labels`` (T,) of all proteins, one after another, ``lengths`` (R,) of the proteins, and
    the number of ``proteins`` per row.
    """
    np.savez(
        path,
        input_ids=np.concatenate([row.input_ids for row in rows]),
        labels=np.concatenate([row.labels for row in rows]),
        lengths=np.array([length for row in rows for length in row.lengths]),
        proteins=np.array([len(row.lengths) for row in rows]),
    )


def load_rows(path: Path) -> list[PackedRow]:
    """Read what :func:`write_rows` has written."""
    from pretrain.data.samples import PackedRow

    with np.load(path) as arrays:
        ids, labels, lengths, proteins = (arrays[name] for name in ("input_ids", "labels", "lengths", "proteins"))
    lengths_of_rows = np.split(lengths, np.cumsum(proteins)[:-1])
    ends = np.cumsum([part.sum() for part in lengths_of_rows])[:-1]
    parts = zip(np.split(ids, ends), np.split(labels, ends), lengths_of_rows, strict=True)
    return [PackedRow(row_ids, row_labels, part.tolist()) for row_ids, row_labels, part in parts]
