#!/usr/bin/env python
"""Interrupt commands by signals or a full disk, start them again, and compare the result with an undisturbed one.

    python benchmarks/fault_injection.py kill --kills 20               every command, 20 times kill -9 each
    python benchmarks/fault_injection.py kill --signals TERM INT HUP --kills 10
    python benchmarks/fault_injection.py kill --commands train embed --kills 5 --seed 7
    python benchmarks/fault_injection.py disk-full --trials 8

The commands run on the packaged sample with tiny models: ``prepare``, ``preprocess``, ``download`` (from a local web
server), ``pretrain``, ``convert`` (to a new directory), ``replace`` (over another model), ``train``, ``embed``,
``predict``, ``score``, ``contacts``, ``evaluate`` and ``report``; ``quickstart`` only if it is named, since it takes
minutes. Each command runs once without interruption. Then:

- ``kill``: it gets a signal, half of the times at a random moment, half of the times right after a temporary file has
  appeared, and the same command is started again (for ``train`` with ``--resume_from_checkpoint`` once an epoch has
  been saved). When a run ends by itself, its result is compared, and the next run starts from nothing. ``kill -9``
  goes to the process and all its descendants. Another signal goes to the process alone, as a scheduler's, or to its
  process group, as a terminal's; the command must end with the exit code 128 + the signal's number (0 if it has saved
  its state or finished), one line, no traceback, no temporary file and no process that outlives it.
- ``disk-full``: it runs where only a random part of its output fits: on a tmpfs of that size with root, else with a
  limit on the size of files (``RLIMIT_FSIZE``). It must end with one ``error:`` line that names a file and the free
  space. Then it is started again with enough space.

Every result must have the same files with the same weights, data, metrics and losses as the undisturbed one. Nothing
else may remain: no temporary file, journal or lock. Prints a table, and exits with 1 if a result differs, a command
refuses to start again, or something is left behind.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.loss_compare import leaves, load
from pretrain.tools.verify_resume import kill_family
from tape.errors import ConfigError, run_cli
from tape.runtime.process_identity import ProcessIdentity, identify, stat_fields

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "tape" / "sample"
CORPUS = SAMPLE / "corpus" / "chains_valid.fasta.xz"
MODEL = """--num-layers 2 --hidden-size 32 --num-attention-heads 2 --seq-length 128 --max-position-embeddings 2176
    --micro-batch-size 2 --global-batch-size 4 --lr 1e-3 --split 90,10,0 --eval-iters 1 --num-workers 0 --peak-tflops 1
    --data-path inputs/corpus_text_document"""
EMBEDDED, TRAINED = 300, 64  # proteins
CONTACT_PROTEINS = 24
SIGNALS = {"KILL": signal.SIGKILL, "TERM": signal.SIGTERM, "INT": signal.SIGINT, "HUP": signal.SIGHUP}
_DELAYS = (0.0, 0.0, 0.001, 0.003, 0.01, 0.03, 0.1)  # seconds from a new temporary file to the kill
_POLL_SECONDS = 0.001
_LIMIT_SECONDS = 1800.0  # of one run
_MOST_RESTARTS = 3
_END_SECONDS = 120.0  # from a signal to the end of a command
_LAST_LINES = ("interrupted", "terminated", "hangup")
_ORPHAN_SECONDS = 5.0  # from the end of a command to that of its last descendant

Files = dict[str, str]  # name -> SHA-256 of what is compared


@dataclass(frozen=True)
class Command:
    """A command under test. Its words and paths are relative to the working directory.

    Attributes:
        name: name on the command line of this benchmark.
        words: the command that writes to a directory, which contains what earlier runs have left.
        prepare: creates the content that the directory has before the first run.
        needs_inputs: whether it reads what :func:`make_inputs` writes.
    """

    name: str
    words: Callable[[Path], Sequence[str]]
    prepare: Callable[[Path], None] = lambda out: None
    needs_inputs: bool = True


@dataclass
class Tally:
    """Counts of one command, and descriptions of its problems."""

    command: str
    interrupted: int = 0
    writing: int = 0
    finished: int = 0
    problems: list[str] = field(default_factory=list)

    def row(self) -> str:
        verdict = "equal, nothing left" if not self.problems else f"{len(self.problems)} problems"
        return f"| {self.command} | {self.interrupted} | {self.writing} | {self.finished} | {verdict} |"


def _script(path: str, *words: object) -> list[str]:
    return [sys.executable, str(ROOT / path), *map(str, words)]


def _pretrain(out: Path) -> list[str]:
    words = ["--train-iters", 40, "--save-interval", 5, "--save", out / "save", "--load", out / "save"]
    return _script("pretrain/pretrain_tape.py", *MODEL.split(), *words)


def _train(out: Path) -> list[str]:
    run = out / "results" / "run"
    words = ["--output_dir", out / "results", "--log_dir", out / "logs", "--num_workers", 0, "--no_cuda"]
    if (run / "latest.json").exists():
        resumed = ["--from_pretrained", run, "--resume_from_checkpoint"]
        return _script("tape_train.py", "transformer", "stability", *resumed, *words)
    new = ["--from_pretrained", "inputs/model", "--data_dir", "inputs/data", "--exp_name", "run", "--batch_size", 16]
    return _script("tape_train.py", "transformer", "stability", *new, "--num_train_epochs", 4, *words)


def _installed(module: str, function: str, *words: object) -> list[str]:
    """A command that has no script of its own, as pip's wrapper starts it."""
    code = f"import sys; from {module} import {function}; sys.exit({function}())"
    return [sys.executable, "-c", code, *map(str, words), "--no_cuda"]


