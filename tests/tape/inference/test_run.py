"""``tape-embed`` and ``tape-eval --predict`` under limits of memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tape.errors import ConfigError
from tape.main import run_embed, run_eval
from tape.models import low_precision
from tape.models.modeling_bert import ProteinBertModel
from tape.registry import registry

LONG = "MKTAYIAKQRQISFVKSHFSRQ"  # 22 residues, in windows of 10


@pytest.fixture
def model(tmp_path: Path, small_config: Path) -> Callable[[str], Path]:
    """A model directory for a task, with 12 positions."""

    def make(task: str) -> Path:
        torch.manual_seed(3)
        registry.get_task_model("transformer", task, small_config, max_position_embeddings=12).save_pretrained(
            tmp_path / task
        )
        return tmp_path / task

    return make


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "some.fasta"
    path.write_text(f">long\n{LONG}\n>short\nMKTAY\n")
    return path


def embedded(model: Path, fasta: Path, out: Path, *options: object) -> dict[str, np.ndarray]:
    words = ["transformer", fasta, out, model, "--length", "window", "--no_cuda", *options]
    run_embed([*map(str, words)])
    with np.load(out, allow_pickle=True) as content:
        return {name: content[name].item()["avg"] for name in content.files}


def test_a_token_budget_limits_the_windows_and_not_the_proteins(
    model: Callable[[str], Path], fasta: Path, tmp_path: Path
) -> None:
    directory = model("embed")
    whole = embedded(directory, fasta, tmp_path / "whole.npz")
    limited = embedded(directory, fasta, tmp_path / "limited.npz", "--max_tokens", 12)
    for name in ("long", "short"):
        np.testing.assert_allclose(limited[name], whole[name], rtol=1e-5, atol=1e-6)
    with pytest.raises(ConfigError, match="--max_tokens 11 is too small"):
        embedded(directory, fasta, tmp_path / "refused.npz", "--max_tokens", 11)


def test_the_automatic_precision_is_bf16_where_that_is_faster(
    model: Callable[[str], Path], fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory, found = model("embed"), {}
    for name, fast in (("fp32", False), ("bf16", True)):
        monkeypatch.setattr(low_precision, "fast_bf16", lambda device, fast=fast: fast)
        stated = embedded(directory, fasta, tmp_path / f"{name}.npz", "--precision", name)
        found[name] = embedded(directory, fasta, tmp_path / f"auto_{name}.npz", "--precision", "auto")
        np.testing.assert_array_equal(stated["long"], found[name]["long"])
    assert (found["fp32"]["long"] != found["bf16"]["long"]).any()


def test_predictions_have_the_same_budget(model: Callable[[str], Path], fasta: Path, tmp_path: Path) -> None:
    words = ["transformer", "stability", str(model("stability")), "--predict", str(fasta), "--length", "window"]
    assert run_eval([*words, "--max_tokens", "12", "--no_cuda"]) == {"proteins": 2.0}


@pytest.mark.parametrize("batch_size", [1, 2])
def test_running_out_of_memory_is_explained(
    model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch_size: int
) -> None:
    def hungry(*arguments: Any, **options: Any) -> Any:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 99 bytes.")

    (tmp_path / "two.fasta").write_text(">a\nMKTAY\n>b\nMKTAY\n")
    task, encoder = model("stability"), model("embed")
    monkeypatch.setattr(ProteinBertModel, "forward", hungry)
    options = ["--batch_size", str(batch_size), "--no_cuda"]
    predict = ["transformer", "stability", str(task), "--predict", str(tmp_path / "two.fasta"), *options]
    embed = ["transformer", str(tmp_path / "two.fasta"), str(tmp_path / "out.npz"), str(encoder), *options]
    for run, words in ((run_eval, predict), (run_embed, embed)):
        with pytest.raises(
            ConfigError, match=r"out of memory with .* of .*7 tokens in the forward pass; give"
        ) as raised:
            run(words)
        assert ("--batch_size" in str(raised.value)) == (batch_size > 1)
        assert "--bf16" in str(raised.value)
