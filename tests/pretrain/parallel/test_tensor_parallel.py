"""Tensor-parallel blocks, compiled and not, equal unsharded ones. All runs share one start of two processes.

Losses of all layouts without --compile are compared in tests/pretrain/tools/test_compare_layouts.py.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import DTensor

from pretrain.parallel import ParallelContext, ParallelDims, parallelize
from pretrain.parallel.tensor_parallel import apply_tensor_parallel
from pretrain.tools.compare_layouts import MODEL, OPTIMIZERS, Curve, Layout, run_layout
from pretrain.train.initialization import InitConfig, build_model
from tape.configs import ProteinBertConfig
from tape.models.modeling_bert import ProteinBertLayer
from tape.runtime.launch import Launch
from tests.support.ranks import compute

STEPS = 5
LAYOUT = Layout(2)
FLAGS = (*MODEL, *OPTIMIZERS["sgd"], "--num-layers", "3")
# Compiled versions of a block, one to train and one to evaluate; all blocks must share them.
VERSIONS = 2
TOKENS = 6


def block() -> ProteinBertLayer:
    config = ProteinBertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
    alone = ParallelContext(ParallelDims(), 0, torch.device("cpu"), None)
    layer: ProteinBertLayer = build_model(config, InitConfig(std=0.3), alone).bert.encoder.layer[0]
    torch.nn.init.normal_(layer.mlp.dense_4h_h.bias, generator=torch.Generator().manual_seed(2))
    return layer


def tokens() -> Tensor:
    return torch.randn(1, TOKENS, 16, generator=torch.Generator().manual_seed(1))


def through(ffn: Any, hidden: Tensor) -> list[Tensor]:
    """Output, and gradients of the input and of two biases, one sharded and one replicated."""
    hidden.requires_grad_()
    output = ffn(hidden)
    output.square().sum().backward()
    assert hidden.grad is not None
    return [output.detach(), hidden.grad, ffn.dense_h_4h.bias.grad, ffn.dense_4h_h.bias.grad]


def tensor_parallel_ffns(rank: int, folder: str) -> list[list[np.ndarray]]:
    """Results of a tensor-parallel FFN: eager, then compiled, each without and with sequence parallelism."""
    dist.init_process_group("gloo", init_method=f"file://{folder}/ffn", rank=rank, world_size=2)
    mesh = init_device_mesh("cpu", (2,), mesh_dim_names=("tensor",))
    results = []
    for compiled, sequence_parallel in itertools.product((False, True), repeat=2):
        one = block()
        apply_tensor_parallel(one, mesh, sequence_parallel=sequence_parallel)
        if compiled:
            one.mlp.compile(dynamic=True)
        hidden = tokens().chunk(2, 1)[rank].clone() if sequence_parallel else tokens()
        values = [v.full_tensor() if isinstance(v, DTensor) else v for v in through(one.mlp, hidden)]
        results.append([value.numpy() for value in values])
    dist.destroy_process_group()
    torch.compiler.reset()
    return results


def curve(rank: int, folder: str) -> Curve:
    parallelize.apply_compile = functools.partial(parallelize.apply_compile, backend="aot_eager")  # all but the C++
    launch = Launch(rank, 2, rank, f"file://{folder}/curve", "test")
    with torch._dynamo.config.patch(recompile_limit=VERSIONS, fail_on_recompile_limit_hit=True):
        return run_layout([*FLAGS, *LAYOUT.flags(), "--compile"], launch, STEPS)


def work(rank: int, folder: str) -> tuple[list[list[np.ndarray]], Curve]:
    return tensor_parallel_ffns(rank, folder), curve(rank, folder)


Results = list[tuple[list[list[np.ndarray]], Curve]]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """Results of the two processes."""
    return compute(work, tmp_path_factory.mktemp("compiled"))


@pytest.mark.slow
@pytest.mark.distributed
def test_losses_with_compiled_tensor_parallel_blocks_equal_those_of_one_process(ranks: Results) -> None:
    alone = run_layout(FLAGS, Launch(), STEPS)
    assert alone.losses[-1] < alone.losses[0] - 0.05
    for _, compiled in ranks:
        loss, norm, evaluation = compiled.difference(alone)
        assert loss <= 1e-5
        assert norm <= 1e-5
        assert evaluation <= 1e-5


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "inductor"])
def test_a_tensor_parallel_ffn_equals_the_unsharded_one(ranks: Results, compiled: bool) -> None:
    expected = [value.numpy() for value in through(block().mlp, tokens())]
    for rank, (ffns, _) in enumerate(ranks):
        whole, part = ffns[2:] if compiled else ffns[:2]
        for found, wanted in zip(whole, expected, strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
        own = [np.split(value, 2, 1)[rank] for value in expected[:2]]
        for found, wanted in zip(part, [*own, *expected[2:]], strict=True):
            np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
