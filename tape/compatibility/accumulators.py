"""TAPE's running means of loss and metrics, from ``tape.utils``."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

_LOSS = "loss"


class MetricsAccumulator:
    """Means over steps, and exponential means of the last steps.

    Args:
        smoothing: weight of the past in the exponential means.
    """

    def __init__(self, smoothing: float = 0.95) -> None:
        self._smoothing = smoothing
        self._step: dict[str, list[float]] = {}
        self._smooth: dict[str, float] = {}
        self._totals: dict[str, float] = {}
        self._steps = 0

    def update(self, loss: float | Tensor, metrics: Mapping[str, float | Tensor], step: bool = True) -> None:
        """Add the values of a forward pass; with ``step``, it is the last of its step."""
        for name, value in {_LOSS: loss, **metrics}.items():
            number = float(value.detach() if isinstance(value, Tensor) else value)
            self._step.setdefault(name, []).append(number)
        if step:
            self.step()

    def step(self) -> dict[str, float]:
        """End a step; returns its means over the forward passes."""
        means = {name: sum(values) / len(values) for name, values in self._step.items()}
        for name, value in means.items():
            past = self._smooth.get(name, value)
            self._smooth[name] = past * self._smoothing + value * (1 - self._smoothing)
            self._totals[name] = self._totals.get(name, 0.0) + value
        self._steps += 1
        self._step = {}
        return means

    def loss(self) -> float:
        """Exponential mean of the loss."""
        return self._smooth[_LOSS]

    def metrics(self) -> dict[str, float]:
        """Exponential means of the metrics."""
        return {name: value for name, value in self._smooth.items() if name != _LOSS}

    def final_loss(self) -> float:
        """Mean loss of all steps."""
        return self._totals[_LOSS] / self._steps

    def final_metrics(self) -> dict[str, float]:
        """Means of the metrics of all steps."""
        return {name: value / self._steps for name, value in self._totals.items() if name != _LOSS}
