"""Errors that a user can mend, and the one place where they become a line on the terminal.

Library code raises a subclass of :class:`ProteinLMError` whose text names the file, the record and what was
allowed. Command lines run inside :func:`run_cli`, so a user sees that text and an exit code, never a traceback.
"""

from __future__ import annotations

import sys
from collections.abc import Callable


class ProteinLMError(Exception):
    """Base of every error whose cause lies in the input, the options or the files given."""

    def __str__(self) -> str:
        # KeyError would show the repr of its argument; every class here shows the plain sentence.
        return " ".join(str(argument) for argument in self.args)


class DataError(ProteinLMError):
    """A file or one of its records can't be used."""


class UnknownResidueError(DataError, KeyError):
    """A character is not in the vocabulary (a ``KeyError`` too, as in TAPE)."""

    __str__ = ProteinLMError.__str__


class VocabularyMismatchError(DataError):
    """A corpus, checkpoint or model was written with another vocabulary."""


class ConfigError(ProteinLMError, ValueError):
    """An option or a configuration value is not allowed."""

    __str__ = ProteinLMError.__str__


class CheckpointError(ProteinLMError):
    """A checkpoint or model directory is missing, incomplete or damaged."""


def run_cli(main: Callable[[], object]) -> int:
    """Run a command's ``main`` and turn what a user can mend into one line on stderr.

    Args:
        main: the command, without arguments. An ``int`` it returns is the exit code.

    Returns:
        0, the command's own code, 1 for a :class:`ProteinLMError` or what the system refuses (a full disk, a path that
        can't be written), 130 for an interrupt (Ctrl-C).
    """
    try:
        result = main()
    except ProteinLMError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output went away (`| head`): nothing to report
        return 1
    except OSError as error:
        path = error.filename if error.filename2 is None else error.filename2  # of a rename, the name that was wanted
        print(f"error: {'' if path is None else f'{path}: '}{error.strerror or error}", file=sys.stderr)
        return 1
    return result if isinstance(result, int) else 0
