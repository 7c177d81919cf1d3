"""The metrics logger: metrics.jsonl, TensorBoard and console lines."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path

import pytest

from pretrain.planning.flops import Meter
from pretrain.train.metrics_logger import EvaluationLossRecord, LoggingConfig, MetricsLogger, RunInfo, StepRecord
from tape.errors import ConfigError

# 1000 tokens/s at 2 GFLOP per token are a quarter of 8 TFLOP/s
RUN_INFO = RunInfo(4, 12345, Meter(2e9, 8e12, "stated", lambda: 3 << 30))


def record(iteration: int, loss: float = 2.0, skipped: bool = False) -> StepRecord:
    return StepRecord(
        iteration=iteration,
        lm_loss=loss,
        learning_rate=1e-4,
        grad_norm=1.0 if math.isfinite(loss) else math.nan,
        tokens=100,
        predictions=15,
        tokens_per_second=1000.0,
        positions_used=0.98,
        consumed_samples=iteration * 2,
        consumed_tokens=iteration * 100,
        loss_scale=1.0,
        skipped=skipped,
        skipped_steps=int(skipped),
        seconds=0.1,
    )


def lines(directory: Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]


def run(directory: Path, iterations: range, start: int = 0) -> str:
    stream = io.StringIO()
    logger = MetricsLogger(LoggingConfig(2, str(directory)), iterations.stop - 1, start, RUN_INFO, True, stream)
    for iteration in iterations:
        logger.log_step(record(iteration))
    logger.log_evaluation(EvaluationLossRecord(iterations.stop - 1, "valid", 1.5, 300, 20, 0.5))
    logger.close()
    return stream.getvalue()


def test_records_and_console_lines(tmp_path: Path) -> None:
    console = run(tmp_path, range(1, 5))
    start, *train, evaluation = lines(tmp_path)
    assert (start["kind"], start["iteration"], start["version"]) == ("start", 0, 2)
    assert (start["processes"], start["parameters"], start["peak_flops"]) == (4, 12345, 8e12)
    assert start["peak_source"] == "stated"
    assert [line["utilisation"] for line in train] == pytest.approx([0.25] * 4)
    assert [line["memory_bytes"] for line in train] == [3 << 30] * 4
    assert [line["seconds_left"] for line in train] == pytest.approx([0.3, 0.2, 0.1, 0.0])
    assert [line["iteration"] for line in train] == [1, 2, 3, 4]
    needed = {"iteration", "lm_loss", "learning_rate", "tokens", "tokens_per_second", "grad_norm"}
    assert all(needed <= line.keys() and line["kind"] == "train" for line in train)
    assert train[0]["perplexity"] == pytest.approx(math.exp(2.0))
    assert evaluation["kind"] == "evaluation"
    assert evaluation["split"] == "valid"
    assert evaluation["perplexity"] == pytest.approx(math.exp(1.5))
    assert console.count("iteration 2/4 | lm loss 2.0000 | ppl 7.389") == 1
    assert "| 1,000 tokens/s | 98.0% of positions | 25.0% of stated peak | 3.00 GiB | 00:00 left" in console
    assert "valid at iteration 4: loss 1.5000" in console


def test_a_resumed_run_has_each_iteration_once(tmp_path: Path) -> None:
    run(tmp_path, range(1, 6))
    with (tmp_path / "metrics.jsonl").open("a") as stream:
        stream.write('{"kind": "train", "itera')  # killed while writing
    run(tmp_path, range(4, 8), start=3)
    assert [line["iteration"] for line in lines(tmp_path) if line["kind"] == "train"] == [1, 2, 3, 4, 5, 6, 7]
    assert [line["iteration"] for line in lines(tmp_path) if line["kind"] == "start"] == [0, 3]


@pytest.mark.parametrize("line", [b'{"kind": "\xff"}', b"[" * 100_000, b"3", b'{"iteration": "x", "kind": "train"}'])
def test_damaged_records_do_not_prevent_a_resume(tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path, range(1, 4))
    first, *rest = (tmp_path / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    (tmp_path / "metrics.jsonl").write_bytes(b"".join([first, line + b"\n", *rest]))
    run(tmp_path, range(3, 6), start=2)
    assert [line["iteration"] for line in lines(tmp_path) if line["kind"] == "train"] == [1, 2, 3, 4, 5]
    assert "metrics.jsonl: damaged records are removed (line 2)" in caplog.text


def test_records_after_a_removal_of_the_directory_are_kept(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    directory = tmp_path / "save"
    logger = MetricsLogger(LoggingConfig(9, str(directory)), 3, 0, RUN_INFO, True, io.StringIO())
    logger.log_step(record(1))
    shutil.rmtree(directory)
    logger.log_step(record(2))
    logger.log_step(record(3))
    logger.close()
    assert [line["iteration"] for line in lines(directory)] == [2, 3]
    assert caplog.text.count("metrics.jsonl: removed or replaced during the run") == 1


def test_a_new_run_keeps_the_records_of_an_earlier_run_in_another_file(tmp_path: Path) -> None:
    run(tmp_path, range(1, 4))
    run(tmp_path, range(1, 3))
    assert len(lines(tmp_path)) == 4
    assert len((tmp_path / "metrics.1.jsonl").read_text().splitlines()) == 5


def test_non_finite_numbers_are_null(tmp_path: Path) -> None:
    logger = MetricsLogger(LoggingConfig(1, str(tmp_path)), 2, 0, RUN_INFO, True, io.StringIO())
    logger.log_step(record(1, math.nan, skipped=True))
    logger.close()
    _, line = lines(tmp_path)
    assert line["lm_loss"] is None
    assert line["grad_norm"] is None
    assert line["skipped"] is True


def test_other_ranks_write_nothing(tmp_path: Path) -> None:
    stream = io.StringIO()
    logger = MetricsLogger(LoggingConfig(1, str(tmp_path), str(tmp_path / "board")), 2, 0, RUN_INFO, False, stream)
    logger.note("x")
    logger.log_step(record(1))
    logger.close()
    assert stream.getvalue() == ""
    assert not list(tmp_path.iterdir())


def test_metrics_are_written_to_tensorboard(tmp_path: Path) -> None:
    logger = MetricsLogger(LoggingConfig(1, None, str(tmp_path)), 2, 0, RUN_INFO, True, io.StringIO())
    logger.log_step(record(1))
    logger.close()
    (events,) = tmp_path.glob("events*")
    content = events.read_bytes()
    names = ("lm_loss", "perplexity", "learning_rate", "grad_norm", "tokens_per_second", "positions_used")
    for name in (*names, "utilisation", "memory_bytes", "seconds_left"):
        assert f"train/{name}".encode() in content


def test_a_peak_of_zero_is_refused() -> None:
    with pytest.raises(ConfigError, match="--peak-tflops"):
        LoggingConfig(peak_tflops=0.0)


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"--save .*file/save: cannot be written"):
        MetricsLogger(LoggingConfig(1, str(tmp_path / "file" / "save")), 2, 0, RUN_INFO, True)


def test_the_curves_are_drawn_beside_the_records(tmp_path: Path) -> None:
    stream = io.StringIO()
    logger = MetricsLogger(LoggingConfig(2, str(tmp_path)), 2, 0, RUN_INFO, True, stream)
    logger.log_step(record(1))
    logger.log_step(record(2))
    logger.draw_curves()
    logger.close()
    assert stream.getvalue().endswith(f"training curves: {tmp_path / 'curves.svg'}\n")
    assert (tmp_path / "curves.svg").read_text().startswith("<svg ")


def test_a_picture_that_cannot_be_drawn_does_not_end_the_run(tmp_path: Path) -> None:
    stream = io.StringIO()
    logger = MetricsLogger(LoggingConfig(2, str(tmp_path)), 2, 0, RUN_INFO, True, stream)
    logger.log_step(record(1))
    (tmp_path / "curves.svg").mkdir()
    logger.draw_curves()
    logger.close()
    assert "no picture of the training curves: " in stream.getvalue()


def test_a_run_without_a_directory_has_no_picture() -> None:
    stream = io.StringIO()
    logger = MetricsLogger(LoggingConfig(2, None), 2, 0, RUN_INFO, True, stream)
    logger.log_step(record(1))
    logger.draw_curves()
    logger.close()
    assert "curves" not in stream.getvalue()
