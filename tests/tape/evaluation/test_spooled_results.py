"""Predictions on disk: those of all ranks in the order of the data set, and memory that does not grow with them."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tape.errors import OutputError, ProteinLMError
from tape.evaluation import spooled_results
from tape.evaluation.evaluate import Evaluation
from tape.evaluation.results import write_results
from tape.evaluation.spooled_results import SpooledResults
from tape.io.restricted_pickle import restricted_loads
from tape.metrics import Metric
from tape.runtime.distributed import DistributedContext
from tests.support.small_disk import mounted_tmpfs


def result(index: int, size: int = 3) -> dict[str, Any]:
    target = np.full((size, size), index, np.int16)
    # the same array twice: each pickle refers to objects of its own, not to those of the one before
    return {"id": f"p{index}", "prediction": {"dist": target, "omega": target}, "target": target}


def spooled(indices: range, proteins: int) -> SpooledResults:
    results = SpooledResults(proteins)
    for index in reversed(indices):
        results.add(index, result(index))
    return results


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_results_pkl_is_a_pickled_pair_in_the_order_of_the_data_set(
    in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooled_results, "_IN_MEMORY", in_memory)
    evaluation = Evaluation([Metric("loss", 1.0, 1, "")], 300, spooled(range(300), 300))
    write_results(tmp_path, "test", {"loss": 1.0}, evaluation)
    content = (tmp_path / "results.pkl").read_bytes()
    for metrics, results in (pickle.loads(content), restricted_loads(content, "results.pkl")):
        assert metrics == {"loss": 1.0}
        assert type(results) is list
        assert [one["id"] for one in results] == [f"p{index}" for index in range(300)]
        for index, one in enumerate(results):
            np.testing.assert_array_equal(one["prediction"]["omega"], result(index)["target"])
            np.testing.assert_array_equal(one["target"], result(index)["target"])
    assert [one["id"] for one in evaluation.results[2:300:100]] == ["p2", "p102", "p202"]


@pytest.mark.parametrize("in_memory", [0, 1 << 20])
def test_results_that_are_copied_are_those_that_are_pickled_again(
    in_memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spooled_results, "_IN_MEMORY", in_memory)
    rng = np.random.default_rng(0)
    shared = rng.normal(size=(4, 3)).astype(np.float32)
    kinds: list[Any] = [
        {"id": "text", "prediction": shared, "target": shared},
        {"id": "views", "prediction": np.asfortranarray(shared), "target": shared[::2, ::-1]},
        {"id": "empty", "prediction": np.zeros((0, 3), np.float32), "target": np.zeros(0, np.int64)},
        {"id": "numbers", "prediction": np.float32(2.5), "target": float("nan")},
        {"id": "many", "prediction": {f"p{k}": shared.copy() for k in range(300)}, "target": [[shared] * 2, "p299"]},
        {"id": "nothing", "prediction": None, "target": {}},
    ]
    order = rng.integers(0, len(kinds), 40).tolist()
    results = SpooledResults(len(order))
    for index, kind in enumerate(order):
        results.add(index, kinds[kind])
    written = []
    for name, sequence in (("spooled", results), ("list", [kinds[kind] for kind in order])):
        (tmp_path / name).mkdir()
        write_results(tmp_path / name, "test", {"loss": 1.0}, Evaluation([], len(order), sequence))
        written.append((tmp_path / name / "results.pkl").read_bytes())
    assert written[0] == written[1]
    for index, one in enumerate(pickle.loads(written[0])[1]):
        assert repr(one) == repr(kinds[order[index]]) == repr(results[index])


def test_results_are_written_without_unpickling_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled_results, "restricted_loads", None)
    write_results(tmp_path, "test", {}, Evaluation([], 9, spooled(range(9), 9)))
    assert len(pickle.loads((tmp_path / "results.pkl").read_bytes())[1]) == 9


def test_missing_and_repeated_proteins_are_errors() -> None:
    with pytest.raises(ProteinLMError, match="evaluated 2 of 3 proteins"):
        spooled(range(2), 3).exchange(DistributedContext())
    with pytest.raises(ProteinLMError, match="protein 1 was evaluated twice"):
        spooled(range(2), 3).add(1, result(1))


@pytest.mark.parametrize("at_a_time", [1, 500, 1 << 20])
def test_every_rank_has_the_results_of_all(at_a_time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spooled_results, "_EXCHANGED", at_a_time)
    shares = [range(3), range(3, 4), range(4, 9)]  # so that one rank sends in more rounds than another
    barrier = threading.Barrier(3)
    sent: list[list[Any]] = [[], [], []]

    def gather(values: list[Any], context: DistributedContext) -> list[Any]:
        sent[context.rank] = values
        barrier.wait(10)
        everything = [value for part in sent for value in part]
        barrier.wait(10)
        return everything

    monkeypatch.setattr(spooled_results, "all_gather_lists", gather)
    stores = [spooled(share, 9) for share in shares]
    threads = [
        threading.Thread(target=store.exchange, args=(DistributedContext(rank=rank, world_size=3),))
        for rank, store in enumerate(stores)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    for store in stores:
        assert [one["id"] for one in store] == [f"p{index}" for index in range(9)]


def test_a_full_disk_is_named() -> None:
    with mounted_tmpfs("size=600k") as disk:
        results = SpooledResults(1, disk / "new")
        results._file.rollover()
        with pytest.raises(OutputError, match=f"{disk}/predictions: .*No space left on device"):
            results.add(0, result(0, 600))


_GROWTH = """
import sys
from pathlib import Path
import numpy as np
from tape.evaluation.evaluate import Evaluation
from tape.evaluation.results import write_results
from tape.evaluation.spooled_results import SpooledResults
from tape.runtime.memory import peak_memory
before = peak_memory()
folder = Path(sys.argv[1])
results = SpooledResults(200, folder)
for index in range(200):
    results.add(index, {"id": index, "prediction": np.zeros((500, 500, 2), np.float32), "target": None})
write_results(folder, "test", {}, Evaluation([], 200, results))
print(peak_memory() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of this process alone is known on Linux only")
def test_memory_does_not_grow_with_the_predictions(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _GROWTH, str(tmp_path)]
    growth = int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert (tmp_path / "results.pkl").stat().st_size > 400_000_000
    assert growth < 120_000_000
