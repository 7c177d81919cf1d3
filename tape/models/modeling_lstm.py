"""TAPE's bidirectional LSTM (Rao et al. 2019), a forward and a backward stack, and its task models.

The names of the parameters are those of tape-proteins 0.5. Both stacks run over packed sequences: no state depends on
padding, and the backward stack starts at the last token of each protein.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence, pack_padded_sequence, pad_packed_sequence

from tape.compatibility.names import names_of
from tape.configs import ProteinLSTMConfig
from tape.errors import ConfigError

from . import task_models
from .dropout import Dropout
from .heads import masked_cross_entropy
from .input_checks import check_inputs
from .modeling_utils import ProteinModel, normal_initialization

__getattr__ = names_of(__name__)  # of tape-proteins 0.5


class ProteinLSTMLayer(nn.Module):
    """Dropout of the input and one LSTM layer."""

    def __init__(self, input_size: int, hidden_size: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = Dropout(dropout)
        self.lstm = nn.LSTM(input_size, hidden_size, batch_first=True)

    def forward(self, inputs: PackedSequence) -> tuple[PackedSequence, Tensor]:
        """Packed (B, S, I) -> (packed (B, S, H), hidden state after each protein's last token (B, H))."""
        dropped = PackedSequence(self.dropout(inputs.data), *inputs[1:])
        output, (final, _) = self.lstm(dropped)
        return output, final[0]


class ProteinLSTMPooler(nn.Module):
    """tanh(dense(weighted sum of the final states of all layers of both directions)); (B, H, 2 layers) -> (B, H)."""

    def __init__(self, config: ProteinLSTMConfig) -> None:
        super().__init__()
        self.scalar_reweighting = nn.Linear(2 * config.num_hidden_layers, 1)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, final_states: Tensor) -> Tensor:
        return torch.tanh(self.dense(self.scalar_reweighting(final_states).squeeze(2)))


