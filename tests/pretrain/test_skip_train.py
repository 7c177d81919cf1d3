"""``--skip-train``: the loss of a model, without training, in any layout."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter.convert import ConversionRequest, convert
from pretrain.config.arguments import parse_arguments
from pretrain.skip_train import run_evaluation
from tape.errors import CheckpointError, ConfigError, ProteinLMError
from tape.runtime.launch import Launch
from tests.support.megatron_writer import make_truth, write_megatron

Losses = dict[str, tuple[float, int, int]]  # split -> loss, predictions, rows
Printed = Callable[[list[str]], Losses]
Flags = Callable[..., list[str]]
Run = Callable[[list[str]], None]
Records = Callable[..., list[dict[str, Any]]]

LOSS = re.compile(
    r"^(valid|test)(?: at iteration 3)?: loss (\d+\.\d{4}) \| ppl \d+\.\d+ \| (\d+) predictions in (\d+) rows$",
    re.MULTILINE,
)
SCRIPT = Path("pretrain") / "pretrain_tape.py"
SPLIT = ("--split", "80,10,10", "--full-validation")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, flags: Flags, pretrain_here: Run) -> Path:
    """Three steps, after each of which the run has evaluated the validation set, at the end the test set, too."""
    directory = tmp_path_factory.mktemp("run")
    every_step = ("--eval-interval", 1, "--save-interval", 1)
    pretrain_here(flags(*SPLIT, *every_step, "--save", directory, train_iters=3))
    return directory


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """The loss, predictions and rows that a command prints for each split."""
    return lambda arguments: found(output_of(arguments, capsys))


def output_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    run_evaluation(parse_arguments(arguments), Launch())
    return capsys.readouterr().out


def found(output: str) -> Losses:
    return {split: (float(loss), int(counted), int(rows)) for split, loss, counted, rows in LOSS.findall(output)}


def recorded(records: Records, run: Path) -> Losses:
    """What the run has recorded after its last iteration."""
    return {
        record["split"]: (round(record["validation_loss"], 4), record["predictions"], record["rows"])
        for record in records(run, "evaluation")
        if record["iteration"] == 3
    }


def without(arguments: list[str], *names: str) -> list[str]:
    """The flags without the given ones and their values."""
    chosen = [number for number, word in enumerate(arguments) if word in names]
    return [word for number, word in enumerate(arguments) if not {number, number - 1} & {*chosen}]


def test_the_losses_are_those_of_the_run(run: Path, flags: Flags, records: Records, printed: Printed) -> None:
    expected = recorded(records, run)
    assert set(expected) == {"valid", "test"}
    arguments = without(flags(*SPLIT, "--load", run, "--skip-train"), "--train-iters", "--lr")
    assert printed(arguments) == expected


def test_an_earlier_checkpoint_is_chosen_by_its_iteration(
    run: Path, flags: Flags, pretrain_here: Run, records: Records, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """``--ckpt-step``, for runs and for models of Megatron-LM."""
    evaluated = {record["iteration"]: record["validation_loss"] for record in records(run, "evaluation")}
    output = output_of(flags(*SPLIT, "--load", run, "--skip-train", "--ckpt-step", 2), capsys)
    assert f"valid at iteration 2: loss {evaluated[2]:.4f} |" in output
    again = tmp_path / "again"
    pretrain_here(flags(*SPLIT, "--load", run, "--ckpt-step", 1, "--save", again, train_iters=3))
    assert [record["iteration"] for record in records(again, "train")] == [2, 3]
    megatron = write_megatron(tmp_path / "megatron", make_truth(layers=2, positions=64), iteration=20)
    arguments = flags("--load", megatron, "--finetune", "--ckpt-step", 20)
    config = parse_arguments(without(arguments, "--hidden-size", "--num-attention-heads"))
    assert config.pretrained is not None
    assert config.pretrained.path.is_relative_to(megatron / "iter_0000020")


def test_a_step_that_can_not_be_chosen_is_named(
    run: Path, flags: Flags, pretrain_here: Run, records: Records, tmp_path: Path
) -> None:
    save = tmp_path / "save"
    shutil.copytree(run, save)
    (save / "iter_0000002" / "metadata.json").unlink()
    (save / "iter_0000005").mkdir()
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "config.json").write_text("{}")
    (tmp_path / "file").touch()
    there = "complete iterations there: 3, 1$"
    for load, step, words in (
        (save, 2, rf"--ckpt-step 2: .*iter_0000002: incomplete \(metadata\.json is missing\); {there}"),
        (save, 5, rf"--ckpt-step 5: .*iter_0000005: incomplete \(metadata\.json is missing\); {there}"),
        (save / "iter_0000003", 1, rf"iter_0000003: one checkpoint; --ckpt-step chooses .*: give {save}, or leave out"),
        (
            tmp_path / "model",
            1,
            "iter_0000001: no such checkpoint; .* has no complete one; leave out --ckpt-step",
        ),
        (tmp_path / "file", 1, "file: a file; --ckpt-step chooses"),
    ):
        for start in ((), ("--finetune",), ("--skip-train",)):
            with pytest.raises(CheckpointError, match=words):
                parse_arguments(flags("--load", load, "--ckpt-step", step, *start))
    # a step whose directory is a symbolic link is one of the same run
    (save / "iter_0000001").rename(tmp_path / "elsewhere")
    (save / "iter_0000001").symlink_to(tmp_path / "elsewhere")
    pretrain_here(flags(*SPLIT, "--load", save, "--ckpt-step", 1, "--save", save, train_iters=3))
    assert [record["iteration"] for record in records(save, "train")] == [1, 2, 3]


def test_nothing_of_the_run_is_written(
    run: Path, flags: Flags, records: Records, printed: Printed, capsys: pytest.CaptureFixture[str]
) -> None:
    """The script of the run with one flag more."""
    files = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    arguments = flags(*SPLIT, "--save", run, "--load", run, "--tensorboard-dir", run / "events", "--skip-train")
    assert printed(arguments) == recorded(records, run)
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == files
    notices = parse_arguments([*arguments, "--profile", "--lr-warmup-iters", "50"]).notices
    assert notices == tuple(
        f"--{name} has no effect with --skip-train" for name in ("save", "tensorboard-dir", "profile")
    )


def test_models_of_other_formats_are_evaluated(
    run: Path, flags: Flags, records: Records, printed: Printed, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    convert(ConversionRequest(run, model))
    valid = records(run, "evaluation")[-2]
    assert valid["split"] == "valid"
    for source in (("--load", model), ("--pretrained-checkpoint", model)):
        losses = printed(flags(*SPLIT, *source, "--skip-train", "--lr-warmup-iters", 50))
        assert losses["valid"][0] == pytest.approx(valid["validation_loss"], abs=2e-4)
    # the script of a run that started from a model
    config = parse_arguments(flags(*SPLIT, "--load", run, "--pretrained-checkpoint", model, "--skip-train"))
    assert config.pretrained is not None
    assert config.pretrained.path == run / "iter_0000003"
    assert config.notices == ("--pretrained-checkpoint has no effect with --skip-train",)
    for missing in (tmp_path / "missing", tmp_path):
        with pytest.raises(CheckpointError, match=str(missing)):
            parse_arguments(flags(*SPLIT, "--load", missing, "--pretrained-checkpoint", model, "--skip-train"))


def test_masks_and_rows_are_chosen_anew(
    run: Path, flags: Flags, records: Records, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a resume refuses, another rate of masked residues and other rows, is announced."""
    expected = recorded(records, run)
    output = output_of(flags(*SPLIT, "--load", run, "--skip-train", "--mask-prob", 0.3, "--no-sep"), capsys)
    assert found(output)["valid"][1] == pytest.approx(2 * expected["valid"][1], rel=0.1)
    assert "NOTICE: options differ from those of the checkpoint's run: --mask-prob was 0.15, is 0.3; --no-sep" in output
    assert "rows of 64 tokens, without <sep>; 0.3 of the residues are predicted" in output
    shorter = output_of(flags(*SPLIT, "--load", run, "--skip-train", "--seq-length", 32), capsys)
    assert found(shorter)["valid"][2] > expected["valid"][2]
    assert "--seq-length was 64, is 32" in shorter
    assert "NOTICE" not in output_of(flags(*SPLIT, "--load", run, "--skip-train"), capsys)


