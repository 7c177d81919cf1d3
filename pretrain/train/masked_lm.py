"""Masked language modelling as a function of a micro-batch: this rank's part of the model, and its share of the tokens.

On one process that is the whole way from token ids to the summed cross entropy. A pipeline stage goes from residual
stream to residual stream; with sequence parallelism a rank embeds, and predicts, the tokens of its own part of the row.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.data.samples import MicroBatch
from pretrain.optim.precision import PrecisionConfig
from pretrain.parallel import ParallelContext
from tape.models.modeling_bert import ProteinBertForMaskedLM


class MaskedLMObjective(nn.Module):
    """Micro-batch -> cross entropy summed over the predicted positions, or a part of this way.

    Args:
        model: this rank's part of it.
        processes: the layout.
        precision: of the forward pass.
        row_tokens: tokens of a micro-batch that is full.
    """

    def __init__(
        self, model: ProteinBertForMaskedLM, processes: ParallelContext, precision: PrecisionConfig, row_tokens: int
    ) -> None:
        super().__init__()
        self.model = model
        self.processes = processes
        self.precision = precision
        self._row_tokens = row_tokens
        self._parts = processes.dims.tensor if processes.dims.sequence_parallel_enabled else 1

    def prepare(self, batch: MicroBatch) -> MicroBatch:
        """This rank's share of a micro-batch, on its device.

        It is as long as the layout needs it: of one length for stages, divisible for sequence parallelism. The
        predicted positions are those among the own tokens, counted from the first of them.
        """
        dims = self.processes.dims
        tokens = self._row_tokens if dims.pipeline > 1 else batch.input_ids.shape[1]
        batch = batch.padded(-(-tokens // self._parts) * self._parts)
        if dims.sequence_parallel_enabled:
            own = self._own_tokens(batch)
            first, stop = torch.searchsorted(batch.predicted, torch.tensor([own.start, own.stop])).tolist()
            predicted, labels = batch.predicted[first:stop] - own.start, batch.labels[first:stop]
            batch = replace(batch, predicted=predicted, labels=labels)
        return batch.to(self.processes.device)

    def stream_shape(self) -> tuple[int, int, int]:
        """Shape (1, T, H) of the residual stream that one stage hands to the next on each rank."""
        return 1, -(-self._row_tokens // self._parts), self.model.config.hidden_size

    def forward(self, batch: MicroBatch, stream: Tensor | None = None) -> Tensor:
        """Compute this rank's part.

        Args:
            batch: of :meth:`prepare`.
            stream: (1, T, H) residual stream of the stage before; None on the first stage.

        Returns:
            (1, T, H), or on the last stage the fp32 scalar loss.
        """
        with self.precision.autocast(self.processes.device):
            hidden = self._embed(batch) if stream is None else stream
            hidden = self.model.bert.encoder(hidden, None, batch.layout)
            if not self.processes.is_last_stage:
                return hidden
            # The head sees the predicted positions only, about one in seven.
            logits = self.model.mlm_logits(hidden[0].index_select(0, batch.predicted))
        return F.cross_entropy(logits.float(), batch.labels, reduction="sum")

    def _embed(self, batch: MicroBatch) -> Tensor:
        own = self._own_tokens(batch)
        positions = batch.layout.positions[own].unsqueeze(0)
        embedded: Tensor = self.model.bert.embeddings(batch.input_ids[:, own], positions, batch.layout)
        return embedded

    def _own_tokens(self, batch: MicroBatch) -> slice:
        if self._parts == 1:
            return slice(None)
        tokens = batch.input_ids.shape[1] // self._parts
        first = self.processes.tensor_rank * tokens
        return slice(first, first + tokens)
