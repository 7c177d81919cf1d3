"""Autocast and loss scaling of each precision."""

from __future__ import annotations

import pytest
import torch

from tape.errors import ConfigError
from tape.runtime.precision import PRECISIONS, autocast, is_fast, make_scaler

CPU = torch.device("cpu")


def test_matrix_products_use_the_precision_and_weights_stay_fp32() -> None:
    layer = torch.nn.Linear(2, 2)
    expected = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
    for precision in PRECISIONS:
        with autocast(precision, CPU):
            assert layer(torch.ones(1, 2)).dtype == expected[precision]
        assert make_scaler(precision, CPU).is_enabled() == (precision == "fp16")
    with pytest.raises(ConfigError, match="one of fp32, fp16, bf16, not 'int8'"):
        autocast("int8", CPU)


def test_precisions_without_cpu_instructions_are_slow(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert [is_fast(precision, CPU) for precision in PRECISIONS] == [True, False, False]
    assert is_fast("fp16", torch.device("cuda"))
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert is_fast("bf16", CPU)
