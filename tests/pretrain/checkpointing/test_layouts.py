"""Checkpoints are resharded: a run of any layout can be resumed at any other."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain.checkpointing import load_full_checkpoint, read_metadata
from tests.support.ranks import start_ranks

Flags = Callable[..., list[str]]
Run = Callable[[list[str]], None]
Records = Callable[..., list[dict[str, Any]]]
SHARDED_PIPELINE = ("--pipeline-model-parallel-size", 2, "--data-parallel-sharding")
SPLIT_PIPELINE = ("--pipeline-model-parallel-size", 2, "--tensor-model-parallel-size", 2, "--sequence-parallel")
STEPS = 6


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory, flags: Flags, pretrain_here: Run) -> Path:
    directory = tmp_path_factory.mktemp("alone")
    pretrain_here(flags("--save", directory, "--save-interval", STEPS // 2, train_iters=STEPS))
    return directory


def run_on_four(arguments: list[str], folder: Path) -> None:
    ranks = start_ranks(arguments, folder, 4)
    codes = [rank.end(240.0) for rank in ranks]
    assert codes == [0] * 4, "\n".join(rank.text for rank in ranks)


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("layout", [SHARDED_PIPELINE, SPLIT_PIPELINE], ids=["sharded pipeline", "split pipeline"])
def test_a_run_resumes_at_another_layout(
    alone: Path, tmp_path: Path, flags: Flags, pretrain_here: Run, records: Records, layout: tuple[object, ...]
) -> None:
    """First half on four processes, second half on one: losses and weights equal those of one process."""
    save = tmp_path / "save"
    own = ("--save", save, "--load", save)
    run_on_four(flags(*own, *layout, "--exit-interval", STEPS // 2, train_iters=STEPS), tmp_path / "logs")
    first = save / f"iter_{STEPS // 2:07d}"
    assert read_metadata(first)["layout"]["pipeline"] == 2
    there, here = load_full_checkpoint(first).model, load_full_checkpoint(alone, STEPS // 2).model
    assert there.keys() == here.keys()
    for name, value in here.items():
        if not name.endswith("key.bias"):  # its gradient is zero except for rounding errors, which Adam amplifies
            torch.testing.assert_close(there[name], value, rtol=0, atol=2e-4)
    pretrain_here(flags(*own, train_iters=STEPS))
    curves = [[record["lm_loss"] for record in records(directory)] for directory in (alone, save)]
    assert len(curves[0]) == STEPS
    assert curves[1] == pytest.approx(curves[0], abs=1e-5)


@pytest.mark.slow
@pytest.mark.distributed
def test_a_checkpoint_of_one_process_resumes_as_a_pipeline_with_fsdp(
    alone: Path, tmp_path: Path, flags: Flags, records: Records
) -> None:
    save = tmp_path / "save"
    first = alone / f"iter_{STEPS // 2:07d}"
    run_on_four(flags("--save", save, "--load", first, *SHARDED_PIPELINE, train_iters=STEPS), tmp_path / "logs")
    expected = [record["lm_loss"] for record in records(alone)][STEPS // 2 :]
    assert [record["lm_loss"] for record in records(save)] == pytest.approx(expected, abs=1e-5)
    evaluations = [records(directory, "evaluation")[-1]["validation_loss"] for directory in (alone, save)]
    assert evaluations[1] == pytest.approx(evaluations[0], abs=1e-5)
