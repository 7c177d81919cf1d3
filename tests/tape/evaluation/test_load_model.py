"""Models are loaded for evaluation and inference only if all of their weights are finite numbers."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import pytest
import torch

from tape.errors import CheckpointError
from tape.evaluation.config import ModelSource
from tape.evaluation.load_model import load_encoder, load_finetuned_model
from tape.registry import registry


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("task", ["embed", "masked_language_modeling", "stability"])
def test_weights_that_are_not_finite_are_refused(tmp_path: Path, small_config: Path, task: str, value: float) -> None:
    model = registry.get_task_model("transformer", task, small_config)
    name, weights = next(iter(model.state_dict().items()))
    with torch.no_grad():
        weights.view(-1)[1] = value
    model.save_pretrained(tmp_path)
    source = ModelSource("transformer", str(tmp_path))
    load = load_encoder if task == "embed" else partial(load_finetuned_model, spec=registry.get_task_spec(task))
    with pytest.raises(CheckpointError, match=rf"1 of [0-9,]+ weights of {name} are nan or infinite"):
        load(source, directory=tmp_path)
