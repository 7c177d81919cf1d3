"""Muon against its definition and against torch's implementation."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pretrain.optim.lr_schedule import ScheduleConfig
from pretrain.optim.muon import orthogonalize
from pretrain.optim.optimizer import Optimizer, OptimizerConfig
from pretrain.parallel import GradientBuckets, ParallelContext, ParallelDims, local_parameters
from pretrain.train.initialization import InitConfig, build_model
from tape.configs import ProteinBertConfig

ALONE = ParallelContext(ParallelDims(), 0, torch.device("cpu"), None)
CONFIG = ProteinBertConfig(
    hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=32
)
SCHEDULE = ScheduleConfig(lr=1e-2, style="constant", decay_iters=10)


def make(**values: Any) -> tuple[torch.nn.Module, Optimizer]:
    model = build_model(CONFIG, InitConfig(), ALONE)
    parameters = local_parameters(model, ALONE)
    config = OptimizerConfig("muon", clip_grad=0.0, **values)
    return model, Optimizer(parameters, GradientBuckets(parameters, ALONE), config, SCHEDULE)


@pytest.mark.parametrize("shape", [(16, 16), (32, 16), (8, 64)])
def test_singular_values_end_near_one_and_vectors_stay(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(1)) * 1e-3
    given = torch.linalg.svd(matrix, full_matrices=False)
    in_its_basis = given.U.T @ orthogonalize(matrix) @ given.Vh.T
    values = in_its_basis.diag()
    assert 0.5 < float(values.min()) <= float(values.max()) < 1.3
    assert float((in_its_basis - values.diag()).abs().max()) < 1e-4
    assert orthogonalize(torch.zeros(shape)).abs().max() == 0


@pytest.mark.parametrize("nesterov", [False, True])
def test_block_matrices_are_updated_as_by_torch_and_all_others_by_adamw(nesterov: bool) -> None:
    options = {"weight_decay": 0.1, "muon_momentum": 0.9, "muon_nesterov": nesterov, "muon_extra_scale_factor": 0.2}
    model, optimizer = make(**options)
    reference = build_model(CONFIG, InitConfig(), ALONE)
    named = dict(reference.named_parameters())
    matrices = [name for name, p in named.items() if p.dim() == 2 and ".layer." in name]
    others = [p for name, p in named.items() if name not in matrices and p.requires_grad]
    muon = torch.optim.Muon(
        [named[name] for name in matrices],
        lr=1e-2,
        weight_decay=0.1,
        momentum=0.9,
        nesterov=nesterov,
        adjust_lr_fn="match_rms_adamw",
    )
    groups = [
        {"params": [p for p in others if p.dim() >= 2], "weight_decay": 0.1},
        {"params": [p for p in others if p.dim() < 2], "weight_decay": 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=1e-2)
    for iteration in range(1, 4):
        generator = torch.Generator().manual_seed(iteration)
        for ours, theirs in zip(model.parameters(), reference.parameters(), strict=True):
            if ours.grad is not None:
                ours.grad.copy_(torch.randn(ours.shape, generator=generator))
                theirs.grad = ours.grad.clone()
        optimizer.step(iteration, norm=1.0)
        muon.step()
        adamw.step()
    start = build_model(CONFIG, InitConfig(), ALONE).state_dict()
    for name, parameter in model.named_parameters():
        change, expected = parameter.detach() - start[name], named[name].detach() - start[name]
        tolerance = 2e-2 if name in matrices else 1e-5  # torch orthogonalizes in bf16
        assert float((change - expected).norm()) <= tolerance * float(expected.norm()), name


def test_state_is_one_buffer_per_block_matrix_and_two_moments_for_others() -> None:
    model, optimizer = make()
    state = optimizer.state()
    for name, parameter in model.named_parameters():
        kinds = {key.removeprefix(f"{name}.") for key in state if key.startswith(f"{name}.")}
        is_matrix = ".layer." in name and parameter.dim() == 2
        assert kinds == ({"momentum_buffer"} if is_matrix else {"exp_avg", "exp_avg_sq", "step"}) or "pooler" in name
