"""The number of usable CPU cores, and reuse of freed memory."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys

import pytest

from tape.runtime import cpu
from tape.runtime.cpu import allocator_variables, configure_cpu, usable_cores

# Page faults of 20 allocations of 40 MB that are freed in turn; 10,000 pages each.
_PAGE_FAULTS = """
import resource, sys
from tape.runtime.cpu import configure_cpu
if sys.argv[1] == "reuse":
    configure_cpu()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
bytearray(40_000_000)
before = faults()
for _ in range(20):
    b"x" * 40_000_000
print(faults() - before)
"""


def _page_faults(mode: str, **variables: str) -> int:
    environment = {name: value for name, value in os.environ.items() if name not in cpu._VARIABLES} | variables
    command = [sys.executable, "-c", _PAGE_FAULTS, mode]
    return int(subprocess.run(command, env=environment, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="only glibc has mallopt")
def test_freed_memory_is_used_again() -> None:
    huge_pages = resource.getpagesize() > 4096
    assert _page_faults("default") > (300 if huge_pages else 5000)
    assert _page_faults("reuse") < 300


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="only glibc has mallopt")
def test_settings_of_the_allocator_in_the_environment_stay() -> None:
    assert _page_faults("reuse", MALLOC_MMAP_THRESHOLD_="1000000") > 5000


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no LD_PRELOAD")
def test_tcmalloc_is_named_unless_the_user_has_chosen_an_allocator(monkeypatch: pytest.MonkeyPatch) -> None:
    installed = {"tcmalloc_minimal": "libtcmalloc_minimal.so.4", "tcmalloc": "libtcmalloc.so.4"}
    monkeypatch.setattr("ctypes.util.find_library", installed.get)
    for name in ("LD_PRELOAD", *cpu._VARIABLES):
        monkeypatch.delenv(name, raising=False)
    assert allocator_variables() == {"LD_PRELOAD": "libtcmalloc_minimal.so.4"}
    for name in ("LD_PRELOAD", *cpu._VARIABLES):
        with monkeypatch.context() as user:
            user.setenv(name, "")
            assert allocator_variables() == {}
    del installed["tcmalloc_minimal"]
    assert allocator_variables() == {"LD_PRELOAD": "libtcmalloc.so.4"}
    installed.clear()
    assert allocator_variables() == {}


# Blocks between others that are in use, which the heap can't return by shrinking.
_RELEASE = """
import sys, time
from tape.runtime import cpu
from tape.runtime.memory import resident_memory
cpu._SECONDS, cpu._SMALLEST = 0.05, int(sys.argv[1])
cpu.configure_cpu()
cpu.configure_cpu()
blocks = [bytearray(b"x" * size) for _ in range(200) for size in (1_000_000, 1_000)]
used = resident_memory()
del blocks[::2]
end = time.monotonic() + float(sys.argv[2])
while resident_memory() > used / 2 and time.monotonic() < end:
    time.sleep(0.05)
print(resident_memory() < used / 2)
"""


@pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "gnu_get_libc_version"), reason="only glibc has malloc_trim")
@pytest.mark.parametrize(("smallest", "seconds", "expected"), [(1, 20, "True"), (1 << 40, 1, "False")])
def test_free_memory_of_a_large_process_is_returned(smallest: int, seconds: float, expected: str) -> None:
    command = [sys.executable, "-c", _RELEASE, str(smallest), str(seconds)]
    environment = {name: value for name, value in os.environ.items() if name not in cpu._VARIABLES}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.strip() == expected


def test_other_allocators_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu.ctypes, "CDLL", lambda name: object())
    configure_cpu()


def test_usable_cores_follow_the_cpu_affinity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {3, 5}, raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert usable_cores() == 2
    monkeypatch.delattr("os.sched_getaffinity")
    assert usable_cores() == 64
    monkeypatch.setattr("os.cpu_count", lambda: None)
    assert usable_cores() == 1
