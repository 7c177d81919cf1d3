"""One reported number: name, value, interval, count and definition."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

Interval = tuple[float, float] | None


@dataclass(frozen=True)
class Metric:
    """One metric of an evaluation.

    Attributes:
        name: stable key, such as ``accuracy`` or ``precision_at_l5_long``.
        value: the value; ``nan`` if it is undefined, because there are no items (``n`` is 0) or because one side of a
            correlation is constant.
        n: number of items that were averaged, such as proteins or residues; see ``definition``.
        definition: definition of the metric, for comparison with other evaluations.
        interval: bootstrap confidence interval over proteins; None if it was not requested or is undefined.
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
