"""Dataset indexes, batch plans, and loaders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tape.datasets import ProteinnetDataset, StabilityDataset
from tape.datasets.batching import check_token_budget, divide_step, draw_batches, plan_epoch, plan_evaluation
from tape.datasets.index import index_of, lengths_of, within_length
from tape.datasets.loading import load_batches, worker_count
from tape.errors import ConfigError, DataError
from tape.runtime.out_of_memory import OutOfMemoryError

LENGTHS = np.random.default_rng(0).integers(10, 500, 100)
EVERYONE = np.arange(100)


def test_an_index_has_lengths_ids_and_changes_without_building_examples(
    small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def build(self: ProteinnetDataset, index: int) -> Any:
        raise AssertionError("an example was built for its length")

    monkeypatch.setattr(ProteinnetDataset, "__getitem__", build)  # bug 36 in docs/compatibility.md
    dataset = ProteinnetDataset(small_data, "train")
    dataset_index = dataset.build_index()
    assert dataset_index.lengths.tolist() == [len(dataset.data[i]["primary"]) for i in range(10)]
    assert dataset_index.identifiers[3] == "proteinnet-3"
    assert not dataset_index.changes
    assert dataset.build_index() is dataset_index


def test_an_index_counts_changed_characters(write_split: Callable[..., Path]) -> None:
    records = [{"primary": "acJ", "stability_score": [1.0]}, {"primary": "J J", "stability_score": [1.0]}]
    dataset_index = StabilityDataset(write_split("stability", "train", records), "train").build_index()
    assert dataset_index.changes == {"lower_case": 2, "J_to_X": 3}
    assert dataset_index.lengths.tolist() == [3, 2]


def test_indexing_refuses_invalid_records_and_empty_files(write_split: Callable[..., Path]) -> None:
    data = write_split("stability", "train", [{"primary": "AC", "stability_score": [1.0]}, {"primary": "A1"}])
    with pytest.raises(DataError, match=r"stability_train\.lmdb, record 1: unknown residue '1'"):
        StabilityDataset(data, "train").build_index()
    with pytest.raises(DataError, match="contains no record"):
        StabilityDataset(write_split("stability", "valid", []), "valid").build_index()


def test_a_data_set_without_an_index_has_no_lengths(small_data: Path) -> None:
    class Theirs:
        def __init__(self) -> None:
            self.data = StabilityDataset(small_data, "train").data

        def __len__(self) -> int:
            return 3

    for dataset in (Theirs(), [1, 2, 3]):  # Theirs may select records of its file
        assert index_of(dataset) is None
        assert lengths_of(dataset).tolist() == [0, 0, 0]


def test_max_length_selects_proteins_and_refuses_an_empty_selection() -> None:
    assert within_length(np.array([5, 40, 30]), 30).tolist() == [0, 2]
    assert within_length(np.array([5, 40, 30]), None).tolist() == [0, 1, 2]
    with pytest.raises(ConfigError, match="leaves no protein; the shortest has 5"):
        within_length(np.array([5, 40]), 4)


def test_an_epoch_has_every_protein_once_in_batches_of_similar_length() -> None:
    batches = draw_batches(LENGTHS, EVERYONE, 8, seed=1, epoch=0)
    assert sorted(np.concatenate(batches)) == EVERYONE.tolist()
    assert len(batches) == 13  # bug 10 in docs/compatibility.md: ceil(100 / 8), as the schedule counts
    spread = np.mean([np.ptp(LENGTHS[batch]) for batch in batches])
    assert spread < 0.4 * np.ptp(LENGTHS)


def test_the_order_is_a_function_of_seed_and_epoch() -> None:
    first, again, later, other = (
        [batch.tolist() for batch in draw_batches(LENGTHS, EVERYONE, 8, seed, epoch)]
        for seed, epoch in ((1, 0), (1, 0), (1, 1), (2, 0))
    )
    assert first == again
    assert first != later  # bug 12 in docs/compatibility.md: the sampler's epoch is set
    assert first != other
    assert sorted(map(sorted, first)) != sorted(map(sorted, later))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 2, 5])
def test_a_step_has_the_same_proteins_for_any_world_size_and_accumulation(world_size: int, accumulation: int) -> None:
    options: dict[str, Any] = {"batch_size": 10, "accumulation": accumulation, "world_size": world_size, "seed": 3}
    plans = [plan_epoch(LENGTHS[:52], EVERYONE[:52], rank=rank, **options) for rank in range(world_size)]
    whole = plan_epoch(LENGTHS[:52], EVERYONE[:52], batch_size=10, seed=3)
    for number, ((undivided,),) in enumerate(zip(whole, strict=True)):
        steps = [plan[number] for plan in plans]
        assert len({len(step) for step in steps}) == 1  # every rank has the same number of micro-batches
        assert len(steps[0]) <= accumulation
        counted = [micro.indices for step in steps for micro in step if micro.counted]
        assert sorted(np.concatenate(counted)) == sorted(undivided.indices)


def test_a_rank_without_a_protein_gets_a_placeholder() -> None:
    steps = [divide_step(np.array([7]), 2, rank, 3) for rank in range(3)]
    assert [[micro.counted for micro in step] for step in steps] == [[True], [False], [False]]
    assert all(step[0].indices.tolist() == [7] for step in steps)


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_covers_every_protein_once_longest_first(world_size: int) -> None:
    # bug 12 in docs/compatibility.md: a padded distributed sampler would count some proteins twice
    plans = [plan_evaluation(LENGTHS, 7, rank, world_size) for rank in range(world_size)]
    assert sorted(np.concatenate([batch for plan in plans for batch in plan])) == EVERYONE.tolist()
    assert LENGTHS[plans[0][0][0]] == LENGTHS.max()


def padded_tokens(indices: np.ndarray) -> int:
    return int(indices.size * (LENGTHS[indices].max() + 2))


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("accumulation", [1, 4])
@pytest.mark.parametrize("max_tokens", [501, 1300])
def test_a_token_budget_limits_micro_batches_and_keeps_the_steps(
    world_size: int, accumulation: int, max_tokens: int
) -> None:
    options: dict[str, Any] = {"batch_size": 10, "accumulation": accumulation, "world_size": world_size, "seed": 3}
    plans = [plan_epoch(LENGTHS, EVERYONE, rank=rank, max_tokens=max_tokens, **options) for rank in range(world_size)]
    whole = plan_epoch(LENGTHS, EVERYONE, batch_size=10, seed=3)
    assert all(len(plan) == len(whole) for plan in plans)  # as many optimizer steps: the schedule does not change
    for number, ((undivided,),) in enumerate(zip(whole, strict=True)):
        steps = [plan[number] for plan in plans]
        assert len({len(step) for step in steps}) == 1
        assert len(steps[0]) >= min(accumulation, -(-undivided.indices.size // world_size))
        micro_batches = [micro for step in steps for micro in step]
        assert max(padded_tokens(micro.indices) for micro in micro_batches) <= max_tokens
        counted = np.concatenate([micro.indices for micro in micro_batches if micro.counted])
        assert sorted(counted) == sorted(undivided.indices)


@pytest.mark.parametrize("world_size", [1, 3])
def test_evaluation_with_a_token_budget_covers_every_protein_once(world_size: int) -> None:
    plans = [plan_evaluation(LENGTHS, 7, rank, world_size, max_tokens=900) for rank in range(world_size)]
    batches = [batch for plan in plans for batch in plan]
    assert sorted(np.concatenate(batches)) == EVERYONE.tolist()
    assert max(map(padded_tokens, batches)) <= 900
    assert max(batch.size for batch in batches) == 7
    assert len(batches) < EVERYONE.size / 2  # the budget is used: more than one protein per pass


def test_a_token_budget_below_the_longest_protein_is_refused() -> None:
    longest = int(LENGTHS.max())
    with pytest.raises(ConfigError, match=rf"--max_tokens {longest}.*{longest} residues are {longest + 2} tokens"):
        plan_evaluation(LENGTHS, 7, max_tokens=longest)
    with pytest.raises(ConfigError, match="has no index"):
        plan_epoch(np.zeros(4, dtype=np.int64), np.arange(4), batch_size=2, max_tokens=100)
    check_token_budget(LENGTHS, longest + 2)
    check_token_budget(LENGTHS, None)


def test_small_data_sets_use_no_workers_and_large_ones_at_most_one_per_core(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1}, raising=False)
    assert worker_count(8, 1999) == 0
    assert worker_count(8, 2000) == 2
    assert worker_count(1, 2000) == 1
    assert worker_count(0, 2000) == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_are_in_plan_order_and_errors_have_no_traceback(write_split: Callable[..., Path], workers: int) -> None:
    records = [{"primary": "A" * n, "stability_score": [float(n)]} for n in range(1, 7)]
    data = write_split("stability", "train", [*records, {"primary": "A"}])
    dataset = StabilityDataset(data, "train")
    plan = [np.array([4, 0]), np.array([2]), np.array([1, 5, 3])]
    targets = [batch["targets"].flatten().tolist() for batch in load_batches(dataset, plan, num_workers=workers)]
    assert targets == [[5.0, 1.0], [3.0], [2.0, 6.0, 4.0]]
    with pytest.raises(DataError) as error:
        list(load_batches(dataset, [np.array([0, 6])], num_workers=workers))
    assert "record 6: no field 'stability_score'" in str(error.value)
    assert "Traceback" not in str(error.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_data_set_that_runs_out_of_memory_is_one_error(
    write_split: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    def fail(*arguments: Any) -> Any:
        return np.empty(1 << 55)

    data = write_split("stability", "train", [{"primary": "A", "stability_score": [1.0]}] * 2)
    monkeypatch.setattr(StabilityDataset, "__getitem__", fail)
    dataset = StabilityDataset(data, "train")
    with pytest.raises(OutOfMemoryError, match="out of memory in the data loader; give a smaller --batch_size"):
        list(load_batches(dataset, [np.array([0, 1])], num_workers=workers))
