"""Seconds from the start of a command to its end, or to a line of its log."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from .protocol import ROOT, Message, WorkerError
from .rounds import OURS

_LINES_OF_ERROR = 3

# commands of pyproject.toml, and scripts
_FUNCTIONS = {
    "proteinlm": "proteinlm.command:main",
    "tape-train": "tape.commands:train_command",
    "tape-eval": "tape.commands:eval_command",
    "tape-embed": "tape.commands:embed_command",
    "tape-score": "tape.commands:score_command",
    "tape-contacts": "tape.commands:contacts_command",
    "tape-report": "tape.commands:report_command",
    "tape-compare": "tape.commands:compare_command",
    "tape-leakage": "tape.commands:leakage_command",
    "tape-groups": "tape.commands:groups_command",
    "tape-train-distributed": "tape.commands:train_distributed_command",
}
_SCRIPTS = (
    "pretrain/pretrain_tape.py",
    "pretrain/tools/preprocess_data.py",
    "pretrain/tools/compare_layouts.py",
    "pretrain/tools/verify_resume.py",
    "converter/megatron-converter.py",
)
_COMMANDS_OF_TAPE_PROTEINS = ("tape-train", "tape-eval", "tape-embed")
_FIRST_STEP = "first step of finetuning"
_FIRST_LINE = {OURS: r"step 1/", "tape-proteins": r"\[Iter: 1\]"}


@dataclass(frozen=True)
class Command:
    """A command to time.

    Attributes:
        words: the command line.
        until: pattern of the line that ends the measurement; None: the end of the process.
        python_path: directory on its PYTHONPATH; None: none.
    """

    words: Sequence[str]
    until: str | None = None
    python_path: str | None = None


class Stopwatch:
    """Times commands in new processes; takes the place of a worker.

    Args:
        commands: the commands by name.
        threads: number of threads of their matrix products.
    """

    def __init__(self, commands: dict[str, Command], threads: int) -> None:
        self.commands = commands
        self.threads = threads

    def ask(self, request: Message) -> Message:
        """Run ``request["command"]`` once, in an empty directory.

        Raises:
            WorkerError: it fails, or ends without the line.
        """
        command = self.commands[request["command"]]
        with tempfile.TemporaryDirectory() as folder:
            began = time.perf_counter()
            process = subprocess.Popen(
                command.words,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                cwd=folder,
                env=self._environment(command),
            )
            return {"seconds": _seconds(process, command, began)}

    def _environment(self, command: Command) -> dict[str, str]:
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        path = {} if command.python_path is None else {"PYTHONPATH": command.python_path}
        return {**inherited, **path, "OMP_NUM_THREADS": str(self.threads), "PYTHONWARNINGS": "ignore"}


def _seconds(process: subprocess.Popen[str], command: Command, began: float) -> float:
    assert process.stdout is not None
    lines = []
    with process.stdout:
        for line in process.stdout:
            lines.append(line.strip())
            if command.until is not None and re.search(command.until, line):
                seconds = time.perf_counter() - began
                process.kill()
                process.wait()
                return seconds
    status = process.wait()
    if status or command.until is not None:
        raise WorkerError(f"status {status}: {' / '.join(lines[-_LINES_OF_ERROR:])}")
    return time.perf_counter() - began


def our_commands(first_step: Sequence[str]) -> dict[str, Command]:
    """The commands of this repository by name; ``first_step`` are the arguments of a finetuning run."""
    python, root = sys.executable, str(ROOT)
    commands = {"import tape": Command([python, "-c", "import tape"], python_path=root)}
    for name, place in _FUNCTIONS.items():
        module, _, function = place.partition(":")
        program = f"import sys; from {module} import {function}; sys.exit({function}())"
        commands[f"{name} --help"] = Command([python, "-c", program, "--help"], python_path=root)
    for script in _SCRIPTS:
        commands[f"{Path(script).name} --help"] = Command([python, str(ROOT / script), "--help"])
    words = [python, str(ROOT / "tape_train.py"), *first_step]
    return {**commands, _FIRST_STEP: Command(words, _FIRST_LINE[OURS])}


def tape_proteins_commands(python: Path, first_step: Sequence[str]) -> dict[str, Command]:
    """The commands of tape-proteins, installed beside ``python``."""
    commands = {"import tape": Command([str(python), "-c", "import tape"])}
    for name in _COMMANDS_OF_TAPE_PROTEINS:
        commands[f"{name} --help"] = Command([str(python.parent / name), "--help"])
    words = [str(python), "-m", "benchmarks.peers.tape_proteins", "train", *first_step]
    return {**commands, _FIRST_STEP: Command(words, _FIRST_LINE["tape-proteins"], str(ROOT))}
