"""The commands tape-train and tape-eval, from their options to the files that they write."""

from __future__ import annotations

import errno
import json
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tape.cli.contacts import run_contacts
from tape.cli.score import run_score
from tape.commands import eval_command, train_command
from tape.errors import CheckpointError, ConfigError, DataError, VocabularyMismatchError
from tape.evaluation.records import read_record
from tape.finetuning.run_directory import read_history
from tape.main import run_embed, run_eval, run_train
from tape.models import low_precision

Train = Callable[..., Path]


def test_training_writes_history_and_arguments(train: Train) -> None:
    run = train("transformer", "stability", "--num_train_epochs", 2, "--batch_size", 4, "--config", "hidden_act=relu")
    history = read_history(run)
    assert [(record["epoch"], record["step"]) for record in history] == [(0, 3), (1, 6)]
    assert {"loss", "spearmanr", "pearsonr", "mse", "mae"} <= set(history[0]["valid"])
    written = json.loads((run / "args.json").read_text())
    assert (written["task"], written["model_type"], written["batch_size"]) == ("stability", "transformer", 4)
    assert written["config"] == {"hidden_act": "relu"}
    config = json.loads((run / "1" / "config.json").read_text())
    assert (config["finetuning_task"], config["hidden_act"], config["num_labels"]) == ("stability", "relu", -1)
    provenance = json.loads((run / "1" / "provenance.json").read_text())
    assert (provenance["kind"], provenance["epoch"], provenance["data"]["simulated"]) == ("finetuned", 1, True)


def test_defaults_depend_on_the_task(train: Train) -> None:
    # bug 11 in docs/compatibility.md: a batch of 1024 and 10,000 steps of warm-up
    run = train("transformer", "contact_prediction", "--num_train_epochs", 10, "--eval_freq", 0, "--save_freq", 10)
    written = json.loads((run / "args.json").read_text())
    assert (written["batch_size"], written["warmup_steps"]) == (8, 2)  # 20 steps in all
    rates = [record["learning_rate"] for record in read_history(run)]
    assert max(rates) > 0.9 * 1e-4
    assert not (run / "best.json").exists()
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == ["9"]


def test_resuming_is_exact_and_uses_the_same_directory(train: Train, tmp_path: Path) -> None:
    # bug 9 in docs/compatibility.md
    options = ("--batch_size", 4, "--config", "hidden_dropout_prob=0.2", "--warmup_steps", 2, "--learning_rate", 1e-3)
    run = train("transformer", "masked_language_modeling", "--num_train_epochs", 4, *options)
    whole = torch.load(run / "3" / "pytorch_model.bin", weights_only=True)
    history = read_history(run)
    again = train(
        "transformer",
        "masked_language_modeling",
        "--num_train_epochs",
        4,
        *options,
        "--resume_from_checkpoint",
        "--from_pretrained",
        run / "1",
        "--overwrite",
    )
    assert again.resolve() == run.resolve()
    for name, value in torch.load(run / "3" / "pytorch_model.bin", weights_only=True).items():
        assert torch.equal(value, whole[name]), name
    for old, new in zip(history, read_history(run), strict=True):
        assert {**old, "seconds": 0} == {**new, "seconds": 0}
    # a longer run, specified by its directory, has a learning rate above 0
    train(
        "transformer",
        "masked_language_modeling",
        "--num_train_epochs",
        6,
        *options,
        "--resume_from_checkpoint",
        "--from_pretrained",
        run,
    )
    assert [record["epoch"] for record in read_history(run)] == list(range(6))
    assert read_history(run)[4]["learning_rate"] > 0
    assert [path.name for path in (tmp_path / "results").iterdir()] == [run.name]


def resume(train: Train, path: object, *options: object) -> Path:
    return train("transformer", "stability", "--resume_from_checkpoint", "--from_pretrained", path, *options)


