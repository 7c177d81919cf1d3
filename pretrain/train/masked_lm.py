"""The masked-LM objective: this rank's part of the model as a function of a micro-batch.

In a single process, it maps token ids to the summed cross entropy. A pipeline stage maps residual stream to residual
stream; with sequence parallelism, a rank embeds and predicts only its own tokens.
"""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from pretrain.data.samples import MicroBatch
from pretrain.optim.precision import PrecisionConfig
from pretrain.parallel import ParallelContext
from tape.masking import IGNORED
from tape.models.kernel_shapes import compiles_each_shape, rounded_size
from tape.models.modeling_bert import ProteinBertForMaskedLM


class MaskedLMObjective(nn.Module):
    """Maps a micro-batch to the cross entropy summed over its predicted positions, or computes a part of this.

    Args:
        model: this rank's part of the model.
        context: the parallel layout.
        precision: precision of the forward pass.
        row_tokens: tokens of a full micro-batch.
    """

    def __init__(
        self, model: ProteinBertForMaskedLM, context: ParallelContext, precision: PrecisionConfig, row_tokens: int
    ) -> None:
        super().__init__()
        self.model = model
        self.context = context
        self.precision = precision
        self._row_tokens = row_tokens
        self._shards = context.dims.tensor if context.dims.sequence_parallel_enabled else 1
        self._few_sizes = compiles_each_shape(context.device, precision.product_dtype(context.device))

    def prepare(self, batch: MicroBatch) -> MicroBatch:
        """This rank's share of a micro-batch, on its device.

        It is padded as the layout requires: to a fixed length for pipeline stages, to a multiple of the tensor-parallel
        size for sequence parallelism; and to one of a few sizes where each has kernels of its own. Predicted positions
        are relative to the rank's first token.
        """
        dims = self.context.dims
        tokens = batch.input_ids.shape[1]
        if dims.pipeline > 1:
            tokens = self._row_tokens
        elif self._few_sizes:
            tokens = min(rounded_size(tokens), self._row_tokens)
        batch = batch.padded(-(-tokens // self._shards) * self._shards)
        if dims.sequence_parallel_enabled:
            own = self._own_tokens(batch)
            first, stop = torch.searchsorted(batch.predicted, torch.tensor([own.start, own.stop])).tolist()
            predicted, labels = batch.predicted[first:stop] - own.start, batch.labels[first:stop]
            batch = replace(batch, predicted=predicted, labels=labels)
        return batch.to(self.context.device)

    def stream_shape(self) -> tuple[int, int, int]:
        """Shape (1, T, H) of the residual stream between pipeline stages on each rank."""
        return 1, -(-self._row_tokens // self._shards), self.model.config.hidden_size

    def forward(self, batch: MicroBatch, stream: Tensor | None = None) -> Tensor:
        """Compute this rank's part.

        Args:
            batch: a micro-batch from :meth:`prepare`.
            stream: (1, T, H) residual stream of the previous stage; None on the first stage.

        Returns:
            (1, T, H), or on the last stage the fp32 scalar loss.
        """
        with self.precision.autocast(self.context.device):
            hidden = self._embed(batch) if stream is None else stream
            hidden, *_ = self.model.bert.encoder(hidden, packing=batch.layout)
            if not self.context.is_last_stage:
                return hidden
            # the head is computed at predicted positions only, about one in seven
            predicted, labels = self._predictions(batch)
            logits = self.model.mlm_logits(hidden[0].index_select(0, predicted))
        return F.cross_entropy(logits.float(), labels, ignore_index=IGNORED, reduction="sum")

    def _predictions(self, batch: MicroBatch) -> tuple[Tensor, Tensor]:
        """The predicted positions and their labels; with further ones, which are ignored, if they have few sizes."""
        if not self._few_sizes:
            return batch.predicted, batch.labels
        missing = rounded_size(batch.predictions) - batch.predictions
        return F.pad(batch.predicted, (0, missing)), F.pad(batch.labels, (0, missing), value=IGNORED)

    def _embed(self, batch: MicroBatch) -> Tensor:
        own = self._own_tokens(batch)
        positions = batch.layout.positions[own].unsqueeze(0)
        embedded: Tensor = self.model.bert.embeddings(
            batch.input_ids[:, own], position_ids=positions, packing=batch.layout
        )
        return embedded

    def _own_tokens(self, batch: MicroBatch) -> slice:
        if self._shards == 1:
            return slice(None)
        tokens = batch.input_ids.shape[1] // self._shards
        first = self.context.tensor_rank * tokens
        return slice(first, first + tokens)
