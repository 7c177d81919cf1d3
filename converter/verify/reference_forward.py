"""Evaluators: things that compute the states of proteins, stage by stage, for the parity certificate.

All compute in double precision. Weights widen without loss, so a difference between two evaluators shows the weights
and the mathematics, not the order in which one of them adds. Weights are read when they are used and forgotten then,
so that a model needs the memory of one of its blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tape.configs import ProteinBertConfig
from tape.models.lazy_tensors import LazyTensor
from tape.models.modeling_bert import ProteinBertForMaskedLM, ProteinBertLayer, ProteinBertModel
from tape.tokenizers import TAPETokenizer

FINAL = "final layer norm"
POOLED = "pooled"
LOGITS = "logits"


class ReferenceForward(Protocol):
    """Proteins go in as letters; ``<cls>`` and ``<sep>`` (or the source's names of them) are put around them.

    Attributes:
        description: what computes, for the certificate.
    """

    description: str

    def states(self, proteins: Sequence[str]) -> list[dict[str, Tensor]]:
        """For each protein its stages: ``layer 0 keys``, ``layer 0``, ... ``final layer norm``, each (L + 2, H), and,
        with a head, ``logits`` (L + 2, 30) in the order of the TAPE vocabulary.

        Keys are compared because a key's bias cancels in the softmax: no later stage shows it.
        """

    def embeddings(self, protein: str) -> Tensor:
        """Sum of the embeddings, (L + 2, H)."""


def layer_stages(number: int) -> tuple[str, str]:
    """Names of a block's two stages."""
    return f"layer {number} keys", f"layer {number}"


def rounded(lazy: LazyTensor, rounded_to: torch.dtype | None) -> Tensor:
    """A weight in double precision, rounded to a narrower type first if one is given."""
    tensor = lazy.load()
    return (tensor if rounded_to is None else tensor.to(rounded_to)).double()


def stream_weights(
    module: nn.Module, prefix: str, weights: Mapping[str, LazyTensor], rounded_to: torch.dtype | None
) -> None:
    """Give a module on the ``meta`` device its weights while it runs, and take them away afterwards.

    Args:
        prefix: of the module's parameters among ``weights``.
    """
    names = list(module.state_dict())

    def arrive(module: nn.Module, inputs: Any) -> None:
        state = {name: rounded(weights[prefix + name], rounded_to) for name in names}
        module.load_state_dict(state, assign=True)

    def leave(module: nn.Module, inputs: Any, output: Any) -> None:
        module.to("meta")

    module.register_forward_pre_hook(arrive)
    module.register_forward_hook(leave)


class StageRecorder:
    """Notes the outputs of modules as they run."""

    def __init__(self) -> None:
        self.stages: dict[str, Tensor] = {}

    def watch(self, module: nn.Module, name: str) -> None:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self.stages[name] = output[0] if isinstance(output, tuple) else output

        module.register_forward_hook(keep)


def pad_batch(ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Ids and mask, (B, S) each."""
    batch = nn.utils.rnn.pad_sequence(list(ids), batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return batch, mask


def cut_padding(stages: Mapping[str, Tensor], ids: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """Stages of each protein."""
    return [{name: state[row, : len(ids[row])] for name, state in stages.items()} for row in range(len(ids))]


class ModelForward:
    """Runs our model on padded batches, so that the mask takes part in what is compared.

    Args:
        weights: by the names of ProteinBertForMaskedLM, the head's may be missing.
        rounded_to: see :func:`rounded`.
    """

    description = "tape.models.modeling_bert"

    def __init__(
        self, config: ProteinBertConfig, weights: Mapping[str, LazyTensor], rounded_to: torch.dtype | None = None
    ) -> None:
        self._has_head = any(name.startswith("mlm.") for name in weights)
        self._recorder = StageRecorder()
        with torch.device("meta"):
            model = ProteinBertForMaskedLM(config).eval().double()
        self._bert, self._head = model.bert, model.mlm
        self._stream(model, weights, rounded_to)
        self._watch(model.bert)

    def _stream(
        self, model: ProteinBertForMaskedLM, weights: Mapping[str, LazyTensor], rounded_to: torch.dtype | None
    ) -> None:
        units: dict[str, nn.Module] = {"bert.embeddings.": model.bert.embeddings, "mlm.": model.mlm}
        if model.bert.config.layer_norm_position == "pre":
            units["bert.encoder.final_ln."] = model.bert.encoder.final_ln
        else:
            units["bert.pooler."] = model.bert.pooler
        for number, layer in enumerate(model.bert.encoder.layer):
            units[f"bert.encoder.layer.{number}."] = layer
        for prefix, unit in units.items():
            stream_weights(unit, prefix, weights, rounded_to)

    def _watch(self, bert: ProteinBertModel) -> None:
        for number, layer in enumerate(bert.encoder.layer):
            assert isinstance(layer, ProteinBertLayer)
            keys, state = layer_stages(number)
            self._recorder.watch(layer.attention.self.key, keys)
            self._recorder.watch(layer, state)

    @torch.no_grad()
    def states(self, proteins: Sequence[str]) -> list[dict[str, Tensor]]:
        ids = [self._ids(protein) for protein in proteins]
        self._recorder.stages = {}
        output, pooled = self._bert(*pad_batch(ids))[:2]
        stages = self._recorder.stages | {FINAL: output}
        if self._has_head:
            stages[LOGITS] = self._head(output)[0]
        found = cut_padding(stages, ids)
        if self._bert.config.layer_norm_position == "post":  # otherwise it is a row of the final states
            for row, states in enumerate(found):
                states[POOLED] = pooled[row : row + 1]
        return found

    @torch.no_grad()
    def embeddings(self, protein: str) -> Tensor:
        embedded: Tensor = self._bert.embeddings(self._ids(protein).unsqueeze(0), None, None)
        return embedded[0]

    @staticmethod
    def _ids(protein: str) -> Tensor:
        return torch.from_numpy(TAPETokenizer().encode(protein))