def _embed(out: Path) -> list[str]:
    words = ["transformer", "inputs/proteins.fasta", out / "embeddings.npz", "inputs/model", "--batch_size", 8]
    return _installed("tape.main", "embed_command", *words, "--num_workers", 0)


def _predict(out: Path) -> list[str]:
    words = ["--predict", "inputs/proteins.fasta", "--predict_out", out / "predictions.csv", "--batch_size", 8]
    return _script("tape_eval.py", "transformer", "stability", "inputs/finetuned", *words, "--no_cuda")


def _score(out: Path) -> list[str]:
    words = ["transformer", "inputs/variants.csv", out / "scores.csv", "inputs/model", "--batch_size", 8]
    methods = ["--methods", "masked_marginal", "pseudo_perplexity"]
    return _installed("tape.cli.score", "score_command", *words, "--wild_type", "inputs/wild_type.fasta", *methods)


def _contacts(out: Path) -> list[str]:
    words = ["transformer", "inputs/model", "--data_dir", "inputs/data", "--output_dir", out, "--exp_name", "contacts"]
    return _installed("tape.cli.contacts", "contacts_command", *words, "--overwrite", "--split", "valid")


def _evaluate(out: Path) -> list[str]:
    words = ["--data_dir", "inputs/data", "--output_dir", out / "results", "--split", "valid", "--batch_size", 4]
    return _script("tape_eval.py", "transformer", "stability", "inputs/finetuned", *words, "--no_cuda")


def _download(out: Path) -> list[str]:
    words = ["stability", "--target", out / "data", "--table", "inputs/site/table.json", "--base-url"]
    return _script("scripts/download_data.py", *words, Path("inputs/site/url").read_text(encoding="utf-8"))


def _convert(out: Path) -> list[str]:
    return _script("converter/megatron-converter.py", "-src", "inputs/save", "-out", out / "model")


