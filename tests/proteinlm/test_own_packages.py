"""A user's own files with the names of our packages do not break a command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from proteinlm import own_packages
from proteinlm.own_packages import OwnPackages

FAILS = "raise SystemExit('a file of the user was imported')\n"


@pytest.fixture
def user_directory(tmp_path: Path) -> Path:
    """A working directory with modules and packages of a user that have our names."""
    for name in ("tape.py", "pretrain.py", "random.py"):
        (tmp_path / name).write_text(FAILS, encoding="utf-8")
    for name in ("converter", "scripts"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text(FAILS, encoding="utf-8")
    return tmp_path


@pytest.fixture
def site(repository_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of installed packages with ours, as links."""
    site = tmp_path_factory.mktemp("site")
    for name in own_packages.NAMES:
        (site / name).symlink_to(repository_root / name)
    return site


def run(code: list[str], site: Path, cwd: Path, first: str = "") -> subprocess.CompletedProcess[str]:
    paths = os.pathsep.join([*([first] if first else []), str(site)])
    environment = {**os.environ, "PYTHONPATH": paths}
    return subprocess.run(
        [sys.executable, *code], cwd=cwd, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("command", ["convert", "prepare", "preprocess", "pretrain", "train"])
def test_a_command_ignores_files_on_the_search_path_with_names_of_our_packages(
    command: str, site: Path, user_directory: Path
) -> None:
    (user_directory / "random.py").unlink()  # PYTHONPATH is to replace modules of the standard library
    code = f"import sys; sys.argv = ['proteinlm', {command!r}, '--help']\n"
    code += "from proteinlm.command import main; sys.exit(main())"
    result = run(["-c", code], site, user_directory, first=str(user_directory))
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith(f"usage: proteinlm {command} ")


def test_python_m_ignores_the_working_directory(site: Path, user_directory: Path) -> None:
    result = run(["-m", "proteinlm", "download", "absent"], site, user_directory)
    assert "unknown data set absent" in result.stderr


def test_the_working_directory_of_a_clone_is_kept(monkeypatch: pytest.MonkeyPatch, repository_root: Path) -> None:
    monkeypatch.chdir(repository_root)
    monkeypatch.setattr(sys, "path", [str(repository_root), "other"])
    own_packages.forget_working_directory()
    assert sys.path == [str(repository_root), "other"]


def test_another_working_directory_is_forgotten(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), "other"])
    own_packages.forget_working_directory()
    assert sys.path == ["other"]


def test_the_finder_is_installed_once() -> None:
    own_packages.install()
    assert sys.meta_path.count(OwnPackages) == 1


def test_the_finder_leaves_other_names_to_the_others() -> None:
    assert OwnPackages.find_spec("random") is None
