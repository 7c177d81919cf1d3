"""Pipeline stages: each has some of the transformer blocks, the first the embeddings, the last the head.

A stage keeps the module tree and the parameter names of the complete model; modules of other stages are replaced by
modules without parameters. The word embeddings are also the decoder's matrix, so the first and the last stage hold a
replica each, as in Megatron-LM. Their gradients are all-reduced, so that both are updated alike (gradient_buckets.py).
"""

from __future__ import annotations

from torch import Tensor, nn

from tape.models.modeling_bert import ProteinBertForMaskedLM, ProteinBertLayer

from .context import ParallelContext


class OnOtherStage(nn.Module):
    """Replaces a module that belongs to another pipeline stage; returns its first argument unchanged."""

    def forward(self, hidden: Tensor, *_: object) -> Tensor:
        return hidden


def remove_other_stages(model: ProteinBertForMaskedLM, context: ParallelContext) -> None:
    """Remove the modules of other pipeline stages from the model, in place."""
    if context.dims.pipeline == 1:
        return
    layers = model.bert.encoder.layer
    own = context.dims.layers_of(context.stage, len(layers))
    for number in range(len(layers)):
        if number not in own:
            layers[number] = OnOtherStage()
    if not context.is_first_stage:
        model.bert.embeddings = OnOtherStage()  # type: ignore[assignment]
    if not context.is_last_stage:
        model.bert.encoder.final_ln = OnOtherStage()  # type: ignore[assignment]
        model.bert.pooler = OnOtherStage()  # type: ignore[assignment]
        model.mlm = OnOtherStage()  # type: ignore[assignment]


def stage_blocks(model: ProteinBertForMaskedLM) -> list[ProteinBertLayer]:
    """The transformer blocks of this rank's pipeline stage."""
    return [layer for layer in model.bert.encoder.layer if isinstance(layer, ProteinBertLayer)]
