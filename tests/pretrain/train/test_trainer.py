"""A training step of pretraining."""

from __future__ import annotations

import pytest
import torch

from pretrain.build import build_trainer
from pretrain.config.arguments import parse_arguments
from pretrain.data.samples import join_rows
from pretrain.parallel import open_parallel_context
from pretrain.tools.compare_layouts import MODEL, OPTIMIZERS, SyntheticRows
from tape.runtime.launch import Launch


def test_each_step_has_the_gradient_of_its_own_rows() -> None:
    # bug 1 in docs/compatibility.md: with constant weights, the norm of the k-th identical step was k times the first
    arguments = parse_arguments([*MODEL, *OPTIMIZERS["sgd"], "--lr", "1e-30", "--train-iters", "3"])
    launch, rows = Launch(), SyntheticRows()
    with open_parallel_context(
        arguments.dims, launch, "gloo", torch.device("cpu"), arguments.parallel.timeout
    ) as context:
        trainer = build_trainer(arguments, context)
        results = [trainer.train_step(step, [join_rows([rows[0]]), join_rows([rows[1]])]) for step in (1, 2, 3)]
    assert results[0].grad_norm > 0.1
    assert [result.grad_norm for result in results] == pytest.approx([results[0].grad_norm] * 3, rel=1e-6)
