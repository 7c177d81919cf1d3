"""Fixtures for all tests: paths of the repository and of the real data, running scripts, and checking their errors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tape.errors import run_cli
from tests.support.local_site import Site, serving

# One thread per process: the tests start several processes, and a CI runner may have only two cores.
# It is set here, before anything imports torch, and subprocesses inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "Agg")

REPOSITORY_ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = REPOSITORY_ROOT.parent / "shared" / "data"
DEFAULT_TIMEOUT_SECONDS = 300


@pytest.fixture(scope="session")
def repository_root() -> Path:
    """The directory with setup.py."""
    return REPOSITORY_ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The real protein data beside the repository; without them, the test is skipped, or fails if CI=true."""
    if SHARED_DATA.is_dir():
        return SHARED_DATA
    reason = f"needs the real data at {SHARED_DATA}"
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def run_script() -> Callable[..., subprocess.CompletedProcess[str]]:
    """`run_script("pretrain/tools/x.py", arg, ..., env={...}, cwd=..., timeout=..., check=False)`.

    Runs a Python script (a path relative to the repository root, or absolute) in a fresh interpreter with the
    repository importable, and returns the CompletedProcess with text output. `env` extends the environment.
    With check=True, a non-zero exit status fails the test and shows the script's output.
    """

    def run(
        script: str | Path,
        *arguments: object,
        env: dict[str, str] | None = None,
        cwd: Path | None = None,
        timeout: float = DEFAULT_TIMEOUT_SECONDS,
        check: bool = False,
    ) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, str(REPOSITORY_ROOT / script), *map(str, arguments)]
        result = subprocess.run(
            command,
            env=environment_with_repository(env),
            cwd=cwd or REPOSITORY_ROOT,
            timeout=timeout,
            capture_output=True,
            text=True,
            check=False,
        )
        if check and result.returncode != 0:
            pytest.fail(f"{' '.join(command)} ended with {result.returncode}\n{result.stdout}\n{result.stderr}")
        return result

    return run


@pytest.fixture(scope="session")
def assert_clean_error() -> Callable[..., None]:
    """`assert_clean_error(result, "file.fasta", "record 3")`: the script reported a user error.

    That is: exit status not 0, no traceback, a line starting with `error: ` (or argparse's `name: error: `), and each
    of the given words in its stderr.
    """

    def check(result: subprocess.CompletedProcess[str], *words: str) -> None:
        shown = f"exit status {result.returncode}\n{result.stdout}\n{result.stderr}"
        assert result.returncode != 0, f"expected a failure\n{shown}"
        assert "Traceback (most recent call last)" not in result.stdout + result.stderr, shown
        assert any("error: " in line for line in result.stderr.splitlines()), f"no `error: ` line\n{shown}"
        for word in words:
            assert word in result.stderr, f"{word!r} is missing from the message\n{shown}"

    return check


@pytest.fixture
def site() -> Iterator[Site]:
    """A local web server; see tests/support/local_site.py."""
    with serving() as served:
        yield served


@pytest.fixture
def in_an_empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every case in an empty working directory, with relative paths."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def fails(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`fails(command, *arguments)`: run a command in this process, which must print one error line; returns it."""

    def call(command: Callable[[], object], *arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["command", *map(str, arguments)])
        code = run_cli(command)
        shown = capsys.readouterr().err
        assert code == (2 if "(see --help)" in shown else 1), shown  # 2: the command line can't be parsed
        assert "Traceback" not in shown
        lines = [line for line in shown.splitlines() if line.startswith("error: ")]
        assert len(lines) == 1, shown
        return lines[0]

    return call


def environment_with_repository(extra: dict[str, str] | None = None) -> dict[str, str]:
    """This process's environment with the repository root first on PYTHONPATH, plus `extra`."""
    environment = dict(os.environ)
    paths = [str(REPOSITORY_ROOT), environment.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(path for path in paths if path)
    environment.update(extra or {})
    return environment
