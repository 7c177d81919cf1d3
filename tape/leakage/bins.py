"""Bins of sequence identity, which the field's splits and benchmarks draw at 20, 30 and 50 %.

A bin includes its lower edge and excludes its upper one. A protein without a hit is in the lowest bin, since alignments
below 20 % identity are rarely significant.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

EDGES = (20.0, 30.0, 50.0)  # percent


@dataclass(frozen=True)
class IdentityBin:
    """The identities from ``low`` to below ``high``, in percent; the highest bin includes 100."""

    low: float
    high: float

    @property
    def label(self) -> str:
        """``< 20 %``, ``20 to 30 %`` or ``>= 50 %``."""
        if self.low == 0:
            return f"< {self.high:g} %"
        return f">= {self.low:g} %" if self.high == 100 else f"{self.low:g} to {self.high:g} %"


BINS = tuple(IdentityBin(low, high) for low, high in zip((0.0, *EDGES), (*EDGES, 100.0), strict=True))


def bin_numbers(identities: np.ndarray) -> np.ndarray:
    """(N,) number of the bin of each identity, from 0.

    Args:
        identities: (N,) in percent; nan for a protein without a hit.
    """
    return np.digitize(np.nan_to_num(identities, nan=0.0), EDGES)
