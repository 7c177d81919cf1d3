"""The benchmark of continued pretraining, with a single form and layout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import continued_pretraining
from benchmarks.continued_pretraining import RANDOM, RUN_ITSELF, TENSOR, main


@pytest.mark.slow
def test_a_converted_model_continues_with_the_losses_of_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(continued_pretraining, "CONVERSIONS", {"Megatron-LM": ("--to", "megatron", *TENSOR)})
    monkeypatch.setattr(continued_pretraining, "LAYOUTS", {"1 process": ()})
    main(["--pretraining-steps", "8", "--steps", "2", "--json", str(tmp_path / "x.json")])
    results = {result["form"]: result["losses"] for result in json.loads((tmp_path / "x.json").read_text())}
    assert results.keys() == {RANDOM, RUN_ITSELF, "Megatron-LM"}
    assert results["Megatron-LM"] == pytest.approx(results[RUN_ITSELF], abs=1e-5)
    assert results[RUN_ITSELF][0] < results[RANDOM][0] - 0.1
    assert "| Megatron-LM | 1 process | " in capsys.readouterr().out