def test_the_precision_that_the_run_chose_is_used(
    run: Path, flags: Flags, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pretrain.resume.choose_precision", lambda _: pytest.fail("chosen anew"))
    output = output_of(flags(*SPLIT, "--load", run, "--skip-train", "--precision", "auto"), capsys)
    assert "--precision auto: fp32, as before in this run" in output
    assert "parameters; 1 processes = data 1 x tensor 1; cpu, fp32" in output


def test_each_corpus_is_described(
    run: Path, flags: Flags, capsys: pytest.CaptureFixture[str], corpus_prefix: Path, second_prefix: Path
) -> None:
    arguments = without(flags("--load", run, "--skip-train"), "--data-path", "--split", "--eval-iters")
    blend = ("--valid-data-path", "0.5", str(second_prefix), "0.5", str(corpus_prefix))
    lines = output_of([*arguments, *blend, "--eval-iters", "3", "--data-path", "unused"], capsys).splitlines()
    assert any(line.startswith(f"valid: {second_prefix}: 40 proteins in ") for line in lines)
    assert any(line.startswith(f"valid: {corpus_prefix}: 300 proteins in ") for line in lines)
    (part,) = [line for line in lines if "rows are evaluated" in line]
    assert part.startswith("valid: 24 of ")
    assert "in 24 rows" in lines[-1]
    empty = output_of(flags("--split", "98,0,2", "--load", run, "--skip-train"), capsys)
    assert "valid: --split 98,0,2 leaves no protein" in empty


def test_the_rows_do_not_depend_on_the_layout(run: Path, flags: Flags) -> None:
    arguments = flags("--load", run, "--skip-train")
    rows = {parse_arguments(arguments, ranks).evaluation.rows for ranks in (1, 2, 3)}
    assert rows == {2 * 8}
    # which does not fit into the global batch of the run's script
    assert parse_arguments([*arguments, "--micro-batch-size", "16"]).evaluation.rows == 2 * 8


def test_a_damaged_corpus_has_no_loss(
    run: Path, flags: Flags, tmp_path: Path, corpus_prefix: Path, repository_root: Path
) -> None:
    for suffix in (".bin", ".idx", ".json"):
        shutil.copy(f"{corpus_prefix}{suffix}", tmp_path / f"damaged{suffix}")
    damaged = tmp_path / "damaged.bin"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    arguments = without(flags("--load", run, "--skip-train"), "--data-path", "--split")
    result = subprocess.run(
        [sys.executable, str(repository_root / SCRIPT), *arguments, "--valid-data-path", str(tmp_path / "damaged")],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 1
    assert f"{damaged}: damaged, or changed after it was written" in result.stderr
    assert "loss" not in result.stdout


@pytest.mark.distributed
@pytest.mark.parametrize(
    "layout",
    [("--tensor-model-parallel-size", 2), ("--pipeline-model-parallel-size", 2), ("--data-parallel-sharding",)],
    ids=["tensor", "pipeline", "sharded"],
)
def test_every_layout_gives_the_same(
    run: Path,
    flags: Flags,
    printed: Printed,
    second_prefix: Path,
    layout: tuple[object, ...],
    torchrun: Callable[..., subprocess.CompletedProcess[str]],
    repository_root: Path,
) -> None:
    """Without training data."""
    arguments = flags("--valid-data-path", second_prefix, "--full-validation", "--load", run, "--skip-train")
    arguments = without(arguments, "--train-iters", "--data-path", "--split")
    expected = printed(arguments)
    output = torchrun(2, repository_root / SCRIPT, *arguments, *layout).stdout
    (split, (loss, *counts)), *others = found(output).items()
    assert split == "valid"
    assert not others
    assert loss == pytest.approx(expected["valid"][0], abs=1.1e-4)
    assert tuple(counts) == expected["valid"][1:]
    assert output.count("evaluating ") == 1


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--skip-train",), "--skip-train evaluates the weights in --load, which is missing$"),
        (("--skip-train", "--save", "RUN"), "which is missing; give --load .*run"),
        (("--skip-train", "--finetune", "--load", "RUN", "--pretrained-checkpoint", "RUN"), "give one of them"),
        (("--train-iters", "0"), "--train-iters 0 trains nothing; --skip-train evaluates"),
        (("--skip-train", "--load", "RUN", "--dry-run"), "--dry-run plans a training run, which --skip-train"),
        (("--skip-train", "--load", "RUN", "--eval-iters", "0"), "--eval-iters 0 evaluates nothing"),
        (("--skip-train", "--load", "NOTHING"), "NOTHING"),
        (("--ckpt-step", "2"), "--ckpt-step chooses one of the checkpoints in --load, which is missing"),
        (
            ("--load", "RUN", "--ckpt-step", "4"),
            "--ckpt-step 4: .*iter_0000004: no such checkpoint; complete iterations there: 3, 2, 1$",
        ),
        (("--load", "NOTHING", "--ckpt-step", "4"), "--load .*NOTHING: does not exist; --ckpt-step chooses one"),
        (("--skip-train", "--load", "RUN", "--seq-length", "128"), "--seq-length 128 exceeds the 64 positions"),
    ],
)
def test_contradictions_are_errors(run: Path, flags: Flags, extra: tuple[str, ...], words: str, tmp_path: Path) -> None:
    places = {"RUN": str(run), "NOTHING": str(tmp_path / "NOTHING")}
    with pytest.raises(ProteinLMError, match=words):
        parse_arguments(flags(*(places.get(word, word) for word in extra)))


def test_a_corpus_to_evaluate_is_required(run: Path, flags: Flags, corpus_prefix: Path) -> None:
    arguments = without(flags("--load", run, "--skip-train"), "--data-path", "--split")
    for other in ((), ("--train-data-path", str(corpus_prefix))):
        with pytest.raises(ConfigError, match="give the corpus to evaluate as --valid-data-path, --test-data-path or"):
            parse_arguments([*arguments, *other])
    nothing = parse_arguments(flags("--split", "1,0,0", "--load", run, "--skip-train"))
    with pytest.raises(ConfigError, match="--split 1,0,0 leaves no protein to evaluate"):
        run_evaluation(nothing, Launch())


def test_a_model_without_head_is_refused(flags: Flags, tmp_path: Path) -> None:
    """Its loss would be that of random weights."""
    model = write_megatron(tmp_path / "model", make_truth(layers=4, positions=64), head=False)
    arguments = flags("--num-layers", 4, "--load", model, "--skip-train")
    with pytest.raises(ConfigError, match="has no language-model head, whose predictions --skip-train evaluates"):
        run_evaluation(parse_arguments(arguments), Launch())
