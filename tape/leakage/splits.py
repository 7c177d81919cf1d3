"""Random splits that keep groups together, such as equal sequences or clusters of related proteins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tape.errors import DataError


def split_groups(groups: np.ndarray, fractions: Sequence[float], seed: int) -> np.ndarray:
    """A random split of proteins, each group of them as a whole.

    Groups larger than the smallest split is to be are assigned first, the largest first, and the others in random
    order; each to the split that lacks the most proteins. So large groups are training data as a rule, where they
    take the least of the splits' sizes and of the variety of the test proteins.

    Args:
        groups: (N,) integers, the group of each protein.
        fractions: S positive numbers, relative sizes of the splits; they need not add up to 1.
        seed: seed of the random order.

    Returns:
        (N,) int64, number of each protein's split, 0 to S - 1.

    Raises:
        DataError: a split would be empty.
    """
    members, sizes = np.unique(groups, return_inverse=True, return_counts=True)[1:]
    wanted = np.asarray(fractions, dtype=np.float64) / np.sum(fractions) * len(groups)
    order = np.random.default_rng(seed).permutation(len(sizes))
    large = sizes[order] > wanted.min()
    first = order[large]
    order = np.concatenate([first[np.argsort(-sizes[first], kind="stable")], order[~large]])
    lacking = wanted.copy()
    split_of_group = np.empty(len(sizes), dtype=np.int64)
    for group in order:
        split = int(np.argmax(lacking))
        split_of_group[group] = split
        lacking[split] -= sizes[group]
    splits = split_of_group[members]
    empty = set(range(len(wanted))) - set(splits.tolist())
    if empty:
        raise DataError(
            f"{len(groups)} proteins in {len(sizes)} groups that stay together can't be divided into {len(wanted)}"
            " splits of these sizes; give fewer splits, other sizes, a higher identity, or a column of splits"
        )
    return splits
