"""Peak memory of a process, and returning freed memory."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from tape.runtime import memory as process_memory

BLOCK = 200_000_000
# large blocks with small ones between them, which stay when the large ones are freed
_HOLES = """
import resource, runpy
module = runpy.run_path({file!r})
if {returned}:
    module["return_large_blocks"]()
first = b"x" * (8 << 20)
del first  # from here on, glibc keeps blocks of this size by default
blocks = [bytes([number]) * (8 << 20 if number % 2 else 100 << 10) for number in range(60)]
small = blocks[::2]
del blocks
print(int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize())
"""


def printed_by(code: str) -> int:
    """The number printed by a separate process."""
    result = subprocess.run([sys.executable, "-I", "-c", code], stdout=subprocess.PIPE, text=True, check=True)
    return int(result.stdout)


def test_peak_memory_includes_freed_memory() -> None:
    held = len(b"x" * BLOCK)
    assert process_memory.peak_memory() > held


@pytest.mark.skipif(sys.platform != "linux", reason="other systems include the parent process")
def test_peak_memory_excludes_the_parent_process() -> None:
    block = b"x" * BLOCK  # written, so resident
    code = f"import runpy; print(runpy.run_path({process_memory.__file__!r})['peak_memory']())"
    assert 0 < printed_by(code) < len(block) / 2


def test_peak_memory_without_proc_is_that_of_getrusage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = process_memory.peak_memory()
    monkeypatch.setattr(process_memory, "_STATUS", tmp_path / "none")
    assert process_memory.peak_memory() > own / 2


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left alone")
def test_freed_large_blocks_are_returned_despite_small_blocks_between_them() -> None:
    held = {returned: printed_by(_HOLES.format(file=process_memory.__file__, returned=returned)) for returned in (0, 1)}
    assert held[1] < 100_000_000 < 200_000_000 < held[0]  # 30 blocks of 8 MiB
