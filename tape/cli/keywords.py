"""Options of a command as keyword arguments of a Python function.

They become the words of a command line, so that the command's own parser checks them and fills in its defaults.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from tape.errors import ConfigError, did_you_mean, quoted


def words_of(parser: argparse.ArgumentParser, options: Mapping[str, Any], without: Sequence[str] = ()) -> list[str]:
    """Words of a command line.

    Args:
        parser: the command's parser.
        options: value by name of the option, with underscores. None stands for an option that is not given, a list or
            tuple for several values, or for one with commas such as ``80,10,10``, and a dictionary for KEY=VALUE pairs.
        without: options of the command that the function does not have.

    Returns:
        The words of the options, without positions.

    Raises:
        ConfigError: there is no such option, or a switch is neither True nor False.
    """
    actions = {action.dest: action for action in parser._actions if action.option_strings and _is_setting(action)}
    words: list[str] = []
    for name, value in options.items():
        if name not in actions or name in without:
            near = did_you_mean([name], [known for known in actions if known not in without])
            raise ConfigError(f"there is no option {quoted(name)}{near}")
        if value is not None:
            words += _words(actions[name], name, value)
    return words


def _is_setting(action: argparse.Action) -> bool:
    """Whether an option sets a value, unlike ``--help`` and ``--version``."""
    return action.dest != argparse.SUPPRESS and action.dest not in ("help", "version")


def _words(action: argparse.Action, name: str, value: Any) -> list[str]:
    word = action.option_strings[0]
    if action.nargs == 0:
        if not isinstance(value, bool):
            raise ConfigError(f"{name} must be True or False, not {quoted(value)}")
        if isinstance(action, argparse.BooleanOptionalAction):
            return [word if value else next(one for one in action.option_strings if one.startswith("--no-"))]
        return [word] if value == action.const else []
    if isinstance(value, Mapping):
        return [f"{word}={key}={json.dumps(entry)}" for key, entry in value.items()]
    if isinstance(value, list | tuple):
        texts = [str(entry) for entry in value]
        if isinstance(action, argparse._ExtendAction):
            return [f"{word}={text}" for text in texts]  # a text may start with a dash
        return [word, *texts] if action.nargs is not None else [f"{word}={','.join(texts)}"]
    has_one_word = action.nargs is None or isinstance(action, argparse._ExtendAction)
    return [f"{word}={value}"] if has_one_word else [word, str(value)]
