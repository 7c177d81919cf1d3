"""The options of an interrupted run, read from its args.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tape.errors import CheckpointError
from tape.finetuning.resume import complete_options


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("num_log_iter", "20"),
        ("max_grad_norm", "1.0"),
        ("head_learning_rate", [[]]),
        ("eval_splits", 1.5),
        ("eval_splits", [3]),
        ("given_options", [[[]]]),
        ("given_options", ["seed", 10**30]),
        ("config", [1]),
        ("fp16", 1),
        ("seed", True),
        ("data_dir", {}),
    ],
)
def test_an_option_of_another_type_is_named(tmp_path: Path, name: str, value: Any) -> None:
    (tmp_path / "1").mkdir()
    (tmp_path / "args.json").write_text(json.dumps({name: value}))
    options = {"from_pretrained": str(tmp_path / "1"), "model_type": "transformer", "task": "stability"}
    with pytest.raises(CheckpointError, match=rf"args\.json: {name} must "):
        complete_options(options, [])
