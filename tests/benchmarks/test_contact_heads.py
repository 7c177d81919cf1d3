"""The four cells of contact heads and pretraining, at a toy size."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import contact_heads
from benchmarks.contact_heads import differences, share_of_head
from tape.errors import CheckpointError, ConfigError
from tape.io.lmdb_store import write_lmdb
from tape.io.writing import write_json
from tests.support.bundled_models import small_language_model

SCORES = {
    ("linear", "random"): [0.10, 0.12],
    ("linear", "pretrained"): [0.20, 0.20],
    ("resnet", "random"): [0.13, 0.17],
    ("resnet", "pretrained"): [0.30, 0.32],
}


def record(number: int, rng: np.random.Generator) -> dict[str, Any]:
    length = int(rng.integers(26, 31))
    return {
        "id": f"protein {number}",
        "primary": "".join(rng.choice(list("ACDEFGHIKLMNPQRSTVWY"), length)),
        "protein_length": length,
        "tertiary": np.cumsum(rng.normal(size=(length, 3)) * 2.2, axis=0).astype(np.float32),
        "valid_mask": np.ones(length, dtype=bool),
    }


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    """A command line with a small model, 6 proteins to train on, and 4 in the other splits."""
    rng = np.random.default_rng(0)
    (tmp_path / "data" / "proteinnet").mkdir(parents=True)
    for split, count in (("train", 6), ("valid", 4), ("test", 4)):
        path = tmp_path / "data" / "proteinnet" / f"proteinnet_{split}.lmdb"
        write_lmdb(path, [record(number, rng) for number in range(count)])
    small_language_model().save_pretrained(tmp_path / "model", provenance={"kind": "test"})
    return [str(tmp_path / "data"), str(tmp_path / "model"), "--output-dir", str(tmp_path / "runs"), "--no-cuda"]


def stand_in(trained: list[list[str]]) -> Any:
    """Instead of ``tape-train``: records the command and writes the scores of its cell."""

    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        trained.append(command)
        values = dict(zip(command[4::2], command[5::2], strict=False))
        scores = SCORES[tuple(values["--exp_name"].split("_"))]  # type: ignore[index]
        runs = [
            {"seed": seed, "metrics": {"test": dict.fromkeys(contact_heads.METRICS, score)}}
            for seed, score in enumerate(scores)
        ]
        folder = Path(values["--output_dir"]) / values["--exp_name"]
        folder.mkdir(parents=True)
        write_json(folder / "summary.json", {"runs": runs})
        return subprocess.CompletedProcess(command, 0)

    return run


@pytest.mark.slow
def test_four_cells_are_trained_and_evaluated(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = [
        "--seeds",
        "2",
        "--epochs",
        "1",
        "--train",
        "4",
        "--precision",
        "fp32",
        "--config",
        "contact_num_blocks=1",
    ]
    contact_heads.main([*words, *options, "--json", str(tmp_path / "result.json")])
    content = json.loads((tmp_path / "result.json").read_text())
    assert {"processor", "torch", "date"} <= content["machine"].keys()
    assert content["drawn"] == {"train": 4, "valid": 4, "test": 4}
    assert [result["metric"] for result in content["results"]] == list(contact_heads.METRICS)
    scores = content["results"][0]["scores"]
    assert {name: len(values) for name, values in scores.items()} == dict.fromkeys(
        ("linear_random", "linear_pretrained", "resnet_random", "resnet_pretrained"), 2
    )
    configs = [json.loads((tmp_path / "runs" / name / "seed_42" / "0" / "config.json").read_text()) for name in scores]
    assert [config["contact_head"] for config in configs] == ["linear", "linear", "resnet", "resnet"]
    provenance = tmp_path / "runs" / "resnet_pretrained" / "seed_42" / "0" / "provenance.json"
    assert json.loads(provenance.read_text())["initialised_from"] == words[1]
    assert "P@L/5, separation >= 12, test, mean (minimum - maximum) over 2 seeds" in capsys.readouterr().out


def test_all_cells_have_the_same_budget(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", stand_in(trained))
    contact_heads.main(words)
    differing = {"--contact_head", "--exp_name", "--from_pretrained", "--model_config_file", "--log_dir"}
    budgets = [
        {option: value for option, value in zip(command[4::2], command[5::2], strict=False) if option not in differing}
        for command in trained
    ]
    assert len(budgets) == 4
    assert all(budget == budgets[0] for budget in budgets)
    assert [("--from_pretrained" in command, "--model_config_file" in command) for command in trained] == [
        (False, True),
        (True, False),
    ] * 2


def test_random_weights_have_the_better_initial_attention(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", stand_in(trained))
    contact_heads.main(words)
    settings = Path(words[3]) / "settings.json"
    earlier = json.loads(settings.read_text())
    del earlier["random_weights"]
    settings.write_text(json.dumps(earlier))
    contact_heads.main(words)  # runs of earlier versions stay valid
    assert not any("initial_attention" in word for command in trained for word in command)

    model = small_language_model()
    model.config.initial_attention = "half-neighbours"
    model.save_pretrained(words[1], provenance={"kind": "test"})
    trained.clear()
    contact_heads.main([*words[:3], f"{words[3]}_half", *words[4:]])
    assert ["initial_attention=neighbours" in command for command in trained] == [True, False] * 2


def test_a_head_has_settings_of_its_own_for_both_starts(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", stand_in(trained))
    own = ["linear:head_learning_rate=3e-2", "linear:config=contact_separations=64", "resnet:learning_rate=5e-4"]
    contact_heads.main([*words, "--config", "hidden_dropout_prob=0", *(word for o in own for word in ("--option", o))])
    found = [[word in command for word in ("3e-2", "contact_separations=64", "5e-4")] for command in trained]
    assert found == [[True, True, False]] * 2 + [[False, False, True]] * 2
    assert all("hidden_dropout_prob=0" in command for command in trained)
    assert [command[command.index("--learning_rate") + 1] for command in trained] == ["0.001"] * 2 + ["5e-4"] * 2


def test_settings_of_a_head_are_settings_of_the_runs(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", stand_in([]))
    own = ["--option", "linear:head_learning_rate=3e-2"]
    contact_heads.main([*words, *own])
    contact_heads.main([*words, *own])
    with pytest.raises(ConfigError, match=r"other settings \(option\)"):
        contact_heads.main(words)


@pytest.mark.parametrize(
    "option", ["head_learning_rate=1", "cnn:learning_rate=1", "linear:learning_rate", "linear:num_train_epochs=9"]
)
def test_settings_that_change_the_budget_are_refused(
    words: list[str], option: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        contact_heads.main([*words, "--option", option])
    assert "is not HEAD:NAME=VALUE, with a HEAD of linear, resnet" in capsys.readouterr().err


def test_complete_cells_are_not_trained_again(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    trained: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", stand_in(trained))
    contact_heads.main(words)
    summary = Path(words[3]) / "linear_pretrained" / "summary.json"
    summary.unlink()
    summary.parent.rmdir()
    contact_heads.main(words)
    assert [command[command.index("--exp_name") + 1] for command in trained[4:]] == ["linear_pretrained"]


def test_runs_with_other_settings_are_refused(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", stand_in([]))
    contact_heads.main(words)
    with pytest.raises(ConfigError, match=r"its runs have other settings \(epochs\); choose another --output-dir"):
        contact_heads.main([*words, "--epochs", "9"])


def test_a_missing_model_is_refused(words: list[str]) -> None:
    with pytest.raises(CheckpointError, match="absent: no such model directory"):
        contact_heads.main([words[0], "absent", *words[2:]])


def test_a_failed_cell_ends_the_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, 1))
    with pytest.raises(ConfigError, match="failed; its error is above"):
        contact_heads.main(words)


def test_differences_are_paired_by_seed() -> None:
    found = {difference.name: difference.values for difference in differences(SCORES)}
    assert found["head, random weights"] == pytest.approx((0.03, 0.05))
    assert found["head, pretrained weights"] == pytest.approx((0.10, 0.12))
    assert found["pretraining, linear head"] == pytest.approx((0.10, 0.08))
    assert found["pretraining, convolutional head"] == pytest.approx((0.17, 0.15))
    assert found["both"] == pytest.approx((0.20, 0.20))


def test_the_share_of_the_head_is_its_mean_effect_over_that_of_both() -> None:
    assert share_of_head(differences(SCORES)) == pytest.approx((0.04 + 0.11) / 2 / 0.20)


@pytest.mark.parametrize("value", [0.05, math.nan])
def test_without_a_gain_there_is_no_share(value: float) -> None:
    scores = {**SCORES, ("resnet", "pretrained"): [value, value]}
    assert share_of_head(differences(scores)) is None
