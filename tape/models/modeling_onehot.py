"""TAPE's one-hot baseline: the heads see indicators of residue types and nothing else."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..configs import ProteinOneHotConfig
from .modeling_utils import (
    PairwiseContactPredictionHead,
    ProteinModel,
    SequenceClassificationHead,
    SequenceToSequenceClassificationHead,
    ValuePredictionHead,
)


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

    def forward(self, input_ids: Tensor, input_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, S) ids -> (indicators (B, S, V), pooled (B, V))."""
        indicators = F.one_hot(input_ids, self.vocab_size).float()
        if input_mask is None:
            return indicators, indicators.mean(1)
        real = (input_mask != 0).unsqueeze(-1).float()
        indicators = indicators * real
        return indicators, indicators.sum(1) / real.sum(1).clamp(min=1)


class _OneHotTaskModel(ProteinOneHotAbstractModel):
    """A one-hot encoder and one head."""

    def __init__(self, config: ProteinOneHotConfig) -> None:
        super().__init__(config)
        self.onehot = ProteinOneHotModel(config)


class ProteinOneHotForValuePrediction(_OneHotTaskModel):
    def __init__(self, config: ProteinOneHotConfig) -> None:
        super().__init__(config)
        self.predict = ValuePredictionHead(config.hidden_size, head_hidden_size=config.head_hidden_size)

    def forward(
        self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None
    ) -> tuple[Any, ...]:
        return self.predict(self.onehot(input_ids, input_mask)[1], targets)


class ProteinOneHotForSequenceClassification(_OneHotTaskModel):
    def __init__(self, config: ProteinOneHotConfig) -> None:
        super().__init__(config)
        self.classify: nn.Module = SequenceClassificationHead(
            config.hidden_size, config.num_labels, head_hidden_size=config.head_hidden_size
        )

    def forward(
        self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None
    ) -> tuple[Any, ...]:
        return self.classify(self.onehot(input_ids, input_mask)[1], targets)


class ProteinOneHotForSequenceToSequenceClassification(_OneHotTaskModel):
    def __init__(self, config: ProteinOneHotConfig) -> None:
        super().__init__(config)
        self.classify = SequenceToSequenceClassificationHead(config.hidden_size, config.num_labels)

    def forward(
        self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None
    ) -> tuple[Any, ...]:
        return self.classify(self.onehot(input_ids, input_mask)[0], targets, input_mask)


class ProteinOneHotForContactPrediction(_OneHotTaskModel):
    def __init__(self, config: ProteinOneHotConfig) -> None:
        super().__init__(config)
        self.predict = PairwiseContactPredictionHead(
            config.hidden_size, architecture=config.contact_head, num_blocks=config.contact_num_blocks
        )

    def forward(
        self,
        input_ids: Tensor,
        input_mask: Tensor | None = None,
        targets: Tensor | None = None,
        protein_length: Tensor | None = None,
    ) -> tuple[Any, ...]:
        return self.predict(self.onehot(input_ids, input_mask)[0], protein_length, targets, input_mask)
