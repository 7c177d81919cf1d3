"""The options: names, positions, defaults and types of the interface."""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

import pytest

from tape.cli.embed import create_embed_parser, embed_config
from tape.cli.evaluate import create_eval_parser, eval_config
from tape.cli.options import json_arguments
from tape.cli.train import LAUNCHER_OPTIONS, create_distributed_parser, create_train_parser, finetune_config
from tape.errors import ConfigError
from tape.evaluation.config import EvalConfig


def parse_train(*words: str) -> argparse.Namespace:
    return create_train_parser().parse_args(["transformer", "stability", *words])


def test_default_training_options_are_those_of_the_interface() -> None:
    expected = {
        "model_type": "transformer",
        "task": "stability",
        "model_config_file": None,
        "vocab_file": None,
        "output_dir": "./results",
        "no_cuda": False,
        "seed": 42,
        "local_rank": -1,
        "tokenizer": "iupac",
        "num_workers": 8,
        "log_level": 20,
        "debug": False,
        "learning_rate": 1e-4,
        "head_learning_rate": None,
        "data_dir": "./data",
        "num_train_epochs": 10,
        "num_log_iter": 20,
        "fp16": False,
        "gradient_accumulation_steps": 1,
        "loss_scale": 0,
        "max_grad_norm": 1.0,
        "exp_name": None,
        "from_pretrained": None,
        "log_dir": "./logs",
        "eval_freq": 1,
        "save_freq": 1,
        "patience": -1,
        "resume_from_checkpoint": False,
        "force_save": "FALSE",
        "time_or_name": "time",
        "weight_decay": 0.01,
        # bug 11: the originals (1024 and 10000) never let a downstream task reach its learning rate
        "batch_size": None,
        "warmup_steps": None,
    }
    parsed = vars(parse_train())
    assert {name: parsed[name] for name in expected} == expected


@pytest.mark.parametrize(
    ("text", "level"), [("20", 20), ("10", 10), ("WARN", 30), ("WARNING", 30), ("debug", 10), ("40", 40)]
)
def test_log_levels_are_given_by_name_or_number(text: str, level: int) -> None:
    assert parse_train("--log_level", text).log_level == level  # bug 39: the numbers could not be typed


