"""TAPE's one-hot baseline: the heads see indicators of residue types and nothing else."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from tape.configs import ProteinOneHotConfig

from . import task_models
from .modeling_utils import ProteinModel


class ProteinOneHotAbstractModel(ProteinModel):
    """What the one-hot classes share."""

    config_class = ProteinOneHotConfig
    config: ProteinOneHotConfig
    base_model_prefix = "onehot"


class ProteinOneHotModel(ProteinOneHotAbstractModel):
    """Indicators of residue types; pooled is their mean over real tokens (the composition)."""

    def __init__(self, config: ProteinOneHotConfig) -> None:
        super().__init__(config)
        # without a parameter or buffer a model has no dtype or device; TAPE's carries nothing either
        self.vocab_size = config.vocab_size
        self.state_size = self.pooled_size = config.vocab_size

    def forward(self, input_ids: Tensor, input_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, S) ids -> (indicators (B, S, V), pooled (B, V))."""
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
