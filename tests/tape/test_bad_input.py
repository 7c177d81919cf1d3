"""Bad data sets, models and options for tape_train.py, tape_eval.py and tape-embed: see tests/test_bad_input.py."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tape.commands import embed_command, eval_command, train_command
from tape.configs import ProteinBertConfig
from tape.io.lmdb_store import write_lmdb
from tape.models.model_directory import save_model_directory
from tape.models.modeling_bert import ProteinBertForValuePrediction
from tape.tokenizers import TAPETokenizer
from tests.support.bad_input import (
    FASTA,
    LONG,
    QUIET,
    SIZES,
    contains,
    cut,
    delete_key,
    evaluation,
    records,
    training,
    write,
    write_data,
)

pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
Call = Callable[..., str]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of model directories for stability: `good`, and `unirep` of another vocabulary."""
    folder = tmp_path_factory.mktemp("models")
    config = ProteinBertConfig(**SIZES)
    state = dict(ProteinBertForValuePrediction(config).state_dict())
    for name, vocabulary in (("good", "iupac"), ("unirep", "unirep")):
        save_model_directory(folder / name, state, config, tokenizer=TAPETokenizer(vocabulary))
    nothing = {name: torch.full_like(value, torch.nan) for name, value in state.items()}
    save_model_directory(folder / "nan", nothing, config)
    return folder


IN_BOTH: list[tuple[dict[str, Any], list[str]]] = [
    ({"primary": "MK*"}, ["record 3 (p3)", "'*' at position 3"]),
    ({"primary": "M-K"}, ["record 3 (p3)", "'-' at position 2"]),
    ({"primary": ""}, ["record 3 (p3)", "empty"]),
    ({"primary": None}, ["record 3 (p3)", "no field 'primary'"]),
    ({"primary": LONG}, ["record 3 (p3)", "40000 residues", "positions for 62"]),
    ({"stability_score": [float("nan")]}, ["record 3 (p3)", "finite"]),
    ({"stability_score": None}, ["record 3 (p3)", "no field 'stability_score'"]),
]


@pytest.mark.parametrize(("changed", "words"), IN_BOTH)
def test_training_and_evaluation_name_the_bad_record(
    fails: Call, models: Path, changed: dict[str, Any], words: list[str]
) -> None:
    write_data(**changed)
    contains(fails(train_command, *training()), ["stability_train.lmdb", *words])
    assert not list(Path("results").glob("*/0"))
    contains(fails(eval_command, *evaluation(models / "good")), ["stability_test.lmdb", *words])
    assert not list(models.glob("good/*.pkl"))


@pytest.mark.parametrize(
    ("task", "folder", "changed", "words"),
    [
        ("secondary_structure", None, {"ss3": [0, 1]}, ["record 3 (p3)", "'ss3' has 2 entries for 6 residues"]),
        ("secondary_structure", None, {"ss3": [0.5] * 6}, ["record 3 (p3)", "'ss3' does not contain integers"]),
        ("secondary_structure", None, {"ss3": [3] * 6}, ["record 3 (p3)", "'ss3' has class 3", "0 to 2"]),
        ("secondary_structure", None, {"valid_mask": [1]}, ["record 3 (p3)", "'valid_mask' has 1 entries"]),
        ("remote_homology", None, {"fold_label": 1195}, ["record 3 (p3)", "1195", "0 to 1194"]),
        ("remote_homology", None, {"fold_label": float("inf")}, ["record 3 (p3)", "not a finite number"]),
        ("contact_prediction", "proteinnet", {"tertiary": [[0, 0, 0]]}, ["record 3 (p3)", "'tertiary' has 1 entries"]),
        # six residues have no pair that is six apart: nothing here can be learned
        ("contact_prediction", "proteinnet", {}, ["proteinnet_train.lmdb", "nothing to learn from"]),
    ],
)
def test_training_names_the_bad_label(
    fails: Call, task: str, folder: str | None, changed: dict[str, Any], words: list[str]
) -> None:
    write_data(folder or task, **changed)
    contains(fails(train_command, *training(task)), words)
    assert not list(Path("results").glob("*/0"))


