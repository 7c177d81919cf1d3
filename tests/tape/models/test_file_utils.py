"""``tape.models.file_utils``: paths of files of models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.errors import DataError
from tape.hub import cache
from tape.models import file_utils
from tape.models.file_utils import cached_path, get_cache
from tape.models.modeling_bert import BERT_PRETRAINED_CONFIG_ARCHIVE_MAP, BERT_PRETRAINED_MODEL_ARCHIVE_MAP


def test_a_path_is_itself_if_it_exists(tmp_path: Path) -> None:
    assert cached_path(tmp_path) == str(tmp_path)
    with pytest.raises(DataError, match="gone: no such file"):
        cached_path(tmp_path / "gone")


def test_the_files_of_a_published_model_are_those_of_its_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROTEINLM_CACHE", str(tmp_path))
    asked = []

    def local_model(*words: object) -> Path:
        asked.append(words)
        (tmp_path / "model").mkdir(exist_ok=True)
        (tmp_path / "model" / "pytorch_model.bin").touch()
        return tmp_path / "model"

    monkeypatch.setattr(file_utils, "local_model", local_model)
    assert get_cache() == str(tmp_path) == str(cache.cache_directory())
    weights = cached_path(BERT_PRETRAINED_MODEL_ARCHIVE_MAP["bert-base"], force_download=True, cache_dir=tmp_path)
    assert weights == str(tmp_path / "model" / "pytorch_model.bin")
    config = cached_path(BERT_PRETRAINED_CONFIG_ARCHIVE_MAP["bert-base"])
    assert config == str(tmp_path / "model" / "config.json")
    cached_path("https://example.org/pytorch_model.bin")
    assert asked == [
        ("bert-base", tmp_path, True),
        ("bert-base", None, False),
        ("https://example.org/pytorch_model.bin", None, False),
    ]
