"""``tape.main.create_*_parser``, as scripts extend them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tape import main
from tape.main import create_base_parser, create_distributed_parser, create_embed_parser, create_eval_parser


def test_a_script_trains_with_an_option_of_its_own(
    tmp_path: Path, small_data: Path, small_config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    base = create_base_parser()
    base.add_argument("--mine", default="a")
    parser = main.create_train_parser(base)
    words = ["transformer", "stability", "--data_dir", small_data, "--model_config_file", small_config]
    options = ["--num_train_epochs", 1, "--exp_name", "run", "--log_level", 40]
    args = parser.parse_args(list(map(str, [*words, *options, "--mine", "b"])))
    assert args.mine == "b"
    run = main.run_train(args)
    assert json.loads((run / "args.json").read_text())["num_train_epochs"] == 1


def test_evaluation_and_embedding() -> None:
    args = create_eval_parser(create_base_parser()).parse_args(["transformer", "stability", "DIR", "--split", "valid"])
    assert (args.task, args.from_pretrained, args.split) == ("stability", "DIR", "valid")
    args = create_embed_parser(create_base_parser()).parse_args(["transformer", "a.fasta", "o.npz", "DIR"])
    assert (args.data_file, args.out_file, args.from_pretrained, args.task) == ("a.fasta", "o.npz", "DIR", "embed")


def test_the_parser_of_several_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    parser = main.create_train_parser(create_distributed_parser(create_base_parser()))
    args = parser.parse_args(["transformer", "stability", "--nproc_per_node", "2", "--data_dir", "."])
    plans: list[Any] = []
    monkeypatch.setattr(main, "launch", lambda plan, *_: plans.append(plan))
    main.run_train_distributed(args)
    assert plans[0].nproc_per_node == 2
