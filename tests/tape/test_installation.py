"""An environment with tape-proteins, whose package has the same name."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tape.installation import find_mixture

ROOT = Path(__file__).resolve().parents[2]
MESSAGE = "and both it and proteinlm consist of a package named tape, whose files are now mixed"
SCRIPT = "import sys\nfrom tape.commands import score_command\nsys.exit(score_command())\n"


def run(site: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, *words], env=environment, cwd=site, capture_output=True, text=True, check=False
    )


@pytest.fixture(params=["tape-proteins first", "proteinlm first"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Installed packages without their metadata; the later distribution has overwritten files of the earlier one."""
    shutil.copytree(ROOT / "tape", tmp_path / "tape", ignore=shutil.ignore_patterns("sample", "pretrained"))
    if request.param == "proteinlm first":
        (tmp_path / "tape" / "__init__.py").write_text("from . import datasets\nfrom . import metrics\n")
        (tmp_path / "tape" / "errors.py").write_text("class EarlyStopping(Exception):\n    pass\n")
    (tmp_path / "tape-score").write_text(SCRIPT)
    return tmp_path


def test_import_and_commands_end_with_one_sentence(site: Path) -> None:
    (site / "tape_proteins-0.5.dist-info").mkdir()
    imported = run(site, "-c", "import tape")
    assert imported.returncode == 1
    last = imported.stderr.splitlines()[-1]
    assert last.startswith(f"ImportError: tape-proteins 0.5 is installed in {site} too, {MESSAGE}")
    command = run(site, "tape-score", "--help")
    assert command.returncode == 1
    (line,) = command.stderr.splitlines()
    assert line.startswith(f"error: tape-proteins 0.5 is installed in {site} too, {MESSAGE}")


def test_tape_proteins_elsewhere_is_no_mixture(tmp_path: Path) -> None:
    """A checkout on the path comes before the installed packages."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "tape_proteins-0.5.dist-info").mkdir()
    result = run(
        tmp_path, "-c", f"import sys; sys.path[:0] = [{str(ROOT)!r}, 'site']; import tape; print(tape.__file__)"
    )
    assert result.stdout.strip() == str(ROOT / "tape" / "__init__.py")


@pytest.mark.parametrize("name", ["tape_proteins-0.5.dist-info", "tape_proteins-0.5-py3.9.egg-info"])
def test_the_version_is_that_of_the_metadata(tmp_path: Path, name: str) -> None:
    assert find_mixture(tmp_path) is None
    (tmp_path / name).mkdir()
    assert str(find_mixture(tmp_path)).startswith("tape-proteins 0.5 is installed in")
