"""The command lines: parsers, and the commands behind ``tape-train``, ``tape-eval``, ``tape-embed`` and others."""