def _other_model(out: Path) -> None:
    shutil.copytree("inputs/other", out / "model")


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "prepare",
            lambda out: _script("scripts/prepare_data.py", SAMPLE, out / "data", "--tasks", "stability", "corpus"),
            needs_inputs=False,
        ),
        Command(
            "preprocess",
            lambda out: _script("pretrain/tools/preprocess_data.py", "--input", CORPUS, "--output-prefix", out / "x"),
            needs_inputs=False,
        ),
        Command("pretrain", _pretrain),
        Command("convert", _convert),
        Command("replace", _convert, _other_model),
        Command("train", _train),
        Command("embed", _embed),
        Command("predict", _predict),
        Command("score", _score),
        Command("contacts", _contacts),
        Command("evaluate", _evaluate),
        Command("download", _download),
        Command(
            "report",
            lambda out: _script("scripts/report.py", "inputs/finetuned", "--out", out / "report"),
        ),
        Command(
            "quickstart",
            lambda out: _script("scripts/quickstart.py", "--out", out / "q", "--tasks", "st"),
            needs_inputs=False,
        ),
    )
}
DEFAULT = [name for name in COMMANDS if name != "quickstart"]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code."""
    options = _parser().parse_args(arguments)
    with tempfile.TemporaryDirectory(prefix="fault_injection_") as scratch, _working_directory(scratch):
        chosen = [COMMANDS[name] for name in options.commands]
        with _local_site() as url:
            if any(command.needs_inputs for command in chosen):
                make_inputs(url)
            tallies = [options.run(command, options) for command in chosen]
    print(f"\n| command | {options.title} | while writing | ended by itself | results |\n|:--|--:|--:|--:|:--|")
    for tally in tallies:
        print(tally.row())
    problems = [f"{tally.command}: {problem}" for tally in tallies for problem in tally.problems]
    print("\n".join(["", *problems] if problems else ["", "all results are equal, nothing is left behind"]))
    return 1 if problems else 0


def make_inputs(url: str) -> None:
    """Write corpus, checkpoint, models, labeled data, proteins and a download for all commands to ``inputs``.

    Args:
        url: address of the web server for ``inputs/site``.
    """
    _check(_script("pretrain/tools/preprocess_data.py", "--input", CORPUS, "--output-prefix", "inputs/corpus"))
    for seed, save in ((1, "inputs/save"), (2, "inputs/other_save")):
        words = ["--train-iters", 2, "--seed", seed, "--save", save]
        _check(_script("pretrain/pretrain_tape.py", *MODEL.split(), *words))
    for save, model in (("inputs/save", "inputs/model"), ("inputs/other_save", "inputs/other")):
        _check(_script("converter/megatron-converter.py", "-src", save, "-out", model))
    for task, limit in (("stability", TRAINED), ("contact_prediction", CONTACT_PROTEINS)):
        _check(_script("scripts/prepare_data.py", SAMPLE, "inputs/data", "--tasks", task, "--limit", limit))
    _check([*_train(Path("inputs")), "--eval_splits", "valid"])
    Path("inputs/results/run").rename("inputs/finetuned")
    random_residues = random.Random(0)
    with Path("inputs/proteins.fasta").open("w", encoding="utf-8") as stream:
        for number in range(EMBEDDED):
            residues = "".join(random_residues.choices("ACDEFGHIKLMNPQRSTVWY", k=100))
            stream.write(f">p{number}\n{residues}\n")
    Path("inputs/wild_type.fasta").write_text(f">p\n{residues}\n", encoding="utf-8")
    mutations = [f"{residue}{number}A" for number, residue in enumerate(residues, 1) if residue != "A"]
    Path("inputs/variants.csv").write_text("\n".join(["mutations", *mutations, ""]), encoding="utf-8")
    _make_site(Path("inputs/site"), url)


def _make_site(folder: Path, url: str) -> None:
    """An archive of labeled data as TAPE's, with the table that describes it."""
    folder.mkdir()
    with tarfile.open(folder / "stability.tar.gz", "w:gz") as archive:
        for path in sorted(Path("inputs/data/stability").glob("*.lmdb")):
            archive.add(path, f"stability/{path.name}")
    described = json.loads(Path("inputs/data/stability/dataset.json").read_text(encoding="utf-8"))
    entry = {"md5": None, "splits": described["splits"], "name": "sample", "source": "sample"}
    table = {"base_url": url, "archives": {"stability": entry}}
    (folder / "table.json").write_text(json.dumps(table), encoding="utf-8")
    (folder / "url").write_text(url, encoding="utf-8")


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: object) -> None:
        """Not logged."""


