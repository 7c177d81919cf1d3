"""Output heads: a value or a class per protein, a class per residue, and masked language modeling.

The names of the parameters are those of the published checkpoints. Weight normalization (Salimans and Kingma 2016) has
one scalar ``weight_g`` for an entire matrix, as in PyTorch's ``weight_norm`` with dim=None, so the effective weight is
``g * v / ||v||``. A head returns ``(prediction,)``, or ``((loss, metrics), prediction)`` if targets are given.

Targets below 0 are ignored: the built-in data sets use -1, third-party ones also -100, the default of ``ignore_index``
in tape-proteins. A head's ``ignore_index`` is one more target that is ignored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tape.errors import ConfigError, quoted

from .activations import activation
from .batch_norm import MaskedBatchNorm
from .constants import Constants
from .dropout import Dropout
from .input_checks import check_classes, check_targets
from .packed_convolution import SeparatedRow, convolve

IGNORED = -100  # TAPE's and PyTorch's default

HeadOutput = tuple[Any, ...]


class _WeightNorm(nn.Module):
    """Parameters ``weight_v``, ``weight_g`` (scalar) and ``bias`` of a linear map or convolution."""

    def __init__(self, plain: nn.Linear | nn.Conv1d) -> None:
        super().__init__()
        assert plain.bias is not None
        self.weight_g = nn.Parameter(plain.weight.detach().norm())
        self.weight_v = nn.Parameter(plain.weight.detach().clone())
        self.bias = nn.Parameter(plain.bias.detach().clone())

    @property
    def weight(self) -> Tensor:
        return self.weight_v * (self.weight_g / self.weight_v.norm())


class WeightNormLinear(_WeightNorm):
    """Linear map (in_features -> out_features) with weight normalization over the entire matrix."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(nn.Linear(in_features, out_features))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)


