"""Times of the operations that cpu_operations.py compares; separate from it, because ``--help`` needs no torch."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from tape.models import attention
from tape.models.activations import TanhGELU
from tape.models.contact_heads import PairwiseContactPredictionHead
from tape.models.dropout import dropout
from tape.models.heads import masked_cross_entropy
from tape.models.packed_convolution import convolve

_SCRIPT = Path(__file__).with_name("cpu_operations.py")
_PROBABILITY = 0.1
_RESIDUES = 400
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


@dataclass(frozen=True)
class Comparison:
    """Milliseconds of one operation in two implementations."""

    operation: str
    precision: str
    torch: float
    ours: float

    def line(self) -> str:
        ratio = self.torch / self.ours
        return f"| {self.operation} | {self.precision} | {self.torch:.2f} | {self.ours:.2f} | {ratio:.2f} |"


def passes(function: Callable[..., Tensor], *inputs: Tensor) -> Callable[[], None]:
    """A forward and backward pass of ``function``."""

    def run() -> None:
        leaves = [tensor.detach().requires_grad_() for tensor in inputs]
        output = function(*leaves)
        output.backward(torch.ones_like(output))

    return run


def milliseconds(alternatives: Sequence[Callable[[], None]], repeats: int) -> list[float]:
    """Shortest time of each function; they take turns, after one pass that isn't counted."""
    best = [float("inf")] * len(alternatives)
    for repeat in range(repeats + 1):
        for number, run in enumerate(alternatives):
            start = time.perf_counter()
            run()
            if repeat:
                best[number] = min(best[number], 1e3 * (time.perf_counter() - start))
    return best


def compare_operations(tokens: int, repeats: int) -> Iterator[Comparison]:
    """Operations on ``tokens`` tokens that take no settings of the process."""

    def compare(
        name: str, precision: str, theirs: Callable[..., Tensor], ours: Callable[..., Tensor], *inputs: Tensor
    ) -> Comparison:
        tensors = [tensor.to(DTYPES[precision]) for tensor in inputs]
        return Comparison(name, precision, *milliseconds([passes(theirs, *tensors), passes(ours, *tensors)], repeats))

    generator = torch.Generator().manual_seed(0)
    for precision in DTYPES:
        for length in (68, 272, 1088, 2176):
            if length > tokens:
                continue
            shape = (3, tokens // length, length, 8, 64)
            qkv = torch.randn(shape, generator=generator)
            for rate in (0.0, _PROBABILITY):
                sdpa = partial(_attend, attention._sdpa, rate)
                ours = partial(_attend, attention._padded, rate)  # eager, or torch's own, as it chooses
                name = f"attention, 8 heads of 64, {length} tokens" + (", dropout" if rate else "")
                yield compare(name, precision, sdpa, ours, *qkv)
        values = torch.randn(tokens, 2048, generator=generator)
        yield compare("GELU, tanh form", precision, lambda x: F.gelu(x, approximate="tanh"), TanhGELU(), values)
        theirs, ours = (lambda x: F.dropout(x, _PROBABILITY)), (lambda x: dropout(x, _PROBABILITY))
        yield compare("dropout", precision, theirs, ours, values)
        convolution = [torch.randn(shape, generator=generator) for shape in ((tokens, 512), (3, 512, 3), (3,))]
        yield compare("convolution of width 3, 512 to 3 channels", precision, _convolve, convolve, *convolution)
        residues = min(tokens, _RESIDUES)
        targets = torch.randint(-1, 2, (1, residues, residues), generator=generator)
        head = PairwiseContactPredictionHead(8, architecture="linear")
        losses = partial(masked_cross_entropy, targets=targets), partial(head.loss, targets=targets)
        logits = torch.randn(1, residues, residues, 2, generator=generator)
        yield compare(f"loss of all pairs of {residues} residues", precision, *losses, logits)


def _convolve(row: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.conv1d(row.t().unsqueeze(0), weight, bias, padding=weight.shape[2] // 2)


def _attend(implementation: Callable[..., Tensor], rate: float, *qkv: Tensor) -> Tensor:
    return implementation(*qkv, None, rate)


def compare_settings(repeats: int) -> Iterator[Comparison]:
    """A linear map of many tokens with and without the settings of the process, in processes of their own."""
    for precision in DTYPES:
        results = [_in_new_process(precision, repeats, configured) for configured in (False, True)]
        yield Comparison("linear map of 8,704 tokens", precision, *results)


def _in_new_process(precision: str, repeats: int, configured: bool) -> float:
    command = [sys.executable, str(_SCRIPT), "--repeats", str(repeats), "--measure", precision]
    command += ["--configure"] * configured
    return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def measure_setting(precision: str, repeats: int) -> float:
    """Milliseconds of the linear map with the settings of this process."""
    values, weight = (torch.randn(rows, 512).to(DTYPES[precision]) for rows in (8704, 2048))
    return milliseconds([passes(F.linear, values, weight)], repeats)[0]
