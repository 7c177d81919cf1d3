"""Reference forward passes: the activations of proteins, layer by layer, for the parity certificate.

All of them compute in float64, to which weights convert without loss. A difference between two of them is therefore due
to the weights or the architecture and not to the order of summation. Weights are loaded when they are used and dropped
afterwards, so that a model needs the memory of one block.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tape.configs import ProteinBertConfig
from tape.models.lazy_tensors import LazyTensor
from tape.models.meta_device import on_meta_device
from tape.models.modeling_bert import ProteinBertForMaskedLM, ProteinBertLayer, ProteinBertModel
from tape.tokenizers import TAPETokenizer

FINAL = "final layer norm"
POOLED = "pooled"
LOGITS = "logits"
LOSS = "loss over all rows"


class ReferenceForward(Protocol):
    """A forward pass over protein sequences; it adds ``<cls>`` and ``<sep>``, or their equivalents, by itself.

    Attributes:
        description: names the implementation in the certificate.
    """

    description: str

    def states(self, proteins: Sequence[str]) -> list[dict[str, Tensor]]:
        """The activations of each protein by name: ``layer 0 keys``, ``layer 0``, ... ``final layer norm``, each (L +
        2, H), and, with a head, ``logits`` (L + 2, 30) in the order of the TAPE vocabulary.

        With a head there is also ``loss over all rows`` (L + 2, 1): the cross entropy of each token, in nats, if all
        rows of the checkpoint's output layer take part in the softmax, those without a token (padding) included.

        Keys are included because the bias of a key cancels in the softmax, so that no later activation depends on it.
        """

    def embeddings(self, protein: str) -> Tensor:
        """The sum of the embeddings of a protein, (L + 2, H)."""


def cross_entropy(scores: Tensor, targets: Tensor) -> Tensor:
    """The loss of each target in nats, (..., 1), from scores (..., rows) and targets (...)."""
    return torch.logsumexp(scores, dim=-1, keepdim=True) - scores.gather(-1, targets.unsqueeze(-1))


def layer_activations(number: int) -> tuple[str, str]:
    """Names of the two activations of a block."""
    return f"layer {number} keys", f"layer {number}"


def rounded(lazy: LazyTensor, rounded_to: torch.dtype | None) -> Tensor:
    """A weight in float64, rounded to a narrower data type first if one is given."""
    tensor = lazy.load()
    return (tensor if rounded_to is None else tensor.to(rounded_to)).double()


def stream_weights(
    module: nn.Module, prefix: str, weights: Mapping[str, LazyTensor], rounded_to: torch.dtype | None
) -> None:
    """Load the weights of a module on the ``meta`` device before its forward pass, and drop them afterwards.

    Args:
        module: any module.
        prefix: prefix of the module's parameters in ``weights``.
        weights: lazy tensors by name.
        rounded_to: data type to which weights are rounded; None leaves them unchanged.
    """
    names = list(module.state_dict())

    def load(module: nn.Module, inputs: Any) -> None:
        state = {name: rounded(weights[prefix + name], rounded_to) for name in names}
        module.load_state_dict(state, assign=True)

    def drop(module: nn.Module, inputs: Any, output: Any) -> None:
        module.to("meta")

    module.register_forward_pre_hook(load)
    module.register_forward_hook(drop)


class ActivationRecorder:
    """Records the outputs of modules during a forward pass."""

    def __init__(self) -> None:
        self.stages: dict[str, Tensor] = {}

    def watch(self, module: nn.Module, name: str) -> None:
        def keep(module: nn.Module, inputs: Any, output: Any) -> None:
            self.stages[name] = output[0] if isinstance(output, tuple) else output

        module.register_forward_hook(keep)


def pad_batch(ids: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Padded token ids and mask, (B, S) each."""
    batch = nn.utils.rnn.pad_sequence(list(ids), batch_first=True)
    mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
    return batch, mask


def cut_padding(stages: Mapping[str, Tensor], ids: Sequence[Tensor]) -> list[dict[str, Tensor]]:
    """The activations of each protein without padding.

    Args:
        stages: activations by name, (B, S, H), or (1, T, H) where the model has removed the padding itself.
        ids: the token ids of each protein, T in total.
    """
    lengths = [len(row) for row in ids]

    def proteins(state: Tensor) -> Sequence[Tensor]:
        if state.shape[:2] == (1, sum(lengths)):
            return state[0].split(lengths)
        return [state[row, :length] for row, length in enumerate(lengths)]

    split = {name: proteins(state) for name, state in stages.items()}
    return [{name: parts[row] for name, parts in split.items()} for row in range(len(ids))]


class ModelForward:
    """This project's own model on padded batches, so that the comparison includes masking.

    Args:
        config: the model's configuration.
        weights: tensors by the names of ProteinBertForMaskedLM; those of the head are optional.
        rounded_to: see :func:`rounded`.
    """

    description = "tape.models.modeling_bert"

    def __init__(
        self, config: ProteinBertConfig, weights: Mapping[str, LazyTensor], rounded_to: torch.dtype | None = None
    ) -> None:
        self._has_head = any(name.startswith("mlm.") for name in weights)
        self._recorder = ActivationRecorder()
        with on_meta_device():
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
            keys, state = layer_activations(number)
            self._recorder.watch(layer.attention.self.key, keys)
            self._recorder.watch(layer, state)

    @torch.no_grad()
    def states(self, proteins: Sequence[str]) -> list[dict[str, Tensor]]:
        ids = [self._ids(protein) for protein in proteins]
        self._recorder.stages = {}
        batch, mask = pad_batch(ids)
        output, pooled = self._bert(batch, mask)[:2]
        stages = self._recorder.stages | {FINAL: output}
        if self._has_head:
            stages[LOGITS] = self._head(output)[0]
            stages[LOSS] = cross_entropy(stages[LOGITS], batch)
        found = cut_padding(stages, ids)
        if self._bert.config.layer_norm_position == "post":  # in a pre-layer-norm model it is a row of the final states
            for row, states in enumerate(found):
                states[POOLED] = pooled[row : row + 1]
        return found

    @torch.no_grad()
    def embeddings(self, protein: str) -> Tensor:
        embedded: Tensor = self._bert.embeddings(self._ids(protein).unsqueeze(0))
        return embedded[0]

    @staticmethod
    def _ids(protein: str) -> Tensor:
        return torch.from_numpy(TAPETokenizer().encode(protein))
