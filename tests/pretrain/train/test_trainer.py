"""A training step of pretraining."""

from __future__ import annotations

import pytest
import torch

from pretrain.build import build_trainer
from pretrain.config.arguments import parse_arguments
from pretrain.data.samples import join_rows
from pretrain.parallel import open_parallel_context
from pretrain.tools.compare_layouts import MODEL, OPTIMIZERS, SyntheticRows
from tape.models.kernel_shapes import rounded_size
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


def test_one_of_a_few_sizes_changes_neither_loss_nor_gradient() -> None:
    flags = [*MODEL, *OPTIMIZERS["sgd"], "--train-iters", "3", "--micro-batch-size", "2"]
    arguments = parse_arguments(flags)
    rows, results = SyntheticRows(), []
    with open_parallel_context(
        arguments.dims, Launch(), "gloo", torch.device("cpu"), arguments.parallel.timeout
    ) as context:
        objective = build_trainer(arguments, context).objective
        for few_sizes in (False, True):
            objective._few_sizes = few_sizes
            sizes = []
            for number in range(12):
                batch = objective.prepare(join_rows([rows[number], rows[number + 12]]))
                predicted, labels = objective._predictions(batch)
                assert predicted.shape == labels.shape
                sizes.append((batch.input_ids.shape[1], len(labels)))
                loss = objective(batch)
                loss.backward()
            gradients = [parameter.grad.clone() for parameter in objective.parameters()]
            objective.zero_grad()
            results.append((sizes, batch.tokens, batch.predictions, loss, gradients))
    (exact, *expected), (rounded, *found) = results
    assert all(ours[place] - own[place] >= 0 for ours, own in zip(rounded, exact, strict=True) for place in (0, 1))
    assert exact != rounded
    assert {(rounded_size(tokens), rounded_size(predictions)) for tokens, predictions in rounded} == set(rounded)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
