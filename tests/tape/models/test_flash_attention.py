"""The variable-length kernel: when it is used, what its check finds, and its results on a GPU.

The tests marked gpu read the dropout mask of the kernel off its results for values that are unit vectors, and compare
with a float64 reference that has the same mask. On the CPU, dense attention takes the kernel's place.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from tape.models import attention, flash_attention
from tape.models.activation_checkpointing import checkpointed
from tape.models.attention import AttentionCore, PackedLayout
from tape.models.flash_attention import Kernel, check_kernel, masked_reference, unusable_reason

CPU = torch.device("cpu")
LENGTHS = [9, 200, 1, 64, 133]
HEADS, SIZE = 3, 64
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def dense_kernel(query: Tensor, key: Tensor, value: Tensor, cumulative: Tensor, longest: int, dropout: float) -> Tensor:
    """A correct kernel for the CPU."""
    lengths = cumulative.diff().tolist()
    assert longest >= max(lengths)
    kept = [F.dropout(torch.ones(query.shape[1], n, n), dropout) * (1 - dropout) for n in lengths]
    return masked_reference([query.float(), key.float(), value.float()], kept, dropout).to(query.dtype)


def with_other_scale(*arguments: object) -> Tensor:
    """1.1 times too large, as if dropout of 0.1 dropped nothing but scaled."""
    return dense_kernel(*arguments) * 1.1  # type: ignore[arg-type]


def with_wrong_boundaries(q: Tensor, k: Tensor, v: Tensor, cumulative: Tensor, longest: int, dropout: float) -> Tensor:
    moved = cumulative.clone()
    moved[1] -= 1
    return dense_kernel(q, k, v, moved, longest, dropout)


def with_other_masks_each_time(*arguments: object) -> Tensor:
    torch.seed()
    return dense_kernel(*arguments)  # type: ignore[arg-type]


def with_wrong_gradients(q: Tensor, k: Tensor, *others: object) -> Tensor:
    return dense_kernel(q, k.detach() + 0.5 * (k - k.detach()), *others)  # type: ignore[arg-type]


def without_dropout(q: Tensor, k: Tensor, v: Tensor, cumulative: Tensor, longest: int, dropout: float) -> Tensor:
    return dense_kernel(q, k, v, cumulative, longest, 0.0)


def that_raises(*arguments: object) -> Tensor:
    raise RuntimeError("no kernel image is available\nfor this device")


@pytest.mark.parametrize("dropout", [0.0, 0.5])
@pytest.mark.parametrize("size", [8, 64])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_check_accepts_a_correct_kernel(dtype: torch.dtype, size: int, dropout: float) -> None:
    assert check_kernel(dense_kernel, CPU, dtype, size, dropout) is None


@pytest.mark.parametrize(
    ("kernel", "dropout", "reason"),
    [
        (with_other_scale, 0.0, "relative error"),
        (with_wrong_gradients, 0.0, "relative error"),
        (with_other_masks_each_time, 0.5, "relative error"),
        (without_dropout, 0.5, "0% of the attention probabilities are dropped instead of 50%"),
        (that_raises, 0.5, "RuntimeError: no kernel image is available"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_the_check_names_what_is_wrong(kernel: Kernel, dropout: float, reason: str) -> None:
    found = check_kernel(kernel, CPU, torch.bfloat16, 64, dropout)
    assert found is not None
    assert reason in found
    assert "\n" not in found


def test_the_check_finds_wrong_boundaries() -> None:
    assert check_kernel(with_wrong_boundaries, CPU, torch.bfloat16, 64, 0.0) is not None


def test_the_check_leaves_no_trace() -> None:
    """It may run in the first forward pass: under autocast, in inference mode, and inside activation checkpointing."""
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    with torch.autocast("cpu", torch.bfloat16), torch.inference_mode():
        assert check_kernel(dense_kernel, CPU, torch.bfloat16, 8, 0.5) is None
    assert torch.equal(torch.rand(2), expected)
    calls = []

    def square(values: Tensor) -> Tensor:
        if not calls:  # only in the first of the two forward passes
            calls.append(check_kernel(dense_kernel, CPU, torch.bfloat16, 8, 0.5))
        return values.square()

    values = torch.ones(2, requires_grad=True)
    checkpointed(square, values).sum().backward()
    assert calls == [None]
    assert values.grad is not None
    assert values.grad.tolist() == [2.0, 2.0]


def test_formats_that_the_kernel_does_not_support() -> None:
    gpu = torch.device("cuda", 0)
    assert "CUDA" in str(unusable_reason(CPU, torch.bfloat16, 64, 0.0))
    assert "bf16 or fp16" in str(unusable_reason(gpu, torch.float32, 64, 0.0))
    for size in (12, 264):
        assert "multiple of 8, up to 256" in str(unusable_reason(gpu, torch.bfloat16, size, 0.0))


def test_the_operator_with_dropout_is_differentiable_in_this_torch() -> None:
    query = torch.empty(50, 4, 64, device="meta", dtype=torch.bfloat16, requires_grad=True)
    cumulative = torch.empty(3, device="meta", dtype=torch.int32)
    context = flash_attention.flash_attention(query, query, query, cumulative, 30, 0.1)
    assert context.shape == query.shape
    (gradient,) = torch.autograd.grad(context.sum(), query)
    assert (gradient.shape, gradient.dtype) == (query.shape, query.dtype)


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The backends that were used, in order; the kernel is replaced by dense attention and accepted everywhere."""
    calls: list[str] = []

    def record(name: str, function: Callable[..., Tensor]) -> Callable[..., Tensor]:
        def call(*arguments: object) -> Tensor:
            calls.append(name)
            return function(*arguments)

        return call

    monkeypatch.setattr(flash_attention, "unusable_reason", lambda *_: None)
    monkeypatch.setattr(flash_attention, "flash_attention", record("flash", dense_kernel))
    monkeypatch.setattr(attention, "_grouped", record("padded", attention._grouped))
    return calls