class WeightNormConv1d(_WeightNorm):
    """Convolution over (B, C, L) that keeps the length, with weight normalization over the entire kernel."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(nn.Conv1d(in_channels, out_channels, kernel_size))
        self.padding = kernel_size // 2

    def forward(self, features: Tensor) -> Tensor:
        return F.conv1d(features, self.weight, self.bias, padding=self.padding)

    def forward_packed(self, row: Tensor) -> Tensor:
        """The convolution of a packed row, (R, C) -> (R, O), in which zeros separate the proteins."""
        return convolve(row, self.weight, self.bias)


class SimpleMLP(nn.Module):
    """Linear, ReLU, dropout, linear; both linear maps have weight normalization."""

    def __init__(self, in_dim: int, hid_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.main = nn.Sequential(
            WeightNormLinear(in_dim, hid_dim), nn.ReLU(), Dropout(dropout), WeightNormLinear(hid_dim, out_dim)
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.main(features)


class SimpleConv(nn.Module):
    """Batch norm, convolution of width 5, ReLU, dropout, convolution of width 3; (B, L, in) -> (B, L, out).

    Padding is set to 0 before each convolution, so that a protein's prediction does not depend on its batch.
    """

    def __init__(self, in_dim: int, hid_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.main = nn.Sequential(
            MaskedBatchNorm(in_dim),
            WeightNormConv1d(in_dim, hid_dim, 5),
            nn.ReLU(),
            Dropout(dropout),
            WeightNormConv1d(hid_dim, out_dim, 3),
        )

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        norm, first, activation, dropout, last = self.main
        assert isinstance(first, WeightNormConv1d)
        assert isinstance(last, WeightNormConv1d)
        row = SeparatedRow.from_mask(features, mask, max(first.padding, last.padding))
        if row is not None:
            hidden = first.forward_packed(row.separate(norm(row.real.gather(features))))
            hidden = dropout(activation(hidden))
            # in place only without gradients: the activation's is computed from its output
            fill = hidden.index_fill if hidden.requires_grad else hidden.index_fill_
            return row.pad(last.forward_packed(fill(0, row.separators, 0)))
        hidden = dropout(activation(first(norm(features.transpose(1, 2), mask))))
        if mask is not None:
            hidden = hidden * mask.unsqueeze(1)
        return last(hidden).transpose(1, 2).contiguous()  # callers ``view`` the logits, as in TAPE's examples


class ValuePredictionHead(nn.Module):
    """One value per protein, or T: (B, H) -> (B, T). The loss is the mean squared error, in units of ``std``.

    Of several values per protein, targets are (B, T), ``nan`` where a value is missing. The loss is the mean over the
    others.

    Args:
        hidden_size: H.
        dropout: dropout probability inside the MLP.
        head_hidden_size: hidden size of the MLP; 1024 in ProteinLM, 512 in TAPE.
        mean, std: the MLP predicts ``(value - mean) / std``; predictions and targets are values. A number for one
            value, or T numbers each.
    """

    def __init__(
        self,
        hidden_size: int,
        dropout: float = 0.0,
        head_hidden_size: int = 1024,
        mean: float | Sequence[float] = 0.0,
        std: float | Sequence[float] = 1.0,
    ) -> None:
        super().__init__()
        self.values = len(mean) if isinstance(mean, Sequence) else 1
        self.value_prediction = SimpleMLP(hidden_size, head_hidden_size, self.values, dropout)
        self.mean, self.std = mean, std
        self.scales = None if self.values == 1 else Constants((mean, std))

    def forward(self, pooled_output: Tensor, targets: Tensor | None = None) -> HeadOutput:
        standardized = self.value_prediction(pooled_output)
        prediction = standardized
        mean, std = self._scale()
        if (self.mean, self.std) != (0.0, 1.0):
            prediction = (standardized * std + mean).to(standardized.dtype)
        if targets is None:
            return (prediction,)
        check_targets(targets, prediction.shape[:1] if self.values == 1 else prediction.shape)
        return (self._loss(standardized, targets), {}), prediction

    def loss(self, prediction: Tensor, targets: Tensor) -> Tensor:
        """The loss of predictions (B, T) in the unit of the targets."""
        mean, std = self._scale()
        return self._loss((prediction - mean) / std, targets)

    def _loss(self, standardized: Tensor, targets: Tensor) -> Tensor:
        mean, std = self._scale()
        scaled = (targets.float().view_as(standardized) - mean) / std
        if self.values == 1:
            return F.mse_loss(standardized.float(), scaled)
        return masked_mean_squared_error(standardized, scaled)

    def _scale(self) -> tuple[Any, Any]:
        """Mean and deviation as numbers for one value, or as (T,) fp32 tensors."""
        return (self.mean, self.std) if self.scales is None else (self.scales.values[0], self.scales.values[1])


class SequenceClassificationHead(nn.Module):
    """One class per protein: (B, H) -> (B, num_labels). The loss is the cross entropy over targets from 0 on.

    With ``multilabel``, any number of labels per protein: targets are (B, num_labels) int64, 1 where a label applies, 0
    where it does not and below 0 where it is unknown. The loss is the mean binary cross entropy over the known ones.

    Args:
        hidden_size: H.
        num_labels: number of classes.
        head_hidden_size: hidden size of the MLP.
        class_weights: weight of each class in the loss, see :func:`masked_cross_entropy`; None: 1.
        multilabel: whether the classes are labels, each of which applies or not.
    """

    def __init__(
        self,
        hidden_size: int,
        num_labels: int,
        head_hidden_size: int = 1024,
        class_weights: Sequence[float] | None = None,
        multilabel: bool = False,
    ) -> None:
        super().__init__()
        self.multilabel = multilabel
        self.class_weights = _checked_weights(class_weights, num_labels)
        self.classify = SimpleMLP(hidden_size, head_hidden_size, num_labels)

    def forward(self, pooled_output: Tensor, targets: Tensor | None = None) -> HeadOutput:
        logits = self.classify(pooled_output)
        if targets is None:
            return (logits,)
        loss = self.loss(logits, targets)  # checks the targets
        return (loss, {} if self.multilabel else {"accuracy": _accuracy(logits, targets)}), logits

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits (B, num_labels)."""
        if self.multilabel:
            return masked_binary_cross_entropy(logits, targets)
        return masked_cross_entropy(logits, targets, class_weights=_values(self.class_weights))


