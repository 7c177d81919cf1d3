"""The directory for the results of an evaluation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tape.errors import ConfigError
from tape.evaluation.results import results_directory


@pytest.mark.parametrize("name", ["a\0b", 3])
def test_results_of_a_model_whose_name_no_directory_can_have_are_not_overwritten(tmp_path: Path, name: object) -> None:
    (tmp_path / "eval_test.json").write_text(json.dumps({"model_dir": name}))
    with pytest.raises(ConfigError, match=r"contains the results of .* \(eval_test\.json\); choose another"):
        results_directory(tmp_path, tmp_path / "model")
