"""A bundled model in a folder of the test's own, which takes the place of the package's."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tape.configs import ProteinBertConfig
from tape.hub.bundled import DEFAULT_MODEL, FOLDER_VARIABLE
from tape.models.modeling_bert import ProteinBertForMaskedLM
from tests.support.small_models import SMALL_CONFIGS


def small_language_model(seed: int = 0) -> ProteinBertForMaskedLM:
    """A small masked language model with random weights."""
    torch.manual_seed(seed)
    return ProteinBertForMaskedLM(ProteinBertConfig(**SMALL_CONFIGS["transformer"])).eval()


def install_model(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str = DEFAULT_MODEL) -> ProteinBertForMaskedLM:
    """Bundle a small model with weights in bfloat16; returns the model, whose own weights are rounded to bfloat16."""
    model = small_language_model()
    model.bfloat16().save_pretrained(folder / name, provenance={"kind": "test"})
    monkeypatch.setenv(FOLDER_VARIABLE, str(folder))
    return model.float()
