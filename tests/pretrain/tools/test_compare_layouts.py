"""Every parallel layout of 1, 2 and 4 processes has the training curve of a single process."""

from __future__ import annotations

from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest

from pretrain.tools import compare_layouts
from pretrain.tools.compare_layouts import MODEL, OPTIMIZERS, Curve, Layout, SyntheticRows, layouts, run_all, run_layout
from tape.runtime.launch import Launch

STEPS = 20
SHORT = 5  # in every layout; the tool itself takes 20
ALONE = Layout()
SPLIT = [layout for world in (2, 4) for layout in layouts(world)]
# AdamW and Muon: the layouts with most kinds of parallelism; --fp16: those whose ranks must agree on an overflow.
COMPOSED = [Layout(2, 2, 1, True, True), Layout(2, 1, 2, True)]
FP16 = ("--fp16", "--initial-loss-scale", str(2.0**40), "--hysteresis", "1", *OPTIMIZERS["sgd"])
FP16_STEPS = 4
SHALLOW = ("--num-layers", "2")  # sharded matrices are slow on a CPU, so these layouts have half the layers


def with_depth(layout: Layout, flags: tuple[str, ...]) -> tuple[str, ...]:
    """Flags of a run in a layout, and of the single-process run that it is compared with."""
    return (*flags, *SHALLOW) if layout.tensor > 1 else flags


SGD, ADAM, MUON = (OPTIMIZERS[name] for name in ("sgd", "adam", "muon"))
RUNS = [
    *((ALONE, flags, SHORT) for flags in (SGD, (*SGD, *SHALLOW))),
    *((layout, with_depth(layout, SGD), SHORT) for layout in SPLIT),
    *((layout, (*flags, *SHALLOW), STEPS) for layout in (ALONE, *COMPOSED) for flags in (ADAM, MUON)),
    *((layout, (*FP16, *SHALLOW), FP16_STEPS) for layout in (ALONE, *COMPOSED[1:])),
]

Curves = dict[tuple[Layout, tuple[str, ...]], Curve]


@pytest.fixture(scope="module")
def curves() -> Curves:
    """The curves of all runs, made by the same four processes."""
    keys = [(layout, tuple(flags)) for layout, flags, _ in RUNS]
    return dict(zip(keys, run_all(RUNS, processes=4), strict=True))


def test_layouts_are_complete() -> None:
    assert [len(layouts(world)) for world in (1, 2, 4)] == [1, 5, 13]
    for world in (1, 2, 4):
        assert len(set(layouts(world))) == len(layouts(world))
        assert all(layout.world == world for layout in layouts(world))
    names = {str(layout) for layout in layouts(4)}
    assert {"TP 2 DP 2 PP 1 SP sharded", "TP 2 DP 1 PP 2 SP", "TP 1 DP 2 PP 2 sharded", "TP 1 DP 1 PP 4"} <= names


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("layout", SPLIT, ids=str)
def test_sgd_gives_the_same_curve(curves: Curves, layout: Layout) -> None:
    # In the original, pipeline stages get no positions (bug 32 in docs/compatibility.md).
    alone, other = (curves[one, with_depth(layout, SGD)] for one in (ALONE, layout))
    assert len(other.losses) == SHORT
    assert alone.losses[-1] < alone.losses[0] - 0.1
    assert max(alone.norms) > 1.0  # gradients are clipped
    loss, norm, evaluation = other.difference(alone)
    assert loss <= 1e-5
    assert norm <= 1e-5
    assert evaluation <= 1e-6


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("flags", [ADAM, MUON], ids=["adamw", "muon"])
@pytest.mark.parametrize("layout", COMPOSED, ids=str)
def test_other_optimizers_give_the_same_curve(curves: Curves, layout: Layout, flags: tuple[str, ...]) -> None:
    alone, other = (curves[one, with_depth(layout, flags)] for one in (ALONE, layout))
    assert len(other.losses) == STEPS
    loss, _, evaluation = other.difference(alone)
    assert loss <= 1e-4
    assert evaluation <= 1e-4


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("layout", COMPOSED[1:], ids=str)
def test_ranks_agree_on_overflows(curves: Curves, layout: Layout) -> None:
    alone, other = (curves[one, with_depth(layout, FP16)] for one in (ALONE, layout))
    assert alone.skipped == other.skipped
    assert alone.skipped > 0


@pytest.mark.parametrize("flags", [("--recompute-granularity", "selective"), ("--checkpoint-activations",)], ids=str)
def test_activation_checkpointing_changes_nothing(flags: tuple[str, ...]) -> None:
    dropout = ("--attention-dropout", "0.2", "--hidden-dropout", "0.1")
    plain, recomputed = (run_layout([*MODEL, *dropout, *more], Launch(), 2) for more in ((), flags))
    assert plain.losses == recomputed.losses
    assert plain.norms == recomputed.norms


def test_rows_are_the_same_every_time() -> None:
    one, two = SyntheticRows()[3], SyntheticRows()[3]
    assert one.lengths == two.lengths
    assert (one.input_ids == two.input_ids).all()
    assert (SyntheticRows(seed=2)[3].input_ids[:3] != SyntheticRows()[3].input_ids[:3]).any()


def test_a_process_that_has_ended_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compare_layouts, "_POLL_SECONDS", 0.01)
    ranks: list[Any] = [SimpleNamespace(exitcode=None), SimpleNamespace(exitcode=-9)]
    curves: Any = Queue()
    assert compare_layouts._next_curve(curves, ranks) == "rank 1 ended with exit code -9"
    curves.put("a traceback")
    assert compare_layouts._next_curve(curves, ranks) == "a traceback"
