"""What a user sees of an error."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tape.errors import ConfigError, DataError, ProteinLMError, UnknownResidueError, run_cli


@pytest.mark.parametrize("kind", [ProteinLMError, DataError, UnknownResidueError, ConfigError])
def test_every_error_shows_its_sentence(kind, capsys):
    def fail() -> None:
        raise kind("train.fasta, record 3: empty")

    assert run_cli(fail) == 1
    assert capsys.readouterr().err == "error: train.fasta, record 3: empty\n"


def test_exit_codes():
    assert run_cli(lambda: None) == 0
    assert run_cli(lambda: 3) == 3

    def interrupt() -> None:
        raise KeyboardInterrupt

    assert run_cli(interrupt) == 130
    with pytest.raises(ZeroDivisionError):  # a fault of ours keeps its traceback
        run_cli(lambda: 1 // 0)


def test_what_the_system_refuses_names_the_path(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert run_cli(lambda: (tmp_path / "file" / "x").mkdir()) == 1
    assert run_cli(lambda: (tmp_path / "file").rename(tmp_path / "absent" / "y")) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: {tmp_path / 'file' / 'x'}: Not a directory"
    assert second == f"error: {tmp_path / 'absent' / 'y'}: No such file or directory"


def test_base_modules_do_not_import_torch():
    code = "import sys, tape.errors, tape.tokenizers, tape.configs, tape.masking; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
