"""Output heads of a value, a class, a class a residue, and masked language modelling.

Names of parameters follow the published checkpoints: weight normalisation keeps one scalar ``weight_g`` for a whole
matrix (Salimans and Kingma 2016 with dim=None), so the effective weight is ``g * v / ||v||``. A head returns
``(prediction,)``, or ``((loss, metrics), prediction)`` when targets are given.

A class below 0 means no label: the built-in data sets write -1, third parties -100 too, the default of ``ignore_index``
in tape-proteins. A head's ``ignore_index`` is one more class that is left out.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

IGNORED = -100  # TAPE's and PyTorch's default

HeadOutput = tuple[Any, ...]


class _WeightNorm(nn.Module):
    """Holds ``weight_v``, scalar ``weight_g`` and ``bias`` of a normalised linear map or convolution."""

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
    """Linear map (in_features -> out_features) with weight normalisation over the whole matrix."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(nn.Linear(in_features, out_features))

    def forward(self, features: Tensor) -> Tensor:
        return F.linear(features, self.weight, self.bias)


class WeightNormConv1d(_WeightNorm):
    """Convolution over (B, C, L) that keeps the length, with weight normalisation over the whole kernel."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int) -> None:
        super().__init__(nn.Conv1d(in_channels, out_channels, kernel_size))
        self.padding = kernel_size // 2

    def forward(self, features: Tensor) -> Tensor:
        return F.conv1d(features, self.weight, self.bias, padding=self.padding)


class MaskedBatchNorm(nn.BatchNorm1d):
    """Batch normalisation over real positions only: padding neither enters the statistics nor leaves a value.

    The state dict is that of ``BatchNorm1d`` and ``BatchNorm2d`` (their keys are the same). While ``is_recomputing``,
    the running statistics stay as they are: the batch has entered them already.
    """

    is_recomputing = False

    def forward(self, input: Tensor, mask: Tensor | None = None) -> Tensor:
        """Normalise (B, C, ...) with ``mask`` (B, ...) bool, True where real, or None when all are."""
        if mask is None:
            return self._all(input)
        if not self.training:
            return self._all(input) * mask.unsqueeze(1)
        rows = input.movedim(1, -1)
        normalised = self._all(rows[mask])
        return torch.zeros_like(rows).masked_scatter(mask.unsqueeze(-1), normalised.to(rows.dtype)).movedim(-1, 1)

    def _all(self, values: Tensor) -> Tensor:
        counts = self.training and not self.is_recomputing
        if counts and self.num_batches_tracked is not None:
            self.num_batches_tracked.add_(1)
        momentum = self.momentum if counts and self.momentum is not None else 0.0
        # one value a channel has no variance: fall back on the running statistics, as in evaluation
        batch_statistics = self.training and values.numel() // values.shape[1] > 1
        return F.batch_norm(
            values, self.running_mean, self.running_var, self.weight, self.bias, batch_statistics, momentum, self.eps
        )


class SimpleMLP(nn.Module):
    """Linear, ReLU, dropout, linear; both maps weight-normalised."""

    def __init__(self, in_dim: int, hid_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.main = nn.Sequential(
            WeightNormLinear(in_dim, hid_dim), nn.ReLU(), nn.Dropout(dropout), WeightNormLinear(hid_dim, out_dim)
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.main(features)


class SimpleConv(nn.Module):
    """Batch norm, convolution 5, ReLU, dropout, convolution 3 over a protein; (B, L, in) -> (B, L, out).

    Padding is zeroed before each convolution, so that a protein's prediction does not depend on its batch.
    """

    def __init__(self, in_dim: int, hid_dim: int, out_dim: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.main = nn.Sequential(
            MaskedBatchNorm(in_dim),
            WeightNormConv1d(in_dim, hid_dim, 5),
            nn.ReLU(),
            nn.Dropout(dropout),
            WeightNormConv1d(hid_dim, out_dim, 3),
        )

    def forward(self, features: Tensor, mask: Tensor | None = None) -> Tensor:
        norm, first, activation, dropout, last = self.main
        hidden = dropout(activation(first(norm(features.transpose(1, 2), mask))))
        if mask is not None:
            hidden = hidden * mask.unsqueeze(1)
        return last(hidden).transpose(1, 2)


class ValuePredictionHead(nn.Module):
    """One number a protein: (B, H) -> (B, 1), mean squared error.

    Args:
        hidden_size: H.
        dropout: inside the MLP.
        head_hidden_size: ProteinLM 1024, TAPE 512.
    """

    def __init__(self, hidden_size: int, dropout: float = 0.0, head_hidden_size: int = 1024) -> None:
        super().__init__()
        self.value_prediction = SimpleMLP(hidden_size, head_hidden_size, 1, dropout)

    def forward(self, pooled_output: Tensor, targets: Tensor | None = None) -> HeadOutput:
        prediction = self.value_prediction(pooled_output)
        if targets is None:
            return (prediction,)
        loss = F.mse_loss(prediction.float(), targets.float().view_as(prediction))
        return (loss, {}), prediction


class SequenceClassificationHead(nn.Module):
    """One class a protein: (B, H) -> (B, num_labels), cross entropy over targets from 0 on."""

    def __init__(self, hidden_size: int, num_labels: int, head_hidden_size: int = 1024) -> None:
        super().__init__()
        self.classify = SimpleMLP(hidden_size, head_hidden_size, num_labels)

    def forward(self, pooled_output: Tensor, targets: Tensor | None = None) -> HeadOutput:
        logits = self.classify(pooled_output)
        if targets is None:
            return (logits,)
        loss = masked_cross_entropy(logits, targets)
        return (loss, {"accuracy": _accuracy(logits, targets)}), logits


class SequenceToSequenceClassificationHead(nn.Module):
    """One class a residue: (B, S, H) -> (B, S, num_labels), cross entropy over targets that count.

    Args:
        hidden_size: H.
        num_labels: classes.
        ignore_index: a class that does not count; those below 0 never do.
    """

    def __init__(self, hidden_size: int, num_labels: int, ignore_index: int = IGNORED) -> None:
        super().__init__()
        self.classify = SimpleConv(hidden_size, 512, num_labels)
        self.ignore_index = ignore_index

    def forward(
        self, sequence_output: Tensor, targets: Tensor | None = None, input_mask: Tensor | None = None
    ) -> HeadOutput:
        logits = self.classify(sequence_output, None if input_mask is None else input_mask.bool())
        if targets is None:
            return (logits,)
        loss = masked_cross_entropy(logits, targets, self.ignore_index)
        return (loss, {"accuracy": _accuracy(logits, targets, self.ignore_index)}), logits


class PredictionHeadTransform(nn.Module):
    """Dense, activation, layer norm of BERT's language-model head."""

    def __init__(self, hidden_size: int, hidden_act: str = "gelu", layer_norm_eps: float = 1e-12) -> None:
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.activation = activation(hidden_act)
        self.LayerNorm = nn.LayerNorm(hidden_size, eps=layer_norm_eps)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.LayerNorm(self.activation(self.dense(hidden)))


