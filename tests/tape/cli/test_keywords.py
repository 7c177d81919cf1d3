"""Keyword arguments as the words of a command line."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from tape.cli.keywords import words_of
from tape.cli.train import create_train_parser
from tape.errors import ConfigError


def parsed(**options: Any) -> argparse.Namespace:
    parser = create_train_parser()
    namespace: argparse.Namespace = parser.parse_args(["onehot", *words_of(parser, options)])
    return namespace


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("batch_size", 4, 4),
        ("from_pretrained", Path("models/out"), "models/out"),
        ("learning_rate", 3e-4, 3e-4),
        ("split", (80, 10, 10), "80,10,10"),
        ("split", "80,10,10", "80,10,10"),
        ("eval_splits", ["test", "valid"], ["test", "valid"]),
        ("eval_splits", "test", ["test"]),
        ("config", {"a": 0.5, "b": "text", "c": [1, 2]}, [("a", 0.5), ("b", "text"), ("c", [1, 2])]),
        ("freeze", True, True),
        ("freeze", False, False),
        ("verify", False, False),
        ("verify", True, True),
        ("standardize", False, False),
        ("standardize", True, True),
        ("patience", -1, -1),
        ("target", "-dG", ["-dG"]),
        ("target", ["-dG", "Tm"], ["-dG", "Tm"]),
        ("target", None, None),
    ],
)
def test_a_value_reaches_its_option(name: str, value: Any, expected: Any) -> None:
    assert getattr(parsed(**{name: value}), name) == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learning_rat": 1}, "there is no option 'learning_rat'; did you mean learning_rate?"),
        ({"task": "stability"}, "there is no option 'task'"),
        ({"help": True}, "there is no option 'help'"),
        ({"freeze": 1}, "freeze must be True or False, not 1"),
    ],
)
def test_an_option_that_the_command_does_not_have_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parsed(**options)


def test_a_function_may_lack_options_of_the_command() -> None:
    with pytest.raises(ConfigError, match="there is no option 'seeds'; did you mean seed?"):
        words_of(create_train_parser(), {"seeds": 3}, ("seeds",))
