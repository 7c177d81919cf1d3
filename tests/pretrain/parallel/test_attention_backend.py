"""How the ranks of a run choose the attention of packed rows together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest
import torch

from pretrain.parallel import ParallelContext, ParallelDims, attention_backend
from pretrain.parallel.attention_backend import choose_attention_backend
from pretrain.parallel.parallelize import apply_attention_backend
from tape.configs import ProteinBertConfig
from tape.errors import ConfigError
from tape.models.attention import AttentionCore
from tape.models.modeling_bert import ProteinBertForMaskedLM

CONFIG = ProteinBertConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32
)


@dataclass(frozen=True)
class TwoRanks(ParallelContext):
    """A context whose other rank has a given value."""

    other: str | None = None

    def gather(self, value: Any) -> list[Any]:
        return [value, self.other]


def context(device: str, other: str | None = None) -> TwoRanks:
    return TwoRanks(ParallelDims(), 0, torch.device(device), None, other)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """This rank can use the kernel."""
    monkeypatch.setattr(attention_backend, "unusable_reason", lambda *_: None)


@pytest.mark.usefixtures("kernel")
@pytest.mark.parametrize("requested", ["auto", "flash"])
def test_the_kernel_where_all_ranks_can_use_it(requested: str) -> None:
    assert choose_attention_backend(requested, CONFIG, torch.bfloat16, context("cuda")) == ("flash", None)


@pytest.mark.usefixtures("kernel")
def test_a_rank_without_the_kernel_makes_all_of_them_pad() -> None:
    """Other random numbers would be drawn on a part of the tensor-parallel ranks."""
    backend, notice = choose_attention_backend("auto", CONFIG, torch.bfloat16, context("cuda", "no kernel image"))
    assert backend == "padded"
    assert notice is not None
    assert "no kernel image" in notice


@pytest.mark.parametrize(("device", "dtype"), [("cpu", torch.bfloat16), ("cuda", torch.float32)])
def test_auto_pads_without_notice_where_there_is_no_kernel(device: str, dtype: torch.dtype) -> None:
    assert choose_attention_backend("auto", CONFIG, dtype, context(device)) == ("padded", None)


@pytest.mark.usefixtures("kernel")
def test_padded_on_request() -> None:
    assert choose_attention_backend("padded", CONFIG, torch.bfloat16, context("cuda")) == ("padded", None)


def test_flash_is_refused_where_it_cannot_be_used() -> None:
    with pytest.raises(ConfigError, match="--attention-backend flash can't be used: FlashAttention needs a CUDA"):
        choose_attention_backend("flash", CONFIG, torch.bfloat16, context("cpu"))


def test_the_choice_reaches_every_attention_core() -> None:
    model = ProteinBertForMaskedLM(CONFIG)
    apply_attention_backend(model, "padded")
    assert [module.backend for module in model.modules() if isinstance(module, AttentionCore)] == ["padded"] * 2
