"""Clusters of related proteins, so that a split leaves no relatives of its test proteins in the training data.

Clusters are connected components: two proteins of different clusters are never linked, whereas in clusters around
representatives two members of different clusters may be close relatives. Linked are:

- with MMseqs2 (Steinegger and Soeding 2017), two proteins with an alignment of at least the given identity over at
  least half of one of them, found by a search at sensitivity 7.5 (of fewer than about 12 residues, it finds nothing);
- without it, two proteins with common k-mers (k = 4, distinct ones): at least half of those that are expected between
  sequences of that identity with independent substitutions, identity ** k of the shorter one's, and significantly
  more than random sequences have (Poisson, E-value of all pairs 1e-3). Of 4,000 SCOPe domains of the training data of
  remote homology, this clusters 98 % of the pairs that MMseqs2 clusters at .5, and finds few below that identity;
- with both, near copies and the leader of their group, of which they have at least 90 % of the residues at the same
  positions (:mod:`tape.similarity.near_copies`).

For identities of up to .7, the relatives of a few of many near copies are searched for, and a second search compares
the others with those proteins of other clusters that the first one had. Missed is only that two proteins are related
which were both left out of the first search, if neither is related to a near copy of the other that was not. Above .7,
all pairs are compared, which takes minutes for thousands of variants.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tape.errors import ConfigError, ProteinLMError, quoted
from tape.io.writing.temporary import scratch_directory
from tape.runtime.progress import progress_bar

from .mmseqs import INSTALL, easy_search, find_mmseqs, mmseqs_version, write_fasta
from .near_copies import IDENTITY as NEAR_COPY_IDENTITY
from .near_copies import NearCopies, find_near_copies

CLUSTER_METHODS = ("auto", "mmseqs2", "kmers")
DEFAULT_IDENTITY = {"mmseqs2": 0.3, "kmers": 0.5}  # also the lowest of k-mers
_K = 4
_LETTERS = 26
_EQUAL_BY_CHANCE = 0.06**_K  # two k-mers; residues of Swiss-Prot are equal with probability .06
_E_VALUE = 1e-3
_COVERAGE = 0.5
_BLOCK = 1024  # proteins compared with all others at a time
_HIGHEST_WITH_FEW = 0.7  # near copies of two leaders may be near copies, too, and their leaders are .7 identical then
_CANDIDATES = 1000  # targets of each query that MMseqs2 aligns
_Search = Callable[[Sequence[str], Sequence[str]], tuple[np.ndarray, np.ndarray]]
_COLUMNS = ("query", "target", "qstart", "qend", "qlen", "tstart", "tend", "tlen")


@dataclass(frozen=True)
class Clusters:
    """Clusters of N proteins.

    Attributes:
        labels: (N,) int64, number of each protein's cluster, in the order in which clusters first occur.
        method: program or method, identity and coverage, for logs and records.
        identity: lowest identity of two linked proteins, between 0 and 1.
    """

    labels: np.ndarray
    method: str
    identity: float

    @property
    def count(self) -> int:
        """Number of clusters."""
        return int(self.labels.max()) + 1 if self.labels.size else 0

    @property
    def largest(self) -> int:
        """Number of proteins of the largest cluster."""
        return int(np.bincount(self.labels).max()) if self.labels.size else 0


def cluster_proteins(
    sequences: Sequence[str], identity: float | None = None, method: str = "auto", threads: int = 1
) -> Clusters:
    """Clusters of proteins such that no protein is linked to one of another cluster.

    Args:
        sequences: N normalized sequences, repeated ones included.
        identity: lowest identity of two linked proteins, between 0 and 1; None: that of DEFAULT_IDENTITY.
        method: one of CLUSTER_METHODS; "auto" is MMseqs2 if it is installed.
        threads: MMseqs2's ``--threads``.

    Returns:
        The clusters. Equal sequences are always in one.

    Raises:
        ConfigError: MMseqs2 is not installed and was asked for, or the identity can't be measured by this method.
        ProteinLMError: MMseqs2 failed.
    """
    program = find_mmseqs()
    if method not in CLUSTER_METHODS:
        raise ConfigError(f"clusters: method {quoted(method)}; allowed are {', '.join(CLUSTER_METHODS)}")
    if method == "auto":
        method = "kmers" if program is None else "mmseqs2"
    identity = DEFAULT_IDENTITY[method] if identity is None else identity
    if not 0 < identity <= 1:
        raise ConfigError(f"clusters: an identity of {identity:g}; it is a fraction above 0 and at most 1, such as 0.3")
    unique = {sequence: place for place, sequence in enumerate(dict.fromkeys(sequences))}
    distinct = list(unique)
    near_copy_identity = max(identity, NEAR_COPY_IDENTITY)
    copies = find_near_copies(distinct, near_copy_identity)
    searched = copies.searched if identity <= _HIGHEST_WITH_FEW else np.arange(len(distinct))
    if method == "kmers":
        _check_kmer_identity(identity)
        search: _Search = partial(_kmer_links, identity=identity, pairs=len(distinct) * (len(distinct) - 1) / 2)
        name = f"shared {_K}-mers as of identity {identity:g}"
    elif program is None:
        raise ConfigError(f"clusters by MMseqs2: there is no program mmseqs on the PATH; {INSTALL}")
    else:
        search = partial(_mmseqs_links, program, identity=identity, threads=threads)
        name = (
            f"MMseqs2 {mmseqs_version(program)}, identity >= {identity:g} over >= {_COVERAGE:g} of one of two proteins"
        )
    name += f", or identity >= {near_copy_identity:g} without gaps"
    if len(searched) < len(distinct):
        name += f" ({len(distinct) - len(searched):,} of such near copies were compared with other clusters only)"
    labels = _cluster(search, distinct, copies, searched)
    places = np.fromiter((unique[sequence] for sequence in sequences), dtype=np.int64, count=len(sequences))
    return Clusters(labels[places], f"connected components of {name}", identity)


def _cluster(search: _Search, sequences: Sequence[str], copies: NearCopies, searched: np.ndarray) -> np.ndarray:
    """(N,) int64, number of the cluster of each of N different proteins, of which ``searched`` have these places."""
    count = len(sequences)
    links = np.concatenate([_links(search, sequences, searched, searched), copies[:2]], axis=1)
    labels = _components(count, links)
    left_out = np.setdiff1d(np.arange(count), searched)
    others = _of_other_clusters(labels, left_out, searched)
    if not len(left_out) or not len(others):
        return labels
    # few queries, since MMseqs2 takes most of its time for each of them
    pair = (others, left_out) if len(others) < len(left_out) else (left_out, others)
    return _components(count, np.concatenate([links, _links(search, sequences, *pair)], axis=1))


def _links(search: _Search, sequences: Sequence[str], queries: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """(2, M) int64, places of a query and of a target that are linked; both are given by their places."""
    query, target = search([sequences[place] for place in queries], [sequences[place] for place in targets])
    return np.stack([queries[query], targets[target]])


def _of_other_clusters(labels: np.ndarray, left_out: np.ndarray, searched: np.ndarray) -> np.ndarray:
    """Places of the ``searched`` proteins that may have relatives in ``left_out`` which are in another cluster."""
    clusters = np.unique(labels[left_out])
    return searched if len(clusters) > 1 else searched[~np.isin(labels[searched], clusters)]


def _check_kmer_identity(identity: float) -> None:
    lowest = DEFAULT_IDENTITY["kmers"]
    if identity < lowest:
        raise ConfigError(
            f"clusters by shared {_K}-mers can't find relatives of {identity:.0%} identity, only of {lowest:.0%} and"
            f" more; install MMseqs2 ({INSTALL}), or give {lowest:g}"
        )


def _kmer_links(
    queries: Sequence[str], targets: Sequence[str], identity: float, pairs: float
) -> tuple[np.ndarray, np.ndarray]:
    """(query, target) of each link, numbers; ``pairs`` are those of all proteins, for E-values."""
    from scipy.stats import poisson

    table, transposed = _kmer_table(queries), _kmer_table(targets).T.tocsr()
    sizes, target_sizes = table.getnnz(axis=1).astype(np.int64), transposed.getnnz(axis=0).astype(np.int64)
    first, second = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    with progress_bar("clusters", len(queries), "protein") as bar:
        for start in range(0, len(queries), _BLOCK):
            shared = (table[start : start + _BLOCK] @ transposed).tocoo()
            row, column = shared.row + start, shared.col
            smaller = np.minimum(sizes[row], target_sizes[column])
            linked = shared.data >= smaller * identity**_K / 2
            row, column, found = row[linked], column[linked], shared.data[linked]
            by_chance = sizes[row] * target_sizes[column] * _EQUAL_BY_CHANCE
            significant = poisson.sf(found - 1, by_chance) * pairs <= _E_VALUE
            first.append(row[significant])
            second.append(column[significant])
            bar.update(shared.shape[0])
    return np.concatenate(first), np.concatenate(second)


def _kmer_table(sequences: Sequence[str]) -> Any:
    """(N, 26**k) sparse matrix, 1 for each distinct k-mer of a protein."""
    from scipy import sparse

    kmers = [_distinct_kmers(sequence) for sequence in sequences]
    starts = np.cumsum([0, *map(len, kmers)])
    columns = np.concatenate(kmers) if kmers else np.empty(0, dtype=np.int64)
    return sparse.csr_matrix((np.ones(len(columns), dtype=np.int32), columns, starts), (len(kmers), _LETTERS**_K))


def _distinct_kmers(sequence: str) -> np.ndarray:
    """Numbers of a protein's distinct k-mers without X; of a protein shorter than k, none."""
    letters = np.frombuffer(sequence.encode("ascii"), dtype=np.uint8).astype(np.int64) - ord("A")
    if len(letters) < _K:
        return np.empty(0, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(letters, _K)
    known = windows[(windows != ord("X") - ord("A")).all(axis=1)]
    return np.unique(known @ _LETTERS ** np.arange(_K))


def _mmseqs_links(
    program: str, queries: Sequence[str], targets: Sequence[str], identity: float, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`_kmer_links`."""
    # fewer queries than targets are those of a search with near copies, of which one may have thousands
    most = _CANDIDATES if len(queries) >= len(targets) else max(_CANDIDATES, len(targets))
    options = ["-s", "7.5", "-e", "1e-3", "--max-seqs", f"{most}", "--min-seq-id", f"{identity:g}", "--mask", "0"]
    options += ["--alignment-mode", "3", "--seq-id-mode", "0", "--threads", f"{threads}"]
    with scratch_directory("tape-clusters-") as folder:
        query, target = folder / "query.fasta", folder / "target.fasta"
        write_fasta(query, enumerate(queries))
        write_fasta(target, enumerate(targets))
        cells = [part for line in easy_search(program, query, target, options, _COLUMNS) for part in line]
    try:
        hits = np.array(cells, dtype=np.int64).reshape(-1, len(_COLUMNS))
    except ValueError:
        raise ProteinLMError(f"MMseqs2 wrote hits without {', '.join(_COLUMNS)}") from None
    first, second, start, end, length, target_start, target_end, target_length = hits.T
    covered = np.maximum((end - start + 1) / length, (target_end - target_start + 1) / target_length)
    linked = covered >= _COVERAGE
    return first[linked], second[linked]


def _components(count: int, links: np.ndarray) -> np.ndarray:
    """(count,) int64, number of each item's connected component, in the order in which they first occur.

    Args:
        count: number of items.
        links: (2, M), items that are linked.
    """
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    graph = coo_matrix((np.ones(links.shape[1], dtype=np.int8), tuple(links)), shape=(count, count))
    labels = connected_components(graph, directed=False)[1].astype(np.int64)
    _, first_place, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first_place))[inverse]
