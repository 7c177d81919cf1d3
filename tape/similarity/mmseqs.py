"""MMseqs2 (Steinegger and Soeding 2017), the program ``mmseqs`` on the PATH."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from tape.errors import ProteinLMError
from tape.interrupts import stop_allowed, stop_deferred
from tape.io.writing import output_errors

PROGRAM = "mmseqs"
INSTALL = "apt install mmseqs2, brew install mmseqs2, or conda install -c bioconda mmseqs2"
_LAST_LINES = 10
# MMseqs2 fails if no target is long enough to be found, so that each search has one more.
_ADDED_NAME, _ADDED = "added", "ACDEFGHIKLMNPQRSTVWY"


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


def write_fasta(path: Path, proteins: Iterable[tuple[int, str]]) -> None:
    """Write (number, sequence) of proteins, of which the number is the name.

    Raises:
        OutputError: the disk is full.
    """
    with output_errors(path), path.open("w", encoding="ascii") as stream:
        for number, sequence in proteins:
            stream.write(f">{number}\n{sequence}\n")


def easy_search(
    program: str, query: Path, target: Path, options: Sequence[str], columns: Sequence[str]
) -> Iterator[list[str]]:
    """Hits of ``mmseqs easy-search``.

    Args:
        program: path of ``mmseqs``.
        query: FASTA file in a folder for temporary files.
        target: FASTA file beside it, whose names begin with numbers. A protein is appended to it.
        options: of the search.
        columns: names of MMseqs2's columns, "target" among them.

    Returns:
        The cells of each hit, text, in the order of ``columns``; as many cells as MMseqs2 wrote. The last one may have
        tabs.

    Raises:
        ProteinLMError: the program failed; the end of its output follows the message.
        OutputError: the disk of the temporary files is full.
    """
    with output_errors(target), target.open("a", encoding="ascii") as stream:
        stream.write(f">{_ADDED_NAME}\n{_ADDED}\n")
    result, folder = query.with_name("result.tsv"), query.parent
    command = [program, "easy-search", str(query), str(target), str(result), str(folder / "work"), *options]
    run_mmseqs([*command, "--dbtype", "1", "--format-output", ",".join(columns)], folder / "log")
    with result.open(encoding="utf-8", errors="replace") as stream:
        for line in stream:
            cells = line.rstrip("\n").split("\t", len(columns) - 1)
            if cells[columns.index("target") : columns.index("target") + 1] != [_ADDED_NAME]:
                yield cells
