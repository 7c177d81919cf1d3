"""The comparison of pretraining with other tools: our side at a toy size, and what doesn't need the peers."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks import peers_pretraining
from benchmarks.peers import protocol
from benchmarks.peers.proteins import load_rows, packed_rows, similar_lengths, write_rows
from benchmarks.peers.protocol import Worker, WorkerError
from benchmarks.peers.rounds import OURS, Series, Variant, best_of, interleave, ratio
from tape.errors import ConfigError


def test_our_side_is_measured_and_absent_peers_are_skipped_with_the_reason(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result, absent = tmp_path / "result.json", tmp_path / "absent"
    words = ["--quick", "--no-install", "--peers-env", str(absent), "--threads", "1", "--json", str(result)]
    peers_pretraining.main([*words, "--peers", "BertForMaskedLM"])
    shown = capsys.readouterr().out
    assert f"skipped: {absent} has no environment with peers_requirements.txt" in shown
    written = json.loads(result.read_text())
    ours, bert = written["results"][0]["measurements"]
    assert len(ours["replies"]) == 2
    median = np.median([one["seconds"] for one in ours["replies"]])
    assert ours["median_tokens_per_second"] == pytest.approx(written["data"]["tokens"] / median)
    assert all(2.5 < one["loss"] < 3.5 for one in ours["replies"])  # ln 30 and falling
    assert bert["median_tokens_per_second"] is None
    assert written["results"][0]["tools"][OURS]["threads"] == 1


def test_chosen_proteins_are_groups_of_similar_length_over_the_whole_range() -> None:
    chosen = similar_lengths(["A" * length for length in range(1, 101)], 20, 5)
    lengths = np.array([len(protein) for protein in chosen]).reshape(4, 5)
    assert (np.ptp(lengths, axis=1) == 4).all()
    np.testing.assert_allclose(lengths.mean(axis=1), [12.5, 37.5, 62.5, 87.5], atol=1)
    with pytest.raises(ConfigError, match="8 proteins in groups of 4 can't be chosen from 7 proteins"):
        similar_lengths(["A"] * 7, 8, 4)


def test_rows_survive_the_file_and_hold_every_protein_once(tmp_path: Path) -> None:
    rows = packed_rows(["ACDEFGHIK" * times for times in (1, 2, 3, 4, 20)], 64)
    write_rows(tmp_path / "rows.npz", rows)
    loaded = load_rows(tmp_path / "rows.npz")
    assert sorted(length for row in loaded for length in row.lengths) == [11, 20, 29, 38, 64]  # the last is truncated
    for row, copy in zip(rows, loaded, strict=True):
        assert copy.lengths == row.lengths
        np.testing.assert_array_equal(copy.input_ids, row.input_ids)
        np.testing.assert_array_equal(copy.labels, row.labels)


def series_of(tool: str, *seconds: float) -> Series:
    return Series(Variant(tool, {}), [{"seconds": value} for value in seconds])


def test_ratios_are_paired_by_round() -> None:
    found = ratio(series_of("peer", 2.0, 30.0, 3.0), series_of(OURS, 1.0, 10.0, 2.0))
    assert (found.median, found.low, found.high) == (2.0, 1.5, 3.0)


def test_the_best_setting_of_a_tool_is_the_one_with_the_lowest_median() -> None:
    slow, fast = series_of("peer", 1.0, 9.0, 9.0), series_of("peer", 2.0, 2.0, 9.0)
    failed = Series(Variant("peer", {}), error="out of memory")
    assert best_of([slow, fast, failed, series_of(OURS, 0.1)], "peer") is fast
    assert best_of([failed], "peer") is None


def worker_of(folder: Path, program: str, before: str = "", after: str = "", timeout: float | None = None) -> Worker:
    """A worker whose answer to each request is the given expression of it; statements run before and after."""
    (folder / "worker_of_test.py").write_text(
        "import os, signal, time\n"
        f"from benchmarks.peers.protocol import serve\n{before}\n"
        f"serve(lambda setup: ({{'seen': setup['value']}}, lambda request: {program}))\n{after}\n"
    )
    path = f"{folder}:{Path(__file__).parents[2]}"
    return Worker("worker_of_test", Path(sys.executable), {"value": 1}, 1, {"PYTHONPATH": path}, timeout)


def test_rounds_alternate_their_order(tmp_path: Path) -> None:
    with worker_of(tmp_path, "{'seconds': 1.0, 'at': time.monotonic()}") as worker:
        assert worker.description == {"seen": 1}
        first, second = interleave([Variant("tool", {}), Variant("tool", {})], {"tool": worker}, 2)
    assert first.replies[0]["at"] < second.replies[0]["at"] < second.replies[1]["at"] < first.replies[1]["at"]


def test_a_failing_or_absent_worker_does_not_end_the_others(tmp_path: Path) -> None:
    with worker_of(tmp_path, "{'seconds': 1.0}") as good, worker_of(tmp_path, "{}['missing']") as bad:
        workers = {"good": good, "bad": bad, "absent": "not installed"}
        found = interleave([Variant(tool, {}) for tool in workers], workers, 2)
    assert [(one.error, len(one.replies)) for one in found] == [
        (None, 2),
        ("KeyError: 'missing'", 0),
        ("not installed", 0),
    ]


def test_a_worker_that_dies_is_an_error(tmp_path: Path) -> None:
    with worker_of(tmp_path, "os._exit(7)") as worker:
        with pytest.raises(WorkerError, match="ended with status 7"):
            worker.ask({})


@pytest.mark.parametrize(
    ("before", "status"),
    [("", -signal.SIGTERM), ("signal.signal(signal.SIGTERM, signal.SIG_IGN)", -signal.SIGKILL)],
)
def test_a_worker_that_hangs_on_its_way_out_is_ended(
    before: str, status: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(protocol, "_TEARDOWN_SECONDS", 0.3)
    worker = worker_of(tmp_path, "{}['missing']", before, after="time.sleep(600)")
    with pytest.raises(WorkerError, match="KeyError: 'missing'"):
        worker.ask({})
    worker.close()
    assert worker._process.returncode == status
    worker.close()  # again


def test_a_worker_that_takes_too_long_is_killed(tmp_path: Path) -> None:
    with worker_of(tmp_path, "time.sleep(request['seconds']) or {}", timeout=60) as worker:
        assert worker.ask({"seconds": 0}, timeout=60) == {}
        with pytest.raises(WorkerError, match="ended with status -9"):
            worker.ask({"seconds": 600}, timeout=0.3)
    with pytest.raises(WorkerError, match="ended with status -9"):
        worker_of(tmp_path, "{}", before="time.sleep(600)", timeout=0.3)