@pytest.mark.parametrize("split", ["train", "valid", "test"])
def test_labels_of_every_split_are_checked_before_training(fails: Call, split: str) -> None:
    write_data()
    bad = records()
    bad[3]["stability_score"] = [1.0, 2.0]
    write_lmdb(f"data/stability/stability_{split}.lmdb", bad, overwrite=True)
    line = fails(train_command, *training("stability", "--eval_splits", "test"))
    contains(line, [f"stability_{split}.lmdb", "record 3 (p3)", "has 2 values, where one is meant"])
    assert not list(Path("results").glob("*/metrics.jsonl"))


DAMAGED_STORES: list[tuple[Callable[[Path, str], object], list[str]]] = [
    (lambda folder, split: delete_key(folder, split, b"3"), ["record 3", "missing"]),
    (lambda folder, split: delete_key(folder, split, b"num_examples"), ["'num_examples'", "missing"]),
    (lambda folder, split: cut(folder / f"stability_{split}.lmdb" / "data.mdb", 4096), ["data.mdb", "truncated"]),
    (lambda folder, split: write(f"{folder}/stability_{split}.lmdb/data.mdb", b""), ["data.mdb", "empty file"]),
    (lambda folder, split: write(f"{folder}/stability_{split}.lmdb/data.mdb", FASTA), ["not a readable LMDB"]),
    (lambda folder, split: shutil.rmtree(folder / f"stability_{split}.lmdb"), ["splits there"]),
    (lambda folder, split: shutil.rmtree(folder), ["no such directory"]),
]


@pytest.mark.parametrize(("damage", "words"), DAMAGED_STORES)
def test_training_and_evaluation_name_the_damaged_lmdb(
    fails: Call, models: Path, damage: Callable[[Path, str], object], words: list[str]
) -> None:
    for command, split, arguments in (
        (train_command, "train", training()),
        (eval_command, "test", evaluation(models / "good")),
    ):
        shutil.rmtree("data", ignore_errors=True)
        damage(write_data(), split)
        contains(fails(command, *arguments), [f"data{os.sep}stability", *words])


@pytest.mark.parametrize(
    ("extra", "words"),
    [
        (("--data_dir", "absent"), ["--data_dir absent"]),
        (("--data_dir", "config.json"), ["--data_dir config.json"]),
        (("--output_dir", "config.json/x"), ["config.json"]),
        (("--log_dir", "config.json"), ["config.json"]),
        (("--force_save", "config.json/x"), ["config.json"]),
        (("--model_config_file", "bad.json"), ["bad.json", "not valid JSON"]),
        (("--model_config_file", "text.json"), ["text.json", "hidden_size", "'wide'"]),
        (("--config", "max_position_embeddings=-1"), ["max_position_embeddings", "-1"]),
        (("--config", "hidden_dropout_prob=2"), ["hidden_dropout_prob", "2"]),
        (("--config", 'layer_norm_eps="a"'), ["layer_norm_eps", "'a'"]),
        (("--from_pretrained", "absent"), ["absent"]),
        (("--batch_size", "0"), ["--batch_size"]),
        (("--learning_rate", "-1"), ["--learning_rate"]),
        (("--learning_rate", "nan"), ["--learning_rate"]),
    ],
)
def test_training_names_the_bad_option(fails: Call, extra: tuple[str, ...], words: list[str]) -> None:
    write_data()
    write("bad.json", "{")
    write("text.json", '{"hidden_size": "wide"}')
    contains(fails(train_command, *training("stability", *extra)), words)


@pytest.mark.parametrize("option", ["--id_column", "--sequence_column", "--exp_name", "--time_or_name"])
def test_long_values_of_options_are_shortened_in_messages(fails: Call, option: str) -> None:
    write_data()
    write("data/stability/stability_train.csv", "primary,stability_score\nMKV,1\n")
    shutil.rmtree("data/stability/stability_train.lmdb")
    value = "x" * 5000
    line = fails(train_command, *training("stability"), option, value)
    contains(line, [value[:20]])
    assert len(line) < 500


