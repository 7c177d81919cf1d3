"""Task models: an encoder with one head, as mixins for all architectures.

A class of an architecture inherits from one of these and from the architecture's base class, and sets its encoder::

    class ProteinLSTMForValuePrediction(ForValuePrediction, ProteinLSTMAbstractModel):
        encoder_class = ProteinLSTMModel

The encoder becomes the attribute ``base_model_prefix``. It returns ``(states, pooled, ...)`` for ``(input_ids,
input_mask)``, whose sizes are its attributes ``state_size`` and ``pooled_size``.

Value and class heads have one vector per protein as input. In sets of variants of one protein, these vectors are nearly
equal: a mutation changes the mean over L residues by 1 / L of a residue's state. The heads therefore compute in fp32,
also under autocast, and ``config.pooled_norm="batch"`` normalizes their input over the batch (Ioffe and Szegedy 2015),
as TAPE's head for residues does with the states. The differences between proteins then have unit variance from the
first step on, which weights of a head otherwise take thousands of steps to amplify. After each epoch, the statistics
for evaluation are computed with the weights as they are (:mod:`tape.finetuning.norm_statistics`).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tape.targets import target_of, value_scales

from .batch_norm import MaskedBatchNorm
from .modeling_utils import (
    PairwiseContactPredictionHead,
    ProteinModel,
    SequenceClassificationHead,
    SequenceToSequenceClassificationHead,
    ValuePredictionHead,
)
from .pooling import ProteinPooling


class TaskModel(ProteinModel):
    """A model with an encoder."""

    encoder_class: type[nn.Module]
    head_name = "predict"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        setattr(self, self.base_model_prefix, self.encoder_class(config))

    def loss(self, prediction: Tensor, targets: Tensor) -> Tensor:
        """The loss of a prediction that was not made by one forward pass, such as a mean over windows of a protein."""
        loss: Tensor = getattr(self, self.head_name).loss(prediction, targets)
        return loss

    def _encoder_size(self, name: str) -> int:
        size: int = getattr(self.base_model, name)
        return size


# The variance of features over variants of a protein of 1,000 residues is about 1e-6, below torch's epsilon of 1e-5.
_NORM_EPSILON = 1e-10


class _PooledTaskModel(TaskModel):
    """A model whose head has one vector per protein as input; see ``pooling`` and ``pooled_norm`` of its config."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.pooling = ProteinPooling(config.pooling, self._encoder_size("state_size"))
        self.vector_size = self._encoder_size("pooled_size" if config.pooling == "cls" else "state_size")
        self.pooled_norm: nn.Module = nn.Identity()
        if config.pooled_norm == "batch":
            self.pooled_norm = MaskedBatchNorm(self.vector_size, eps=_NORM_EPSILON)

    def _predict(
        self, head: nn.Module, input_ids: Tensor, input_mask: Tensor | None, targets: Tensor | None
    ) -> tuple[Any, ...]:
        states, pooled, *others = self.base_model(input_ids, input_mask)
        vectors = self.pooling(states, pooled, input_mask)
        with torch.autocast(vectors.device.type, enabled=False):
            vectors = vectors.to(next(head.parameters()).dtype)  # fp32, unless the entire model has been cast
            return head(self.pooled_norm(vectors), targets) + tuple(others)


class ForValuePrediction(_PooledTaskModel):
    """Predicts one value per protein, or several, each in the unit of its target."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        means, stds = zip(*value_scales(config), strict=True)
        self.predict = ValuePredictionHead(
            self.vector_size,
            head_hidden_size=config.head_hidden_size,
            mean=means if len(means) > 1 else means[0],
            std=stds if len(stds) > 1 else stds[0],
        )

    def forward(
        self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None
    ) -> tuple[Any, ...]:
        return self._predict(self.predict, input_ids, input_mask, targets)


class ForSequenceClassification(_PooledTaskModel):
    """Predicts one class per protein; for a user's table with labels, which of them apply."""

    head_name = "classify"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        target = target_of(config)
        self.classify = SequenceClassificationHead(
            self.vector_size,
            config.num_labels,
            head_hidden_size=config.head_hidden_size,
            class_weights=getattr(config, "class_weights", None),
            multilabel=target is not None and target.is_multilabel,
        )

    def forward(
        self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None
    ) -> tuple[Any, ...]:
        return self._predict(self.classify, input_ids, input_mask, targets)


class ForSequenceToSequenceClassification(TaskModel):
    """Predicts one class per residue."""

    head_name = "classify"

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.classify = SequenceToSequenceClassificationHead(
            self._encoder_size("state_size"), config.num_labels, class_weights=getattr(config, "class_weights", None)
        )

    def forward(
        self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None
    ) -> tuple[Any, ...]:
        states, _, *others = self.base_model(input_ids, input_mask)
        return self.classify(states, targets, input_mask) + tuple(others)


class ForContactPrediction(TaskModel):
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
