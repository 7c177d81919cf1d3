"""Training steps on a GPU against the same steps on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pretrain.build import build_trainer, choose_attention
from pretrain.config.arguments import parse_arguments
from pretrain.data.samples import MicroBatch, PackedRow, join_rows
from pretrain.parallel import ParallelContext, ParallelDims

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
FLAGS = (
    *("--num-layers", "2", "--hidden-size", "64", "--num-attention-heads", "4", "--ffn-hidden-size", "128"),
    *("--seq-length", "64", "--max-position-embeddings", "64", "--micro-batch-size", "2", "--train-iters", "100"),
    *("--lr", "1e-2", "--lr-decay-style", "constant", "--data-path", "unused"),
)
WITHOUT_DROPOUT = ("--attention-dropout", "0", "--hidden-dropout", "0")


def batch(seed: int) -> MicroBatch:
    generator, lengths = np.random.default_rng(seed), [[40, 24], [5, 50, 9]]
    rows = []
    for row in lengths:
        ids = generator.integers(5, 30, sum(row))
        rows.append(PackedRow(ids, np.where(generator.random(len(ids)) < 0.3, ids, -1), row))
    return join_rows(rows)


def losses(device: str, *flags: str) -> list[float]:
    """Losses of five steps."""
    config = parse_arguments([*FLAGS, *flags])
    context = ParallelContext(ParallelDims(), 0, torch.device(device), None)
    trainer = build_trainer(choose_attention(config, context)[0], context)
    trainer.model.train()
    return [trainer.train_step(number, [batch(number)]).loss for number in range(1, 6)]


def test_fp32_equals_the_cpu() -> None:
    assert losses("cuda", *WITHOUT_DROPOUT) == pytest.approx(losses("cpu", *WITHOUT_DROPOUT), rel=1e-4)


@pytest.mark.parametrize("precision", ["--bf16", "--fp16"])
def test_half_precision_is_close_to_fp32(precision: str) -> None:
    scale = ("--initial-loss-scale", "1024") if precision == "--fp16" else ()
    half = losses("cuda", *WITHOUT_DROPOUT, precision, *scale)
    assert half == pytest.approx(losses("cpu", *WITHOUT_DROPOUT), rel=2e-2)


@pytest.mark.parametrize("backend", ["flash", "padded"])
@pytest.mark.parametrize("recomputation", ["--checkpoint-activations", "--recompute-activations"])
def test_recomputation_changes_no_loss(recomputation: str, backend: str) -> None:
    """With dropout, whose masks the second forward pass must draw again."""
    flags = ("--bf16", "--attention-backend", backend)
    assert losses("cuda", *flags, recomputation) == pytest.approx(losses("cuda", *flags), rel=1e-3)


@pytest.mark.filterwarnings("ignore")  # of the compiler, on its own code
def test_compiled_blocks_are_close_to_plain_ones() -> None:
    flags = (*WITHOUT_DROPOUT, "--bf16")
    assert losses("cuda", *flags, "--compile") == pytest.approx(losses("cuda", *flags), rel=1e-2)