def attend(core: AttentionCore, packed: bool = True) -> Tensor:
    layout = PackedLayout.from_lengths([3, 7]) if packed else None
    query, key, value = torch.randn(3, 1, 10, 2, 8, generator=torch.Generator().manual_seed(1))
    output: Tensor = core(query, key, value, None, layout)
    return output


@pytest.mark.parametrize(("backend", "expected"), [("auto", "flash"), ("flash", "flash"), ("padded", "padded")])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_backend_of_packed_rows(used: list[str], backend: str, expected: str, dropout: float) -> None:
    core = AttentionCore(dropout)
    core.backend = backend
    attend(core)
    assert used == [expected]


def test_backends_compute_the_same(used: list[str]) -> None:
    core = AttentionCore(0.5).eval()
    flash = attend(core)
    core.backend = "padded"
    torch.testing.assert_close(attend(core), flash)
    assert used == ["flash", "padded"]


def test_padded_batches_never_use_the_kernel(used: list[str]) -> None:
    attend(AttentionCore(0.5), packed=False)
    assert used == []


def test_auto_pads_where_the_kernel_cannot_be_used(used: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flash_attention, "unusable_reason", lambda *_: "no such kernel")
    attend(AttentionCore(0.5))
    assert used == ["padded"]


def test_dropout_is_applied_in_training_only(used: list[str]) -> None:
    core = AttentionCore(0.5)
    assert not torch.equal(attend(core), attend(core))
    core.eval()
    assert torch.equal(attend(core), attend(core))
    assert used == ["flash"] * 4


# On a GPU


def gpu_inputs(dtype: torch.dtype) -> list[Tensor]:
    """Query, key, value and a gradient of the context."""
    generator = torch.Generator().manual_seed(5)
    return list(torch.randn(4, sum(LENGTHS), HEADS, SIZE, generator=generator).to("cuda", dtype))


def run_kernel(inputs: list[Tensor], dropout: float, seed: int = 7) -> Tensor:
    torch.cuda.manual_seed(seed)
    cumulative = PackedLayout.from_lengths(LENGTHS, "cuda").cumulative
    return flash_attention.flash_attention(*inputs[:3], cumulative, max(LENGTHS), dropout)


