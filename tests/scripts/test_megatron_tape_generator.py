"""megatron-tape-generator.sh: from a checkpoint directory to a model directory in one call."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tape.models.modeling_bert import ProteinBertForMaskedLM
from tests.converter.formats.sharded.test_source import save
from tests.support.megatron_writer import make_truth, only_rank, write_megatron

SCRIPT = Path("scripts") / "shells" / "megatron-tape-generator.sh"


def generate(root: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script in ``folder`` without stdin, so that a prompt would fail."""
    return subprocess.run(
        ["bash", str(root / SCRIPT), *arguments],
        cwd=folder,
        env={**os.environ, "PYTHON": sys.executable},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def test_default_directories_are_used_without_arguments(tmp_path: Path, repository_root: Path) -> None:
    written = write_megatron(tmp_path / "run", make_truth())
    (tmp_path / "models" / "mega").mkdir(parents=True)
    shutil.copy(only_rank(written), tmp_path / "models" / "mega")
    result = generate(repository_root, tmp_path)
    assert result.returncode == 0, result.stderr
    assert "megatron-converter.py -src ./models/mega -out ./models/out/pytorch_model.bin" in result.stdout
    assert {"config.json", "pytorch_model.bin", "conversion.json"} <= {
        p.name for p in (tmp_path / "models/out").iterdir()
    }
    ProteinBertForMaskedLM.from_pretrained(tmp_path / "models" / "out")


@pytest.mark.parametrize("kind", ["classic", "sharded"])
def test_checkpoint_directories_are_converted(tmp_path: Path, repository_root: Path, kind: str) -> None:
    source = tmp_path / "a checkpoint"
    if kind == "classic":
        write_megatron(source, make_truth(), tp=2, version=1.0)
    else:
        save(source)
    result = generate(repository_root, tmp_path, str(source), "result")
    assert result.returncode == 0, result.stderr
    ProteinBertForMaskedLM.from_pretrained(tmp_path / "result")


def test_an_interpreter_without_torch_is_an_error(
    tmp_path: Path, repository_root: Path, assert_clean_error: Callable[..., None]
) -> None:
    """A machine with python3 and no .venv; a PYTHON that does not exist is ignored."""
    shutil.copytree(repository_root / SCRIPT.parent, tmp_path / SCRIPT.parent)
    bare = tmp_path / "bin" / "python3"
    bare.parent.mkdir()
    bare.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -I -S "$@"\n', encoding="utf-8")
    bare.chmod(0o755)
    environment = {"PATH": f"{bare.parent}:{os.environ['PATH']}", "PYTHON": "absent"}
    command = ["bash", str(tmp_path / SCRIPT)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert_clean_error(result, "python3 has no torch", "bash scripts/setup_env.sh run")
    assert len(result.stderr.splitlines()) == 1
    assert result.stdout == ""


def test_a_missing_checkpoint_is_a_one_line_error(tmp_path: Path, repository_root: Path) -> None:
    result = generate(repository_root, tmp_path)
    assert result.returncode == 1
    assert "error: models/mega: no such file or directory" in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "models").exists()
