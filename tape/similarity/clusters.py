"""Clusters of related proteins, so that a split leaves no relatives of its test proteins in the training data.

Clusters are connected components: two proteins of different clusters are never linked, whereas in clusters around
representatives two members of different clusters may be close relatives. Linked are:

- with MMseqs2 (Steinegger and Soeding 2017), two proteins with an alignment of at least the given identity over at
  least half of one of them, found by a search at sensitivity 7.5 without cascade;
- without it, two proteins with common k-mers (k = 4, distinct ones): at least half of those that are expected between
  sequences of that identity with independent substitutions, identity ** k of the shorter one's, and significantly
  more than random sequences have (Poisson, E-value of all pairs 1e-3). Of 4,000 SCOPe domains of the training data of
  remote homology, this clusters 98 % of the pairs that MMseqs2 clusters at .5, and finds few below that identity;
- with both, near copies of a protein, which have at least 90 % of its residues at the same positions
  (:mod:`tape.similarity.near_copies`).

For identities of up to .7, a few of many near copies of a protein are compared with others: what is related to one is
related to them. Above, where it need not be, all proteins are, which takes minutes for thousands of variants.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tape.errors import ConfigError, ProteinLMError, quoted
from tape.io.writing import output_errors
from tape.io.writing.temporary import scratch_directory
from tape.runtime.progress import progress_bar

from .mmseqs import INSTALL, find_mmseqs, mmseqs_version, run_mmseqs
from .near_copies import IDENTITY as NEAR_COPY_IDENTITY
from .near_copies import find_near_copies

CLUSTER_METHODS = ("auto", "mmseqs2", "kmers")
DEFAULT_IDENTITY = {"mmseqs2": 0.3, "kmers": 0.5}  # also the lowest of k-mers
_K = 4
_LETTERS = 26
_EQUAL_BY_CHANCE = 0.06**_K  # two k-mers; residues of Swiss-Prot are equal with probability .06
_E_VALUE = 1e-3
_COVERAGE = 0.5
_BLOCK = 1024  # proteins compared with all others at a time
_HIGHEST_WITH_FEW = 0.7  # identity up to which a few near copies find the relatives of all
_SHORTEST = 14  # residues without X that MMseqs2 needs to find a protein; it fails if none has them


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
    compared = copies.searched if identity <= _HIGHEST_WITH_FEW else np.arange(len(distinct))
    searched = [distinct[place] for place in compared]
    if method == "kmers":
        first, second = _kmer_links(searched, identity)
        name = f"shared {_K}-mers as of identity {identity:g}"
    elif program is None:
        raise ConfigError(f"clusters by MMseqs2: there is no program mmseqs on the PATH; {INSTALL}")
    else:
        first, second = _mmseqs_links(program, searched, identity, threads)
        name = (
            f"MMseqs2 {mmseqs_version(program)}, identity >= {identity:g} over >= {_COVERAGE:g} of one of two proteins"
        )
    name += f", or identity >= {near_copy_identity:g} without gaps"
    if len(compared) < len(distinct):
        name += f" ({len(distinct) - len(compared):,} of such near copies were not searched with)"
    links = [(compared[first], compared[second]), (copies.copies, copies.leaders)]
    labels = _components(len(unique), *map(np.concatenate, zip(*links, strict=True)))
    places = np.fromiter((unique[sequence] for sequence in sequences), dtype=np.int64, count=len(sequences))
    return Clusters(labels[places], f"connected components of {name}", identity)


def _kmer_links(sequences: Sequence[str], identity: float) -> tuple[np.ndarray, np.ndarray]:
    from scipy import sparse
    from scipy.stats import poisson

    lowest = DEFAULT_IDENTITY["kmers"]
    if identity < lowest:
        raise ConfigError(
            f"clusters by shared {_K}-mers can't find relatives of {identity:.0%} identity, only of {lowest:.0%} and"
            f" more; install MMseqs2 ({INSTALL}), or give {lowest:g}"
        )
    kmers = [_distinct_kmers(sequence) for sequence in sequences]
    sizes = np.array([len(found) for found in kmers], dtype=np.int64)
    columns = np.concatenate(kmers) if kmers else np.empty(0, dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    shape = (len(sequences), _LETTERS**_K)
    table = sparse.csr_matrix((np.ones(len(columns), dtype=np.int32), columns, starts), shape=shape)
    transposed = table.T.tocsr()
    first, second = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    pairs = len(sequences) * (len(sequences) - 1) / 2
    with progress_bar("clusters", len(sequences), "protein") as bar:
        for start in range(0, len(sequences), _BLOCK):
            shared = (table[start : start + _BLOCK] @ transposed).tocoo()
            row, column = shared.row + start, shared.col
            linked = (row < column) & (shared.data >= np.minimum(sizes[row], sizes[column]) * identity**_K / 2)
            row, column, found = row[linked], column[linked], shared.data[linked]
            by_chance = sizes[row] * sizes[column] * _EQUAL_BY_CHANCE
            significant = poisson.sf(found - 1, by_chance) * pairs <= _E_VALUE
            first.append(row[significant])
            second.append(column[significant])
            bar.update(shared.shape[0])
    return np.concatenate(first), np.concatenate(second)


def _distinct_kmers(sequence: str) -> np.ndarray:
    """Numbers of a protein's distinct k-mers without X; of a protein shorter than k, none."""
    letters = np.frombuffer(sequence.encode("ascii"), dtype=np.uint8).astype(np.int64) - ord("A")
    if len(letters) < _K:
        return np.empty(0, dtype=np.int64)
    windows = np.lib.stride_tricks.sliding_window_view(letters, _K)
    known = windows[(windows != ord("X") - ord("A")).all(axis=1)]
    return np.unique(known @ _LETTERS ** np.arange(_K))