def kernel_mask(dtype: torch.dtype, dropout: float) -> list[Tensor]:
    """The dropout mask of each protein, read in slices as wide as a head."""
    uniform = torch.zeros(sum(LENGTHS), HEADS, SIZE, device="cuda", dtype=dtype)
    slices = []
    for start in range(0, max(LENGTHS), SIZE):
        units = torch.cat([torch.eye(n, max(LENGTHS) + SIZE)[:, start : start + SIZE] for n in LENGTHS])
        values = units.unsqueeze(1).expand(-1, HEADS, -1).contiguous().to("cuda", dtype)
        slices.append(run_kernel([uniform, uniform, values], dropout) > 0)
    parts = torch.cat(slices, -1).split(LENGTHS)
    return [part.transpose(0, 1)[..., : len(part)].double() for part in parts]


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("size", [8, 24, 64, 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_the_kernel_passes_its_check(dtype: torch.dtype, size: int, dropout: float) -> None:
    assert unusable_reason(torch.device("cuda"), dtype, size, dropout) is None


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dropout", [0.0, 0.1, 0.5])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.bfloat16, 2e-2), (torch.float16, 4e-3)])
def test_results_and_gradients_with_the_same_mask(dtype: torch.dtype, tolerance: float, dropout: float) -> None:
    kept = kernel_mask(dtype, dropout)
    *inputs, gradient = gpu_inputs(dtype)
    ours = [tensor.clone().requires_grad_() for tensor in inputs]
    exact = [tensor.double().requires_grad_() for tensor in inputs]
    context, expected = run_kernel(ours, dropout), masked_reference(exact, kept, dropout)
    results = [context, *torch.autograd.grad(context, ours, gradient)]
    references = [expected, *torch.autograd.grad(expected, exact, gradient.double())]
    for result, reference in zip(results, references, strict=True):
        assert (result - reference).norm() < tolerance * reference.norm()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("dropout", [0.1, 0.5])
def test_fraction_of_dropped_probabilities(dropout: float) -> None:
    """The kernel compares 8 random bits, so the probability is off by at most 1/256."""
    kept = torch.cat([mask.flatten() for mask in kernel_mask(torch.bfloat16, dropout)])
    sampling = 5 * (dropout * (1 - dropout) / len(kept)) ** 0.5
    assert abs(1 - kept.mean().item() - dropout) < 1 / 256 + sampling


@pytest.mark.gpu
@needs_gpu
def test_heads_and_proteins_have_different_masks() -> None:
    kept = kernel_mask(torch.bfloat16, 0.5)
    assert not torch.equal(kept[1][0], kept[1][1])
    assert not torch.equal(kept[1][0, :64, :64], kept[3][0])


@pytest.mark.gpu
@needs_gpu
def test_mean_over_seeds_is_the_result_without_dropout() -> None:
    inputs, seeds = gpu_inputs(torch.float16), 200
    mean = sum(run_kernel(inputs, 0.1, seed).double() for seed in range(seeds)) / seeds
    exact = run_kernel(inputs, 0.0).double()
    # independent values: the relative noise is sqrt(p / (1 - p) / seeds) = 0.024
    assert (mean - exact).norm() < 0.05 * exact.norm()


@pytest.mark.gpu
@needs_gpu
@pytest.mark.parametrize("recompute", [False, True])
def test_recomputation_draws_the_same_mask(recompute: bool) -> None:
    """Selective activation checkpointing, with a random state that has advanced before the backward pass."""
    core = AttentionCore(0.5).train()
    core.recompute, core.backend = recompute, "flash"
    *inputs, gradient = (tensor.unsqueeze(0) for tensor in gpu_inputs(torch.bfloat16))
    ours = [tensor.clone().requires_grad_() for tensor in inputs]
    torch.cuda.manual_seed(7)
    context = core(*ours, None, PackedLayout.from_lengths(LENGTHS, "cuda"))
    torch.rand(5, device="cuda")
    context.backward(gradient)
    expected = [tensor.clone().requires_grad_() for tensor in inputs]
    run_kernel([tensor[0] for tensor in expected], 0.5).backward(gradient[0])
    for one, other in zip(ours, expected, strict=True):
        assert one.grad is not None
        assert other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=2e-2, atol=2e-2)  # sums in another order


@pytest.mark.gpu
@needs_gpu
def test_dropout_advances_the_random_state_equally_for_equal_layouts() -> None:
    states = []
    for seed in (1, 2):
        run_kernel(gpu_inputs(torch.bfloat16), 0.1, seed)
        states.append(torch.cuda.get_rng_state()[8:])
    assert torch.equal(*states)
    torch.cuda.manual_seed(1)
    assert not torch.equal(torch.cuda.get_rng_state()[8:], states[0])
