"""How errors are printed to the user."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest

from tape.errors import ConfigError, DataError, ProteinLMError, UnknownResidueError, listed, quoted, run_cli
from tape.io.writing import atomic_write


@pytest.mark.parametrize("kind", [ProteinLMError, DataError, UnknownResidueError, ConfigError])
def test_every_user_error_is_printed_on_one_line(kind, capsys):
    def fail() -> None:
        raise kind("train.fasta, record 3: empty")

    assert run_cli(fail) == 1
    assert capsys.readouterr().err == "error: train.fasta, record 3: empty\n"


def test_exit_codes_of_commands():
    assert run_cli(lambda: None) == 0
    assert run_cli(lambda: 3) == 3

    def interrupt() -> None:
        raise KeyboardInterrupt

    assert run_cli(interrupt) == 130
    with pytest.raises(ZeroDivisionError):  # a bug keeps its traceback
        run_cli(lambda: 1 // 0)


def test_sigterm_removes_temporary_files_and_gives_exit_code_143(tmp_path, capsys):
    def terminated() -> None:
        with atomic_write(tmp_path / "file"):
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    assert run_cli(terminated) == 143
    assert capsys.readouterr().err == "terminated\n"
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL


def test_a_second_sigterm_does_not_end_the_cleanup(tmp_path):
    def terminated() -> None:
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            (tmp_path / "cleaned").touch()

    assert run_cli(terminated) == 143
    assert (tmp_path / "cleaned").exists()


def test_operating_system_errors_name_the_path(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert run_cli(lambda: (tmp_path / "file" / "x").mkdir()) == 1
    assert run_cli(lambda: (tmp_path / "file").rename(tmp_path / "absent" / "y")) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: {tmp_path / 'file' / 'x'}: Not a directory"
    assert second == f"error: {tmp_path / 'absent' / 'y'}: No such file or directory"


def test_base_modules_do_not_import_torch():
    code = "import sys, tape.errors, tape.tokenizers, tape.configs, tape.masking; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_ordinary_values_are_quoted_whole():
    assert [quoted(value) for value in (12, "relu", None, [1, 2], {"a": 1})] == [
        "12",
        "'relu'",
        "None",
        "[1, 2]",
        "{'a': 1}",
    ]


def test_quotes_of_values_from_files_are_short():
    nested = [0]
    for _ in range(60):
        nested = [nested, nested]  # 2^60 elements in its repr
    for value in (nested, "a" * 10**6, 10**5000, list(range(10**6)), dict.fromkeys(range(10**5)), bytes(10**6)):
        assert len(quoted(value)) <= 200


class _Unprintable:
    def __repr__(self) -> str:
        raise AssertionError("the whole repr was made")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (OrderedDict(a=_Unprintable()), "{'a': _Unprintable}"),
        (Namespace(a=1), "Namespace"),
        (np.zeros((2, 3)), "ndarray of shape (2, 3)"),
        (np.str_("relu"), "'relu'"),
        (True, "True"),
        (b"PK", "b'PK'"),
        (1e-5, "1e-05"),
        (Path("a"), f"{Path('a')!r}"),
    ],
)
def test_the_repr_of_other_classes_is_not_made(value, expected):
    assert quoted(value) == expected


def test_listed_names_are_bounded():
    assert listed([]) == "none"
    assert listed(["id", "text"]) == "id, text"
    assert listed(["x" * 5000]) == "x" * 37 + "..."
    assert listed(map(str, range(30)), 3) == "0, 1, 2 ..."