def _mmseqs_links(
    program: str, sequences: Sequence[str], identity: float, threads: int
) -> tuple[np.ndarray, np.ndarray]:
    """(representative, member) of each line of MMseqs2's clusters."""
    if not any(len(part) >= _SHORTEST for sequence in sequences for part in sequence.split("X")):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64)
    options = ["--single-step-clustering", "--cluster-mode", "1", "-s", "7.5", "-e", "1e-3", "--max-seqs", "1000"]
    options += ["--min-seq-id", f"{identity:g}", "-c", f"{_COVERAGE:g}", "--cov-mode", "1", "--mask", "0"]
    options += ["--dbtype", "1", "--alignment-mode", "3", "--seq-id-mode", "0", "--threads", f"{threads}"]
    with scratch_directory("tape-clusters-") as folder:
        proteins = folder / "proteins.fasta"
        with output_errors(proteins):
            proteins.write_text(
                "".join(f">{place}\n{sequence}\n" for place, sequence in enumerate(sequences)), encoding="ascii"
            )
        run_mmseqs(
            [program, "easy-cluster", str(proteins), str(folder / "result"), str(folder / "work"), *options],
            folder / "log",
        )
        text = (folder / "result_cluster.tsv").read_text(encoding="ascii", errors="replace").split()
    try:
        pairs = np.array(text, dtype=np.int64).reshape(-1, 2)
    except ValueError:
        raise ProteinLMError("MMseqs2 wrote clusters that are not pairs of numbers") from None
    if set(pairs[:, 1].tolist()) != set(range(len(sequences))):
        raise ProteinLMError(f"MMseqs2 wrote clusters of {len(set(pairs[:, 1].tolist()))} of {len(sequences)} proteins")
    return pairs[:, 0], pairs[:, 1]


def _components(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """(count,) int64, number of each item's connected component, in the order in which they first occur."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    links = coo_matrix((np.ones(len(first), dtype=np.int8), (first, second)), shape=(count, count))
    labels = connected_components(links, directed=False)[1].astype(np.int64)
    _, first_place, inverse = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first_place))[inverse]
