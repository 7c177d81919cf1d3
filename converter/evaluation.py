"""Evaluators: things that compute the states of proteins, stage by stage, for the parity certificate.

All compute in double precision. Weights widen without loss, so a difference between two evaluators shows the weights
and the mathematics, not the order in which one of them adds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tape.models.modeling_bert import ProteinBertForMaskedLM, ProteinBertLayer, ProteinBertModel
from tape.tokenizers import TAPETokenizer

FINAL = "final layer norm"
LOGITS = "logits"


class Evaluator(Protocol):
    """Proteins go in as letters; ``<cls>`` and ``<sep>`` (or the source's names of them) are put around them."""

    def states(self, proteins: Sequence[str]) -> list[dict[str, Tensor]]:
        """For each protein its stages: ``layer 0 keys``, ``layer 0``, ... ``final layer norm``, each (L + 2, H), and,
        with a head, ``logits`` (L + 2, 30) in the order of the TAPE vocabulary.

        Keys are compared because a key's bias cancels in the softmax: no later stage shows it.
        """

    def embeddings(self, protein: str) -> Tensor:
        """Sum of the embeddings, (L + 2, H)."""


class ModelEvaluator:
    """Runs our model on padded batches, so that the mask takes part in what is compared.

    Args:
        model: with or without the LM head; used up (its blocks are widened while they run).
        token_rows: row of each TAPE token in the model's embedding.
    """

    def __init__(self, model: ProteinBertForMaskedLM | ProteinBertModel, token_rows: Sequence[int]) -> None:
        self._head = model.mlm if isinstance(model, ProteinBertForMaskedLM) else None
        self._bert = model.bert if isinstance(model, ProteinBertForMaskedLM) else model
        self._rows = torch.tensor(list(token_rows))
        self._stages: dict[str, Tensor] = {}
        model.eval()
        for part in (self._bert.embeddings, self._bert.encoder.final_ln, self._head):
            if part is not None:
                part.double()
        for number, layer in enumerate(self._bert.encoder.layer):
            assert isinstance(layer, ProteinBertLayer)
            layer.register_forward_pre_hook(_widen)
            layer.attention.self.key.register_forward_hook(self._keeper(f"layer {number} keys"))
            layer.register_forward_hook(self._keeper(f"layer {number}"))
            layer.register_forward_hook(_narrow)

    def _keeper(self, name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        def keep(module: nn.Module, inputs: Any, output: Tensor) -> None:
            self._stages[name] = output

        return keep

    @torch.no_grad()
    def states(self, proteins: Sequence[str]) -> list[dict[str, Tensor]]:
        ids = [self._ids(protein) for protein in proteins]
        batch = nn.utils.rnn.pad_sequence(ids, batch_first=True)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(row) for row in ids], batch_first=True)
        self._stages = {}
        output = self._bert(batch, mask)[0]
        self._stages[FINAL] = output
        if self._head is not None:
            self._stages[LOGITS] = self._head.logits(output)[..., self._rows]
        return [{name: state[row, : len(ids[row])] for name, state in self._stages.items()} for row in range(len(ids))]

    @torch.no_grad()
    def embeddings(self, protein: str) -> Tensor:
        embedded: Tensor = self._bert.embeddings(self._ids(protein).unsqueeze(0), None, None)
        return embedded[0]

    def _ids(self, protein: str) -> Tensor:
        return self._rows[torch.from_numpy(TAPETokenizer().encode(protein))]


def _widen(layer: nn.Module, inputs: Any) -> None:
    layer.double()


def _narrow(layer: nn.Module, inputs: Any, output: Tensor) -> None:
    layer.float()
