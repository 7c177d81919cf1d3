"""All commands share one parser, whose messages are short and printable whatever the command line contains."""

from __future__ import annotations

import argparse
import ast
import contextlib
import io
import re
import runpy
import sys
from collections.abc import Iterator
from importlib import import_module

import pytest

from proteinlm.command import COMMANDS as SUBCOMMANDS
from tape.cli import parser as parsers
from tape.cli.parser import ArgumentParser
from tape.cli.types import positive_int
from tape.errors import ConfigError
from tests.test_import_graph import COMMANDS, PACKAGES, ROOT

FOLDERS = (*PACKAGES, "scripts", "benchmarks")
SOURCES = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py")))]
SCRIPTS = sorted(
    str(path.relative_to(ROOT))
    for path in SOURCES
    if '__name__ == "__main__"' in (text := path.read_text("utf-8"))
    and (" ArgumentParser(" in text or path.name in ("tape_train.py", "tape_eval.py", "pretrain_tape.py"))
)
HOSTILE = "\x1b]0;title\x07\udc80\n" + "A" * 10_000


def plain_parsers(source: str) -> list[int]:
    """Lines that build or extend argparse's own parser."""
    return [
        node.lineno
        for node in ast.walk(ast.parse(source))
        if (isinstance(node, ast.Call) and ast.unparse(node.func) == "argparse.ArgumentParser")
        or (isinstance(node, ast.ClassDef) and "argparse.ArgumentParser" in map(ast.unparse, node.bases))
        or (isinstance(node, ast.ImportFrom) and node.module == "argparse")
    ]


@pytest.mark.parametrize(
    "source",
    ["argparse.ArgumentParser()", "class P(argparse.ArgumentParser): pass", "from argparse import ArgumentParser"],
)
def test_every_form_of_a_plain_parser_is_found(source: str) -> None:
    assert plain_parsers(source) == [1]


def test_no_command_has_a_plain_parser() -> None:
    found = {str(path.relative_to(ROOT)): plain_parsers(path.read_text("utf-8")) for path in SOURCES}
    assert [path for path, lines in found.items() if lines] == ["tape/cli/parser.py"]


class Built(BaseException):
    """Ends a command when it parses its command line; not caught by any handler of errors."""


def parser_of(command: str, monkeypatch: pytest.MonkeyPatch) -> ArgumentParser:
    built: list[ArgumentParser] = []

    def stop(parser: ArgumentParser, *arguments: object) -> None:
        built.append(parser)
        raise Built

    with monkeypatch.context() as patched, contextlib.suppress(Built):
        for method in ("parse_args", "parse_intermixed_args"):
            patched.setattr(ArgumentParser, method, stop)
        patched.setattr(sys, "argv", command.split())
        patched.setattr(sys, "path", [str(ROOT), *sys.path])
        if (program := command.split()[0]) in COMMANDS:
            module, _, function = COMMANDS[program].partition(":")
            getattr(import_module(module), function)()
        else:
            runpy.run_path(str(ROOT / command), run_name="__main__")
    (parser,) = built
    return parser


def message_of(parser: ArgumentParser, words: list[str]) -> str:
    """The error message for a command line; empty if it is accepted."""
    for action in parser._actions:
        action.required = False
    for group in parser._mutually_exclusive_groups:
        group.required = False
    output = io.StringIO()
    code = None
    try:
        with contextlib.redirect_stderr(output):
            parser.parse_args(words)
    except ConfigError as error:
        return str(error)
    except SystemExit as end:
        code = end.code
    if code is None:
        return ""
    usage, _, message = output.getvalue().partition(f"\n{parser.prog}: error: ")
    assert (code, usage[:7]) == (2, "usage: ")
    return message.removesuffix("\n")


def hostile_command_lines(parser: ArgumentParser) -> Iterator[list[str]]:
    """A hostile value in every place where one can stand."""
    yield [f"--{HOSTILE}"]
    yield [f"--{HOSTILE}=x"]
    positions = [action for action in parser._actions if not action.option_strings]
    yield from ([*["x"] * number, HOSTILE] for number in range(len(positions) + 1))
    for action in parser._actions:
        for option in (
            [] if isinstance(action, (argparse._HelpAction, argparse._VersionAction)) else action.option_strings[:1]
        ):
            yield [option, *[HOSTILE] * (action.nargs if isinstance(action.nargs, int) else 1)]
            yield [f"{option}={HOSTILE}"]
            yield [f"{option[:3]}={HOSTILE}"]  # an ambiguous abbreviation


