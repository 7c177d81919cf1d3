"""Statistics of ``config.pooled_norm="batch"`` for evaluation: those of the weights as they are.

Running means lag behind the weights. Between proteins that differ in a mutation, the normalized vectors differ by so
little that a few steps of training move their mean by several standard deviations, and evaluation with running
statistics fails until the learning rate is small. Wu and Johnson (2021, "Rethinking 'Batch' in BatchNorm", section 3)
recompute the statistics before each evaluation, without dropout, as is done here.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack

import torch
from torch import Tensor, nn

from tape.datasets.labels import Batch, model_inputs
from tape.models.batch_norm import MaskedBatchNorm
from tape.models.modeling_utils import ProteinModel
from tape.runtime.distributed import DistributedContext, all_reduce_sum
from tape.runtime.precision import autocast

PROTEINS = 2048  # enough for a standard error of 2 % of a standard deviation
LEAST_VARIANCE = 1e-4  # of the median over features; see _usable


def pooled_norm_of(model: nn.Module) -> MaskedBatchNorm | None:
    """The batch normalization of the input of a value or class head, if the model has one."""
    norm = getattr(model, "pooled_norm", None) if isinstance(model, ProteinModel) else None
    return norm if isinstance(norm, MaskedBatchNorm) else None


@torch.no_grad()
def update_statistics(
    model: nn.Module, norm: MaskedBatchNorm, batches: Iterable[Batch], precision: str, context: DistributedContext
) -> None:
    """Set the running mean and variance to those of proteins; called by all ranks together.

    A feature that hardly varies gets the median variance.

    Args:
        model: the model, in any mode; afterwards in evaluation mode.
        norm: its normalization.
        batches: this rank's batches.
        precision: that of the forward pass.
        context: the ranks.
    """
    sums = _Sums(norm.num_features, context.device)
    model.eval()
    with ExitStack() as stack:
        stack.callback(norm.register_forward_pre_hook(lambda _, inputs: sums.add(inputs[0])).remove)
        for batch in batches:
            inputs = model_inputs(batch, context.device)
            with autocast(precision, context.device):
                model(inputs["input_ids"], inputs.get("input_mask"))
    count, *values = all_reduce_sum([sums.count, *sums.values.flatten().tolist()], context)
    if count < 2:
        return
    total, squares = torch.tensor(values, dtype=torch.float64, device=context.device).view(2, -1)
    mean = total / count
    assert norm.running_mean is not None
    assert norm.running_var is not None
    norm.running_mean.copy_(mean)
    norm.running_var.copy_(_usable((squares - total * mean).clamp(min=0) / (count - 1)))


def _usable(variance: Tensor) -> Tensor:
    """(H,) variances, with the median instead of those that are much smaller.

    A feature that hardly varies in these proteins, such as the frequency of a rare residue in one-hot vectors, would be
    amplified without limit in a protein where it does.
    """
    varying = variance[variance > 0]
    if not len(varying):
        return torch.ones_like(variance)
    median = varying.median()
    return torch.where(variance < LEAST_VARIANCE * median, median, variance)


class _Sums:
    """Sum and sum of squares of vectors, in fp64: the variance is much smaller than the square of the mean."""

    def __init__(self, size: int, device: torch.device) -> None:
        self.count = 0.0
        self.values = torch.zeros(2, size, dtype=torch.float64, device=device)

    def add(self, vectors: Tensor) -> None:
        exact = vectors.double()
        self.count += len(exact)
        self.values += torch.stack((exact.sum(0), exact.square().sum(0)))