@pytest.mark.parametrize(
    "words",
    [
        ("--log_level", "LOUD"),
        ("--model_config_file", "/nowhere/config.json"),
        ("--save_freq", "sometimes"),
        ("--config", "no_value"),
        ("--tokenizer", "wordpiece"),
        ("--fp16", "--bf16"),
        ("--precision", "fp32", "--bf16"),
        ("--precision", "fp8"),
        ("--num_workers", "-1"),
    ],
)
def test_invalid_options_exit_with_status_2(words: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as error:
        parse_train(*words)
    assert error.value.code == 2
    assert "error: " in capsys.readouterr().err


def test_save_frequency_and_configuration_overrides_are_parsed() -> None:
    args = parse_train(
        "--save_freq", "improvement", "--config", "hidden_dropout_prob=0.5", "--config", "hidden_act=relu"
    )
    assert args.save_freq == "improvement"
    assert dict(args.config) == {"hidden_dropout_prob": 0.5, "hidden_act": "relu"}
    assert parse_train("--save_freq", "5").save_freq == 5
    assert parse_train("--num_workers", "0").num_workers == 0


def test_options_of_evaluation_embedding_and_distributed_training_are_parsed() -> None:
    args = create_eval_parser().parse_args(["onehot", "contact_prediction", "DIR", "--metrics", "L5", "mse"])
    assert (args.from_pretrained, args.metrics, args.split) == ("DIR", ["L5", "mse"], "test")
    args = create_embed_parser().parse_args(["transformer", "a.fasta", "out", "DIR", "--full_sequence_embed"])
    assert (args.data_file, args.out_file, args.from_pretrained, args.full_sequence_embed) == (
        "a.fasta",
        "out",
        "DIR",
        True,
    )
    config = embed_config(args)
    assert (config.data_file, config.out_file, config.full_sequence) == ("a.fasta", Path("out"), True)
    args = create_distributed_parser().parse_args(["transformer", "stability", "--nproc_per_node", "2"])
    found = {name: getattr(args, name) for name in LAUNCHER_OPTIONS}
    assert found == {
        "nnodes": 1,
        "node_rank": 0,
        "nproc_per_node": 2,
        "master_addr": "127.0.0.1",
        "master_port": 29500,
    }


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--resume_from_checkpoint",), "--resume_from_checkpoint needs --from_pretrained"),
        (("--data_dir", "/nowhere"), "/nowhere: no such directory"),
        (("--max_length", "0"), "--max_length"),
        (("--seed", "-1"), "--seed"),
        (("--warmup_steps", "-1"), "--warmup_steps"),
    ],
)
def test_contradicting_options_are_refused(words: tuple[str, ...], message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        finetune_config(["transformer", "stability", "--data_dir", str(tmp_path), *words])


def test_force_save_needs_no_data() -> None:
    words = ("--data_dir", "/nowhere", "--log_dir", __file__)  # neither is touched
    config = finetune_config(["transformer", "stability", *words, "--force_save", "somewhere"])
    assert config.force_save == Path("somewhere")


def test_written_arguments_are_json_values(small_config: Path) -> None:
    args = parse_train("--model_config_file", str(small_config), "--config", "hidden_size=8")
    written = json_arguments(vars(args))
    assert written["model_config_file"] == str(small_config)
    assert written["config"] == {"hidden_size": 8}


def test_options_become_a_frozen_configuration(tmp_path: Path) -> None:
    words = ["transformer", "stability", "--data_dir", str(tmp_path), "--seed", "7", "--bf16", "--debug"]
    config = finetune_config([*words, "--config", "hidden_act=relu", "--pooling", "mean", "--batch_size", "4"])
    assert (config.task, config.model.model_type, config.data.data_dir) == ("stability", "transformer", str(tmp_path))
    assert (config.loop.seed, config.loop.precision, config.loop.batch_size) == (7, "bf16", 4)
    assert config.model.overrides == {"hidden_act": "relu", "pooling": "mean"}
    assert config.process.log_level == 10
    assert config.output.arguments["given_options"] == sorted(
        ["batch_size", "bf16", "config", "data_dir", "debug", "model_type", "pooling", "seed", "task"]
    )
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.task = "fluorescence"  # type: ignore[misc]


def test_a_namespace_gives_the_same_configuration_as_its_words(tmp_path: Path) -> None:
    words = ["transformer", "stability", "--data_dir", str(tmp_path), "--seed", "7"]
    assert finetune_config(argparse.Namespace(**vars(create_train_parser().parse_args(words)))) == finetune_config(
        words
    )


def test_the_evaluation_of_a_run_has_its_settings(tmp_path: Path) -> None:
    words = ["--data_dir", str(tmp_path), "--max_tokens", "64", "--length", "crop", "--batch_size", "3", "--seed", "7"]
    of_run = finetune_config(["onehot", "stability", *words]).evaluation_of(Path("run"), "valid")
    assert of_run == eval_config(["onehot", "stability", "run", "--split", "valid", *words])


def test_an_option_of_the_resumed_run_that_cannot_be_used_is_attributed_to_it(tmp_path: Path) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "args.json").write_text('{"num_log_iter": -5}')
    words = ["transformer", "stability", "--from_pretrained", str(tmp_path / "1"), "--resume_from_checkpoint"]
    with pytest.raises(ConfigError, match=rf"--num_log_iter must be .* are those of {tmp_path / '1'} \(args\.json\)"):
        finetune_config(words)


@pytest.mark.parametrize("name", ["leakage", "groups"])
def test_tables_for_metrics_are_refused_for_predictions(tmp_path: Path, name: str) -> None:
    (tmp_path / "table.tsv").touch()
    words = ["transformer", "stability", "model", f"--{name}", str(tmp_path / "table.tsv")]
    evaluation = eval_config(words)
    assert isinstance(evaluation, EvalConfig)
    assert getattr(evaluation, name) == tmp_path / "table.tsv"
    with pytest.raises(ConfigError, match=f"--{name}: predictions have no metrics"):
        eval_config([*words, "--predict", "x.fasta"])
