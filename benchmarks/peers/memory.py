"""Resident memory of a worker. Also runs in the environment of the peers: it imports only the standard library."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RESET_PEAK = "5"  # proc(5): resets VmHWM to VmRSS
# of AdamW in fp32, besides the weights: a gradient and two moments
_BYTES_PER_PARAMETER = 3 * 4


def peak_above_the_model(parameters: int, step: Callable[[], object]) -> int | None:
    """Memory of the first step above weights, gradients and optimizer states.

    Args:
        parameters: number of parameters of the model, which is in memory and has no gradients or moments yet.
        step: takes the step.

    Returns:
        Bytes; None on systems without Linux's ``/proc``.
    """
    if not _STATUS.is_file() or not _CLEAR.is_file():
        step()
        return None
    before = _field("VmRSS")
    _CLEAR.write_text(_RESET_PEAK, encoding="ascii")
    step()
    return _field("VmHWM") - before - parameters * _BYTES_PER_PARAMETER


def _field(name: str) -> int:
    lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii").splitlines())
    return int(lines[name].split()[0]) * 1024
