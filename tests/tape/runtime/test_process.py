"""The log of a process: format, level, and handlers that are removed again."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from tape.runtime.process import log_to_file, log_to_terminal


def test_the_log_file_has_the_format_of_tape(tmp_path: Path) -> None:
    with log_to_terminal(logging.INFO), log_to_file(tmp_path / "log"):
        logging.getLogger("some.module").info("a message")
        logging.getLogger("some.module").debug("below the level")
    line = (tmp_path / "log").read_text()
    assert re.fullmatch(r"\d\d/\d\d/\d\d \d\d:\d\d:\d\d - INFO - some\.module -   a message\n", line)


def test_the_terminal_gets_messages_of_the_level_and_above(capsys: pytest.CaptureFixture[str]) -> None:
    with log_to_terminal(logging.WARNING):
        logging.getLogger("some.module").info("below the level")
        logging.getLogger("some.module").warning("a warning")
    output = capsys.readouterr()
    assert output.out == ""
    assert output.err.endswith(" - WARNING - some.module -   a warning\n")
    assert output.err.count("\n") == 1


def test_the_level_of_the_terminal_is_not_that_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with log_to_terminal(logging.ERROR), log_to_file(tmp_path / "log"):
        logging.getLogger("some.module").info("a message")
    assert capsys.readouterr().err == ""
    assert "a message" in (tmp_path / "log").read_text()


def test_handlers_and_level_are_restored(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    with log_to_terminal(logging.DEBUG), log_to_file(tmp_path / "log"):
        assert root.level == logging.DEBUG
        assert len(root.handlers) == len(before[0]) + 2
    assert (root.handlers, root.level) == before


def test_names_in_messages_are_shown_with_escapes_and_in_limited_length(tmp_path: Path) -> None:
    with log_to_file(tmp_path / "log"):
        logging.getLogger("some.module").warning("%s: skipped", "a\x1b[31m\nname" + 9000 * "x")
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.partition(" -   ")[2].startswith(r"a\x1b[31m\nname")
    assert line.endswith("xxx: skipped")
    assert len(line) < 700
