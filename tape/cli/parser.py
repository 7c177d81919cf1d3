"""The argument parser of all commands: argparse's, with short and printable messages, suggestions and ``--version``.

A value of the command line can have any length and any characters, and argparse repeats many as they are.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NoReturn

from tape.errors import ConfigError, did_you_mean, quoted, readable
from tape.version import __version__

_LONGEST_MESSAGE = 1000
_UNRECOGNIZED = "unrecognized arguments: "
_REQUIRED = "the following arguments are required: "


class ArgumentParser(argparse.ArgumentParser):
    """``argparse.ArgumentParser`` whose messages are short and printable, and suggest the closest option or choice.

    Every parser with ``--help`` has ``--version``. Usage lines name the command that runs: that of ``proteinlm``, which
    is the program name of the process, or ``prog``.

    Attributes:
        raises_errors: raise a ConfigError for wrong options, for calls from Python, instead of ending the process.
    """

    raises_errors = False
    _words: Sequence[str] = ()

    def __init__(self, prog: str | None = None, **options: Any) -> None:
        program = sys.argv[0] if sys.argv and sys.argv[0].startswith("proteinlm ") else prog
        super().__init__(program, **options)
        if self.add_help:
            self.add_argument(
                "--version",
                action="version",
                version=f"proteinlm {__version__}",
                help="show the version of this project and exit",
            )

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, but a position that may be left out can also come after an option."""
        self._words = sys.argv[1:] if args is None else args
        if any(action.nargs == "?" for action in self._get_positional_actions()):
            return self.parse_intermixed_args(args, namespace)
        return super().parse_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        if self.raises_errors:
            raise ConfigError(self.readable(message))
        super().error(self.readable(message))

    def readable(self, message: str) -> str:
        """A message with the closest options to those that are unknown, in at most 1,000 printable characters.

        For missing positions, with the options that may have taken them as further values.
        """
        unknown = message.removeprefix(_UNRECOGNIZED)
        words = unknown.split() if unknown != message else []
        options = [word.partition("=")[0] for word in words if word.startswith("-")]
        hint = self._taken_as_values(message.removeprefix(_REQUIRED)) if message.startswith(_REQUIRED) else ""
        return readable(message, _LONGEST_MESSAGE) + hint + did_you_mean(options[:1], self._option_string_actions)

    def _taken_as_values(self, missing: str) -> str:
        """A hint if positions are missing and options with several values have more than one, in words."""
        positions = [str(action.metavar or action.dest) for action in self._get_positional_actions()]
        names = [name for name in missing.split(", ") if name in positions]
        options = [name for name, values in self._given_values() if self._takes_several(name) and len(values) > 1]
        if not names or not options:
            return ""
        return f"; {' and '.join(options)} take all words up to the next option: give {', '.join(names)} before them"

    def _given_values(self) -> Iterator[tuple[str, Sequence[str]]]:
        """Each option of the command line as it was given, with the words up to the next one."""
        starts = [place for place, word in enumerate(self._words) if word.startswith("-")]
        for start, end in pairwise([*starts, len(self._words)]):
            yield self._words[start], self._words[start + 1 : end]

    def _takes_several(self, word: str) -> bool:
        action = self._option_string_actions.get(word)
        return action is not None and action.nargs in (argparse.ONE_OR_MORE, argparse.ZERO_OR_MORE)

    def _get_value(self, action: argparse.Action, arg_string: str) -> Any:
        try:
            return super()._get_value(action, arg_string)
        except argparse.ArgumentError as error:
            error.message = error.message.replace(repr(arg_string), quoted(arg_string))
            raise

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        try:
            super()._check_value(action, value)
        except argparse.ArgumentError:
            choices = [str(choice) for choice in action.choices or ()]
            shown = ", ".join(map(repr, choices))
            message = f"invalid choice: {quoted(value)} (choose from {shown}){did_you_mean([str(value)], choices)}"
            raise argparse.ArgumentError(action, message) from None
