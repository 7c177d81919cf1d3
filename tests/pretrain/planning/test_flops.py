"""Model FLOPs compared with torch's FLOP counter, the measured peak, and the model FLOPs utilization."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from pretrain.optim.precision import PrecisionConfig
from pretrain.planning.flops import Meter, best_rate, flops_per_token, measured_peak, memory_reader
from tape.configs import ProteinBertConfig
from tape.models import low_precision
from tape.models.modeling_bert import ProteinBertForMaskedLM

CONFIG = ProteinBertConfig(
    hidden_size=32, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96, max_position_embeddings=64
)
CPU = torch.device("cpu")


def test_count_equals_torchs_flop_counter() -> None:
    """Forward and backward of one protein; with attention dropout the CPU computes attention as plain products."""
    model = ProteinBertForMaskedLM(CONFIG)
    ids = torch.randint(5, 30, (1, 40))
    with FlopCounterMode(display=False) as counter:
        hidden = model.bert(ids)[0]
        model.mlm_logits(hidden[0, :10]).sum().backward()
    assert counter.get_total_flops() == 40 * flops_per_token(CONFIG, 40.0, 10 / 40)


def test_flops_of_the_released_model() -> None:
    """16 blocks of size 1024 with 12 H^2 parameters each; attention at a mean length of 500 adds 8 %."""
    config = ProteinBertConfig(
        hidden_size=1024, num_hidden_layers=16, num_attention_heads=16, intermediate_size=4096, vocab_size=30
    )
    blocks = 6 * 16 * 12 * 1024**2
    assert flops_per_token(config, 500, 0.15) == pytest.approx(blocks * (1 + 500 / 6144) + 6 * 0.15 * 1054 * 1024)


@pytest.mark.parametrize("name", ["fp32", "bf16"])
def test_the_peak_is_measured(name: str) -> None:
    peak = measured_peak(PrecisionConfig(name), CPU, seconds=0.02)
    assert 1e8 < peak < 1e14


class Products:
    """Two matrix products with simulated durations, and the simulated clock."""

    def __init__(self, durations: dict[str, list[float]]) -> None:
        self.now, self.ran = 100.0, ""
        self.durations = {name: iter(values) for name, values in durations.items()}

    def clock(self) -> float:
        return self.now

    def named(self, name: str, operations: float) -> Callable[[], float]:
        def product() -> float:
            self.now += next(self.durations[name])
            self.ran += name
            return operations

        return product


def test_fastest_product_is_the_peak() -> None:
    """The peak is that of the fastest run after a warm-up; both sizes run in turn."""
    products = Products({"a": [0.001, 0.5, 0.2, 0.4], "b": [9.0, 4.0, 3.0, 2.0]})
    both = [products.named("a", 10.0), products.named("b", 100.0)]
    assert best_rate(both, 18.0, products.clock) == pytest.approx(10.0 / 0.2)
    assert products.ran == "ab" + 3 * "ab"
    slow = Products({"a": [5.0, 4.0], "b": [5.0, 2.0]})
    assert best_rate([slow.named("a", 8.0), slow.named("b", 8.0)], 1.0, slow.clock) == pytest.approx(4.0)
    assert slow.ran == "abab"  # late, but a peak is needed


@pytest.mark.parametrize("fast", [True, False])
def test_peak_is_measured_in_the_dtype_of_the_products(monkeypatch: pytest.MonkeyPatch, fast: bool) -> None:
    """Rounded operands multiplied in fp32 reach fp32's peak, not that of a format without instructions."""
    monkeypatch.setattr(low_precision, "is_fast", lambda device_type, dtype: fast)
    expected = torch.bfloat16 if fast else torch.float32
    assert PrecisionConfig("bf16").product_dtype(CPU) == expected
    assert PrecisionConfig("fp32").product_dtype(CPU) == torch.float32


def test_model_flops_utilization() -> None:
    assert Meter(2e9, 8e12, "stated", int).utilization(1000) == pytest.approx(0.25)


def test_peak_memory_of_the_process() -> None:
    read = memory_reader(CPU)
    before = read()
    held = bytearray(before // 2 + (64 << 20))
    held[::4096] = b"x" * len(held[::4096])
    assert read() >= len(held) > 64 << 20
