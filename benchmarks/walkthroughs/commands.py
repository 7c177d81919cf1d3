"""Running commands as they are typed, with their time, and counting what a person writes for them."""

from __future__ import annotations

import ast
import io
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
import tokenize
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tape.errors import ConfigError

_LIMIT = 3600.0
_NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


@dataclass(frozen=True)
class Execution:
    """A command that has run.

    Attributes:
        command: as typed.
        output: what it printed, standard output and error together.
        seconds: wall time.
    """

    command: str
    output: str
    seconds: float


def run(command: str, folder: Path, environment: Mapping[str, str], log: Path, limit: float = _LIMIT) -> Execution:
    """Run a command as a shell would, without variables, pipes and patterns.

    Args:
        command: as typed.
        folder: the working directory.
        environment: all variables; its ``PATH`` has the program.
        log: a file, to which command and output are added.
        limit: seconds after which it is ended with all of its processes.

    Raises:
        ConfigError: there is no such program, or it has failed or not ended; the message has its last line and the log.
    """
    words = shlex.split(command)
    program = shutil.which(words[0], path=environment["PATH"])
    if program is None:
        raise ConfigError(f"{command}: there is no program {words[0]}")
    start = time.perf_counter()
    with log.open("a+", encoding="utf-8") as stream:
        print(f"$ {command}", file=stream, flush=True)
        begin = stream.tell()
        process = subprocess.Popen(
            [program, *words[1:]],
            cwd=folder,
            env=environment,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        timer = threading.Timer(limit, os.killpg, (process.pid, signal.SIGKILL))
        timer.start()
        try:
            process.wait()
        except BaseException:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - start
        stream.seek(begin)
        output = stream.read()
    if seconds >= limit:
        raise ConfigError(f"{command} did not end within {limit:g} s (log: {log})")
    if process.returncode:
        last = (output.strip().splitlines() or [f"ended with status {process.returncode}"])[-1]
        raise ConfigError(f"{command} failed: {last} (log: {log})")
    return Execution(command, output, seconds)


def environment_of(folder: Path, threads: int, further: Sequence[Path] = ()) -> dict[str, str]:
    """The variables of a shell in which a virtual environment is active; without network and GPU.

    Args:
        folder: the environment.
        threads: number of threads of matrix products.
        further: environments of which only commands are used that it does not have.
    """
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "PYTHONHOME")}
    active = str(Path(sys.prefix) / "bin")  # of this benchmark, which has other versions of the same commands
    system = [one for one in os.environ.get("PATH", os.defpath).split(os.pathsep) if one != active]
    return {
        **inherited,
        "PATH": os.pathsep.join([*(str(one / "bin") for one in (folder, *further)), *system]),
        "VIRTUAL_ENV": str(folder),
        "OMP_NUM_THREADS": str(threads),
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "MPLBACKEND": "Agg",
    }


def count_lines(path: Path) -> int:
    """Lines of a file that a person writes: neither empty nor a comment; of Python, docstrings don't count either."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return len(_lines_of_code(text) - _lines_of_docstrings(text))
    return sum(1 for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))


def _lines_of_code(text: str) -> set[int]:
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    spans = ((token.start[0], token.end[0]) for token in tokens if token.type not in _NO_CODE)
    return {line for first, last in spans for line in range(first, last + 1)}


def _lines_of_docstrings(text: str) -> set[int]:
    lines: set[int] = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef) and ast.get_docstring(node) is not None:
            lines |= set(range(node.body[0].lineno, (node.body[0].end_lineno or node.body[0].lineno) + 1))
    return lines
