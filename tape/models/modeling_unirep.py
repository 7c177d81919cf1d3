"""UniRep: a multiplicative LSTM over residues (Alley et al. 2019, Krause et al. 2016), and its task models.

The names of the parameters are those of tape-proteins 0.5, whose ``babbler-1900`` has the published weights. The state
does not change at padding.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tape.compatibility.names import names_of
from tape.configs import UniRepConfig

from . import task_models
from .heads import masked_cross_entropy
from .input_checks import check_inputs
from .modeling_utils import ProteinModel, normal_initialization

__getattr__ = names_of(__name__)  # of tape-proteins 0.5

# Logit of a token that is never predicted; representable in fp16.
_NEVER = -1e4


class RowNormLinear(nn.Module):
    """Linear map with weight normalization of each row (Salimans and Kingma 2016): ``g * v / ||v||``.

    The parameters ``weight_g`` (out, 1) and ``weight_v`` (out, in) are those of PyTorch's ``weight_norm`` with dim=0,
    as in UniRep's checkpoints.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__()
        plain = nn.Linear(in_features, out_features, bias)
        self.weight_v = nn.Parameter(plain.weight.detach().clone())
        self.weight_g = nn.Parameter(plain.weight.detach().norm(dim=1, keepdim=True))
        self.bias = nn.Parameter(plain.bias.detach().clone()) if bias else None

    @property
    def weight(self) -> Tensor:
        return self.weight_v * (self.weight_g / self.weight_v.norm(dim=1, keepdim=True))

    def reset(self, std: float) -> None:
        """Initialize the weights from N(0, std) and the bias to 0."""
        with torch.no_grad():
            self.weight_v.normal_(0.0, std)
            self.weight_g.copy_(self.weight_v.norm(dim=1, keepdim=True))
            if self.bias is not None:
                self.bias.zero_()


class mLSTMCell(nn.Module):
    """Parameters of the recurrence; see :class:`mLSTM`."""

    def __init__(self, config: UniRepConfig) -> None:
        super().__init__()
        self.wmx = RowNormLinear(config.input_size, config.hidden_size)
        self.wmh = RowNormLinear(config.hidden_size, config.hidden_size)
        self.wx = RowNormLinear(config.input_size, 4 * config.hidden_size)
        self.wh = RowNormLinear(config.hidden_size, 4 * config.hidden_size, bias=True)


class mLSTM(nn.Module):
    """The multiplicative LSTM.

    One step of the recurrence::

        m = (W_mx x) * (W_mh h)             z = W_x x + W_h m + b
        i, f, o, u = z                      c = sigmoid(f) c + sigmoid(i) tanh(u)
        h = sigmoid(o) tanh(c)
    """

    def __init__(self, config: UniRepConfig) -> None:
        super().__init__()
        self.mlstm_cell = mLSTMCell(config)
        self.hidden_size = config.hidden_size

    def forward(self, inputs: Tensor, real: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Run the recurrence.

        Args:
            inputs: (B, S, I).
            real: (B, S) bool, True at real tokens.

        Returns:
            Hidden states (B, S, H), where the last real state is repeated at padding; final hidden state and final cell
            state, each (B, H).
        """
        cell = self.mlstm_cell
        # Everything that does not depend on the state, for all positions at once.
        gate = F.linear(inputs, cell.wmx.weight).unbind(1)
        drive = F.linear(inputs, cell.wx.weight, cell.wh.bias).unbind(1)
        recurrent, project = cell.wmh.weight, cell.wh.weight
        hidden = memory = inputs.new_zeros(inputs.shape[0], self.hidden_size, dtype=gate[0].dtype)
        holds = ~real.unsqueeze(-1)
        states = []
        for position, (scale, offset) in enumerate(zip(gate, drive, strict=True)):
            z = offset + F.linear(scale * F.linear(hidden, recurrent), project)
            i, f, o, u = z.chunk(4, dim=1)
            new_memory = f.sigmoid() * memory + i.sigmoid() * u.tanh()
            new_hidden = o.sigmoid() * new_memory.tanh()
            memory = torch.where(holds[:, position], memory, new_memory)
            hidden = torch.where(holds[:, position], hidden, new_hidden)
            states.append(hidden)
        return torch.stack(states, 1), hidden, memory


class UniRepAbstractModel(ProteinModel):
    """Base class of the UniRep models."""

    config_class = UniRepConfig
    config: UniRepConfig
    base_model_prefix = "unirep"

    def _init_weights(self, module: nn.Module) -> None:
        normal_initialization(module, self.config.initializer_range)
        if isinstance(module, RowNormLinear):
            module.reset(self.config.initializer_range)


class UniRepModel(UniRepAbstractModel):
    """The encoder: maps token ids to a state per token. The pooled output is the final hidden and cell state."""

    def __init__(self, config: UniRepConfig) -> None:
        super().__init__(config)
        self.embed_matrix = nn.Embedding(config.vocab_size, config.input_size)
        self.encoder = mLSTM(config)
        self.state_size, self.pooled_size = config.hidden_size, 2 * config.hidden_size
        self.init_weights()

    def forward(self, input_ids: Tensor, input_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """(B, S) ids -> (states (B, S, H), pooled (B, 2H))."""
        check_inputs(input_ids, input_mask, self.embed_matrix.num_embeddings)
        real = torch.ones_like(input_ids, dtype=torch.bool) if input_mask is None else input_mask != 0
        states, hidden, memory = self.encoder(self.embed_matrix(input_ids), real)
        return states, torch.cat([hidden, memory], 1)


class UniRepForLM(UniRepAbstractModel):
    """Predicts the next token. The decoder has no row for padding (token 0), which is never predicted."""

    def __init__(self, config: UniRepConfig) -> None:
        super().__init__(config)
        self.unirep = UniRepModel(config)
        self.feedforward = nn.Linear(config.hidden_size, config.vocab_size - 1)
        self.init_weights()

    def forward(
        self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None
    ) -> tuple[Any, ...]:
        """Predict the next tokens.

        Args:
            input_ids: (B, S).
            input_mask: (B, S), nonzero at real tokens.
            targets: (B, S) the token ids; -1 where nothing is predicted.

        Returns:
            Without targets, ``(logits,)`` as in tape-proteins 0.5: (B, S, V - 1), at each position those of the token
            after it, and in column c that of token c + 1. With targets, ``((loss, {}), logits)``, whose logits
            (B, S, V) are aligned with the targets: at each position those of the token itself, from the ones before.
        """
        states = self.unirep(input_ids, input_mask)[0]
        if targets is None:
            return (self.feedforward(states),)
        logits = self.feedforward(F.pad(states[:, :-1], (0, 0, 1, 0)))
        logits = F.pad(logits, (1, 0), value=_NEVER)
        return (masked_cross_entropy(logits, targets), {}), logits


class UniRepForValuePrediction(task_models.ForValuePrediction, UniRepAbstractModel):
    encoder_class = UniRepModel


class UniRepForSequenceClassification(task_models.ForSequenceClassification, UniRepAbstractModel):
    encoder_class = UniRepModel


class UniRepForSequenceToSequenceClassification(task_models.ForSequenceToSequenceClassification, UniRepAbstractModel):
    encoder_class = UniRepModel


class UniRepForContactPrediction(task_models.ForContactPrediction, UniRepAbstractModel):
    encoder_class = UniRepModel
