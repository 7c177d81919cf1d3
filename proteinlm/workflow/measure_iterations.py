"""Finds how many iterations of pretraining fit into a number of minutes.

    proteinlm measure-iterations --minutes 13 --out train_iters.txt -- COMMAND

COMMAND is a command of pretraining without --train-iters and --save. It is run for some iterations of a long schedule,
into which a warm-up of any length fits, and FILE gets the option --train-iters for the same command, which reads it as
@FILE. Evaluations are not measured; 5 % of the time are left for them and for checkpoints.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from proteinlm.workflow.programs import working_directory
from tape.cli.parser import ArgumentParser
from tape.cli.types import positive_float, positive_int
from tape.errors import ConfigError
from tape.io.json_files import read_json_lines
from tape.io.writing import check_output_directory, write_text

LONG_SCHEDULE = 1_000_000  # iterations
_TRAINING_SHARE = 0.95


def iterations_in(minutes: float, seconds: Sequence[float]) -> int:
    """The number of iterations that take ``minutes``.

    Args:
        minutes: the time.
        seconds: durations of some iterations, in order; the first half is a warm-up.
    """
    typical = statistics.median(seconds[len(seconds) // 2 :])
    return max(1, int(60 * minutes * _TRAINING_SHARE / typical))


def measure(command: Sequence[str], steps: int) -> list[float]:
    """The durations in seconds of ``steps`` iterations of a command of pretraining.

    Raises:
        ConfigError: the command fails.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = [
            *("--train-iters", str(LONG_SCHEDULE), "--exit-interval", str(steps)),
            *("--eval-iters", "0", "--log-interval", str(steps), "--save", folder),
        ]
        if subprocess.run([*command, *options], cwd=working_directory(Path()), check=False).returncode:
            raise ConfigError("the command failed, so its speed can't be measured; its error is above")
        records = read_json_lines(Path(folder) / "metrics.jsonl", integers=["iteration"])
    return [record["seconds"] for record in records if record["kind"] == "train"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the option."""
    options = make_parser().parse_args(arguments)
    check_output_directory(options.out.parent, "--out")
    iterations = iterations_in(options.minutes, measure(options.command, options.steps))
    write_text(options.out, f"--train-iters {iterations}\n")
    print(f"{iterations:,} iterations in {options.minutes:g} minutes: {options.out}")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the command."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=positive_float, required=True, help="time for all iterations")
    parser.add_argument("--steps", type=positive_int, default=50, help="iterations to measure (default %(default)s)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="file to write")
    parser.add_argument("command", nargs="+", metavar="COMMAND", help="after --: the command of pretraining")
    return parser
