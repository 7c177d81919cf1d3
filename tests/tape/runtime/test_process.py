"""The log of a process: format, level, and handlers that are removed again."""

from __future__ import annotations

import logging
import re
from pathlib import Path

import pytest

from tape.runtime.process import log_to_file, log_to_terminal, print_warnings_on_error


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


def test_what_matplotlib_tells_about_fonts_is_not_logged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with log_to_terminal(logging.DEBUG), log_to_file(tmp_path / "log"):
        fonts = logging.getLogger("matplotlib.font_manager")
        fonts.info("generated new fontManager")
        fonts.warning("Matplotlib is building the font cache; this may take a moment.")
    for text in (capsys.readouterr().err, (tmp_path / "log").read_text()):
        assert "building the font cache" in text
        assert "generated" not in text


def test_handlers_and_level_are_restored(tmp_path: Path) -> None:
    root = logging.getLogger()
    before = (list(root.handlers), root.level)
    with log_to_terminal(logging.DEBUG), log_to_file(tmp_path / "log"):
        assert root.level == logging.DEBUG
        assert len(root.handlers) == len(before[0]) + 3
    assert (root.handlers, root.level) == before


def test_names_in_messages_are_shown_with_escapes_and_in_limited_length(tmp_path: Path) -> None:
    with log_to_file(tmp_path / "log"):
        logging.getLogger("some.module").warning("%s: skipped", "a\x1b[31m\nname" + 9000 * "x")
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert line.partition(" -   ")[2].startswith(r"a\x1b[31m\nname")
    assert line.endswith("xxx: skipped")
    assert len(line) < 700


def messages(file: Path) -> list[str]:
    return [line.partition(" -   ")[2] for line in file.read_text().splitlines()]


def test_log_files_begin_with_what_was_logged_before_the_first(tmp_path: Path) -> None:
    logger = logging.getLogger("some.module")
    with log_to_terminal(logging.ERROR):
        logger.warning("before")
        with log_to_file(tmp_path / "1"):
            logger.info("of the first")
        logger.warning("between")
        with log_to_file(tmp_path / "2"):
            logger.info("of the second")
    assert messages(tmp_path / "1") == ["before", "of the first"]
    assert messages(tmp_path / "2") == ["before", "of the second"]
    with log_to_terminal(logging.ERROR), log_to_file(tmp_path / "3"):
        logger.info("of another command")
    assert messages(tmp_path / "3") == ["of another command"]


def test_warnings_that_are_logged_again_are_printed_on_an_error_only(capsys: pytest.CaptureFixture[str]) -> None:
    def work(has_failed: bool) -> None:
        with print_warnings_on_error():
            logging.getLogger("some.module").warning("%d rows\n", 3)
            if has_failed:
                raise KeyError

    work(has_failed=False)
    assert capsys.readouterr().err == ""
    with pytest.raises(KeyError):
        work(has_failed=True)
    assert capsys.readouterr().err == "warning: 3 rows\\n\n"
