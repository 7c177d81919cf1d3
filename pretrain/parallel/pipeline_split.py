"""Which part of the model a pipeline stage has: some of the blocks, and the two ends on the first and last stage.

A stage keeps the module tree and the parameter names of the whole model; what belongs to other stages is replaced by
modules without parameters. The word embeddings are the decoder's matrix as well, so that the first and the last stage
hold a copy each (Megatron-LM's way); the sum of their gradients moves both (gradients.py).
"""

from __future__ import annotations

from torch import Tensor, nn

from tape.models.modeling_bert import ProteinBertForMaskedLM, ProteinBertLayer

from .context import ParallelContext


class Elsewhere(nn.Module):
    """Stands for a part of the model that another stage has; hands on what it gets."""

    def forward(self, hidden: Tensor, *_: object) -> Tensor:
        return hidden


def keep_stage(model: ProteinBertForMaskedLM, processes: ParallelContext) -> None:
    """Take the parts of other stages out of the model, in place."""
    if processes.dims.pipeline == 1:
        return
    layers = model.bert.encoder.layer
    own = processes.dims.layers_of(processes.stage, len(layers))
    for number in range(len(layers)):
        if number not in own:
            layers[number] = Elsewhere()
    if not processes.is_first_stage:
        model.bert.embeddings = Elsewhere()  # type: ignore[assignment]
    if not processes.is_last_stage:
        model.bert.encoder.final_ln = Elsewhere()  # type: ignore[assignment]
        model.mlm = Elsewhere()  # type: ignore[assignment]


def own_blocks(model: ProteinBertForMaskedLM) -> list[ProteinBertLayer]:
    """The blocks that are here."""
    return [layer for layer in model.bert.encoder.layer if isinstance(layer, ProteinBertLayer)]