@contextmanager
def _local_site() -> Iterator[str]:
    """A web server for ``inputs/site`` inside the block; its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory="inputs/site")) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def inject_kills(command: Command, options: argparse.Namespace) -> Tally:
    """Send signals to a command ``options.kills`` times, each time in a run that continues the one before."""
    tally, chance = Tally(command.name), random.Random(f"{command.name} {options.seed}")
    out = Path(command.name)
    began = time.monotonic()
    expected = _undisturbed(command, out)
    seconds = time.monotonic() - began
    _start_over(command, out)
    while tally.interrupted < options.kills:
        moment = chance.uniform(0.1, 1.05 * seconds) if chance.random() < 0.5 else None
        number, to_group = SIGNALS[chance.choice(options.signals)], chance.random() < 0.5
        run = _Run(command.words(out))
        if run.wait_for(moment, out, chance.choice(_DELAYS)):
            tally.interrupted += 1
            tally.writing += moment is None
            if number == signal.SIGKILL:
                run.kill()
            else:
                when = "while writing" if moment is None else f"after {moment:.2f} s"
                problems = run.stop(number, to_group) + [f"{path} is left" for path in _temporary_files(out)]
                tally.problems += [f"{number.name} {when}: {problem}" for problem in problems]
            continue
        tally.finished += 1
        tally.problems += _examine(run, out, expected)
        _start_over(command, out)
    tally.problems += _finish(command, out, expected)
    print(f"{command.name}: {tally.interrupted} signals, {len(tally.problems)} problems", flush=True)
    return tally


def inject_full_disks(command: Command, options: argparse.Namespace) -> Tally:
    """Run a command ``options.trials`` times with too little space, and again with enough."""
    tally, chance = Tally(command.name), random.Random(f"{command.name} {options.seed}")
    out = Path(command.name)
    expected = _undisturbed(command, out)
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    largest = max(path.stat().st_size for path in out.rglob("*") if path.is_file())
    for _ in range(options.trials):
        share = chance.uniform(0, 0.95)
        shutil.rmtree(out)
        with _SmallDisk(out) as disk:
            command.prepare(out)
            disk.limit(int(share * total))
            run = _Run(command.words(out), None if disk.is_mounted else int(share * largest))
            if run.wait() == 0:
                tally.finished += 1
                tally.problems += _examine(run, out, expected)
                continue
            tally.interrupted += 1
            if not _is_one_line(run.output()):
                tally.problems.append(f"with {share:.0%} of the space: {run.output()[-400:]!r}")
            disk.enlarge()
            tally.problems += _finish(command, out, expected)
    print(f"{command.name}: {tally.interrupted} full disks, {len(tally.problems)} problems", flush=True)
    return tally


def _is_one_line(output: str) -> bool:
    """Whether the output of a failed command has one error with the free space, and no traceback."""
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    return len(errors) == 1 and "Traceback" not in output and ("are free" in errors[0] or "No space" in errors[0])


class _SmallDisk:
    """A tmpfs at a directory inside the block, if it can be mounted; otherwise the directory as it is."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.is_mounted = folder, False

    def __enter__(self) -> _SmallDisk:
        self._folder.mkdir()
        self.is_mounted = shutil.which("mount") is not None and self._mount("size=1g")
        return self

    def limit(self, size: int) -> None:
        """Leave space for so many bytes beside the present content."""
        if self.is_mounted:
            self._mount(f"remount,size={shutil.disk_usage(self._folder).used + max(4096, size)}")

    def enlarge(self) -> None:
        """Give the disk enough space."""
        if self.is_mounted:
            self._mount("remount,size=1g")

    def _mount(self, options: str) -> bool:
        words = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(self._folder)]
        return subprocess.run(words, capture_output=True, check=False).returncode == 0

    def __exit__(self, *_: object) -> None:
        if self.is_mounted:
            subprocess.run(["umount", "-l", str(self._folder)], check=True)


