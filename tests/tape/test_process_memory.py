"""The most memory that a process held."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tape import process_memory

BLOCK = 200_000_000


def test_what_was_held_counts_after_it_is_given_back() -> None:
    held = len(b"x" * BLOCK)
    assert process_memory.peak_memory() > held


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the system does not tell it apart")
def test_what_the_parent_holds_is_not_counted() -> None:
    block = b"x" * BLOCK  # written, so resident
    code = f"import runpy; print(runpy.run_path({process_memory.__file__!r})['peak_memory']())"
    found = subprocess.run([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    assert 0 < int(found.stdout) < len(block) / 2


def test_where_the_system_has_no_such_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = process_memory.peak_memory()
    monkeypatch.setattr(process_memory, "_STATUS", tmp_path / "none")
    assert process_memory.peak_memory() > own / 2
