"""Searching with MMseqs2 (Steinegger and Soeding 2017), the program ``mmseqs`` on the PATH."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path

from tape.errors import ProteinLMError, quoted
from tape.interrupts import stop_allowed, stop_deferred
from tape.io.writing import output_errors
from tape.io.writing.temporary import scratch_directory

from .config import SearchSettings
from .hits import Hit, better_hit
from .proteins import Protein

PROGRAM = "mmseqs"
INSTALL = "apt install mmseqs2, brew install mmseqs2, or conda install -c bioconda mmseqs2"
_COLUMNS = ("query", "nident", "alnlen", "qcov", "theader")
_LAST_LINES = 10


def find_mmseqs() -> str | None:
    """Path of the program; None if it is not installed."""
    return shutil.which(PROGRAM)


def mmseqs_version(program: str) -> str:
    """The version that the program prints.

    Raises:
        ProteinLMError: it can't be run.
    """
    try:
        printed = subprocess.run([program, "version"], capture_output=True, text=True, check=True, errors="replace")
    except (OSError, subprocess.CalledProcessError) as error:
        raise ProteinLMError(f"{program} version: can't be run ({error}); install MMseqs2 again: {INSTALL}") from error
    return printed.stdout.strip()


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
            query, result = folder / "query.fasta", folder / "result.tsv"
            with output_errors(query):
                query.write_text("".join(f">{place}\n{queries[place]}\n" for place in unknown), encoding="ascii")
            files = [str(query), str(target), str(result), str(folder / "work")]
            output = ["--format-output", ",".join(_COLUMNS), "--threads", f"{settings.threads}"]
            run_mmseqs([program, "easy-search", *files, *mmseqs_options(settings), *output], folder / "log")
            for place, hit in _read_hits(result):
                hits[place] = better_hit(hits[place], hit)
    return hits


def run_mmseqs(command: Sequence[str], log: Path) -> None:
    """Run a command to its end; a stop signal ends it and the processes that it has started."""
    with log.open("wb") as stream, stop_deferred():
        process = subprocess.Popen(command, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            with stop_allowed():
                code = process.wait()
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
    if code:
        end = log.read_text(encoding="utf-8", errors="replace").splitlines()[-_LAST_LINES:]
        how = f"exit code {code}" if code > 0 else f"signal {-code}"
        raise ProteinLMError(f"MMseqs2 failed ({how}): {' '.join(command[:2])}; the end of its output:", details=end)


def _read_hits(path: Path) -> Iterable[tuple[int, Hit]]:
    """(place of the query, hit) of each line of MMseqs2's table."""
    with path.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            cells = line.rstrip("\n").split("\t", len(_COLUMNS) - 1)
            try:
                place, identical, columns, coverage = int(cells[0]), int(cells[1]), int(cells[2]), float(cells[3])
                identifier = cells[4].partition(" ")[2]
                hit = Hit(identifier, 100 * identical / columns, 100 * coverage)
            except (ValueError, IndexError, ZeroDivisionError):
                raise ProteinLMError(f"MMseqs2 wrote {quoted(line)}, not {', '.join(_COLUMNS)}") from None
            yield place, hit