class ProteinLSTMEncoder(nn.Module):
    """The forward and the backward stack."""

    def __init__(self, config: ProteinLSTMConfig) -> None:
        super().__init__()
        self.forward_lstm = self._stack(config)
        self.reverse_lstm = self._stack(config)

    @staticmethod
    def _stack(config: ProteinLSTMConfig) -> nn.ModuleList:
        layers = [ProteinLSTMLayer(config.input_size, config.hidden_size)]
        for _ in range(config.num_hidden_layers - 1):
            layers.append(ProteinLSTMLayer(config.hidden_size, config.hidden_size, config.hidden_dropout_prob))
        return nn.ModuleList(layers)

    def forward(self, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Run both stacks.

        Args:
            inputs: (B, S, I).
            lengths: (B,) number of tokens of each protein, at least 1.

        Returns:
            States (B, S, 2H), with the forward half first and 0 at padding; final states (B, H, 2 layers), with the
            forward layers first; and the input and output of every layer, in reverse token order for the backward
            stack.
        """
        forward, forward_final, forward_states = self._run(self.forward_lstm, inputs, lengths)
        backward, backward_final, backward_states = self._run(
            self.reverse_lstm, reverse_proteins(inputs, lengths), lengths
        )
        output = torch.cat([forward, reverse_proteins(backward, lengths)], dim=2)
        final = torch.stack(forward_final + backward_final, dim=2)
        return output, final, (inputs, *forward_states, *backward_states)

    @staticmethod
    def _run(stack: nn.ModuleList, inputs: Tensor, lengths: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
        packed = pack_padded_sequence(inputs, lengths.cpu(), batch_first=True, enforce_sorted=False)
        finals, states = [], []
        for layer in stack:
            packed, final = layer(packed)
            finals.append(final)
            states.append(pad_packed_sequence(packed, batch_first=True, total_length=inputs.shape[1])[0])
        return states[-1], finals, states


def reverse_proteins(states: Tensor, lengths: Tensor) -> Tensor:
    """(B, S, C) with the tokens of each protein in reverse order; padding stays in place."""
    position = torch.arange(states.shape[1], device=states.device)
    mirrored = lengths.to(states.device).unsqueeze(1) - 1 - position
    index = torch.where(mirrored >= 0, mirrored, position)
    return states.gather(1, index.unsqueeze(-1).expand_as(states))


def _check_lengths(lengths: Tensor) -> None:
    """Check what packed sequences can represent: (B,) numbers of tokens, with B and all of them above 0.

    Raises:
        ConfigError: they can't. Names the row of a protein without tokens.
    """
    if torch.compiler.is_compiling():
        return
    if not len(lengths):
        raise ConfigError("input_ids has no proteins; the LSTM needs at least one, so leave empty batches out")
    if not bool(lengths.all()):
        raise ConfigError(
            f"input_mask has no tokens in row {int(lengths.argmin())}: even an empty protein has <cls> and <sep>; leave"
            " rows that are all padding out"
        )


class ProteinLSTMAbstractModel(ProteinModel):
    """Base class of the LSTM models."""

    config_class = ProteinLSTMConfig
    config: ProteinLSTMConfig
    base_model_prefix = "lstm"

    def _init_weights(self, module: nn.Module) -> None:
        normal_initialization(module, self.config.initializer_range)


class ProteinLSTMModel(ProteinLSTMAbstractModel):
    """The encoder: maps token ids to states of twice the hidden size."""

    def __init__(self, config: ProteinLSTMConfig) -> None:
        super().__init__(config)
        self.embed_matrix = nn.Embedding(config.vocab_size, config.input_size)
        self.encoder = ProteinLSTMEncoder(config)
        self.pooler = ProteinLSTMPooler(config)
        self.state_size, self.pooled_size = 2 * config.hidden_size, config.hidden_size
        self.init_weights()

    def forward(self, input_ids: Tensor, input_mask: Tensor | None = None) -> tuple[Any, ...]:
        """(B, S) ids -> (states (B, S, 2H), 0 at padding; pooled (B, H)[, all states]).

        Raises:
            ConfigError: see :func:`.input_checks.check_inputs`; also for no proteins, or a row that is all padding.
        """
        check_inputs(input_ids, input_mask, self.embed_matrix.num_embeddings)
        mask = torch.ones_like(input_ids) if input_mask is None else input_mask != 0
        lengths = mask.sum(1).cpu()
        _check_lengths(lengths)
        output, final, states = self.encoder(self.embed_matrix(input_ids), lengths)
        outputs: tuple[Any, ...] = (output, self.pooler(final))
        return (*outputs, states) if self.config.output_hidden_states else outputs


class ProteinLSTMForLM(ProteinLSTMAbstractModel):
    """Predicts each token from the tokens before it and those after it, with one shared decoder."""

    def __init__(self, config: ProteinLSTMConfig) -> None:
        super().__init__(config)
        self.lstm = ProteinLSTMModel(config)
        self.feedforward = nn.Linear(config.hidden_size, config.vocab_size)
        self.init_weights()

    def forward(
        self, input_ids: Tensor, input_mask: Tensor | None = None, targets: Tensor | None = None
    ) -> tuple[Any, ...]:
        """Logits (B, S, V) of each token, which do not depend on the token itself.

        Args:
            input_ids: (B, S).
            input_mask: (B, S), nonzero at real tokens.
            targets: (B, S) the token ids; -1 where nothing is predicted.
        """
        states, _, *others = self.lstm(input_ids, input_mask)
        before, after = states.chunk(2, dim=-1)
        # The forward state of the previous token and the backward state of the next token; 0 beyond both ends.
        logits = self.feedforward(F.pad(before[:, :-1], (0, 0, 1, 0))) + self.feedforward(
            F.pad(after[:, 1:], (0, 0, 0, 1))
        )
        outputs = (logits, *others)
        return outputs if targets is None else ((masked_cross_entropy(logits, targets), {}), *outputs)


class ProteinLSTMForValuePrediction(task_models.ForValuePrediction, ProteinLSTMAbstractModel):
    encoder_class = ProteinLSTMModel


class ProteinLSTMForSequenceClassification(task_models.ForSequenceClassification, ProteinLSTMAbstractModel):
    encoder_class = ProteinLSTMModel


class ProteinLSTMForSequenceToSequenceClassification(
    task_models.ForSequenceToSequenceClassification, ProteinLSTMAbstractModel
):
    encoder_class = ProteinLSTMModel


class ProteinLSTMForContactPrediction(task_models.ForContactPrediction, ProteinLSTMAbstractModel):
    encoder_class = ProteinLSTMModel
