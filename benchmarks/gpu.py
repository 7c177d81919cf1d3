#!/usr/bin/env python
"""Everything that needs a GPU, in one call of less than ten minutes: tests, NCCL, speed, utilization and a profile.

    python benchmarks/gpu.py --json gpu.json
    python benchmarks/gpu.py --json tiny.json --tiny      every stage at a toy size, in two minutes, also without a GPU

Stages run in the order of importance and are skipped when --budget seconds have passed; the result file is complete
after each. The model FLOP utilization refers to the rate of matrix products measured in the same call. The training
step is that of pretrain_tape.py, with dropout 0.1 as in the original's scripts, on rows of the packaged sample of real
proteins or of --corpus. A stage that fails or takes too long ends its process only.

It needs this repository, torch >= 2.11, numpy, tqdm and lmdb, and for the tests pytest and pytest-timeout; not the
project's other dependencies, which no stage imports. Nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

from benchmarks.gpu_stage_names import stage_names
from benchmarks.peers.protocol import ROOT, Worker, WorkerError
from tape.cli.parser import ArgumentParser
from tape.errors import ProteinLMError, run_cli
from tape.io.writing import write_json
from tape.runtime.cpu import usable_cores

SCHEMA, VERSION = "proteinlm-gpu-benchmark", 1
_BUDGET = 540.0  # seconds
_SHORTEST = 10.0  # seconds that must be left to start a stage
_LONGEST = 150.0  # seconds after which a stage has hung; compiling the largest model takes the longest


class GpuRun:
    """Runs stages and stores their results.

    Args:
        options: the command line.
        folder: directory for prepared data.
    """

    def __init__(self, options: argparse.Namespace, folder: Path) -> None:
        self._options, self._folder = options, folder
        self._end = time.monotonic() + options.budget
        self._worker: Worker | None = None
        self.stages: dict[str, dict[str, Any]] = {}

    def run(self, name: str) -> None:
        """Run a stage, unless there is no time left, and write the results of all stages so far."""
        left = self._end - time.monotonic()
        began = time.monotonic()
        if left < _SHORTEST:
            result: dict[str, Any] = {"status": "skipped"}
        else:
            result = self._run(name, min(left, _LONGEST))
            result["stage_seconds"] = round(time.monotonic() - began, 2)
        self.stages[name] = result
        print(f"{name}: {_line(result)}", flush=True)
        write_json(self._options.json, {"schema": SCHEMA, "version": VERSION, "stages": self.stages})

    def _run(self, name: str, seconds: float) -> dict[str, Any]:
        if name == "tests":
            return run_tests(self._folder, seconds)
        until = time.monotonic() + seconds
        try:
            worker = self._open_worker(seconds)
            return {"status": "ok", **worker.ask({"stage": name}, until - time.monotonic())}
        except WorkerError as error:
            is_late = time.monotonic() >= until
            self.close()  # the next stage gets another process
            return {"status": "failed", "reason": _late(seconds) if is_late else str(error)}

    def _open_worker(self, seconds: float) -> Worker:
        if self._worker is None:
            setup = {"tiny": self._options.tiny, "corpus": self._options.corpus, "folder": str(self._folder)}
            environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
            module, threads = "benchmarks.gpu_stages", usable_cores()
            self._worker = Worker(module, Path(sys.executable), setup, threads, environment, seconds)
        return self._worker

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None


def run_tests(folder: Path, seconds: float) -> dict[str, Any]:
    """The tests marked gpu, in a process of their own.

    Returns:
        Numbers of tests by result, and the first line of each failure.
    """
    report = folder / "tests.xml"
    files = [str(path) for path in sorted((ROOT / "tests").rglob("test_*.py")) if "mark.gpu" in path.read_text("utf-8")]
    command = [sys.executable, "-m", "pytest", "-m", "gpu", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    try:
        code = subprocess.run([*command, *files], cwd=ROOT, timeout=seconds).returncode
    except subprocess.TimeoutExpired:
        return {"status": "failed", "reason": _late(seconds)}
    if not report.exists():
        return {"status": "failed", "reason": f"pytest ended with status {code}"}
    suite = next(ElementTree.parse(report).iter("testsuite"))
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    failed = {
        f"{case.get('classname')}::{case.get('name')}": (found.get("message") or "").split("\n")[0]
        for case in suite.iter("testcase")
        for found in (*case.iter("failure"), *case.iter("error"))
    }
    return {"status": "failed" if failed or code else "ok", **counts, "failed": failed}


def _late(seconds: float) -> str:
    return f"not finished in {seconds:.0f} seconds"


def _line(result: dict[str, Any]) -> str:
    """The result of a stage for the console, without nested values."""
    shown = {name: f"{value:.4g}" if isinstance(value, float) else value for name, value in result.items()}
    return ", ".join(f"{name} {value}" for name, value in shown.items() if not isinstance(value, dict | list))


def main(words: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="file for the results")
    parser.add_argument("--budget", type=float, default=_BUDGET, metavar="SECONDS", help="default: %(default)s")
    parser.add_argument("--corpus", help="prefix of a corpus for pretraining (without .bin)")
    parser.add_argument("--stages", nargs="+", default=stage_names(), choices=stage_names(), metavar="STAGE")
    parser.add_argument("--tiny", action="store_true", help="toy sizes, to try the script")
    options = parser.parse_args(words)
    with tempfile.TemporaryDirectory() as folder:
        run = GpuRun(options, Path(folder))
        try:
            for name in options.stages:
                run.run(name)
        finally:
            run.close()
    failed = [name for name, result in run.stages.items() if result["status"] == "failed"]
    if failed:
        stages = f"{len(failed)} of {len(run.stages)} stages failed: {', '.join(failed)}"
        raise ProteinLMError(f"{stages}; {options.json} has the reasons")


if __name__ == "__main__":
    sys.exit(run_cli(main))