def test_resuming_keeps_options_that_are_not_given(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    # bug 9: the batch size fell back to its default, so completed steps were counted as if they had been larger
    options = ("--batch_size", 2, "--seed", 7, "--learning_rate", 1e-3, "--weight_decay", 0.1, "--bf16")
    run = train("transformer", "stability", *options, "--num_train_epochs", 4)
    first = json.loads((run / "args.json").read_text())
    (run / "best.json").unlink()
    resume(train, run, "--num_train_epochs", 6, "--log_level", 30)
    written = json.loads((run / "args.json").read_text())
    names = ("batch_size", "seed", "learning_rate", "weight_decay", "bf16", "data_dir", "model_config_file")
    assert {name: written[name] for name in names} == {name: first[name] for name in names}
    assert (written["num_train_epochs"], written["warmup_steps"]) == (6, 3)  # a tenth of the new total of 30 steps
    assert "--num_train_epochs changes from 4 to 6" in caplog.text
    assert "--num_train_epochs changes from 4 to 6" in (run / "log").read_text()


@pytest.mark.parametrize(("before", "after"), [(2, 5), (5, 2)])
def test_another_batch_size_resumes_at_the_same_epoch_of_the_schedule(before: int, after: int, train: Train) -> None:
    # bug 9 in docs/compatibility.md: 10 steps of 2 proteins exceed the steps of a run with 5, so the rate was 0
    options = ("--num_train_epochs", 4, "--warmup_steps", 1, "--learning_rate", 1e-3)
    run = train("transformer", "stability", *options, "--batch_size", before)
    resume(train, run / "1", "--batch_size", after, "--overwrite")
    steps = 10 // after
    total = 4 * steps
    records = read_history(run)
    assert [record["step"] for record in records[2:]] == [3 * steps, total]
    rates = [1e-3 * (total - last) / (total - 1) for last in (3 * steps - 1, total - 1)]
    assert [record["learning_rate"] for record in records[2:]] == pytest.approx(rates)
    assert min(rates) > 0


def test_later_epochs_are_dropped_only_with_overwrite(train: Train, caplog: pytest.LogCaptureFixture) -> None:
    run = train("transformer", "stability", "--num_train_epochs", 3)
    arguments = (run / "args.json").read_bytes()
    with pytest.raises(ConfigError, match="resuming after epoch 0 drops its saved epochs 1, 2; give --overwrite"):
        resume(train, run / "0", "--learning_rate", 1.0)
    assert (run / "args.json").read_bytes() == arguments
    assert len(read_history(run)) == 3
    resume(train, run / "0", "--num_train_epochs", 2, "--overwrite", "--log_level", 30)
    assert "saved epochs 1, 2 are dropped" in caplog.text
    assert sorted(path.name for path in run.iterdir() if path.is_dir()) == ["0", "1"]
    # an epoch that was interrupted while it was saved is replaced without --overwrite
    (run / "2").mkdir()
    resume(train, run, "--num_train_epochs", 3)
    assert (run / "2" / "checkpoint.bin").is_file()


def test_only_a_run_can_be_resumed(train: Train, tmp_path: Path) -> None:
    run = train("transformer", "stability", "--num_train_epochs", 1)
    run.joinpath("0").rename(tmp_path / "copied")
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(CheckpointError, match="copied: neither a run with saved epochs nor one of them"):
        resume(train, tmp_path / "copied")
    with pytest.raises(CheckpointError, match="gone: no such directory"):
        resume(train, tmp_path / "gone")
    (run / "latest.json").unlink()
    (run / "log").rename(run / "empty")
    (run / "0").mkdir()
    with pytest.raises(CheckpointError, match=r"no checkpoint\.bin there"):
        resume(train, run / "0")
    assert not (run / "log").exists()
    assert {path.name for path in tmp_path.iterdir()} == before
    (run / "args.json").write_text(json.dumps({"task": "fluorescence"}))
    with pytest.raises(ConfigError, match="the run's task is 'fluorescence', not stability"):
        resume(train, run / "0")


def test_force_save_needs_no_data_and_exits_with_0(
    tmp_path: Path, small_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = "transformer masked_language_modeling --batch_size 8 --num_train_epochs 1 --time_or_name untrained"
    options = ["--model_config_file", str(small_config), "--force_save", "models/untrained_tape"]
    monkeypatch.setattr("sys.argv", ["tape_train.py", *words.split(), *options])
    assert train_command() == 0  # bug 39 in docs/compatibility.md: the library called exit(0)
    names = {path.name for path in (tmp_path / "models" / "untrained_tape" / "0").iterdir()}
    assert {"config.json", "pytorch_model.bin", "checkpoint.bin"} <= names
    assert not (tmp_path / "results").exists()


def test_finetuning_starts_from_a_pretrained_encoder(train: Train, tmp_path: Path) -> None:
    run = train("transformer", "masked_language_modeling", "--num_train_epochs", 1, "--exp_name", "pretrained")
    assert run.name == "pretrained"
    tuned = train("transformer", "stability", "--from_pretrained", run, "--num_train_epochs", 1, "--learning_rate", 0)
    before = torch.load(run / "0" / "pytorch_model.bin", weights_only=True)
    after = torch.load(tuned / "0" / "pytorch_model.bin", weights_only=True)
    encoder = [name for name in before if name.startswith("bert.")]
    assert encoder
    assert all(torch.equal(before[name], after[name]) for name in encoder)


@pytest.mark.parametrize("head", ["linear", "resnet"])
def test_the_contact_head_can_be_chosen(head: str, train: Train, small_data: Path) -> None:
    run = train("transformer", "contact_prediction", "--contact_head", head, "--num_train_epochs", 1)
    assert json.loads((run / "0" / "config.json").read_text())["contact_head"] == head
    metrics = ["--metrics", "accuracy", "L5", "--batch_size", "3"]
    values = run_eval(["transformer", "contact_prediction", str(run), "--data_dir", str(small_data), *metrics])
    assert set(values) == {"accuracy", "precision_at_l5"}
    assert all(0.0 <= value <= 1.0 for value in values.values())


def test_the_automatic_precision_is_that_of_training_evaluation_and_the_resumed_run(
    train: Train, small_data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(low_precision, "fast_bf16", lambda device: True)
    options = ("--batch_size", 6, "--precision", "auto", "--log_level", 20)
    run = train("transformer", "stability", *options, "--num_train_epochs", 1, "--eval_splits", "valid")
    assert json.loads((run / "args.json").read_text())["precision"] == "bf16"
    assert read_record(run / "0" / "eval_valid.json").precision == "bf16"
    assert caplog.text.count("--precision auto: bf16") == 1
    monkeypatch.setattr(low_precision, "fast_bf16", lambda device: False)  # as on another machine
    caplog.clear()
    resume(train, run, "--num_train_epochs", 2, "--precision", "auto", "--log_level", 20)
    assert json.loads((run / "args.json").read_text())["precision"] == "bf16"
    assert "--precision" not in caplog.text
    assert ", bf16 on 1 x cpu" in caplog.text
    run_eval(["transformer", "stability", str(run), "--data_dir", str(small_data), "--precision", "auto"])
    assert read_record(run / "1" / "eval_test.json").precision == "fp32"


def test_mixed_precision_and_gradient_accumulation_train(train: Train) -> None:
    options = ("--num_train_epochs", 1, "--batch_size", 6, "--gradient_accumulation_steps", 4)
    run = train("transformer", "secondary_structure", "--bf16", *options)
    assert read_history(run)[0]["step"] == 2
    assert read_history(train("transformer", "secondary_structure", "--fp16", *options, "--overwrite"))[0]["step"] == 2


@pytest.mark.parametrize(
    ("task", "name", "allowed"),
    [
        ("fluorescence", "accuracy", "mae, mse, pearsonr, r2, rmse, spearmanr"),
        ("fluorescence", "L5", "mae, mse, pearsonr, r2, rmse, spearmanr"),
        ("secondary_structure", "mse", "accuracy"),
        ("remote_homology", "spearmanr", "accuracy"),
        ("contact_prediction", "mae", "L5, accuracy"),
    ],
)
def test_a_metric_of_another_task_is_refused_before_training(
    task: str, name: str, allowed: str, train: Train, small_data: Path, tmp_path: Path
) -> None:
    model = train("onehot", task, "--force_save", tmp_path / "untrained")
    split = {"secondary_structure": "cb513", "remote_homology": "test_fold_holdout"}.get(task, "test")
    words = ["onehot", task, str(model), "--data_dir", str(small_data), "--split", split, "--log_level", "40"]
    with pytest.raises(ConfigError, match=f"--metrics {name}: {task} has no such metric; it has {allowed}[.,]"):
        run_eval([*words, "--metrics", name])
    assert not (model / "results.pkl").exists()


def test_epochs_are_saved_on_improvement(train: Train) -> None:
    run = train("transformer", "stability", "--save_freq", "improvement", "--patience", 2, "--num_train_epochs", 3)
    best = json.loads((run / "best.json").read_text())
    losses = {record["epoch"]: record["valid"]["loss"] for record in read_history(run)}
    assert losses[best["epoch"]] == min(losses.values()) == best["value"]


def test_long_proteins_are_trained_on_and_evaluated(train: Train, write_split: Callable[..., Path]) -> None:
    # bug 16 in docs/compatibility.md: proteins over 512 residues were omitted from training and from every test set
    records = [
        {"primary": "A" * n, "protein_length": n, "stability_score": [n / 100], "id": f"p{n}"} for n in (10, 600, 20)
    ]
    for split in ("train", "valid", "test"):
        data = write_split("stability", split, records)
    options = ("--num_train_epochs", 1, "--batch_size", 1, "--config", "max_position_embeddings=602")
    run = train("transformer", "stability", *options, data=data)
    assert read_history(run)[0]["step"] == 3
    run_eval(["transformer", "stability", str(run), "--data_dir", str(data)])
    report = json.loads((run / "0" / "eval_test.json").read_text())
    assert report["proteins"] == 3
    assert {metric["n"] for metric in report["metrics"]} == {3}
    _, results = pickle.loads((run / "0" / "results.pkl").read_bytes())
    assert [result["id"] for result in results] == ["p10", "p600", "p20"]


def test_patience_between_two_saved_epochs(train: Train, small_data: Path) -> None:
    """The last epoch is saved, and both the run's directory and ``--eval_splits`` refer to it."""
    options = ("--save_freq", 50, "--patience", 1, "--num_train_epochs", 40, "--warmup_steps", 0)
    run = train("onehot", "stability", *options, "--learning_rate", 0.3, "--eval_splits", "test")
    history = read_history(run)
    last = history[-1]["epoch"]
    assert 0 < last < 39
    assert history[-1]["valid"]["loss"] > history[-2]["valid"]["loss"]
    assert [path.name for path in run.iterdir() if path.is_dir()] == [str(last)]
    assert json.loads((run / "best.json").read_text())["epoch"] == last
    assert (run / str(last) / "eval_test.json").is_file()
    words = ["onehot", "stability", str(run), "--data_dir", str(small_data), "--split", "valid", "--log_level", "40"]
    assert run_eval(words)["loss"] == pytest.approx(history[-1]["valid"]["loss"], rel=1e-4)


def test_max_length_restricts_the_training_split_only(
    train: Train, write_split: Callable[..., Path], small_config: Path, caplog: pytest.LogCaptureFixture
) -> None:
    # bug 16: an error instead of a silent filter; --max_length filters the training set only
    def records(*lengths: int) -> list[dict[str, Any]]:
        return [{"primary": "A" * n, "stability_score": [float(n)], "id": f"p{n}"} for n in lengths]

    write_split("stability", "train", records(10, 80, 20, 30))
    data = write_split("stability", "valid", records(10, 40))
    options = ("--num_train_epochs", 1)
    with pytest.raises(
        DataError, match=r"stability_train\.lmdb, record 1 \(p80\): 80 residues, but .* positions for 62"
    ):
        train("transformer", "stability", *options, data=data)
    run = train(
        "transformer", "stability", *options, "--max_length", 20, "--batch_size", 1, "--log_level", 30, data=data
    )
    assert read_history(run)[0]["step"] == 2
    assert "--max_length 20: 2 of 4 training proteins excluded" in caplog.text
    write_split("stability", "test", records(10, 40, 50))
    run_eval(["transformer", "stability", str(run), "--data_dir", str(data)])
    assert json.loads((run / "0" / "eval_test.json").read_text())["proteins"] == 3
    write_split("stability", "long", records(10, 70))
    with pytest.raises(DataError, match=r"stability_long\.lmdb, record 1 \(p70\)"):
        run_eval(["transformer", "stability", str(run), "--data_dir", str(data), "--split", "long"])


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        (("gru", "stability"), ConfigError, "task stability has no model 'gru'; registered: huggingface, lstm, onehot"),
        (("transformer", "embed"), ConfigError, "use tape-embed"),
        (("transformer", "trrosetta"), ConfigError, "registered: trrosetta"),
        (("transformer", "language_modeling"), ConfigError, "registered: lstm, unirep"),
        (("transformer", "stability", "--config", "hiden=1"), ConfigError, "has no hiden"),
        (("transformer", "stability", "--config", "hidden_size=9"), ConfigError, "not a multiple"),
        (("transformer", "stability", "--config", "vocab_size=20"), ConfigError, "vocabulary needs 30$"),
        (
            ("unirep", "stability"),
            ConfigError,
            "has 26 tokens .* iupac vocabulary needs 30; its own may be --tokenizer un",
        ),
        (("transformer", "stability", "--gradient_accumulation_steps", "0"), ValueError, "at least 1"),
        (("transformer", "stability", "--from_pretrained", "gone"), CheckpointError, "gone: no such"),
        (("transformer", "stability", "--patience", "2", "--eval_freq", "0"), ConfigError, "without validation"),
    ],
)
def test_impossible_training_options_are_refused(
    words: tuple[str, ...], error: type[Exception], message: str, train: Train
) -> None:
    with pytest.raises(error, match=message):
        train(*words)
    assert not Path("results").exists()  # no files remain


def test_a_new_model_has_a_row_for_every_id_of_its_vocabulary(tmp_path: Path, train: Train) -> None:
    sizes = ("--config", "hidden_size=8", "--config", "input_size=4", "--tokenizer", "unirep")
    train("unirep", "stability", *sizes, "--force_save", tmp_path / "saved")
    config = json.loads((tmp_path / "saved" / "0" / "config.json").read_text())
    assert config["vocab_size"] == 26  # as in TAPE, although its tokenizer has 29 letters


def test_impossible_evaluations_are_refused(train: Train, small_data: Path) -> None:
    run = train("transformer", "stability", "--num_train_epochs", 1)
    data = ["--data_dir", str(small_data)]
    with pytest.raises(CheckpointError, match=r"has no trained weights of the secondary_structure model: classify"):
        run_eval(["transformer", "secondary_structure", str(run), "--split", "cb513", *data])
    with pytest.raises(DataError, match="no split 'casp12'; splits there: test, train, valid"):
        run_eval(["transformer", "stability", str(run), "--split", "casp12", *data])
    with pytest.raises(VocabularyMismatchError, match="iupac.*unirep"):
        run_eval(["transformer", "stability", str(run), "--tokenizer", "unirep", *data])
    with pytest.raises(ConfigError, match="--batch_size must be at least 1"):
        run_eval(["transformer", "stability", str(run), "--batch_size", "0", *data])
    with pytest.raises(ConfigError, match="--seed must not be negative"):
        run_eval(["transformer", "stability", str(run), "--seed", "-1", *data])


def test_a_file_in_place_of_a_directory_is_named(train: Train, small_data: Path, tmp_path: Path) -> None:
    file = tmp_path / "taken"
    file.write_text("mine")
    for option in ("--output_dir", "--log_dir", "--force_save"):
        with pytest.raises(ConfigError, match=rf"^{option} .*taken/below: .*taken is a file; give the name of a dir"):
            train("transformer", "stability", option, file / "below")
    with pytest.raises(ConfigError, match=r"taken is a file, so no run's directory can have its name"):
        train("transformer", "stability", "--output_dir", tmp_path, "--exp_name", "taken")
    with pytest.raises(ConfigError, match=r"--output_dir .*taken: .*taken is a file"):
        run_eval(["transformer", "stability", "x", "--data_dir", str(small_data), "--output_dir", str(file)])
    assert file.read_text() == "mine"


def test_evaluation_writes_to_the_output_directory_if_it_is_given(
    train: Train, small_data: Path, tmp_path: Path
) -> None:
    run, other = (train("transformer", "stability", "--num_train_epochs", 1, "--exp_name", name) for name in "ab")
    out = tmp_path / "evaluated"
    words = ["--data_dir", str(small_data), "--output_dir", str(out)]
    run_eval(["transformer", "stability", str(run), *words])
    assert sorted(path.name for path in out.iterdir()) == ["eval_test.json", "results.pkl", "results_test.pkl"]
    record = read_record(out / "eval_test.json")
    assert (record.model_dir, record.model_sha256 is None) == (str(run / "0"), False)
    assert not (run / "0" / "results.pkl").exists()
    with pytest.raises(ConfigError, match=r"evaluated contains the results of .*; choose another directory"):
        run_eval(["transformer", "stability", str(other), *words])


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (run_train, ["transformer", "stability"]),
        (run_train, ["transformer", "stability", "--force_save", "out"]),
        (run_eval, ["transformer", "stability", "gone", "--output_dir", "out"]),
        (run_embed, ["transformer", "gone.fasta", "out.npz", "gone"]),
        (run_score, ["transformer", "gone.csv", "out.csv", "gone", "--wild_type", "gone.fasta"]),
        (run_contacts, ["transformer", "gone"]),
    ],
)
def test_every_command_checks_where_it_writes_before_anything_else(
    command: Callable[[list[str]], object], words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(**options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", fails)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    with pytest.raises(ConfigError, match=r": can't be written \(Read-only file system\); "):
        command(words)


def test_output_dir_of_a_command_that_writes_elsewhere_is_announced(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(DataError):
        run_embed(["transformer", str(tmp_path / "gone.fasta"), str(tmp_path / "o.npz"), "m", "--output_dir", "x"])
    assert "note: --output_dir is ignored: the embeddings are written to" in capsys.readouterr().err


def test_results_that_cannot_be_written_beside_the_model_are_an_error_before_it_is_loaded(
    train: Train, small_data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = train("transformer", "stability", "--num_train_epochs", 1)

    def fails(**options: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", fails)
    monkeypatch.setattr("tape.evaluation.split.load_finetuned_model", lambda *_: pytest.fail("loaded first"))
    with pytest.raises(ConfigError, match=r"0: can't be written \(Read-only file system\); give --output_dir"):
        run_eval(["transformer", "stability", str(run), "--data_dir", str(small_data)])


def test_a_model_of_another_task_causes_a_warning(
    train: Train, small_data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = train("transformer", "stability", "--num_train_epochs", 1)
    run_eval(["transformer", "fluorescence", str(run), "--data_dir", str(small_data)])
    assert "finetuned on stability, not on fluorescence" in caplog.text


@pytest.mark.parametrize(
    ("before", "given", "words"),
    [
        ((), ("--pooling", "mean"), "without --pooling"),
        (("--freeze",), ("--lora", "2"), "without --lora"),
        (("--pooling", "mean"), ("--head_learning_rate", "0.1"), "without --head_learning_rate"),
    ],
)
def test_options_that_determine_the_parameters_can_not_be_changed(
    before: tuple[str, ...], given: tuple[str, ...], words: str, train: Train
) -> None:
    run = train("transformer", "stability", "--num_train_epochs", 1, *before)
    with pytest.raises(ConfigError, match=rf"args\.json: the run was started {words}, which can't be changed"):
        resume(train, run, *given)
    if not before:
        resume(train, run, "--pooling", "cls", "--num_train_epochs", 2)  # the default


def test_a_finished_run_is_overwritten_only_with_a_flag(train: Train) -> None:
    options = ("stability", "--num_train_epochs", 1)
    train("transformer", *options)
    with pytest.raises(ConfigError, match="holds saved epochs already"):
        train("transformer", *options)
    train("transformer", *options, "--overwrite")


def test_commands_report_errors_on_one_line_with_an_exit_status(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    for command, words in (
        (train_command, ["onehot", "stability", "--data_dir", str(tmp_path)]),
        (eval_command, ["onehot", "stability", str(tmp_path), "--data_dir", str(tmp_path)]),
    ):
        monkeypatch.setattr("sys.argv", ["x", *words])
        assert command() == 1
        captured = capsys.readouterr().err.strip().splitlines()
        assert captured[-1].startswith("error: ")
        assert "stability" in captured[-1]


def test_the_scripts_train_and_evaluate(
    run_script: Callable[..., Any],
    assert_clean_error: Callable[..., None],
    small_data: Path,
    small_config: Path,
    tmp_path: Path,
) -> None:
    options = ["--data_dir", small_data, "--model_config_file", small_config, "--num_train_epochs", 1]
    words = ["transformer", "secondary_structure", *options, "--time_or_name", "s"]
    result = run_script("tape_train.py", *words, cwd=tmp_path, check=True)
    assert "epoch 0, valid: loss" in result.stderr
    run = tmp_path / "results" / "secondary_structure_transformer_s"
    words = ["transformer", "secondary_structure", run, "--data_dir", small_data]
    result = run_script("tape_eval.py", *words, "--metrics", "accuracy", "--split", "cb513", cwd=tmp_path, check=True)
    assert "accuracy: 0." in result.stderr
    assert_clean_error(
        run_script("tape_eval.py", *words, "--split", "ts115", cwd=tmp_path), "ts115", "cb513, train, valid"
    )
