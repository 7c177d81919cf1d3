"""Models with another number of tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tape.configs import ProteinBertConfig, ProteinOneHotConfig, UniRepConfig
from tape.errors import ConfigError
from tape.models.modeling_bert import ProteinBertForMaskedLM, ProteinBertForValuePrediction, ProteinBertModel
from tape.models.modeling_onehot import ProteinOneHotForValuePrediction
from tape.models.modeling_unirep import UniRepModel
from tests.support.small_models import SMALL_CONFIGS


def transformer(model_class: Any) -> Any:
    return model_class(ProteinBertConfig(**SMALL_CONFIGS["transformer"]))


@pytest.mark.parametrize("count", [26, 33])
def test_a_masked_language_model_is_resized_with_its_decoder(count: int, tmp_path: Path) -> None:
    model = transformer(ProteinBertForMaskedLM)
    with torch.no_grad():
        model.mlm.bias.normal_()
    ids = torch.randint(5, 25, (2, 9))
    (before,) = model.eval()(ids)
    embedding = model.resize_token_embeddings(count)
    assert embedding is model.bert.embeddings.word_embeddings
    assert model.mlm.decoder.weight is embedding.weight
    (after,) = model(ids)
    assert after.shape == (2, 9, count)
    torch.testing.assert_close(after[..., :26], before[..., :26])
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(ProteinBertForMaskedLM.from_pretrained(tmp_path)(ids)[0], after)


def test_new_tokens_get_random_embeddings() -> None:
    model = transformer(ProteinBertForValuePrediction)
    added = model.resize_token_embeddings(40).weight[30:].detach()
    assert 0 < float(added.std()) < 3 * model.config.initializer_range
    assert model.resize_token_embeddings().num_embeddings == 40


def test_the_embedding_matrix_of_a_recurrent_model_is_resized() -> None:
    model = UniRepModel(UniRepConfig(**SMALL_CONFIGS["unirep"]))
    assert model.resize_token_embeddings(30) is model.embed_matrix
    assert model.config.vocab_size == 30


def test_what_can_not_be_resized_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least one token, not 0"):
        transformer(ProteinBertModel).resize_token_embeddings(0)
    onehot = ProteinOneHotForValuePrediction(ProteinOneHotConfig(**SMALL_CONFIGS["onehot"]))
    with pytest.raises(ConfigError, match="no token embeddings to resize"):
        onehot.resize_token_embeddings(40)
