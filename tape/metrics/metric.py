"""What one reported number is: its name, value, interval, count and the sentence that defines it."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Metric:
    """One number of an evaluation.

    Attributes:
        name: stable key, e.g. ``accuracy`` or ``precision_at_l5_long``.
        value: the number; ``nan`` where it is undefined: nothing could be counted (``n`` is 0 then), or a correlation
            has a constant side.
        n: how many items were averaged over; the definition says which items.
        definition: one sentence that lets a reader compare the number with another.
        interval: bootstrap interval over proteins; None where none was asked for or none can be made.
    """

    name: str
    value: float
    n: int
    definition: str
    interval: Interval = None

    def with_interval(self, interval: Interval) -> Metric:
        return replace(self, interval=interval)

    def to_dict(self) -> dict[str, Any]:
        return {**asdict(self), "interval": None if self.interval is None else list(self.interval)}
