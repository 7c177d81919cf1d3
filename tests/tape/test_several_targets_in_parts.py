"""Several targets, some of them missing, however the proteins are divided, and what a model of them is used for."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch

import tape
from tape.configs import ProteinBertConfig
from tape.errors import run_cli
from tape.evaluation.windows import WindowedModel, window_starts
from tape.io.json_files import read_json_lines
from tape.main import run_embed, run_eval, run_train
from tape.models.model_directory import load_state_dict
from tape.models.modeling_bert import ProteinBertForValuePrediction, ProteinBertModel
from tape.report.command import main as report
from tape.report.compare import main as compare
from tape.tasks import TaskType
from tests.support.ranks import compute, free_port

COLUMNS = ("Tm", "kcat")
WORDS = ["--learning_rate", "1e-2", "--no_cuda", "--log_level", "40", "--pooled_norm", "none"]


@pytest.fixture
def table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """60 proteins of 6 to 30 residues. Short ones mostly lack Tm, and long ones kcat, so that batches of similar
    length, and the parts of a batch, have different numbers of values."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    sequences = ["".join(rng.choice(list("AAAGKLDE"), rng.integers(6, 31))) for _ in range(60)]
    values = {
        "Tm": [50.0 + sequence.count("A") for sequence in sequences],
        "kcat": [1e-3 * (2 + sequence.count("K")) for sequence in sequences],
    }
    for number, sequence in enumerate(sequences):
        if number % 5:
            values["Tm" if len(sequence) < 18 else "kcat"][number] = math.nan
    splits = ["test" if number % 6 == 4 else "valid" if number % 6 == 5 else "train" for number in range(60)]
    frame = pandas.DataFrame({"id": [f"p{n}" for n in range(60)], "sequence": sequences, **values, "split": splits})
    frame.to_csv(tmp_path / "my.csv", index=False)
    return tmp_path / "my.csv"


def words_of(table: Path, name: str, *options: object) -> list[str]:
    words = ["onehot", "--data", table, "--target", *COLUMNS, "--num_train_epochs", 3, *WORDS, "--exp_name", name]
    return [str(word) for word in (*words, *options)]


def train(table: Path, name: str, *options: object) -> Path:
    return run_train(words_of(table, name, *options))


def weights(run: Path) -> torch.Tensor:
    return torch.cat([value.double().flatten() for _, value in sorted(load_state_dict(run / "2").items())])


def losses(run: Path) -> np.ndarray:
    return np.array([[record[group]["loss"] for group in ("train", "valid")] for record in history(run)])


def history(run: Path) -> list[dict[str, Any]]:
    return read_json_lines(run / "metrics.jsonl")


SAVE_ALL = ("--save_freq", 1, "--batch_size", 8)


def test_the_loss_of_a_step_is_the_mean_over_its_values_however_it_is_divided(table: Path) -> None:
    whole = train(table, "whole", *SAVE_ALL)
    for name, options in (("parts", ("--gradient_accumulation_steps", 4)), ("tokens", ("--max_tokens", 40))):
        parts = train(table, name, *SAVE_ALL, *options)
        torch.testing.assert_close(weights(parts), weights(whole), rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(losses(parts), losses(whole), rtol=1e-4)


def _rank(rank: int, folder: str) -> None:
    setup = json.loads((Path(folder) / "setup.json").read_text(encoding="utf-8"))
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank), "CUDA_VISIBLE_DEVICES": ""}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(setup["port"])}
    os.chdir(folder)
    code = run_cli(lambda: run_train(setup["words"]))
    assert code == 0


@pytest.mark.distributed
def test_two_ranks_take_the_steps_of_one_process_and_measure_the_same(table: Path, tmp_path: Path) -> None:
    alone = train(table, "alone", *SAVE_ALL)
    words = words_of(table, "ranks", *SAVE_ALL)
    (tmp_path / "setup.json").write_text(json.dumps({"port": free_port(), "words": words}), encoding="utf-8")
    compute(_rank, tmp_path)
    ranks = tmp_path / "results" / "ranks"
    torch.testing.assert_close(weights(ranks), weights(alone), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses(ranks), losses(alone), rtol=1e-4)
    (file,) = ranks.glob("*/eval_test.json")
    written = {one["name"]: one["value"] for one in json.loads(file.read_text(encoding="utf-8"))["metrics"]}
    again = run_eval(["onehot", str(ranks), "--split", "test", "--no_cuda", "--log_level", "40"])
    assert written == pytest.approx(again, rel=1e-5)
    assert {"mae_Tm", "mae_kcat", "loss"} <= set(written)


def test_training_stops_early_by_the_mean_loss_over_values(table: Path) -> None:
    run = train(table, "early", "--num_train_epochs", 30, "--patience", 1, "--learning_rate", "0.3", "--save_freq", 1)
    valid = [record["valid"]["loss"] for record in history(run)]
    best = int(np.argmin(valid))
    assert len(valid) == best + 2 < 30  # one epoch without a lower loss
    frame = pandas.read_csv(table)
    predicted = tape.load(run / str(best), device="cpu").predict(str(table))
    target = json.loads((run / str(best) / "config.json").read_text(encoding="utf-8"))["target"]
    errors = np.stack([frame[column] - predicted[f"prediction_{column}"] for column in COLUMNS])
    errors /= np.array(target["std"])[:, None]
    assert valid[best] == pytest.approx(np.nanmean(errors[:, frame.split == "valid"] ** 2), rel=1e-3)


