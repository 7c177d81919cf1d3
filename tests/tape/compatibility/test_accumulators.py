"""``tape.utils.MetricsAccumulator``."""

from __future__ import annotations

import pytest
import torch

from tape.utils import MetricsAccumulator


def test_means_over_steps_of_several_passes() -> None:
    means = MetricsAccumulator(smoothing=0.5)
    means.update(torch.tensor(1.0), {"accuracy": torch.tensor(0.2)}, step=False)
    means.update(3.0, {"accuracy": 0.4}, step=False)
    assert means.step() == pytest.approx({"loss": 2.0, "accuracy": 0.3})
    means.update(4.0, {"accuracy": 0.5})
    assert means.final_loss() == 3.0
    assert means.final_metrics() == pytest.approx({"accuracy": 0.4})
    assert means.loss() == 3.0
    assert means.metrics() == pytest.approx({"accuracy": 0.4})
    means.update(1.0, {"accuracy": 0.5})
    assert means.loss() == 2.0
    assert means.final_loss() == pytest.approx(7 / 3)