def replace_weights(model: Path, name: str, content: bytes) -> None:
    (model / "model.safetensors").unlink()
    (model / name).write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda model: cut(model / "model.safetensors"), ["model.safetensors", "damaged"]),
        (lambda model: (model / "model.safetensors").unlink(), ["model", "contains neither"]),
        (lambda model: replace_weights(model, "pytorch_model.bin", b""), ["pytorch_model.bin", "empty"]),
        (lambda model: replace_weights(model, "pytorch_model.bin", b"junk" * 99), ["pytorch_model.bin", "damaged"]),
        (lambda model: (model / "config.json").unlink(), ["config.json"]),
        (lambda model: (model / "config.json").write_text("{"), ["config.json", "not valid JSON"]),
        (lambda model: (model / "config.json").write_text('{"hidden_size": 0}'), ["config.json", "hidden_size"]),
        (lambda model: (model / "vocabulary.json").write_text("[]"), ["vocabulary.json"]),
        (lambda model: (model / "best.json").write_text('{"directory": "7"}'), ["best.json", "7"]),
        (lambda model: (model / "results.pkl").mkdir(), ["results.pkl", "directory"]),
    ],
)
def test_evaluation_names_the_damaged_model_file(
    fails: Call, models: Path, damage: Callable[[Path], object], words: list[str]
) -> None:
    write_data()
    shutil.copytree(models / "good", "model")
    Path("model/SHA256SUMS").unlink()  # models of earlier versions have none; with it, the changed file is the error
    damage(Path("model"))
    contains(fails(eval_command, *evaluation("model")), words)


def test_missing_or_unsuitable_models_and_splits_are_refused(fails: Call, models: Path) -> None:
    write_data()
    contains(fails(eval_command, *evaluation("absent")), ["absent"])
    contains(fails(eval_command, *evaluation(models / "unirep")), ["unirep", "vocabulary", "iupac"])
    contains(fails(eval_command, *evaluation(models / "good", "--split", "cb513")), ["cb513", "test, train, valid"])
    contains(fails(eval_command, *evaluation(models / "nan")), ["nan:", "are nan or infinite"])
    assert not (models / "nan" / "results.pkl").exists()
    start = training("stability", "--from_pretrained", models / "nan")
    contains(fails(train_command, *start), ["nan:", "are nan or infinite"])
    assert not Path("results").exists()


def test_substituted_characters_are_reported(models: Path, monkeypatch, capsys: pytest.CaptureFixture[str]) -> None:
    write_data(primary="mkJ")
    monkeypatch.setattr("sys.argv", ["tape-eval", *map(str, evaluation(models / "good", "--log_level", "WARNING"))])
    assert eval_command() == 0
    contains(capsys.readouterr().err, ["test", "J_to_X 1, lower_case 2"])


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("x.fasta", ">a\nMK\n>b\nM*K\n", ["x.fasta, record 2 (b)", "'*' at position 2"]),
        ("x.fasta", ">a\n>b\nMK\n", ["x.fasta, record 1 (a)", "empty record"]),
        ("x.fasta", "", ["x.fasta", "no record"]),
        ("x.fasta", f">a\n{LONG}\n", ["x.fasta, record 1 (a)", "40000 residues"]),
        ("x.fasta", ">a\nMK\n>a\nMKV\n", ["x.fasta", "two proteins have the id 'a'"]),
        ("x.json", '[{"a": 1}]', ["x.json, record 1", "no sequence"]),
        ("x/a.npz", b"", ["a.npz"]),
        ("x/a.npz", b"PK\x03\x04junk", ["a.npz"]),
        ("x/a.npz", b"junk", ["a.npz"]),
    ],
)
def test_embedding_names_the_bad_record_or_file(
    fails: Call, models: Path, name: str, content: str | bytes, words: list[str]
) -> None:
    write(name, content)
    contains(fails(embed_command, "transformer", name.split("/")[0], "out.npz", models / "good", *QUIET), words)
    assert not Path("out.npz").exists()
