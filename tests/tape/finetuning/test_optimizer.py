"""AdamW, parameter groups and the learning-rate schedule."""

from __future__ import annotations

import gc
import math
import pickle
import subprocess
import sys
import weakref

import pytest
import torch
from torch import Tensor, nn

from tape import ProteinBertConfig, ProteinBertForContactPrediction, ProteinBertForSequenceToSequenceClassification
from tape.finetuning.config import AdamWConfig
from tape.finetuning.optimizer import (
    AdamW,
    WarmupLinearSchedule,
    default_warmup_steps,
    make_optimizer,
    parameter_groups,
)


def adamw_by_hand(parameter: Tensor, gradients: list[Tensor], lr: float, decay: float, correct_bias: bool) -> Tensor:
    """BERT's AdamW: eps is added to the uncorrected root, and weight decay is applied after the step."""
    value, first, second = parameter.double().clone(), 0.0, 0.0
    for step, gradient in enumerate(gradients, start=1):
        gradient = gradient.double()
        first = 0.9 * first + 0.1 * gradient
        second = 0.999 * second + 0.001 * gradient**2
        size = lr * math.sqrt(1 - 0.999**step) / (1 - 0.9**step) if correct_bias else lr
        value = value - size * first / (second**0.5 + 1e-6)
        value = value - lr * decay * value
    return value


@pytest.mark.parametrize("correct_bias", [True, False])
def test_adamw_follows_its_definition(correct_bias: bool) -> None:
    torch.manual_seed(0)
    parameter = nn.Parameter(torch.randn(5, 3))
    start = parameter.detach().clone()
    # with tiny gradients, the result depends on where eps is added
    gradients = [torch.randn(5, 3) * 1e-5 for _ in range(5)]
    optimizer = AdamW([parameter], lr=0.1, weight_decay=0.3, correct_bias=correct_bias)
    for gradient in gradients:
        parameter.grad = gradient.clone()
        optimizer.step()
    torch.testing.assert_close(
        parameter.detach().double(), adamw_by_hand(start, gradients, 0.1, 0.3, correct_bias), rtol=1e-5, atol=1e-6
    )