class SequenceToSequenceClassificationHead(nn.Module):
    """One class per residue: (B, S, H) -> (B, S, num_labels). The loss is the cross entropy over labeled residues.

    Args:
        hidden_size: H.
        num_labels: number of classes.
        ignore_index: a target that is ignored, besides all targets below 0.
        class_weights: weight of each class in the loss, see :func:`masked_cross_entropy`; None: 1.
    """

    def __init__(
        self,
        hidden_size: int,
        num_labels: int,
        ignore_index: int = IGNORED,
        class_weights: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        self.class_weights = _checked_weights(class_weights, num_labels)
        self.classify = SimpleConv(hidden_size, 512, num_labels)
        self.num_labels = num_labels
        self.ignore_index = ignore_index

    def forward(
        self, sequence_output: Tensor, targets: Tensor | None = None, input_mask: Tensor | None = None
    ) -> HeadOutput:
        logits = self.classify(sequence_output, None if input_mask is None else input_mask.bool())
        if targets is None:
            return (logits,)
        loss = self.loss(logits, targets)  # checks the targets
        return (loss, {"accuracy": _accuracy(logits, targets, self.ignore_index)}), logits

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """The loss of logits (B, S, num_labels)."""
        return masked_cross_entropy(logits, targets, self.ignore_index, _values(self.class_weights))


class PredictionHeadTransform(nn.Module):
    """Dense, activation and layer norm of BERT's language-model head."""

    def __init__(self, hidden_size: int, hidden_act: str = "gelu", layer_norm_eps: float = 1e-12) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = activation(hidden_act)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.LayerNorm(self.activation(self.dense(hidden)))


class MLMHead(nn.Module):
    """Logits over the vocabulary: layernorm(gelu(dense x)) E^T + bias. The model ties E to the word embeddings."""

    def __init__(
        self,
        hidden_size: int,
        vocab_size: int,
        hidden_act: str = "gelu",
        layer_norm_eps: float = 1e-12,
        ignore_index: int = IGNORED,
    ) -> None:
        super().__init__()
        self.transform = PredictionHeadTransform(hidden_size, hidden_act, layer_norm_eps)
        self.decoder = nn.Linear(hidden_size, vocab_size, bias=False)
        self.bias = nn.Parameter(torch.zeros(vocab_size))
        self.vocab_size = vocab_size
        self.ignore_index = ignore_index

    def logits(self, hidden: Tensor) -> Tensor:
        return self.decoder(self.transform(hidden)) + self.bias

    def forward(self, sequence_output: Tensor, targets: Tensor | None = None) -> HeadOutput:
        logits = self.logits(sequence_output)
        if targets is None:
            return (logits,)
        loss = masked_cross_entropy(logits, targets, self.ignore_index)
        return (loss, {"perplexity": loss.detach().exp()}), logits


def masked_cross_entropy(
    logits: Tensor, targets: Tensor, ignore_index: int = IGNORED, class_weights: Tensor | None = None
) -> Tensor:
    """Mean cross entropy in fp32 over labeled positions (:func:`is_labeled`); 0 (not NaN) if there are none.

    With weights, each position is multiplied by that of its class. The sum is divided by the number of positions, not
    by the sum of their weights, so that the gradient of a batch does not depend on its division into micro-batches.

    Args:
        logits: (..., C).
        targets: (...) classes.
        ignore_index: a target that is ignored, besides all targets below 0.
        class_weights: (C,) fp32, on the device of the logits; None: 1.

    Raises:
        ConfigError: the targets do not have the shape of the logits without the last dimension, or are not classes
            of the logits.
    """
    check_classes(targets, logits.shape[:-1], logits.shape[-1])
    real = is_labeled(targets, ignore_index)
    classes = targets.masked_fill(~real, IGNORED).flatten()
    flat = logits.flatten(0, -2).float()
    total = F.cross_entropy(flat, classes, class_weights, ignore_index=IGNORED, reduction="sum")
    return total / real.sum().clamp(min=1)


def masked_mean_squared_error(prediction: Tensor, targets: Tensor) -> Tensor:
    """Mean squared error in fp32 over the values that are not missing; 0 (not NaN) if all are.

    Args:
        prediction: (B, T).
        targets: (B, T), ``nan`` where a value is missing.
    """
    known = ~targets.isnan()
    errors = prediction.float() - targets.float().masked_fill(~known, 0.0)
    return errors.masked_fill(~known, 0.0).square().sum() / known.sum().clamp(min=1)


def masked_binary_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean binary cross entropy in fp32 over known labels; 0 (not NaN) if there are none.

    Args:
        logits: (B, T).
        targets: (B, T), 1 where a label applies, 0 where it does not, below 0 where it is unknown.

    Raises:
        ConfigError: the targets have another shape.
    """
    check_targets(targets, logits.shape)
    known = targets >= 0
    total = F.binary_cross_entropy_with_logits(
        logits.float(), targets.clamp(min=0).float(), known.float(), reduction="sum"
    )
    return total / known.sum().clamp(min=1)


def _checked_weights(weights: Sequence[float] | None, num_labels: int) -> Constants | None:
    """The weights of the classes.

    Raises:
        ConfigError: there are no classes, or not a positive number for each.
    """
    if num_labels < 1:  # -1 for tasks without classes
        raise ConfigError(f"num_labels must be the number of classes, at least 1, not {num_labels}")
    if weights is None:
        return None
    if not isinstance(weights, list | tuple) or not all(map(_is_weight, weights)):
        raise ConfigError(f"class_weights must be a list of positive numbers, not {quoted(weights)}")
    if len(weights) != num_labels:
        raise ConfigError(f"class_weights has {len(weights)} weights for {num_labels} classes")
    return Constants(tuple(map(float, weights)))


def _values(constants: Constants | None) -> Tensor | None:
    return None if constants is None else constants.values


def _is_weight(weight: object) -> bool:
    return isinstance(weight, int | float) and not isinstance(weight, bool) and 0 < weight < math.inf


def is_labeled(targets: Tensor, ignore_index: int = IGNORED) -> Tensor:
    """True where a target is a class: from 0 on, and not ``ignore_index``. Bool, in the shape of ``targets``."""
    return (targets >= 0) & (targets != ignore_index)


def _accuracy(logits: Tensor, targets: Tensor, ignore_index: int = IGNORED) -> Tensor:
    real = is_labeled(targets, ignore_index)
    return ((logits.argmax(-1) == targets) & real).sum() / real.sum().clamp(min=1)
