"""The one-hot baseline."""

from __future__ import annotations

import pytest
import torch

from tape.configs import ProteinOneHotConfig
from tape.models.modeling_onehot import (
    ProteinOneHotForContactPrediction,
    ProteinOneHotForSequenceClassification,
    ProteinOneHotForSequenceToSequenceClassification,
    ProteinOneHotForValuePrediction,
    ProteinOneHotModel,
)


def test_indicators_and_composition(proteins):
    ids, mask = proteins(5, 8)
    states, pooled = ProteinOneHotModel(ProteinOneHotConfig())(ids, mask)
    assert states.shape == (2, 8, 30)
    assert states[0, :5].argmax(-1).equal(ids[0, :5])
    assert states[0, 5:].abs().max() == 0
    torch.testing.assert_close(pooled.sum(-1), torch.ones(2))


@pytest.mark.parametrize(
    ("model_class", "shape"),
    [
        (ProteinOneHotForValuePrediction, (2, 1)),
        (ProteinOneHotForSequenceClassification, (2, 3)),
        (ProteinOneHotForSequenceToSequenceClassification, (2, 8, 3)),
        (ProteinOneHotForContactPrediction, (2, 6, 6, 2)),
    ],
)
def test_task_models_predict_and_round_trip(proteins, tmp_path, model_class, shape):
    ids, mask = proteins(5, 8)
    model = model_class(ProteinOneHotConfig(num_labels=3, contact_num_blocks=1)).eval()
    (prediction,) = model(ids, mask)
    assert prediction.shape == shape
    model.save_pretrained(tmp_path)
    torch.testing.assert_close(model_class.from_pretrained(tmp_path)(ids, mask)[0], prediction)


def test_load_state_dict_takes_a_state_of_tape():
    """It has a buffer, from which TAPE's model takes the data type."""
    model = ProteinOneHotForValuePrediction(ProteinOneHotConfig())
    model.load_state_dict(model.state_dict() | {"onehot._buffer": torch.tensor([0.0])})
    encoder = ProteinOneHotModel(ProteinOneHotConfig())
    encoder.load_state_dict({"_buffer": torch.tensor([0.0])})
