"""Complete runs: equal losses in every layout, exact resuming, the flags of the shipped scripts, clear errors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain.checkpointing import load_full_checkpoint, read_metadata
from pretrain.pretrain_tape import main
from tape.errors import CheckpointError, run_cli

SCRIPT = Path("pretrain") / "pretrain_tape.py"
# Small buckets of a few parameters each, so that the order of their all-reduces is tested too.
SMALL_BUCKETS = """
import sys
from pretrain.parallel import gradient_buckets
gradient_buckets._BUCKET_ELEMENTS = 3000
from pretrain.pretrain_tape import main
main()
"""

Records = Callable[..., list[dict[str, Any]]]
Flags = Callable[..., list[str]]
Run = Callable[[list[str]], None]


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, flags: Flags, pretrain_here: Run) -> Path:
    """20 steps of AdamW without dropout on one process."""
    directory = tmp_path_factory.mktemp("single")
    pretrain_here(flags("--save", directory, "--save-interval", 10))
    return directory


def largest_difference(one: list[dict[str, Any]], two: list[dict[str, Any]], key: str) -> float:
    assert [record["iteration"] for record in one] == [record["iteration"] for record in two]
    return max(abs(a[key] - b[key]) for a, b in zip(one, two, strict=True))


def assert_same_curve(records: Records, one: Path, two: Path, tolerance: float = 1e-5) -> None:
    for kind, key in (("train", "lm_loss"), ("train", "grad_norm"), ("evaluation", "validation_loss")):
        difference = largest_difference(records(one, kind), records(two, kind), key)
        assert difference <= tolerance, f"{key} differs by {difference}"


def assert_same_weights(one: Path, two: Path, tolerance: float) -> None:
    first, second = load_full_checkpoint(one).model, load_full_checkpoint(two).model
    for name, value in first.items():
        # the gradient of key.bias is zero except for rounding errors, which Adam amplifies
        if not name.endswith("key.bias") or tolerance == 0:
            torch.testing.assert_close(value, second[name], rtol=0, atol=tolerance)


def test_the_loss_of_a_single_process_decreases(single: Path, records: Records) -> None:
    curve = records(single)
    assert [record["iteration"] for record in curve] == list(range(1, 21))
    assert curve[-1]["lm_loss"] < curve[0]["lm_loss"] - 0.1
    assert all(record["tokens"] <= 8 * 64 for record in curve)
    assert curve[-1]["consumed_samples"] == 160
    assert records(single, "evaluation")[-1]["iteration"] == 20
    assert (single / "arguments.json").is_file()
    assert sorted(path.name for path in single.glob("iter_*")) == ["iter_0000010", "iter_0000020"]


@pytest.mark.distributed
def test_tensor_parallel_gives_the_same_curve(
    single: Path,
    tmp_path: Path,
    flags: Flags,
    torchrun: Callable,
    records: Records,
    repository_root: Path,
    pretrain_here: Run,
) -> None:
    """Two tensor-parallel ranks train for twenty steps; then a single process resumes from their tenth."""
    save = ("--save", tmp_path, "--save-interval", 10)
    torchrun(2, repository_root / SCRIPT, *flags(*save, "--tensor-model-parallel-size", 2))
    assert_same_curve(records, single, tmp_path)
    assert_same_weights(single, tmp_path, 1e-4)
    assert read_metadata(tmp_path / "iter_0000020")["layout"] == {"tensor": 2, "data": 1, "pipeline": 1}
    (tmp_path / "latest_checkpointed_iteration.txt").write_text("10\n")
    pretrain_here(flags(*save, "--load", tmp_path))
    assert_same_curve(records, single, tmp_path)


@pytest.mark.distributed
def test_data_parallel_gives_the_same_curve(
    single: Path, tmp_path: Path, flags: Flags, torchrun: Callable, records: Records
) -> None:
    """Two micro-batches per rank, and several gradient buckets that are reduced during the backward pass."""
    script = tmp_path / "small_buckets.py"
    script.write_text(f"import sys; sys.path.insert(0, {str(Path(__file__).parents[2])!r})\n{SMALL_BUCKETS}")
    torchrun(2, script, *flags("--save", tmp_path / "run"))
    assert_same_curve(records, single, tmp_path / "run")
    assert_same_weights(single, tmp_path / "run", 1e-4)


@pytest.mark.distributed
@pytest.mark.slow
def test_tensor_and_data_parallel_ranks_continue_the_curve_of_a_single_process(
    tmp_path: Path, flags: Flags, torchrun: Callable, records: Records, repository_root: Path, pretrain_here: Run
) -> None:
    """Four processes resume a run of one, with SGD (so that updates are compared) and activation checkpointing."""
    extra = ("--optimizer", "sgd", "--checkpoint-activations", "--save-interval", 5)
    pretrain_here(flags("--save", tmp_path / "one", *extra, train_iters=10))
    shutil.copytree(tmp_path / "one", tmp_path / "four")
    (tmp_path / "four" / "latest_checkpointed_iteration.txt").write_text("5\n")
    layout = ("--tensor-model-parallel-size", 2, "--save", tmp_path / "four", "--load", tmp_path / "four")
    result = torchrun(4, repository_root / SCRIPT, *flags(*extra, *layout, train_iters=10))
    assert "data 2 x tensor 2" in result.stdout
    assert "resuming from iteration 5" in result.stdout
    assert_same_curve(records, tmp_path / "one", tmp_path / "four")
    assert_same_weights(tmp_path / "one", tmp_path / "four", 1e-5)


def test_a_resumed_run_equals_an_uninterrupted_one_bit_for_bit(
    tmp_path: Path, flags: Flags, records: Records, pretrain_here: Run
) -> None:
    """With dropout and two epochs; the run is interrupted once, in the middle."""
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    pretrain_here(flags("--save", straight, dropout=0.1, train_iters=40))
    pretrain_here(flags("--save", resumed, "--load", resumed, "--exit-interval", 23, dropout=0.1, train_iters=40))
    assert [record["iteration"] for record in records(resumed)][-1] == 23
    pretrain_here(flags("--save", resumed, "--load", resumed, dropout=0.1, train_iters=40))
    assert_same_curve(records, straight, resumed, tolerance=0.0)
    assert_same_weights(straight, resumed, 0.0)
    # the losses differ from each other, so the comparison is meaningful
    assert len({record["lm_loss"] for record in records(straight)}) == 40


def test_activation_checkpointing_changes_nothing(
    tmp_path: Path, flags: Flags, records: Records, pretrain_here: Run
) -> None:
    for name, extra in (("kept", ()), ("recomputed", ("--checkpoint-activations",))):
        pretrain_here(flags("--save", tmp_path / name, *extra, dropout=0.2, train_iters=4))
    assert_same_curve(records, tmp_path / "kept", tmp_path / "recomputed", tolerance=0.0)


def test_the_micro_batch_size_changes_nothing(
    single: Path, tmp_path: Path, flags: Flags, records: Records, pretrain_here: Run
) -> None:
    pretrain_here(flags("--save", tmp_path, "--micro-batch-size", 8))
    assert_same_curve(records, single, tmp_path)


@pytest.mark.parametrize("extra", [("--bf16",), ("--fp16", "--initial-loss-scale", 65536)], ids=["bf16", "fp16"])
def test_half_precision_follows_the_curve(
    single: Path, tmp_path: Path, flags: Flags, records: Records, pretrain_here: Run, extra: tuple
) -> None:
    pretrain_here(flags("--save", tmp_path, *extra))
    assert largest_difference(records(single), records(tmp_path), "lm_loss") < 0.01
    assert not any(record["skipped"] for record in records(tmp_path))


def test_non_finite_steps_are_skipped_and_counted(
    tmp_path: Path, flags: Flags, records: Records, pretrain_here: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    """The initial loss scale overflows fp16: updates are skipped while the scale decreases, then training proceeds."""
    pretrain_here(
        flags("--save", tmp_path, "--fp16", "--initial-loss-scale", 2.0**24, "--hysteresis", 1, "--log-interval", 1)
    )
    curve = records(tmp_path)
    skipped = [record["skipped"] for record in curve]
    assert skipped[0]
    assert not skipped[-1]
    assert curve[0]["grad_norm"] is None
    assert curve[-1]["skipped_steps"] == sum(skipped)
    assert curve[-1]["loss_scale"] < curve[0]["loss_scale"]
    assert f"skipped {sum(skipped)}" in capsys.readouterr().out


@pytest.mark.distributed
def test_flags_of_the_original_distributed_script_run(
    tmp_path: Path, corpus_prefix: Path, torchrun: Callable, records: Records, repository_root: Path
) -> None:
    """The flags of ProteinLM's script for distributed pretraining, with smaller sizes."""
    vocabulary = repository_root / "pretrain" / "protein_tools" / "megatron_iupac_vocab.txt"
    flags = (
        "--num-layers 2 --hidden-size 32 --num-attention-heads 4 --attention-dropout 0.1 --hidden-dropout 0.1 "
        "--layernorm-epsilon 1e-12 --micro-batch-size 4 --global-batch-size 8 --seq-length 64 --train-iters 4 "
        f"--max-position-embeddings 64 --save {tmp_path}/s --load {tmp_path}/s --data-path {corpus_prefix} "
        f"--vocab-file {vocabulary} --data-impl mmap --split 32593668,1715454,44311 --distributed-backend nccl "
        "--lr 1e-4 --lr-decay-style linear --min-lr 1e-5 --lr-decay-iters 990000 --weight-decay 1e-2 --clip-grad 1.0 "
        "--lr-warmup-fraction .01 --checkpoint-activations --log-interval 1 --save-interval 2 --eval-interval 2 "
        f"--eval-iters 10 --fp16 --DDP-impl local --tensorboard-dir {tmp_path}/board"
    )
    result = torchrun(2, repository_root / SCRIPT, *flags.split())
    assert "--DDP-impl is ignored" in result.stdout
    assert "nccl needs CUDA" in result.stdout
    assert "no checkpoint in" in result.stdout
    assert result.stdout.count("iteration 4/4") == 1  # one rank prints
    assert [record["iteration"] for record in records(tmp_path / "s")] == [1, 2, 3, 4]
    assert [record["iteration"] for record in records(tmp_path / "s", "evaluation")][:2] == [2, 4]
    assert list((tmp_path / "board").glob("events*"))


