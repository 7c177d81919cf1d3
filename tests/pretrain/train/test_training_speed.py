"""A training step reaches a fraction of the rate of matrix products, so that a loss of speed is noticed."""

from __future__ import annotations

import time

import pytest
import torch

from pretrain.build import build_trainer
from pretrain.config.arguments import parse_arguments
from pretrain.data.samples import join_rows
from pretrain.parallel import open_parallel_context
from pretrain.planning.flops import flops_per_token, measured_peak
from pretrain.tools.compare_layouts import SyntheticRows
from tape.models.low_precision import fast_bf16
from tape.runtime.launch import Launch

CPU = torch.device("cpu")
ROW, ROWS, STEPS = 512, 4, 6
FLAGS = (
    "--num-layers 4 --hidden-size 256 --num-attention-heads 4 --attention-dropout 0 --hidden-dropout 0"
    f" --seq-length {ROW} --max-position-embeddings {ROW} --micro-batch-size {ROWS}"
    " --train-iters 100 --lr 1e-4 --lr-decay-style constant --data-path none"
)
# Measured on one core of a busy machine (Zen 4, without AMX) on 2026-11-28: 74 to 76 % in fp32, 54 to 58 % in bf16. The
# bounds are a third of that, in bf16 an eighth, because the rate of its products is higher on an idle machine.
LEAST_UTILIZATION = {"fp32": 0.24, "bf16": 0.07}


@pytest.mark.slow
@pytest.mark.parametrize("precision", LEAST_UTILIZATION)
def test_a_training_step_reaches_a_fraction_of_the_matrix_rate(precision: str) -> None:
    """In seconds of CPU time of one thread, which other processes hardly change."""
    if precision == "bf16" and not fast_bf16("cpu"):
        pytest.skip("bf16 is not faster than fp32 on this machine")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        utilization = _utilization(precision)
    finally:
        torch.set_num_threads(threads)
    assert utilization > LEAST_UTILIZATION[precision]


def _utilization(precision: str) -> float:
    """Model FLOPs utilization of the fastest of several steps, beside the fastest of several matrix products."""
    config = parse_arguments([*FLAGS.split(), "--precision", precision])
    rows = SyntheticRows(length=ROW)
    batch = join_rows([rows[number] for number in range(ROWS)])
    lengths = [length for number in range(ROWS) for length in rows[number].lengths]
    attended = sum(length**2 for length in lengths) / sum(lengths)
    flops = flops_per_token(config.model, attended, config.samples.mask_prob) * sum(lengths)
    peak, fastest = 0.0, float("inf")
    with open_parallel_context(config.dims, Launch(), "gloo", CPU, config.parallel.timeout) as context:
        trainer = build_trainer(config, context)
        trainer.model.train()
        for step in range(1, STEPS + 1):
            began = time.process_time()
            trainer.train_step(step, [batch])
            fastest = min(fastest, time.process_time() - began)
            peak = max(peak, measured_peak(config.precision, CPU, 0.1, time.process_time))
    return flops / fastest / peak
