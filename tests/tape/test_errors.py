"""How errors are printed to the user."""

from __future__ import annotations

import os
import pickle
import re
import signal
import subprocess
import sys
import time
from argparse import Namespace
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tape.errors import ConfigError, DataError, ProteinLMError, UnknownResidueError, listed, quoted, readable, run_cli
from tape.io.writing import atomic_write
from tests.support.terminal_signals import LAST_LINES, terminal_handlers


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


@pytest.mark.parametrize(
    ("error", "memory"),
    [
        (MemoryError(), "memory"),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried 4 bytes"), "memory"),
        (RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"), "GPU memory"),
    ],
)
def test_a_lack_of_memory_is_printed_on_one_line(
    error: Exception, memory: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def load() -> None:
        raise error

    assert run_cli(load) == 1
    line = f"error: out of {memory}; a smaller model or a machine with more memory is needed\n"
    assert capsys.readouterr().err == line


@pytest.mark.parametrize("error", [RuntimeError("shapes differ"), ValueError("not enough memory")])
def test_other_errors_are_no_lack_of_memory(error: Exception) -> None:
    def fail() -> None:
        raise error

    with pytest.raises(type(error)):
        run_cli(fail)


@pytest.fixture(autouse=True)
def default_handlers() -> Iterator[None]:
    with terminal_handlers():
        yield


def stop_here(number: int) -> None:
    signal.raise_signal(number)
    time.sleep(5)


@pytest.mark.parametrize("number", LAST_LINES)
def test_a_stop_signal_removes_temporary_files_and_gives_its_exit_code(tmp_path, capsys, number):
    before = signal.getsignal(number)

    def stopped() -> None:
        with atomic_write(tmp_path / "file"):
            stop_here(number)

    assert run_cli(stopped) == 128 + number
    assert capsys.readouterr().err == f"{LAST_LINES[number]}\n"
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) == before


@pytest.mark.parametrize("second", LAST_LINES)
@pytest.mark.parametrize("first", LAST_LINES)
def test_a_second_signal_does_not_end_the_cleanup(tmp_path, first, second):
    def stopped() -> None:
        try:
            stop_here(first)
        finally:
            signal.raise_signal(second)
            (tmp_path / "cleaned").touch()

    assert run_cli(stopped) == 128 + first
    assert (tmp_path / "cleaned").exists()


def test_a_cleanup_that_hangs_is_ended_by_a_later_signal(monkeypatch):
    monkeypatch.setattr("tape.interrupts.SAME_REQUEST_SECONDS", 0.0)

    def hangs() -> None:
        try:
            stop_here(signal.SIGTERM)
        finally:
            stop_here(signal.SIGTERM)

    child = os.fork()
    if child == 0:
        run_cli(hangs)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGTERM


@pytest.mark.parametrize("number", LAST_LINES)
def test_a_signal_during_a_destructor_is_not_lost(capsys, number):
    class Destroyed:
        def __del__(self) -> None:
            stop_here(number)

    def command() -> None:
        Destroyed()
        time.sleep(5)

    assert run_cli(command) == 128 + number
    assert capsys.readouterr().err == f"{LAST_LINES[number]}\n"


def test_an_error_that_a_signal_causes_is_not_reported(capsys):
    """numpy reports an interrupt while it is imported as an ImportError."""

    def command() -> None:
        try:
            stop_here(signal.SIGINT)
        except KeyboardInterrupt:
            raise ImportError("numpy's extensions can't be imported") from None

    assert run_cli(command) == 130
    assert capsys.readouterr().err == "interrupted\n"


def test_an_interrupt_at_the_exit_of_a_command_has_no_traceback():
    code = """
import atexit, os, signal, sys, time
from tape.errors import run_cli
signal.signal(signal.SIGINT, signal.default_int_handler)
def stop():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(5)
sys.exit(run_cli(lambda: atexit.register(stop)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (-signal.SIGINT, "")


def test_nohup_is_respected():
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert run_cli(lambda: signal.raise_signal(signal.SIGHUP)) == 0


def test_operating_system_errors_name_the_path(capsys, tmp_path):
    (tmp_path / "file").touch()
    assert run_cli(lambda: (tmp_path / "file" / "x").mkdir()) == 1
    assert run_cli(lambda: (tmp_path / "file").rename(tmp_path / "absent" / "y")) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert first == f"error: {tmp_path / 'file' / 'x'}: Not a directory"
    assert second == f"error: {tmp_path / 'absent' / 'y'}: No such file or directory"


HOSTILE = "\x1b]0;title\x07\udc80\n"
ESCAPED = r"\x1b]0;title\x07\udc80\n"


@pytest.mark.parametrize(
    "error", [DataError(f"{HOSTILE}: empty"), FileNotFoundError(2, "empty", HOSTILE), OSError(f"{HOSTILE}: empty")]
)
def test_names_in_messages_are_escaped(error: Exception, capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise error

    assert run_cli(fail) == 1
    assert capsys.readouterr().err == f"error: {ESCAPED}: empty\n"


def test_details_are_printed_below_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise DataError("a step failed:", details=["  | one", f"  | {HOSTILE}"])

    assert run_cli(fail) == 1
    assert capsys.readouterr().err == f"error: a step failed:\n  | one\n  | {ESCAPED}\n"


def test_details_survive_the_way_to_another_process() -> None:
    assert pickle.loads(pickle.dumps(DataError("a", details=["b"]))).details == ["b"]


def test_long_names_lose_their_middle_and_the_message_nothing() -> None:
    message = readable(f"{'x' * 70_000}: empty; {'choose another file, ' * 20}")
    assert re.fullmatch(r"x+\.\.\.x+: empty; (choose another file, ){20}", message)
    assert len(message.split(" ")[0]) == 500  # the colon is the last
    assert readable("a list of options, " * 100) == "a list of options, " * 100


def test_a_message_has_at_most_4000_characters() -> None:
    assert len(readable("word " * 20_000)) == 4000
    assert len(readable("\x1b" * 70_000)) <= 4000


def run_with(main: str, redirection: str, *, unbuffered: bool = False) -> subprocess.CompletedProcess[str]:
    """Run a function with access to ``sys`` and ``os`` by run_cli, with redirected output."""
    code = f"import os, sys\nfrom tape.errors import DataError, run_cli\n{main}\nsys.exit(run_cli(main))"
    words = f'"$0" -c "$1" {redirection}'
    environment = {**os.environ, "PYTHONIOENCODING": "utf-8", "PYTHONUNBUFFERED": "1" if unbuffered else ""}
    command = ["bash", "-c", words, sys.executable, code]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


def without_reader(descriptor: int) -> str:
    """Statements that make an output stream a pipe whose reader has exited."""
    return f"ends = os.pipe(); os.close(ends[0]); os.dup2(ends[1], {descriptor})"


@pytest.mark.parametrize("unbuffered", [False, True])
@pytest.mark.parametrize("end", ["", "; raise SystemExit(0)", "; raise DataError('bad')"])
def test_a_reader_that_has_exited_ends_a_command_quietly(end: str, unbuffered: bool) -> None:
    result = run_with(f"def main(): {without_reader(1)}; print('a line'){end}", "", unbuffered=unbuffered)
    assert result.returncode == 1
    assert result.stderr == ("error: bad\n" if "Data" in end and not unbuffered else "")


def test_another_broken_pipe_is_an_error() -> None:
    result = run_with("def main(): raise BrokenPipeError(32, 'Broken pipe', 'fifo')", "")
    assert (result.returncode, result.stderr) == (1, "error: fifo: Broken pipe\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_full_disk_of_the_standard_output_is_an_error() -> None:
    result = run_with("def main(): print('a line')", ">/dev/full")
    assert result.returncode == 1
    assert result.stderr == "error: the standard output: can't be written: No space left on device\n"


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_output_does_not_change_the_exit_code(redirection: str) -> None:
    done = run_with("def main(): print('a line')", redirection)
    assert (done.returncode, done.stderr) == (0, "")
    failed = run_with("def main(): raise DataError('bad')", redirection)
    assert (failed.returncode, failed.stdout) == (1, "")
    assert failed.stderr == ("" if "2" in redirection else "error: bad\n")


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_streams_are_opened_for_libraries(redirection: str) -> None:
    main = "def main(): assert os.fstat(2) and not sys.stderr.isatty() and not sys.stdout.isatty()"
    assert run_with(main, redirection).returncode == 0


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("print('a', file=sys.stderr, flush=True)", 1),
        ("raise DataError('bad')", 1),
        ("sys.stderr.buffer.write(b'a')", 0),
    ],
)
def test_errors_that_nobody_reads_do_not_change_the_exit_code(end: str, code: int) -> None:
    assert run_with(f"def main(): {without_reader(2)}; {end}", "").returncode == code


def test_names_that_are_no_text_can_be_printed() -> None:
    result = run_with("def main(): print('a\\udc80')", "")
    assert (result.returncode, result.stdout, result.stderr) == (0, "a\\udc80\n", "")


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
