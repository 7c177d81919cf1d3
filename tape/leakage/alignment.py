"""Exact local alignments (Smith and Waterman 1981; Gotoh 1982) with Biopython, for small sets without MMseqs2.

Scores and gap costs are BLASTP's (BLOSUM62, 11 and 1), and so are the parameters of the E-value.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from tape.errors import ConfigError
from tape.runtime.progress import progress_bar
from tape.similarity.mmseqs import INSTALL

from .config import SearchSettings
from .hits import Hit, better_hit
from .proteins import Protein

# Karlin and Altschul's parameters of BLOSUM62 with gap costs 11 and 1 (Altschul et al. 1997)
_LAMBDA, _K = 0.267, 0.041
MOST_CELLS = 20_000_000_000  # about seven minutes
_CELLS_PER_SECOND = 5e7


def biopython_version() -> str:
    """Version of Biopython.

    Raises:
        ConfigError: it is not installed.
    """
    return str(_import_biopython().__version__)


def search_exact(
    queries: Sequence[str], references: Iterable[Protein], settings: SearchSettings, title: str = "alignments"
) -> list[Hit | None]:
    """The best hit of each query among optimal local alignments with all training proteins.

    An identical sequence counts as a hit whatever its length and E-value.

    Args:
        queries: N different sequences.
        references: training proteins, which are kept in memory.
        settings: which alignments count.
        title: label of the progress bar.

    Returns:
        N hits; None for a query without one.

    Raises:
        ConfigError: there are too many pairs, or Biopython is not installed.
    """
    aligner = _create_aligner()
    proteins = list(references)
    residues = sum(len(protein.residues) for protein in proteins)
    _check_size(sum(map(len, queries)) * residues)
    hits: list[Hit | None] = [None] * len(queries)
    with progress_bar(title, len(queries) * len(proteins), "pair") as bar:
        for place, query in enumerate(queries):
            lowest = _lowest_score(len(query), residues, settings.e_value)
            for protein in proteins:
                hit = _align(aligner, query, protein, lowest, settings.coverage)
                hits[place] = hits[place] if hit is None else better_hit(hits[place], hit)
            bar.update(len(proteins))
    return hits


def _align(aligner: Any, query: str, protein: Protein, lowest: float, coverage: float) -> Hit | None:
    if query == protein.residues:
        return Hit(protein.identifier, 100.0, 100.0)
    if aligner.score(query, protein.residues) < lowest:
        return None
    alignment = aligner.align(query, protein.residues)[0]
    first, last = int(alignment.coordinates[0][0]), int(alignment.coordinates[0][-1])
    covered = (last - first) / len(query)
    if covered < coverage:
        return None
    return Hit(protein.identifier, 100 * alignment.counts().identities / alignment.length, 100 * covered)


def _lowest_score(length: int, residues: int, e_value: float) -> float:
    """The score of a query of ``length`` residues whose E-value, K m n exp(-lambda S), is ``e_value``."""
    return math.log(_K * length * residues / e_value) / _LAMBDA


def _check_size(cells: int) -> None:
    if cells > MOST_CELLS:
        hours = cells / _CELLS_PER_SECOND / 3600
        raise ConfigError(f"exact alignments of so many proteins would take about {hours:,.1f} hours: use {INSTALL}")


def _create_aligner() -> Any:
    _import_biopython()
    from Bio import Align

    aligner = Align.PairwiseAligner(scoring="blastp")
    aligner.mode = "local"
    return aligner


def _import_biopython() -> Any:
    try:
        import Bio
    except ImportError as error:
        raise ConfigError(
            f"a search needs MMseqs2 ({INSTALL}) or, for small sets, Biopython (pip install 'proteinlm[leakage]'):"
            f" {error}"
        ) from error
    return Bio
