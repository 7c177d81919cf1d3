"""TAPE's one-hot baseline, in which the input of the heads is the one-hot encoding of the residues."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tape.compatibility.names import names_of
from tape.configs import ProteinOneHotConfig

from . import task_models
from .input_checks import check_inputs
from .modeling_utils import ProteinModel

__getattr__ = names_of(__name__)  # of tape-proteins 0.5


class ProteinOneHotAbstractModel(ProteinModel):
    """Base class of the one-hot models."""

    config_class = ProteinOneHotConfig
    config: ProteinOneHotConfig
    base_model_prefix = "onehot"
    unused_parameters = ("_buffer",)  # in TAPE: it has the data type of the states


class ProteinOneHotModel(ProteinOneHotAbstractModel):
    """One-hot encoding of the tokens; the pooled output is its mean over real tokens (the composition)."""

    def __init__(self, config: ProteinOneHotConfig) -> None:
        super().__init__(config)
        # No parameter or buffer, as in TAPE.
        self.vocab_size = config.vocab_size
        self.state_size = self.pooled_size = config.vocab_size

    def forward(self, input_ids: Tensor, input_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, S) ids -> (one-hot encoding (B, S, V), pooled (B, V))."""
        check_inputs(input_ids, input_mask, self.vocab_size)
        indicators = F.one_hot(input_ids, self.vocab_size).float()
        if input_mask is None:
            return indicators, indicators.mean(1)
        real = (input_mask != 0).unsqueeze(-1).float()
        indicators = indicators * real
        return indicators, indicators.sum(1) / real.sum(1).clamp(min=1)


class ProteinOneHotForValuePrediction(task_models.ForValuePrediction, ProteinOneHotAbstractModel):
    encoder_class = ProteinOneHotModel


class ProteinOneHotForSequenceClassification(task_models.ForSequenceClassification, ProteinOneHotAbstractModel):
    encoder_class = ProteinOneHotModel


class ProteinOneHotForSequenceToSequenceClassification(
    task_models.ForSequenceToSequenceClassification, ProteinOneHotAbstractModel
):
    encoder_class = ProteinOneHotModel


class ProteinOneHotForContactPrediction(task_models.ForContactPrediction, ProteinOneHotAbstractModel):
    encoder_class = ProteinOneHotModel
