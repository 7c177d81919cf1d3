"""Weight decay groups, gradient clipping and the update."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest
import torch

from pretrain.optim.lr_schedule import ScheduleConfig
from pretrain.optim.optimizer import Optimizer, OptimizerConfig, decay_groups
from pretrain.parallel import GradientBuckets, ParallelContext, ParallelDims, local_parameters
from pretrain.train.initialization import InitConfig, build_model
from tape.configs import ProteinBertConfig

ALONE = ParallelContext(ParallelDims(), 0, torch.device("cpu"), None)
CONFIG = ProteinBertConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32
)


def make(config: OptimizerConfig, schedule: ScheduleConfig) -> tuple[torch.nn.Module, Optimizer]:
    model = build_model(CONFIG, InitConfig(), ALONE)
    parameters = local_parameters(model, ALONE)
    return model, Optimizer(parameters, GradientBuckets(parameters, ALONE), config, schedule)


def test_only_matrices_have_weight_decay() -> None:  # bug 6 in docs/compatibility.md
    parameters = local_parameters(build_model(CONFIG, InitConfig(), ALONE), ALONE)
    decayed, others = decay_groups(parameters, 0.01)
    names = {id(p.local): p.name for p in parameters}
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.01, 0.0)
    assert all(names[id(p)].endswith(".weight") and "_ln" not in names[id(p)] for p in decayed["params"])
    assert {names[id(p)].rsplit(".", 1)[-1] for p in others["params"]} == {"bias", "weight"}
    assert "bert.encoder.layer.0.input_ln.weight" in {names[id(p)] for p in others["params"]}
    assert len(decayed["params"]) + len(others["params"]) == len(parameters)


def test_adam_is_torchs_adamw() -> None:
    config = OptimizerConfig(weight_decay=0.1, clip_grad=0.0)
    model, optimizer = make(config, ScheduleConfig(lr=0.1, style="constant", decay_iters=10))
    reference = build_model(CONFIG, InitConfig(), ALONE)
    groups = [
        {"params": [p for p in reference.parameters() if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in reference.parameters() if p.dim() < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=0.1, eps=1e-8, foreach=False, fused=False)
    for iteration in range(1, 4):
        for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
            gradient = torch.randn(ours.shape, generator=torch.Generator().manual_seed(iteration))
            assert ours.grad is not None
            ours.grad.copy_(gradient)
            theirs.grad = gradient.clone()
        optimizer.step(iteration, norm=1.0)
        adamw.step()
    for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_gradients_are_clipped_to_the_norm() -> None:
    config = OptimizerConfig(name="sgd", clip_grad=0.5, momentum=0.0, weight_decay=0.0)
    model, optimizer = make(config, ScheduleConfig(lr=1.0, style="constant", decay_iters=10))
    before = torch.cat([p.detach().flatten() for p in model.parameters()])
    for parameter in model.parameters():
        assert parameter.grad is not None
        parameter.grad.fill_(3.0)
    norm = float(optimizer.gradients.norm())
    assert norm == pytest.approx(3.0 * math.sqrt(len(before)))
    optimizer.step(1, norm)
    after = torch.cat([p.detach().flatten() for p in model.parameters()])
    assert float((after - before).norm()) == pytest.approx(0.5, rel=1e-4)


def test_gradients_are_zeroed_and_stay_in_their_bucket() -> None:  # bug 1 in docs/compatibility.md
    model, optimizer = make(OptimizerConfig(), ScheduleConfig(decay_iters=10))
    for _ in range(2):
        optimizer.gradients.zero()
        sum(p.square().sum() for p in model.parameters()).backward()
        expected = torch.sqrt(sum(4 * p.detach().double().square().sum() for p in model.parameters()))
        assert float(optimizer.gradients.norm()) == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("name", ["adam", "sgd"])
def test_the_optimizer_does_not_import_the_compiler(name: str) -> None:
    """torch._dynamo doubles the start-up time of a command, and torch's methods import it."""
    code = f"""
import sys, torch
from pretrain.optim.optimizer import OptimizerConfig, _make
weight = torch.ones(2, 2, requires_grad=True)
optimizer = _make(OptimizerConfig(name={name!r}), [{{"params": [weight], "weight_decay": 0.1}}])
weight.sum().backward()
optimizer.param_groups[0]["lr"] = 1.0
optimizer.step()
assert not weight.equal(torch.ones(2, 2))
sys.exit("torch._dynamo" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