@pytest.mark.parametrize("command", [*sorted(COMMANDS), *(f"proteinlm {name}" for name in SUBCOMMANDS), *SCRIPTS])
def test_messages_of_every_command_are_short_and_printable(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parser = parser_of(command, monkeypatch)
    messages = [message_of(parser, words) for words in hostile_command_lines(parser)]
    assert messages[0].startswith(r"unrecognized arguments: --\x1b]0;title\x07\udc80\n")
    assert [message for message in messages if len(message) >= 2000 or not message.isprintable()] == []


@pytest.fixture
def parser() -> ArgumentParser:
    parser = ArgumentParser(prog="command")
    parser.add_argument("--precision", choices=("fp32", "bf16"))
    parser.add_argument("--batch-size", type=positive_int)
    parser.add_argument("--seed", type=int)
    return parser


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--precisoin", "x"], "unrecognized arguments: --precisoin x; did you mean --precision?"),
        (["--bach-size=3"], "unrecognized arguments: --bach-size=3; did you mean --batch-size?"),
        (["--frobnicate"], "unrecognized arguments: --frobnicate"),
        (
            ["--precision", "fp23"],
            "argument --precision: invalid choice: 'fp23' (choose from 'fp32', 'bf16'); did you mean fp32?",
        ),
        (["--precision", "int8"], "argument --precision: invalid choice: 'int8' (choose from 'fp32', 'bf16')"),
        (["--seed", "x" * 100], f"argument --seed: invalid int value: '{'x' * 37}...{'x' * 38}'"),
        (["--batch-size", "0"], "argument --batch-size: must be a whole number of at least 1, not '0'"),
        (["--seed"], "argument --seed: expected one argument"),
    ],
)
def test_messages_name_the_value_and_the_closest_word(parser: ArgumentParser, words: list[str], message: str) -> None:
    assert message_of(parser, words) == message


@pytest.mark.parametrize(
    ("words", "options"),
    [
        ("--target Tm transformer", "--target"),
        ("--target Tm transformer --eval_splits test", "--target"),
        ("--target Tm kcat --eval_splits valid transformer", "--target and --eval_splits"),
        ("--target Tm --seed 1", None),
        ("--seed 1", None),
        ("", None),
    ],
)
def test_a_missing_position_may_have_been_taken_by_an_option(
    words: str, options: str | None, parser: ArgumentParser
) -> None:
    parser.raises_errors = True
    parser.add_argument("model_type")
    parser.add_argument("--target", nargs="+")
    parser.add_argument("--eval_splits", nargs="*")
    required = "the following arguments are required: model_type"
    hint = f"; {options} take all words up to the next option: give model_type before them" if options else ""
    with pytest.raises(ConfigError, match=f"^{required}{hint}$"):
        parser.parse_args(words.split())


def test_a_missing_option_has_not_been_taken_by_another(parser: ArgumentParser) -> None:
    parser.raises_errors = True
    parser.add_argument("--input", nargs="+")
    parser.add_argument("--output-prefix", required=True)
    with pytest.raises(ConfigError, match="^the following arguments are required: --output-prefix$"):
        parser.parse_args(["--input", "a", "b"])


def test_a_value_of_a_megabyte_is_shortened(parser: ArgumentParser) -> None:
    for words in (["--seed", HOSTILE * 100], [f"--precision={HOSTILE * 100}"], [HOSTILE * 100]):
        message = message_of(parser, words)
        assert r"\x1b]0;title\x07\udc80\n" in message
        assert len(message) <= 1000


def test_the_middle_of_a_long_message_is_left_out(parser: ArgumentParser) -> None:
    message = parser.readable(f"start {'x ' * 2500} end")
    assert len(message) == parsers._LONGEST_MESSAGE
    assert re.fullmatch(r"start [x ]+ \.\.\. [x ]+ end", message)


def test_values_that_are_valid_are_parsed_as_by_argparse(parser: ArgumentParser) -> None:
    options = parser.parse_args(["--precision", "bf16", "--seed", "3"])
    assert options == argparse.Namespace(precision="bf16", seed=3, batch_size=None)


@pytest.mark.parametrize("words", [["a", "b", "--seed", "1"], ["a", "--seed", "1", "b"], ["--seed", "1", "a", "b"]])
def test_a_position_that_may_be_left_out_can_come_after_an_option(words: list[str], parser: ArgumentParser) -> None:
    parser.add_argument("first")
    parser.add_argument("second", nargs="?")
    options = parser.parse_args(words)
    assert (options.first, options.second, options.seed) == ("a", "b", 1)
    assert parser.parse_args(["a", "--seed", "1"]).second is None
