"""Fixtures of the tests of runtime."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def launch_script(tmp_path: Path) -> Path:
    """``tape-train-distributed`` as a file, whose processes import it again."""
    script = tmp_path / "launch.py"
    script.write_text(
        "import sys\nfrom tape.commands import train_distributed_command\n"
        "if __name__ == '__main__':\n    sys.exit(train_distributed_command())\n"
    )
    return script