class MLMHead(nn.Module):
    """Logits over the vocabulary: layernorm(gelu(dense x)) E^T + bias; E is tied by the model."""

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
        return (masked_cross_entropy(logits, targets, self.ignore_index), {}), logits


def masked_cross_entropy(logits: Tensor, targets: Tensor, ignore_index: int = IGNORED) -> Tensor:
    """Mean cross entropy in fp32 over targets that count (:func:`labelled`); 0 (not NaN) when there are none."""
    real = labelled(targets, ignore_index)
    classes = targets.masked_fill(~real, IGNORED).flatten()
    total = F.cross_entropy(logits.flatten(0, -2).float(), classes, ignore_index=IGNORED, reduction="sum")
    return total / real.sum().clamp(min=1)


def labelled(targets: Tensor, ignore_index: int = IGNORED) -> Tensor:
    """Which targets count: classes from 0 on, other than ``ignore_index``. Bool, of the shape of ``targets``."""
    return (targets >= 0) & (targets != ignore_index)


def activation(name: str) -> nn.Module:
    """Module of a configuration's ``hidden_act``."""
    modules: dict[str, nn.Module] = {
        "gelu": nn.GELU(),
        "gelu_tanh": nn.GELU(approximate="tanh"),
        "relu": nn.ReLU(),
        "swish": nn.SiLU(),
    }
    return modules[name]


def _accuracy(logits: Tensor, targets: Tensor, ignore_index: int = IGNORED) -> Tensor:
    real = labelled(targets, ignore_index)
    return ((logits.argmax(-1) == targets) & real).sum() / real.sum().clamp(min=1)
