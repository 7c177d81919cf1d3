"""What one reported number is: its name, value, count and the sentence that defines it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation.

    Attributes:
        name: stable key, e.g. ``accuracy`` or ``precision_at_l5_long``.
        value: the number; ``nan`` when nothing could be counted (``n`` is 0 then).
        n: how many items were averaged over; the definition says which items.
        definition: one sentence that lets a reader compare the number with another.
    """

    name: str
    value: float
    n: int
    definition: str

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)
