"""One reported number: name, value, interval, count and definition."""

from __future__ import annotations

import math
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
        reason: why an undefined value is undefined, if ``n`` does not show it.
    """

    name: str
    value: float
    n: int
    definition: str
    interval: Interval = None
    reason: str = ""

    @property
    def undefined(self) -> str | None:
        """Why the value is not a finite number; None if it is one."""
        if math.isfinite(self.value):
            return None
        if self.reason:
            return self.reason
        if math.isinf(self.value):
            return "infinite"
        return "a prediction is not a number" if self.n else "there is nothing to measure: n is 0"

    def with_interval(self, interval: Interval) -> Metric:
        return replace(self, interval=interval)

    def to_dict(self) -> dict[str, Any]:
        """The fields for a JSON file; ``undefined`` has the reason why the value is not a finite number."""
        fields = {name: value for name, value in asdict(self).items() if name != "reason"}
        undefined = {} if self.undefined is None else {"undefined": self.undefined}
        return {**fields, "interval": None if self.interval is None else list(self.interval), **undefined}
