#!/usr/bin/env python
"""Three jobs of a person with own proteins, from a bare virtual environment to the result, beside other programs.

    python benchmarks/own_data.py ../shared/data --output-dir walkthroughs [--json own_data.json]

Values: a table of 400 proteins (stability of designed proteins, in kJ/mol) -> a model, its evaluation on the test rows,
predictions of new sequences. Embeddings: a FASTA file -> files that h5py and pandas read. Contacts: a folder of PDB and
mmCIF files -> a contact model, and the contacts of new sequences with a picture.

This project is installed as a wheel of this tree, into an environment of its own; biotrainer and transformers are in
the environment of clients_requirements.txt. All start from the bundled model, which is converted for transformers.
Commands run as they are typed, with one thread, without network and GPU; their scripts and configurations are in
benchmarks/walkthroughs/files. Counted are commands, and lines of these files that are neither empty nor comments.
Time is that of the commands, without the installation. What the commands print is in OUTPUT_DIR/PROGRAM/JOB.log.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

from benchmarks.peers.comparison import machine, option_values
from benchmarks.peers.environment import REQUIREMENTS, has_pins, peers_python
from benchmarks.walkthroughs.commands import Execution, count_lines, environment_of, run
from benchmarks.walkthroughs.inputs import SIZES, write_inputs
from benchmarks.walkthroughs.installation import install_wheel
from benchmarks.walkthroughs.programs import (
    FILES,
    JOBS,
    MODEL,
    NOT_POSSIBLE,
    OURS,
    PROGRAMS,
    WALKTHROUGHS,
    Walkthrough,
)
from benchmarks.walkthroughs.scores import Score
from tape.cli.parser import ArgumentParser
from tape.cli.types import positive_int
from tape.errors import ConfigError, ProteinLMError, run_cli
from tape.io.writing import check_output_file, write_json
from tape.report.cells import markdown_row

CLIENTS = REQUIREMENTS.with_name("clients_requirements.txt")


@dataclass(frozen=True)
class Outcome:
    """A walkthrough that has been tried.

    Attributes:
        program, job, remarks: of the walkthrough.
        commands: what was typed.
        lines: lines of its files.
        seconds: wall time of the commands.
        score: None if it failed.
        reason: why it failed, or why there is no such walkthrough.
    """

    program: str
    job: str
    remarks: str = ""
    commands: tuple[str, ...] = ()
    lines: int = 0
    seconds: float = 0.0
    score: Score | None = None
    reason: str = ""


@dataclass(frozen=True)
class Environment:
    """Where a program is installed.

    Attributes:
        folder: the virtual environment.
        seconds: time of its installation; None if it was there.
    """

    folder: Path
    seconds: float | None


def install(program: str, options: argparse.Namespace) -> Environment:
    """Install a program, if it is not there.

    Raises:
        ConfigError: it can't be installed, or is not there and ``--no-install`` is given.
    """
    start = time.perf_counter()
    environments = options.environments.absolute()
    if program == OURS:
        folder = environments / "own_data"
        installed = install_wheel(folder, options.output_dir, options.install, show)
    else:
        folder = environments / CLIENTS.name.partition("_")[0]
        installed = not has_pins(folder, CLIENTS)
        peers_python(folder, options.install, CLIENTS)
    return Environment(folder, time.perf_counter() - start if installed else None)


def prepare(options: argparse.Namespace) -> Path:
    """The folder with the inputs of all walkthroughs, and the model for transformers."""
    folder: Path = options.output_dir / "inputs"
    write_inputs(options.data_dir, folder, SIZES, options.seed)
    export_model(folder / MODEL)
    return folder


def export_model(folder: Path) -> None:
    """Write the bundled model in the layout of transformers."""
    from converter.convert import ConversionRequest, convert
    from tape.hub.bundled import bundled_model

    source = bundled_model(MODEL.removesuffix("-hf"))
    convert(ConversionRequest(source, folder, "huggingface", lm_head="approximate"), lambda line: None)


def show(command: str) -> None:
    """Print a command as it is typed."""
    print(f"$ {command}", flush=True)


def walk(walkthrough: Walkthrough, folder: Path, variables: dict[str, str]) -> Outcome:
    """Go through a walkthrough.

    Args:
        walkthrough: the job.
        folder: a folder with the inputs.
        variables: the environment of its commands.
    """
    lines = sum(count_lines(FILES / name) for name in walkthrough.files)
    done: list[Execution] = []
    for name in walkthrough.files:
        shutil.copy(FILES / name, folder)
    score, reason = None, ""
    try:
        for command in walkthrough.commands:
            show(command)
            done.append(run(command, folder, variables, folder.parent / f"{walkthrough.job}.log"))
        missing = [pattern for pattern in walkthrough.results if not list(folder.glob(pattern))]
        if missing:
            raise ConfigError(f"the commands have not written {', '.join(missing)}")
        score = walkthrough.score(folder)
    except ProteinLMError as error:
        reason = str(error)
    return Outcome(
        walkthrough.program,
        walkthrough.job,
        walkthrough.remarks,
        walkthrough.commands,
        lines,
        sum(one.seconds for one in done),
        score,
        reason,
    )


def outcomes(
    options: argparse.Namespace, inputs: Path, environments: dict[str, Environment | str]
) -> Iterator[Outcome]:
    """The outcomes of all chosen walkthroughs, from the folder of the inputs."""
    own = environments.get(OURS)
    for one in WALKTHROUGHS:
        if one.job not in options.jobs or one.program not in environments:
            continue
        place = environments[one.program]
        if isinstance(place, str):
            yield Outcome(one.program, one.job, reason=place)
            continue
        ours = [own.folder] if isinstance(own, Environment) else []  # biotrainer needs tape-embed
        variables = environment_of(place.folder, options.threads, ours)
        folder = options.output_dir / one.program / one.job
        shutil.copytree(inputs, folder)
        print(f"\n# {one.job} with {one.program}", flush=True)
        for name in one.files:
            print(f"# {name}: {count_lines(FILES / name)} lines", flush=True)
        yield walk(one, folder, variables)
    for (program, job), reason in NOT_POSSIBLE.items():
        if job in options.jobs and program in environments:
            yield Outcome(program, job, reason=reason)


def table(found: Sequence[Outcome]) -> list[str]:
    """The outcomes as a Markdown table, the jobs in their order."""
    lines = [
        "| job | program | commands | lines of files | wall time | on the test rows | remarks |",
        "|:--|:--|--:|--:|--:|:--|:--|",
    ]
    for one in sorted(found, key=lambda outcome: (JOBS.index(outcome.job), PROGRAMS.index(outcome.program))):
        cells = [one.job, one.program]
        if one.score is None:
            cells += ["", "", "", "", one.reason.splitlines()[0]]
        else:
            counts = [str(len(one.commands)), str(one.lines), f"{one.seconds:.0f} s"]
            cells += [*counts, str(one.score), one.remarks]
        lines.append(markdown_row(cells))
    return lines


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", type=Path, help="directory with the folders tape and structures")
    parser.add_argument("--output-dir", type=Path, required=True, help="a new directory for inputs, results and logs")
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS), help="(default: all)")
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=list(JOBS), help="(default: all)")
    parser.add_argument("--environments", type=Path, default=REQUIREMENTS.parents[1] / "build", help="their folder")
    parser.add_argument("--no-install", dest="install", action="store_false", help="skip programs not installed")
    parser.add_argument("--threads", type=positive_int, default=1, help="of each command (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=42, help="which proteins are drawn (default: %(default)s)")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> None:
    """Go through all walkthroughs, and print what is typed and the table."""
    options = parse(words)
    if options.json is not None:
        check_output_file(options.json, "--json")
    if options.output_dir.exists() and any(options.output_dir.iterdir()):
        raise ConfigError(f"--output-dir {options.output_dir}: not empty; give a new directory")
    options.output_dir = options.output_dir.absolute()
    options.output_dir.mkdir(parents=True, exist_ok=True)
    inputs = prepare(options)  # first, since installations take minutes
    environments: dict[str, Environment | str] = {}
    for program in options.programs:
        try:
            environments[program] = install(program, options)
        except ConfigError as error:
            environments[program] = str(error)
    found = list(outcomes(options, inputs, environments))
    print("\n" + "\n".join(table(found)))
    if options.json is not None:
        places = {name: place for name, place in environments.items() if isinstance(place, Environment)}
        record: dict[str, Any] = {
            "machine": machine(),
            "options": option_values(options),
            "sizes": asdict(SIZES),
            "installation_seconds": {name: place.seconds for name, place in places.items()},
            "results": [asdict(one) for one in found],
        }
        write_json(options.json, record)
    failed = [one for one in found if one.program == OURS and one.score is None]
    if failed:
        raise ProteinLMError(f"{failed[0].job} with {OURS}: {failed[0].reason}")


if __name__ == "__main__":
    sys.exit(run_cli(main))