class _Run:
    """A running command with its output in a file.

    Args:
        words: the command.
        largest_file: limit of the size of its files in bytes; None: no limit.
    """

    def __init__(self, words: Sequence[str], largest_file: int | None = None) -> None:
        def limit() -> None:
            if largest_file is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""}
        self._log = Path("output.log")
        with self._log.open("wb") as log:
            pipe = subprocess.PIPE if largest_file is not None else log  # the limit would cut the log as well
            self._process = subprocess.Popen(
                words,
                stdout=pipe,
                stderr=subprocess.STDOUT,
                env=os.environ | own,
                preexec_fn=limit,
                start_new_session=True,  # signals to its process group must not reach this process
            )

    def wait(self) -> int:
        """Wait for the end; the exit code."""
        output, _ = self._process.communicate(timeout=_LIMIT_SECONDS)
        if output is not None:
            self._log.write_bytes(output)
        return self._process.returncode

    def output(self) -> str:
        return self._log.read_text(encoding="utf-8", errors="replace")

    def wait_for(self, moment: float | None, out: Path, delay: float) -> bool:
        """Wait for the moment of an interruption; False if it ends before.

        Args:
            moment: seconds from now; None: ``delay`` seconds after a temporary file has appeared in ``out``.
            out: the output directory.
            delay: seconds from the temporary file to the interruption.
        """
        began, before = time.monotonic(), set(_temporary_files(out))
        while self._process.poll() is None:
            if moment is not None and time.monotonic() - began >= moment:
                break
            if moment is None and not before.issuperset(_temporary_files(out)):
                time.sleep(delay)
                break
            time.sleep(_POLL_SECONDS)
        return self._process.poll() is None

    def kill(self) -> None:
        """Kill it and its descendants."""
        kill_family(self._process.pid)
        self._process.wait()

    def stop(self, number: signal.Signals, to_group: bool) -> list[str]:
        """Send a signal to it, or to its process group, and wait for its end; descriptions of problems."""
        descendants = _descendants(self._process.pid)
        (os.killpg if to_group else os.kill)(self._process.pid, number)
        try:
            code = self._process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return [f"runs on for {_END_SECONDS:.0f} s"]
        output, problems = self.output(), []
        if code not in (0, -number, 128 + number):
            problems.append(f"exit code {code}: {output[-400:]!r}")
        if "Traceback" in output or "Exception ignored" in output:
            problems.append(f"traceback: {output[-2000:]!r}")
        if code == 128 + number and sum(line in _LAST_LINES for line in output.splitlines()) != 1:
            problems.append(f"not one line: {output[-400:]!r}")
        return problems + [f"process {process} outlives it" for process in self._survivors(descendants)]

    def _survivors(self, descendants: set[ProcessIdentity]) -> list[int]:
        """Processes that go on after the end: descendants from before the signal, and others of its session."""
        end = time.monotonic() + _ORPHAN_SECONDS
        while True:
            others = {process for process in _processes() if _session_of(process.number) == self._process.pid}
            running = [process.number for process in descendants | others if not process.has_ended()]
            if not running or time.monotonic() > end:
                return running
            time.sleep(_POLL_SECONDS)


def _descendants(leader: int) -> set[ProcessIdentity]:
    """The descendants of a process on this machine."""
    parents = {process: _parent_of(process.number) for process in _processes()}
    family = {leader}
    while found := {process.number for process, parent in parents.items() if parent in family} - family:
        family |= found
    return {process for process in parents if process.number in family - {leader}}


def _processes() -> list[ProcessIdentity]:
    return [identify(int(path.name)) for path in Path("/proc").glob("[0-9]*")]


def _parent_of(process: int) -> int | None:
    return _stat_number(process, 1)


def _session_of(process: int) -> int | None:
    return _stat_number(process, 3)


def _stat_number(process: int, field_number: int) -> int | None:
    """A number from /proc/PID/stat; None for a process that has ended."""
    with suppress(OSError):
        return int(stat_fields(Path(f"/proc/{process}"))[field_number])
    return None


def _temporary_files(out: Path) -> Iterator[Path]:
    """Files that are being written, or that a killed process has left."""
    for folder, folders, files in os.walk(out):
        yield from (Path(folder, name) for name in (*folders, *files) if name.startswith(".") and name != ".metadata")


def _start_over(command: Command, out: Path) -> None:
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    command.prepare(out)


