"""``--skip-train``: the loss of a model, without training, in any layout."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from converter.convert import ConversionRequest, convert
from pretrain.config.arguments import parse_arguments
from pretrain.skip_train import run_evaluation
from tape.errors import ConfigError, ProteinLMError
from tape.runtime.launch import Launch
from tests.support.megatron_writer import make_truth, write_megatron

Flags = Callable[..., list[str]]
Run = Callable[[list[str]], None]
Records = Callable[..., list[dict[str, Any]]]

LOSS = re.compile(r"^(valid|test): loss (\d+\.\d{4}) \| ppl \d+\.\d+ \| (\d+) predictions in (\d+) rows$", re.MULTILINE)
SCRIPT = Path("pretrain") / "pretrain_tape.py"
SPLIT = ("--split", "80,10,10", "--full-validation")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, flags: Flags, pretrain_here: Run) -> Path:
    """Three steps, after which the run has evaluated validation and test set."""
    directory = tmp_path_factory.mktemp("run")
    pretrain_here(flags(*SPLIT, "--save", directory, train_iters=3))
    return directory


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Callable[[list[str]], dict[str, tuple[float, int, int]]]:
    """The loss, predictions and rows that a command prints for each split."""

    def evaluate(arguments: list[str]) -> dict[str, tuple[float, int, int]]:
        capsys.readouterr()
        run_evaluation(parse_arguments(arguments), Launch())
        return found(capsys.readouterr().out)

    return evaluate


def found(output: str) -> dict[str, tuple[float, int, int]]:
    return {split: (float(loss), int(counted), int(rows)) for split, loss, counted, rows in LOSS.findall(output)}


def recorded(records: Records, run: Path) -> dict[str, tuple[float, int, int]]:
    """What the run has recorded after its last iteration."""
    return {
        record["split"]: (round(record["validation_loss"], 4), record["predictions"], record["rows"])
        for record in records(run, "evaluation")
        if record["iteration"] == 3
    }


def without_training(arguments: list[str], *names: str) -> list[str]:
    """The flags without the given ones and their values."""
    chosen = [number for number, word in enumerate(arguments) if word in names]
    return [word for number, word in enumerate(arguments) if not {number, number - 1} & {*chosen}]


def test_the_losses_are_those_of_the_run(run: Path, flags: Flags, records: Records, printed: Any) -> None:
    expected = recorded(records, run)
    assert set(expected) == {"valid", "test"}
    arguments = without_training(flags(*SPLIT, "--load", run, "--skip-train"), "--train-iters", "--lr")
    assert printed(arguments) == expected


def test_nothing_of_the_run_is_written(
    run: Path, flags: Flags, records: Records, printed: Any, capsys: pytest.CaptureFixture[str]
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
    run: Path, flags: Flags, records: Records, printed: Any, tmp_path: Path
) -> None:
    model = tmp_path / "model"
    convert(ConversionRequest(run, model))
    valid = records(run, "evaluation")[-2]
    assert valid["split"] == "valid"
    for source in (("--load", model), ("--pretrained-checkpoint", model)):
        losses = printed(flags(*SPLIT, *source, "--skip-train", "--lr-warmup-iters", 50))
        assert losses["valid"][0] == pytest.approx(valid["validation_loss"], abs=2e-4)
    # as in training, the model counts as long as there is no checkpoint
    both = flags(*SPLIT, "--load", tmp_path / "new", "--pretrained-checkpoint", model, "--skip-train")
    assert parse_arguments(both).pretrained.path == model  # type: ignore[union-attr]
    both = flags(*SPLIT, "--load", run, "--pretrained-checkpoint", model, "--skip-train")
    assert parse_arguments(both).pretrained.path == run / "iter_0000003"  # type: ignore[union-attr]


def test_masks_and_rows_are_chosen_anew(run: Path, flags: Flags, records: Records, printed: Any) -> None:
    """What a resume refuses: another rate of masked residues, another length."""
    expected = recorded(records, run)
    more = printed(flags(*SPLIT, "--load", run, "--skip-train", "--mask-prob", 0.3))
    assert more["valid"][1] == pytest.approx(2 * expected["valid"][1], rel=0.1)
    shorter = printed(flags(*SPLIT, "--load", run, "--skip-train", "--seq-length", 32))
    assert shorter["valid"][2] > expected["valid"][2]


@pytest.mark.distributed
@pytest.mark.parametrize(
    "layout",
    [("--tensor-model-parallel-size", 2), ("--pipeline-model-parallel-size", 2), ("--data-parallel-sharding",)],
    ids=["tensor", "pipeline", "sharded"],
)
def test_every_layout_gives_the_same(
    run: Path,
    flags: Flags,
    printed: Any,
    second_prefix: Path,
    layout: tuple[object, ...],
    torchrun: Callable[..., subprocess.CompletedProcess[str]],
    repository_root: Path,
) -> None:
    """Without training data."""
    arguments = flags("--valid-data-path", second_prefix, "--full-validation", "--load", run, "--skip-train")
    arguments = without_training(arguments, "--train-iters", "--data-path", "--split")
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
        (("--skip-train",), "--skip-train evaluates the weights in --load, which is missing"),
        (("--skip-train", "--load", "RUN", "--dry-run"), "--dry-run plans a training run, which --skip-train"),
        (("--skip-train", "--load", "RUN", "--eval-iters", "0"), "--eval-iters 0 evaluates nothing"),
        (("--skip-train", "--load", "NOTHING"), "NOTHING"),
        (("--skip-train", "--load", "RUN", "--seq-length", "128"), "--seq-length 128 exceeds the 64 positions"),
    ],
)
def test_contradictions_are_errors(run: Path, flags: Flags, extra: tuple[str, ...], words: str, tmp_path: Path) -> None:
    places = {"RUN": str(run), "NOTHING": str(tmp_path / "NOTHING")}
    with pytest.raises(ProteinLMError, match=words):
        parse_arguments(flags(*(places.get(word, word) for word in extra)))


def test_a_corpus_to_evaluate_is_required(run: Path, flags: Flags, corpus_prefix: Path) -> None:
    arguments = without_training(flags("--load", run, "--skip-train"), "--data-path", "--split")
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
