"""Searching for the relatives of test proteins with MMseqs2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tape.errors import ProteinLMError, quoted
from tape.io.writing import output_errors
from tape.io.writing.temporary import scratch_directory
from tape.similarity.mmseqs import easy_search, write_fasta

from .config import SearchSettings
from .hits import Hit, better_hit
from .proteins import Protein

_COLUMNS = ("query", "target", "nident", "alnlen", "qcov", "theader")


def mmseqs_options(settings: SearchSettings) -> list[str]:
    """The options of ``mmseqs easy-search`` that determine which hits it finds.

    ``-a --alignment-mode 3 --seq-id-mode 0``: identity over all columns of the alignment, from its traceback.
    ``--cov-mode 2``: ``-c`` is a fraction of the query. ``--mask 0``: low complexity is no reason to miss a relative.
    """
    options = ["-s", f"{settings.sensitivity:g}", "-e", f"{settings.e_value:g}", "-c", f"{settings.coverage:g}"]
    options += ["--cov-mode", "2", "-a", "--alignment-mode", "3", "--seq-id-mode", "0", "--mask", "0"]
    return [*options, "--max-seqs", f"{settings.candidates}", "--max-accept", f"{settings.alignments}"]


def search_mmseqs(
    program: str, queries: Sequence[str], references: Iterable[Protein], settings: SearchSettings
) -> list[Hit | None]:
    """The best hit of each query.

    An identical sequence counts as a hit without a search, whatever its length and E-value.

    Args:
        program: path of ``mmseqs``.
        queries: N different sequences.
        references: training proteins, read once.
        settings: which alignments count.

    Returns:
        N hits; None for a query without one.

    Raises:
        ProteinLMError: the program failed; the end of its output follows the message.
        OutputError: the disk of the temporary files is full.
    """
    places = {residues: place for place, residues in enumerate(queries)}
    hits: list[Hit | None] = [None] * len(queries)
    with scratch_directory("tape-leakage-") as folder:
        target = folder / "target.fasta"
        with output_errors(target), target.open("w", encoding="utf-8") as stream:
            for number, protein in enumerate(references):
                place = places.get(protein.residues)
                if place is not None and hits[place] is None:
                    hits[place] = Hit(protein.identifier, 100.0, 100.0)
                # a number, since MMseqs2 would take parts of an id such as sp|P83570|NAME
                stream.write(f">{number} {protein.identifier}\n{protein.residues}\n")
        unknown = [place for place, hit in enumerate(hits) if hit is None]
        if unknown:
            query = folder / "query.fasta"
            write_fasta(query, ((place, queries[place]) for place in unknown))
            options = [*mmseqs_options(settings), "--threads", f"{settings.threads}"]
            for cells in easy_search(program, query, target, options, _COLUMNS):
                place, hit = _hit(cells)
                hits[place] = better_hit(hits[place], hit)
    return hits


def _hit(cells: Sequence[str]) -> tuple[int, Hit]:
    """Place of the query and hit."""
    try:
        place, _, identical, columns, coverage, header = cells
        hit = Hit(header.partition(" ")[2], 100 * int(identical) / int(columns), 100 * float(coverage))
        return int(place), hit
    except (ValueError, ZeroDivisionError):
        raise ProteinLMError(f"MMseqs2 wrote {quoted(chr(9).join(cells))}, not {', '.join(_COLUMNS)}") from None