def test_it_runs_as_a_script_from_any_directory(tmp_path: Path, flags: Flags, repository_root: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, str(repository_root / SCRIPT), *flags("--save", "here", train_iters=2)]
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    assert "saved here/iter_0000002" in result.stdout
    assert result.stderr == ""


@pytest.mark.parametrize(
    ("extra", "code", "words"),
    [
        (["--nun-layers", "2"], 2, ["unrecognized arguments: --nun-layers", "--num-layers"]),
        (["--seq-length", "long"], 2, ["--seq-length", "'long'"]),
        (["--data-path", "nowhere/x"], 1, ["nowhere/x.idx", "no such file"]),
        (["--tensor-model-parallel-size", "2"], 1, ["--tensor-model-parallel-size 2", "torchrun"]),
    ],
)
def test_a_user_error_is_one_line(
    flags: Flags,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    extra: list[str],
    code: int,
    words: list[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["pretrain_tape.py", *flags(), *extra])
    assert run_cli(main) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert all(word in line for word in words)


@pytest.mark.distributed
def test_several_ranks_report_an_error_once(
    single: Path, tmp_path: Path, flags: Flags, torchrun: Callable, repository_root: Path
) -> None:
    shutil.copytree(single, tmp_path / "run")
    (shard,) = (tmp_path / "run" / "iter_0000020").glob("*.distcp")
    shard.write_bytes(shard.read_bytes()[:-100])
    shutil.rmtree(tmp_path / "run" / "iter_0000010")
    result = torchrun(
        2,
        repository_root / SCRIPT,
        *flags("--load", tmp_path / "run", "--override-lr-scheduler", train_iters=30),
        check=False,
    )
    assert result.returncode != 0
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert f"{shard}: truncated" in errors[0]


def test_full_validation_evaluates_the_entire_split(
    tmp_path: Path, flags: Flags, records: Records, pretrain_here: Run
) -> None:
    pretrain_here(flags("--save", tmp_path, "--full-validation", "--eval-interval", 1, train_iters=2))
    first, second = records(tmp_path, "evaluation")
    assert first["rows"] == second["rows"] > 16
    assert first["predictions"] == second["predictions"]


def test_more_workers_than_cores_cause_no_warning(
    tmp_path: Path, flags: Flags, records: Records, pretrain_here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """torch would warn for training and for validation; in these tests, warnings are errors."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0}, raising=False)
    pretrain_here(flags("--save", tmp_path, "--num-workers", 96, train_iters=1))
    assert len(records(tmp_path)) == len(records(tmp_path, "evaluation")) == 1


def test_eval_iters_0_disables_evaluation(tmp_path: Path, flags: Flags, records: Records, pretrain_here: Run) -> None:
    pretrain_here(flags("--save", tmp_path, "--eval-iters", 0, "--num-workers", 1, train_iters=2))
    assert records(tmp_path, "evaluation") == []


def test_a_finished_run_does_nothing(
    single: Path, flags: Flags, pretrain_here: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    before = (single / "metrics.jsonl").read_bytes()
    pretrain_here(flags("--save", single, "--load", single))
    assert "nothing to do" in capsys.readouterr().out
    assert (single / "metrics.jsonl").read_bytes() == before


def test_resuming_with_other_samples_is_refused_or_reported(
    single: Path, flags: Flags, pretrain_here: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(CheckpointError, match="mask-prob is 0.15 in the checkpoint, 0.2 now.*--allow-other-samples"):
        pretrain_here(flags("--save", single, "--load", single, "--mask-prob", 0.2))
    pretrain_here(flags("--save", single, "--load", single, "--mask-prob", 0.2, "--allow-other-samples"))
    assert "the samples differ" in (out := capsys.readouterr().out)
    assert "mask-prob is 0.15 in the checkpoint, 0.2 now" in out


def test_a_run_without_compile_and_pipelines_does_not_import_the_compiler(flags: Flags) -> None:
    """The import of torch._dynamo takes as long as that of torch."""
    code = """
import sys
from pretrain.pretrain_tape import main
main()
sys.exit("torch._dynamo" in sys.modules)
"""
    result = subprocess.run([sys.executable, "-c", code, *flags(train_iters=1)], check=False)
    assert result.returncode == 0


@pytest.mark.parametrize(
    ("rows", "advice"), [(1, "give --checkpoint-activations"), (8, "give a smaller --micro-batch")]
)
def test_a_run_out_of_memory_is_one_error_with_the_options_that_help(
    flags: Flags, fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, rows: int, advice: str
) -> None:
    def allocate(*arguments: Any, **options: Any) -> None:
        torch.empty(1 << 60)

    monkeypatch.setattr(torch.autograd, "backward", allocate)
    monkeypatch.setattr(torch.Tensor, "backward", allocate)
    line = fails(main, *flags("--micro-batch-size", rows, "--global-batch-size", 8))
    assert line.startswith(f"error: out of memory in pretraining; {advice}")