def _undisturbed(command: Command, out: Path) -> Files:
    _start_over(command, out)
    _check(command.words(out))
    return compared_files(out)


def _finish(command: Command, out: Path, expected: Files) -> list[str]:
    """Run a command until it ends, and compare its result; descriptions of problems."""
    for _ in range(_MOST_RESTARTS):
        run = _Run(command.words(out))
        if run.wait() == 0:
            return _examine(run, out, expected)
    return [f"can't be finished: {run.output()[-400:]!r}"]


def _examine(run: _Run, out: Path, expected: Files) -> list[str]:
    if run.wait() != 0:
        return [f"does not start again: {run.output()[-400:]!r}"]
    found = compared_files(out)
    problems = [f"{name} differs" for name in expected if name in found and found[name] != expected[name]]
    problems += [f"{name} is missing" for name in expected.keys() - found.keys()]
    return problems + [f"{name} is left behind" for name in sorted(found.keys() - expected.keys())]


def _check(words: Sequence[str]) -> None:
    run = _Run(words)
    if run.wait() != 0:
        raise ConfigError(f"{' '.join(words)} failed: {run.output()[-1000:]}")


def compared_files(out: Path) -> Files:
    """All files below a directory, with a sum of the numbers that must not depend on interruptions.

    Not listed are TensorBoard's files, of which each start of a command writes one, and the records of an earlier start
    of pretraining that had not saved a checkpoint.
    """
    paths = [path for path in sorted(out.rglob("*")) if path.is_file()]
    return {
        path.relative_to(out).as_posix(): _digest(path)
        for path in paths
        if not path.match("events.*") and not path.match("metrics.[0-9]*.jsonl")
    }


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    for name, value in _values(path):
        digest.update(name.encode())
        digest.update(value if isinstance(value, bytes) else repr(value).encode())
    return digest.hexdigest()


def _values(path: Path) -> Iterator[tuple[str, bytes | float]]:
    """Named numbers and bytes of a file; nothing for a file of logs, times or paths."""
    if path.suffix == ".npz":
        with zipfile.ZipFile(path) as archive:  # whose own bytes contain times
            yield from ((name, archive.read(name)) for name in sorted(archive.namelist()))
    elif path.name == "metrics.jsonl":
        for line in path.read_text(encoding="utf-8").splitlines():
            record = json.loads(line)
            if record.get("kind") != "start":  # each start of pretraining writes one
                yield from leaves(record, "metrics")
    elif path.match("conversion.json"):
        yield from leaves(json.loads(path.read_text(encoding="utf-8"))["certificate"], "certificate")
    elif path.suffix in (".csv", ".md") or path.name == "regression.json":
        yield path.name, path.read_bytes()
    elif path.name == "data.mdb":
        yield from leaves(load(path.parent), path.parent.name)
    else:
        yield from leaves(load(path), path.name)


@contextmanager
def _working_directory(path: str) -> Iterator[None]:
    before = Path.cwd()
    os.chdir(path)
    try:
        yield
    finally:
        os.chdir(before)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    kill = commands.add_parser("kill", help="signals at random moments")
    kill.add_argument("--kills", type=int, default=20, metavar="N", help="signals per command (default %(default)s)")
    kill.add_argument(
        "--signals",
        nargs="+",
        choices=SIGNALS,
        default=["KILL"],
        metavar="SIGNAL",
        help=f"signals to choose from: {', '.join(SIGNALS)} (default KILL)",
    )
    kill.set_defaults(run=inject_kills, title="signals")
    disk = commands.add_parser("disk-full", help="too little space on the disk")
    disk.add_argument("--trials", type=int, default=8, metavar="N", help="runs per command (default %(default)s)")
    disk.set_defaults(run=inject_full_disks, title="full disks")
    for subparser in (kill, disk):
        subparser.add_argument(
            "--commands", nargs="+", choices=COMMANDS, default=DEFAULT, metavar="COMMAND", help=f"{', '.join(COMMANDS)}"
        )
        subparser.add_argument("--seed", type=int, default=0, help="seed of the moments and sizes (default 0)")
    return parser


if __name__ == "__main__":
    sys.exit(run_cli(main))
