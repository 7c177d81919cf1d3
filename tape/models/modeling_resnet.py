"""TAPE's residual network over residues, without dilation (Rao et al. 2019, after Yu et al. 2017), and its task models.

The names of the parameters are those of tape-proteins 0.5. Padding is set to 0 before every convolution. The sinusoidal
positions count down to 0 at the last token of each protein. TAPE counted from the end of the padded batch, so that
predictions depended on the other proteins of the batch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tape.compatibility.names import names_of
from tape.configs import ProteinResNetConfig

from . import task_models
from .activations import activation
from .dropout import Dropout
from .input_checks import check_inputs
from .modeling_utils import MLMHead, ProteinModel, normal_initialization, tie

__getattr__ = names_of(__name__)  # of tape-proteins 0.5


class MaskedConv1d(nn.Conv1d):
    """Convolution over (B, C, L) whose input is set to 0 at padding; ``input_mask`` (B, 1, L) is 0 there."""

    def forward(self, input: Tensor, input_mask: Tensor | None = None) -> Tensor:
        return super().forward(input if input_mask is None else input * input_mask)


class ProteinResNetLayerNorm(nn.Module):
    """Layer norm over the channels of (B, C, L)."""

    def __init__(self, config: ProteinResNetConfig) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, features: Tensor) -> Tensor:
        return self.norm(features.transpose(1, 2)).transpose(1, 2)


class ProteinResNetBlock(nn.Module):
    """Convolution, norm, activation, convolution, norm, sum, activation; (B, C, L) -> (B, C, L).

    ``bn1`` and ``bn2`` are layer norms; the names are those of the checkpoints.
    """

    def __init__(self, config: ProteinResNetConfig) -> None:
        super().__init__()
        self.conv1 = MaskedConv1d(config.hidden_size, config.hidden_size, 3, padding=1, bias=False)
        self.bn1 = ProteinResNetLayerNorm(config)
        self.conv2 = MaskedConv1d(config.hidden_size, config.hidden_size, 3, padding=1, bias=False)
        self.bn2 = ProteinResNetLayerNorm(config)
        self.activation_fn = activation(config.hidden_act)

    def forward(self, features: Tensor, mask: Tensor) -> Tensor:
        hidden = self.activation_fn(self.bn1(self.conv1(features, mask)))
        hidden = self.bn2(self.conv2(hidden, mask))
        return self.activation_fn(features + hidden)


class ProteinResNetEmbeddings(nn.Module):
    """Word embeddings plus sinusoids of the distance to the protein's last token, layer norm, and dropout."""

    inverse_frequency: Tensor

    def __init__(self, config: ProteinResNetConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        even = torch.arange(0.0, config.hidden_size, 2.0)
        self.register_buffer("inverse_frequency", 1 / (10000 ** (even / config.hidden_size)))
        self.layer_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(self, input_ids: Tensor, real: Tensor | None = None) -> Tensor:
        """(B, S) ids and (B, S) bool, True at real tokens (default: all) -> (B, S, H)."""
        real = torch.ones_like(input_ids, dtype=torch.bool) if real is None else real
        position = torch.arange(input_ids.shape[1], device=input_ids.device)
        distance = real.sum(1, keepdim=True) - 1 - position
        angle = distance.unsqueeze(-1).to(self.inverse_frequency.dtype) * self.inverse_frequency
        sinusoids = torch.cat([angle.sin(), angle.cos()], -1)[..., : self.word_embeddings.embedding_dim]
        return self.dropout(self.layer_norm(self.word_embeddings(input_ids) + sinusoids))


class ProteinResNetPooler(nn.Module):
    """tanh(dense(weighted sum of states)); (B, S, H) -> (B, H)."""

    def __init__(self, config: ProteinResNetConfig) -> None:
        super().__init__()
        self.attention_weights = nn.Linear(config.hidden_size, 1)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.is_attention = config.resnet_pooler == "attention"

    def forward(self, states: Tensor, real: Tensor) -> Tensor:
        if self.is_attention:
            scores = self.attention_weights(states).masked_fill(~real.unsqueeze(-1), float("-inf"))
            weights = scores.softmax(1)
        else:
            weights = real.unsqueeze(-1).to(states.dtype)
        return torch.tanh(self.dense((states * weights).sum(1)))


class ResNetEncoder(nn.Module):
    """The residual blocks."""

    def __init__(self, config: ProteinResNetConfig) -> None:
        super().__init__()
        self.layer = nn.ModuleList(ProteinResNetBlock(config) for _ in range(config.num_hidden_layers))

    def forward(self, features: Tensor, mask: Tensor, states: list[Tensor] | None = None) -> Tensor:
        """(B, C, L) -> (B, C, L). Appends the input of each block, as (B, L, C), to ``states``."""
        for layer in self.layer:
            if states is not None:
                states.append(features.transpose(1, 2))
            features = layer(features, mask)
        return features


class ProteinResNetAbstractModel(ProteinModel):
    """Base class of the ResNet models."""

    config_class = ProteinResNetConfig
    config: ProteinResNetConfig
    base_model_prefix = "resnet"
    unstated_config = {"resnet_pooler": "sum"}

    def _init_weights(self, module: nn.Module) -> None:
        normal_initialization(module, self.config.initializer_range)
        if isinstance(module, nn.Conv1d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


class ProteinResNetModel(ProteinResNetAbstractModel):
    """The encoder: maps token ids to a state per token."""

    def __init__(self, config: ProteinResNetConfig) -> None:
        super().__init__(config)
        self.embeddings = ProteinResNetEmbeddings(config)
        self.encoder = ResNetEncoder(config)
        self.pooler = ProteinResNetPooler(config)
        self.state_size = self.pooled_size = config.hidden_size
        self.init_weights()

    def forward(self, input_ids: Tensor, input_mask: Tensor | None = None) -> tuple[Any, ...]:
        """(B, S) ids -> (states (B, S, H), 0 at padding; pooled (B, H)[, all states])."""
        check_inputs(input_ids, input_mask, self.embeddings.word_embeddings.num_embeddings)
        real = torch.ones_like(input_ids, dtype=torch.bool) if input_mask is None else input_mask != 0
        features = self.embeddings(input_ids, real).transpose(1, 2)
        mask = real.unsqueeze(1).to(features.dtype)
        states: list[Tensor] | None = [] if self.config.output_hidden_states else None
        output = (self.encoder(features, mask, states) * mask).transpose(1, 2).contiguous()
        outputs: tuple[Any, ...] = (output, self.pooler(output, real))
        return outputs if states is None else (*outputs, (*states, output))


class ProteinResNetForMaskedLM(ProteinResNetAbstractModel):
    """Masked language model, whose decoder is tied to the word embeddings."""

    def __init__(self, config: ProteinResNetConfig) -> None:
        super().__init__(config)
        self.resnet = ProteinResNetModel(config)
        self.mlm = MLMHead(config.hidden_size, config.vocab_size, config.hidden_act, config.layer_norm_eps)
        self.init_weights()

    def tie_weights(self) -> None:
        tie(self.resnet.embeddings.word_embeddings, self.mlm.decoder)

    def forward(
        self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None
    ) -> tuple[Any, ...]:
        outputs = self.resnet(input_ids, input_mask)
        return self.mlm(outputs[0], targets) + outputs[2:]


class ProteinResNetForValuePrediction(task_models.ForValuePrediction, ProteinResNetAbstractModel):
    encoder_class = ProteinResNetModel


class ProteinResNetForSequenceClassification(task_models.ForSequenceClassification, ProteinResNetAbstractModel):
    encoder_class = ProteinResNetModel


class ProteinResNetForSequenceToSequenceClassification(
    task_models.ForSequenceToSequenceClassification, ProteinResNetAbstractModel
):
    encoder_class = ProteinResNetModel


class ProteinResNetForContactPrediction(task_models.ForContactPrediction, ProteinResNetAbstractModel):
    encoder_class = ProteinResNetModel
