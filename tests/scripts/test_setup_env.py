"""scripts/setup_env.sh: chooses a Python, reports what is missing, installs once. Nothing is downloaded here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent
Run = Callable[..., "subprocess.CompletedProcess[str]"]

# The Python of an environment, which records pip's arguments instead of running pip; PIP_FAILS makes it fail.
RECORDING_PYTHON = """#!/bin/bash
if [ "${1:-} ${2:-}" = "-m pip" ]; then
    echo "$@" >>"$CALLS"
    if [ -n "${PIP_FAILS:-}" ]; then echo "no matching distribution" >&2; exit 1; fi
    exit 0
fi
exec "$REAL_PYTHON" "$@"
"""
TOO_OLD = '#!/bin/bash\nif [ "$1" = "--version" ]; then echo "Python 3.8.0"; exit 0; fi\nexit 1\n'
NO_VENV = '#!/bin/bash\ncase "$*" in *ensurepip*) exit 1 ;; *) exec "$REAL_PYTHON" "$@" ;; esac\n'
MAKES_VENV = """#!/bin/bash
if [ "${1:-} ${2:-}" = "-m venv" ]; then echo "$@" >>"$CALLS"; exit 0; fi
exec "$REAL_PYTHON" "$@"
"""


def write_executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(0o755)
    return path


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A copy of the files that the script reads."""
    root = tmp_path / "repository"
    for name in ("scripts/setup_env.sh", "pyproject.toml", "setup.py", "tape/version.py"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    shutil.copytree(ROOT / "requirements", root / "requirements")
    return root


@pytest.fixture
def setup_env(tree: Path, tmp_path: Path) -> Run:
    """Runs the copied script with the given arguments and environment variables."""

    def run(*words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("PROTEINLM_", "PIP_"))}
        settings = {**clean, "REAL_PYTHON": sys.executable, "CALLS": str(tmp_path / "calls"), **variables}
        command = ["bash", str(tree / "scripts" / "setup_env.sh"), *words]
        return subprocess.run(command, env=settings, capture_output=True, text=True, timeout=60, check=False)

    return run


@pytest.fixture
def recording_venv(tree: Path) -> Path:
    venv = tree / ".venv"
    write_executable(venv / "bin" / "python", RECORDING_PYTHON)
    write_executable(venv / "bin" / "pip", "#!/bin/bash\n")
    (venv / "pyvenv.cfg").write_text("", encoding="utf-8")
    return venv


def pip_calls(tmp_path: Path) -> list[str]:
    calls = tmp_path / "calls"
    return calls.read_text(encoding="utf-8").splitlines() if calls.exists() else []


@pytest.mark.usefixtures("recording_venv")
def test_packages_are_installed_once(setup_env: Run, tree: Path, tmp_path: Path) -> None:
    assert setup_env("run").returncode == 0
    first = pip_calls(tmp_path)
    assert any("requirements/run.txt" in call for call in first)
    assert any("--editable" in call and "--no-deps" in call for call in first)
    again = setup_env("run")
    assert (again.returncode, again.stdout, pip_calls(tmp_path)) == (0, "", first)
    with (tree / "requirements" / "run.txt").open("a", encoding="utf-8") as stream:
        stream.write("\n# another pin\n")
    assert setup_env("run").returncode == 0
    assert len(pip_calls(tmp_path)) == 2 * len(first)


@pytest.mark.usefixtures("recording_venv")
def test_the_test_packages_include_the_run_packages_but_not_the_reverse(setup_env: Run, tmp_path: Path) -> None:
    assert setup_env("run").returncode == 0
    assert setup_env("test").returncode == 0
    after_both = pip_calls(tmp_path)
    assert sum("requirements/test.txt" in call for call in after_both) == 1
    assert setup_env("run").returncode == 0
    assert pip_calls(tmp_path) == after_both


def test_a_failed_installation_is_reported_and_retried(setup_env: Run, recording_venv: Path, tmp_path: Path) -> None:
    failed = setup_env("run", PIP_FAILS="1")
    assert failed.returncode != 0
    assert "no matching distribution" in failed.stderr
    assert "install.log" in failed.stderr
    assert not list(recording_venv.glob("*.stamp"))
    tried = len(pip_calls(tmp_path))
    assert setup_env("run").returncode == 0
    assert len(pip_calls(tmp_path)) > tried


def test_an_old_python_is_refused(setup_env: Run, tmp_path: Path) -> None:
    programs = tmp_path / "bin"
    for name in ("python3", "python3.13", "python3.12", "python3.11", "python3.10", "python"):
        write_executable(programs / name, TOO_OLD)
    refused = setup_env("run", PATH=f"{programs}{os.pathsep}{os.environ['PATH']}")
    assert refused.returncode != 0
    assert refused.stderr.startswith("error: no Python 3.10")
    assert "Python 3.8.0" in refused.stderr


def test_a_python_without_venv_is_named(setup_env: Run, tmp_path: Path) -> None:
    python = write_executable(tmp_path / "python-without-venv", NO_VENV)
    refused = setup_env("run", PROTEINLM_PYTHON=str(python))
    assert refused.returncode != 0
    assert "python3-venv" in refused.stderr


def test_an_unknown_python_or_package_set_is_refused(setup_env: Run, tmp_path: Path) -> None:
    old = write_executable(tmp_path / "old-python", TOO_OLD)
    assert str(old) in setup_env("run", PROTEINLM_PYTHON=str(old)).stderr
    assert "usage: setup_env.sh run|test" in setup_env("everything").stderr
    assert setup_env().returncode != 0


def test_a_directory_that_is_not_an_environment_is_not_replaced(setup_env: Run, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    write_executable(precious / "thesis.txt", "years of work")
    refused = setup_env("run", PROTEINLM_VENV=str(precious))
    assert refused.returncode != 0
    assert "it is not changed" in refused.stderr
    assert (precious / "thesis.txt").exists()


def test_a_moved_environment_is_recreated(setup_env: Run, recording_venv: Path, tmp_path: Path) -> None:
    (recording_venv / "made_at").write_text("/elsewhere/.venv\n", encoding="utf-8")
    python = write_executable(tmp_path / "python-making-venvs", MAKES_VENV)
    moved = setup_env("run", PROTEINLM_PYTHON=str(python))
    assert moved.returncode == 0, moved.stderr
    assert f"setup: creating {recording_venv}" in moved.stdout
    assert "-m venv --clear" in pip_calls(tmp_path)[0]
    assert (recording_venv / "made_at").read_text(encoding="utf-8").strip() == str(recording_venv)
    assert setup_env("run").stdout == ""