def test_predictions_are_the_same_for_a_table_with_further_columns(table: Path) -> None:
    model = tape.load(train(table, "further"), device="cpu")
    plain = pandas.read_csv(table)[["id", "sequence"]]
    further = pandas.read_csv(table).assign(prediction_Tm=1.0, prediction="x", Tm="unknown", length=3, index=7)
    pandas.testing.assert_frame_equal(model.predict(further), model.predict(plain))
    further.to_csv("further.csv", index=False)
    run_eval(["onehot", str(model.directory), "--predict", "further.csv", "--predict_out", "p.csv", *WORDS[2:5]])
    written = pandas.read_csv("p.csv")
    assert list(written.columns) == ["id", "length", "prediction_Tm", "prediction_kcat"]
    np.testing.assert_allclose(written.prediction_kcat, model.predict(plain).prediction_kcat, rtol=1e-5)


def test_two_runs_are_compared_and_reported_by_target(
    table: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [train(table, name, "--seed", seed) for name, seed in (("one", 1), ("two", 2))]
    found = [json.loads(next(run.glob("*/eval_test.json")).read_text(encoding="utf-8")) for run in runs]
    first, second = ({metric["name"]: metric["value"] for metric in one["metrics"]} for one in found)
    capsys.readouterr()
    compare([*map(str, runs), "--bootstrap", "50", "--all_metrics"])
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| my_Tm_kcat")]
    for column in COLUMNS:
        (row,) = [cells for cells in rows if cells[3] == f"MAE of {column}"]
        assert first[f"mae_{column}"] != second[f"mae_{column}"]
        shown = [float(cell.replace(",", "")) for cell in row[4:7]]
        one, other = first[f"mae_{column}"], second[f"mae_{column}"]
        assert shown == pytest.approx([one, other, one - other], abs=6e-6 if column == "kcat" else 6e-4)
    report([*map(str, runs), "--out", str(tmp_path / "report")])
    pages = [path.read_text(encoding="utf-8") for path in (tmp_path / "report").rglob("*") if path.is_file()]
    assert any("MAE of Tm" in text and "MAE of kcat" in text for text in pages)


SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
TARGET = {"task": "my", "type": "regression", "column": ["Tm", "kcat"], "mean": [50.0, 1e-3], "std": [7.0, 5e-4]}


def test_windows_predict_every_target_and_their_loss_is_the_mean_over_values() -> None:
    torch.manual_seed(0)
    config = ProteinBertConfig(**SMALL, max_position_embeddings=10, pooling="mean", target=TARGET)
    model = ProteinBertForValuePrediction(config).eval()
    windows = WindowedModel(model, TaskType.VALUE, 10)
    ids, mask = torch.zeros(2, 22, dtype=torch.int64), torch.zeros(2, 22, dtype=torch.int64)
    for row, length in enumerate((7, 20)):
        ids[row, : length + 2] = torch.tensor([2, *(5 + torch.arange(length) % 20).tolist(), 3])
        mask[row, : length + 2] = 1
    targets = torch.tensor([[51.0, math.nan], [math.nan, 2e-3]])
    with torch.no_grad():
        (loss, _), prediction = windows(ids, mask, targets)[:2]
        short = model(ids[:1, :9], targets=targets[:1])
        torch.testing.assert_close(prediction[:1], short[1])
        parts = [torch.cat([ids[1, :1], ids[1, 1 + s : 9 + s], ids[1, 21:22]]) for s in window_starts(20, 8)]
        assert len(parts) > 2
        torch.testing.assert_close(prediction[1], model(torch.stack(parts))[0].mean(0))
        (alone, _), _ = windows(ids[:1, :9], mask[:1, :9], targets[:1])[:2]
        torch.testing.assert_close(alone, short[0][0])
    errors = (prediction - targets) / torch.tensor(TARGET["std"])
    assert loss.item() == pytest.approx(errors[~targets.isnan()].square().mean().item(), rel=1e-4)


def test_a_model_of_several_targets_is_evaluated_in_windows_and_embeds_as_its_encoder(
    table: Path, tmp_path: Path
) -> None:
    config = tmp_path / "small.json"
    config.write_text(json.dumps({**SMALL, "max_position_embeddings": 18, "head_hidden_size": 16}), encoding="utf-8")
    words = ["transformer", "--data", str(table), "--target", *COLUMNS, "--num_train_epochs", "1", "--length", "window"]
    run = run_train([*words, "--model_config_file", str(config), "--exp_name", "small", *WORDS])
    whole = ["transformer", str(run), "--no_cuda", "--log_level", "40", "--length", "window", "--bootstrap", "0"]
    metrics = run_eval([*whole, "--split", "test"])
    predicted = tape.load(run, device="cpu").predict(str(table), length="window")
    frame = pandas.read_csv(table)
    test = frame.split == "test"
    for column in COLUMNS:
        error = (frame[column] - predicted[f"prediction_{column}"])[test].abs().mean()
        assert metrics[f"mae_{column}"] == pytest.approx(error, rel=1e-4)
    words = ["transformer", str(table), "embedded.npz", str(run), "--length", "crop", "--no_cuda", "--log_level", "40"]
    run_embed(words)
    found = np.load("embedded.npz", allow_pickle=True)
    encoder = ProteinBertModel.from_pretrained(run)
    ids = torch.from_numpy(np.asarray(tape.TAPETokenizer().encode(frame.sequence[0][:16]))).unsqueeze(0)
    with torch.no_grad():
        states = encoder(ids)[0][0, 1:-1].mean(0)
    np.testing.assert_allclose(found["p0"].item()["avg"], states.numpy(), rtol=1e-4, atol=1e-5)