def test_the_state_has_the_keys_of_tape() -> None:
    model = nn.Linear(3, 2)
    optimizer, _ = make_optimizer(model, AdamWConfig(), 10)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = optimizer.state_dict()
    assert set(state["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}
    assert state["state"][0]["step"] == 1
    assert len(state["param_groups"]) == 2
    expected = {"weight_decay", "lr", "betas", "eps", "correct_bias", "initial_lr", "params"}
    assert set(state["param_groups"][0]) == expected
    assert (state["param_groups"][0]["betas"], state["param_groups"][0]["eps"]) == ((0.9, 0.999), 1e-6)


def test_a_parameter_added_later_has_its_own_step_count() -> None:
    early, late = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    optimizer = AdamW([early, late], lr=0.1)
    for _ in range(2):
        early.grad = torch.ones(2)
        optimizer.step()
    late.grad = torch.ones(2)
    optimizer.step(lambda: None)
    assert (optimizer.state[early]["step"], optimizer.state[late]["step"]) == (3, 1)
    torch.testing.assert_close(late.detach(), torch.full((2,), 0.9))


@pytest.mark.parametrize(
    "model_class", [ProteinBertForSequenceToSequenceClassification, ProteinBertForContactPrediction]
)
def test_norms_biases_and_weight_g_do_not_decay(model_class: type[nn.Module]) -> None:
    # bug 6 in docs/compatibility.md
    config = ProteinBertConfig(
        hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, contact_num_blocks=1
    )
    model = model_class(config)
    decayed, plain = parameter_groups(model, 0.1)
    assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    kept = {names[id(parameter)] for parameter in plain["params"]}
    norms = {
        f"{prefix}.{name}"
        for prefix, module in model.named_modules()
        if isinstance(module, nn.LayerNorm | nn.modules.batchnorm._BatchNorm)
        for name, _ in module.named_parameters(recurse=False)
    }
    assert norms <= kept
    assert kept == norms | {name for name in names.values() if name.endswith(("bias", "weight_g"))}
    assert {names[id(parameter)] for parameter in decayed["params"]} == set(names.values()) - kept


def test_the_head_has_its_own_learning_rate() -> None:
    config = ProteinBertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16)
    model = ProteinBertForSequenceToSequenceClassification(config.from_dict({**config.to_dict(), "num_labels": 3}))
    optimizer, schedule = make_optimizer(model, AdamWConfig(1e-3, warmup_steps=2, head_learning_rate=1e-1), 10)
    optimizer.step()
    schedule.step()
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    seen = set()
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            assert group["lr"] == pytest.approx(0.0005 if name.startswith("bert.") else 0.05), name
            matrix = parameter.ndim > 1 and not name.endswith("bias")
            assert group["weight_decay"] == (0.01 if matrix else 0.0), name
            seen.add(name)
    assert seen == set(names.values())


def test_frozen_parameters_are_not_optimized() -> None:
    model = nn.Linear(3, 2)
    model.bias.requires_grad_(False)
    assert [len(group["params"]) for group in parameter_groups(model, 0.1)] == [1, 0]


def rates(warmup: int, total: int) -> list[float]:
    optimizer = AdamW([nn.Parameter(torch.ones(1))], lr=2.0)
    schedule = WarmupLinearSchedule(optimizer, warmup, total)
    found = []
    for step in range(total):
        found.append(optimizer.param_groups[0]["lr"])
        schedule.set_step(step + 1)
    return [*found, optimizer.param_groups[0]["lr"]]


def test_linear_warm_up_and_decay_to_0() -> None:
    assert rates(2, 6) == pytest.approx([0.0, 1.0, 2.0, 1.5, 1.0, 0.5, 0.0])
    assert rates(0, 2) == pytest.approx([2.0, 1.0, 0.0])


def test_optimizer_and_schedule_are_freed_without_the_garbage_collector() -> None:
    optimizer, schedule = make_optimizer(nn.Linear(2, 2), AdamWConfig(), 10)
    optimizer.step()
    schedule.step()
    freed = weakref.ref(optimizer)
    gc.disable()
    try:
        del optimizer, schedule
        assert freed() is None
    finally:
        gc.enable()


def test_a_copied_schedule_goes_on_and_its_state_has_the_keys_of_torch() -> None:
    _, schedule = make_optimizer(nn.Linear(2, 2), AdamWConfig(1.0, warmup_steps=2), 10)
    copied = pickle.loads(pickle.dumps(schedule))
    copied.set_step(1)
    assert copied.get_last_lr() == [0.5, 0.5]
    assert schedule.get_last_lr() == [0.0, 0.0]
    of_torch = torch.optim.lr_scheduler.LambdaLR(AdamW([nn.Parameter(torch.ones(1))]), lambda step: 1.0).state_dict()
    assert schedule.state_dict().keys() == of_torch.keys() | {"warmup_steps", "t_total"}
    assert schedule.state_dict()["lr_lambdas"] == [{}, {}]


def test_the_default_warm_up_depends_on_the_length_of_the_run() -> None:
    # bug 11 in docs/compatibility.md: with 10,000 warm-up steps in any run, the peak was never reached
    assert [default_warmup_steps(total) for total in (5, 300, 99_999, 1_000_000)] == [0, 30, 9_999, 10_000]
    _, schedule = make_optimizer(nn.Linear(2, 2), AdamWConfig(), 300)
    assert (schedule.warmup_steps, schedule.t_total) == (30, 300)
    _, schedule = make_optimizer(nn.Linear(2, 2), AdamWConfig(warmup_steps=7), 300)
    assert schedule.warmup_steps == 7


def test_the_optimizer_does_not_import_the_compiler() -> None:
    """torch._dynamo doubles the start-up time of a command, and the base class's methods import it."""
    code = """
import sys, torch
from tape.finetuning.optimizer import make_optimizer
from tape.finetuning.config import AdamWConfig
model = torch.nn.Linear(2, 2)
optimizer, schedule = make_optimizer(model, AdamWConfig(), 10)
model(torch.ones(1, 2)).sum().backward()
optimizer.step(); optimizer.zero_grad(); schedule.set_step(1)
optimizer.load_state_dict(optimizer.state_dict())
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
