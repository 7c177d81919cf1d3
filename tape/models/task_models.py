"""Task models: an encoder with one head, as mixins for all architectures.

A class of an architecture inherits from one of these and from the architecture's base class, and sets its encoder::

    class ProteinLSTMForValuePrediction(ForValuePrediction, ProteinLSTMAbstractModel):
        encoder_class = ProteinLSTMModel

The encoder becomes the attribute ``base_model_prefix``. It returns ``(states, pooled, ...)`` for ``(input_ids,
input_mask)``, whose sizes are its attributes ``state_size`` and ``pooled_size``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from .modeling_utils import (
    PairwiseContactPredictionHead,
    ProteinModel,
    SequenceClassificationHead,
    SequenceToSequenceClassificationHead,
    ValuePredictionHead,
)
from .pooling import ProteinPooling


class _TaskModel(ProteinModel):
    """A model with an encoder."""

    encoder_class: type[nn.Module]

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.encoder_class(config))

    def _encoder_size(self, name: str) -> int:
        size: int = getattr(self.base_model, name)
        return size


class _PooledTaskModel(_TaskModel):
    """A model whose head has one vector per protein as input, chosen by ``config.pooling``."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.pooling = ProteinPooling(config.pooling, self._encoder_size("state_size"))
        self.vector_size = self._encoder_size("pooled_size" if config.pooling == "cls" else "state_size")

    def _pooled(self, input_ids: Tensor, input_mask: Tensor | None) -> tuple[Tensor, tuple[Any, ...]]:
        states, pooled, *others = self.base_model(input_ids, input_mask)
        return self.pooling(states, pooled, input_mask), tuple(others)


class ForValuePrediction(_PooledTaskModel):
    """Predicts one value per protein."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.predict = ValuePredictionHead(self.vector_size, head_hidden_size=config.head_hidden_size)

    def forward(
        self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None
    ) -> tuple[Any, ...]:
        pooled, others = self._pooled(input_ids, input_mask)
        return self.predict(pooled, targets) + others


class ForSequenceClassification(_PooledTaskModel):
    """Predicts one class per protein."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.classify = SequenceClassificationHead(
            self.vector_size, config.num_labels, head_hidden_size=config.head_hidden_size
        )

    def forward(
        self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None
    ) -> tuple[Any, ...]:
        pooled, others = self._pooled(input_ids, input_mask)
        return self.classify(pooled, targets) + others


class ForSequenceToSequenceClassification(_TaskModel):
    """Predicts one class per residue."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.classify = SequenceToSequenceClassificationHead(self._encoder_size("state_size"), config.num_labels)

    def forward(
        self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None
    ) -> tuple[Any, ...]:
        states, _, *others = self.base_model(input_ids, input_mask)
        return self.classify(states, targets, input_mask) + tuple(others)


class ForContactPrediction(_TaskModel):
    """Predicts the contacts of residue pairs."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.predict = PairwiseContactPredictionHead(
            self._encoder_size("state_size"),
            architecture=config.contact_head,
            num_blocks=config.contact_num_blocks,
            dropout=config.contact_dropout,
            checkpoint_blocks=config.contact_checkpoint,
            separations=config.contact_separations,
        )

    def forward(
        self,
        input_ids: Tensor,
        input_mask: Tensor | None = None,
        targets: Tensor | None = None,
        protein_length: Tensor | None = None,
    ) -> tuple[Any, ...]:
        states, _, *others = self.base_model(input_ids, input_mask)
        return self.predict(states, protein_length, targets, input_mask) + tuple(others)
