"""Commands that get a signal while they import modules end as at any later time: one line, 128 + its number."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.terminal_signals import LAST_LINES
from tests.test_import_graph import COMMANDS, ROOT

FOLDERS = ("pretrain", "converter", "scripts", "benchmarks")
SOURCES = [*ROOT.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))]
CALLS = re.compile(r"^    sys\.exit\((run_cli|\w+_command)\(", re.MULTILINE)
SCRIPTS = sorted(str(path.relative_to(ROOT)) for path in SOURCES if CALLS.search(path.read_text("utf-8")))
# pip's script of a command
WRAPPER = """
import re
import sys
from {module} import {function}
if __name__ == '__main__':
    sys.argv[0] = re.sub(r'(-script\\.pyw|\\.exe)?$', '', sys.argv[0])
    sys.exit({function}())
"""
# imported by Python itself at its start
SITE_CUSTOMIZATION = """
import os, signal, sys, time

signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGTERM, signal.SIG_DFL)

class SignalAtImport:
    # few milliseconds
    before = ("tape.installation", "tape.version", "tape.errors", "tape.interrupts", "tape.commands")

    def find_spec(self, name, *_):
        if name.startswith(("tape.", "pretrain.", "converter.", "scripts.", "benchmarks.")) and name not in self.before:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), int(os.environ["TEST_SIGNAL"]))
            time.sleep(5)

sys.meta_path.insert(0, SignalAtImport())
"""
ARGUMENTS = {"pretrain/tools/run_state.py": ["1", "--num-layers", "1"]}  # its --help imports nothing


def interrupted(script: Path, arguments: list[str], number: int, folder: Path) -> tuple[int, str]:
    """Exit code and stderr of a script that gets a signal at its first import of a module of this repository."""
    (folder / "sitecustomize.py").write_text(SITE_CUSTOMIZATION, encoding="utf-8")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT)]), "TEST_SIGNAL": str(number)}
    words = [sys.executable, str(script), *arguments]
    result = subprocess.run(words, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    assert result.stdout == ""
    return result.returncode, result.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("command", sorted(COMMANDS))
def test_a_signal_during_the_imports_of_an_installed_command(command: str, number: int, tmp_path: Path) -> None:
    module, _, function = COMMANDS[command].partition(":")
    script = tmp_path / command
    script.write_text(WRAPPER.format(module=module, function=function), encoding="utf-8")
    assert interrupted(script, ["--help"], number, tmp_path) == (128 + number, f"{LAST_LINES[number]}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("script", SCRIPTS)
def test_a_signal_during_the_imports_of_a_script(script: str, number: int, tmp_path: Path) -> None:
    arguments = ARGUMENTS.get(script, ["--help"])
    assert interrupted(ROOT / script, arguments, number, tmp_path) == (128 + number, f"{LAST_LINES[number]}\n")
