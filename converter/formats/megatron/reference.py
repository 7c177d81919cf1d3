"""The reference forward pass of a Megatron-LM checkpoint, computed from its own shards, rank by rank.

It follows Shoeybi et al. 2019, section 3, and is independent of the rule tables: no tensors are merged or reordered,
and those of Megatron Core are found by their own names. Every tensor-parallel rank looks up its embedding rows,
computes its attention heads and adds its partial sums. There is no dropout.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from converter.verify.reference_forward import FINAL, LOGITS, LOSS, layer_activations, rounded
from converter.verify.reference_layers import apply_activation, layer_norm, packed_attention
from tape.models.lazy_tensors import LazyTensor
from tape.tokenizers import IUPAC_VOCAB

from .key_names import Form
from .layout import MegatronCheckpoint
from .rank_file import RankFile, stage_layers


@dataclass(frozen=True)
class MegatronForwardSettings:
    """Settings that the tensors don't determine.

    Args:
        heads: attention heads of the complete model.
        version: checkpoint version, which determines the row order of the fused query/key/value matrix.
        epsilon: epsilon of the layer norms.
        activation: activation of the blocks, ``gelu_tanh`` with Megatron-LM's bias-GELU fusion.
        head_activation: activation of the LM head.
        vocabulary: tokens of the embedding rows.
    """

    heads: int
    version: float
    epsilon: float
    activation: str
    head_activation: str
    vocabulary: tuple[str, ...]


class MegatronForward:
    """The forward pass; see the module's docstring.

    Args:
        checkpoint: all ranks.
        settings: what the tensors don't determine.
        rounded_to: data type to which weights are rounded before use; None uses them unchanged.
    """

    description = "Megatron-LM's forward pass on its own shards, rank by rank (converter.formats.megatron.reference)"

    def __init__(
        self, checkpoint: MegatronCheckpoint, settings: MegatronForwardSettings, rounded_to: torch.dtype | None
    ) -> None:
        self._stages = checkpoint.stages
        self._settings = settings
        self._rounded_to = rounded_to
        self._row_of = {_plain(token): row for row, token in enumerate(settings.vocabulary)}

    @torch.no_grad()
    def states(self, proteins: Sequence[str]) -> list[dict[str, Tensor]]:
        """All proteins are packed into one row, each attending to itself, so that every weight is loaded once."""
        hidden = torch.cat([self.embeddings(protein) for protein in proteins])
        lengths = [len(protein) + 2 for protein in proteins]
        states = self._states(hidden, lengths)
        last = self._stages[-1]
        if "lm_head.dense.weight" in last[0].tensors:
            shares = self._scores(last, states[FINAL])
            states[LOGITS] = torch.cat(shares, dim=1)[:, [self._row_of[_plain(token)] for token in IUPAC_VOCAB]]
            states[LOSS] = _parallel_cross_entropy(shares, torch.cat([self._rows(protein) for protein in proteins]))
        split = {name: state.split(lengths) for name, state in states.items()}
        return [{name: parts[number] for name, parts in split.items()} for number in range(len(proteins))]

    @torch.no_grad()
    def embeddings(self, protein: str) -> Tensor:
        first = self._stages[0]
        ids = self._rows(protein)
        embedded = sum((self._lookup(first, rank, ids) for rank in range(len(first))), start=torch.zeros(()))
        embedded = embedded + self._get(first[0], "language_model.embedding.position_embeddings.weight")[: len(ids)]
        types = "language_model.embedding.tokentype_embeddings.weight"
        return embedded + self._get(first[0], types)[0] if types in first[0].tensors else embedded

    def _states(self, hidden: Tensor, lengths: list[int]) -> dict[str, Tensor]:
        states: dict[str, Tensor] = {}
        for stage in self._stages:
            for layer in range(stage_layers(stage[0])):
                keys, hidden = self._block(stage, f"language_model.transformer.layers.{layer}.", hidden, lengths)
                states |= zip(layer_activations(len(states) // 2), (keys, hidden), strict=True)
        last = self._stages[-1]
        states[FINAL] = self._norm(last[0], "language_model.transformer.final_layernorm", hidden)
        return states

    def _rows(self, protein: str) -> Tensor:
        """Embedding rows of a protein's tokens, (L + 2,)."""
        return torch.tensor([self._row_of[token] for token in ("CLS", *protein, "SEP")])

    def _lookup(self, stage: Sequence[RankFile], rank: int, ids: Tensor) -> Tensor:
        """A rank's term of the word embeddings: its own rows, and zeros for the tokens of other ranks."""
        table = self._get(stage[rank], "language_model.embedding.word_embeddings.weight")
        name = "language_model.embedding.word_embeddings.weight"
        before = sum(other.tensors[name].shape[0] for other in stage[:rank])
        here = (ids >= before) & (ids < before + len(table))
        return table[torch.where(here, ids - before, 0)] * here[:, None]

    def _block(self, stage: Sequence[RankFile], name: str, hidden: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
        """The keys of all heads and the output of a block, both (T, H)."""
        heads = self._settings.heads // len(stage)
        keys, attended = zip(*(self._attention(rank, name, hidden, heads, lengths) for rank in stage), strict=True)
        hidden = hidden + sum(attended) + self._get(stage[0], name + "attention.dense.bias")
        partial = [self._feed_forward(rank, name, hidden) for rank in stage]
        return torch.cat(keys, dim=1), hidden + sum(partial) + self._get(stage[0], name + "mlp.dense_4h_to_h.bias")

    def _attention(
        self, rank: RankFile, name: str, hidden: Tensor, heads: int, lengths: list[int]
    ) -> tuple[Tensor, Tensor]:
        """The keys of a rank's heads (T, H / ranks), and its partial sum of the attention output (T, H)."""
        normed = self._norm(rank, name + "input_layernorm", hidden)
        fused = self._linear(rank, name + "attention.query_key_value", normed)
        query, key, value = (fused[:, self._place(part, heads, fused.shape[1])] for part in range(3))
        context = packed_attention(query, key, value, heads, lengths)
        return key, context @ self._get(rank, name + "attention.dense.weight").T

    def _place(self, part: int, heads: int, rows: int) -> Tensor:
        """Rows of the fused matrix with the query (part 0), key (1) or value (2), head by head."""
        size = rows // (3 * heads)
        head, within = torch.arange(heads)[:, None], torch.arange(size)
        if self._settings.version == 0:
            return ((part * heads + head) * size + within).flatten()
        if self._settings.version == 1:
            return ((head * size + within) * 3 + part).flatten()
        return ((head * 3 + part) * size + within).flatten()

    def _feed_forward(self, rank: RankFile, name: str, hidden: Tensor) -> Tensor:
        normed = self._norm(rank, name + "post_attention_layernorm", hidden)
        wide = apply_activation(self._linear(rank, name + "mlp.dense_h_to_4h", normed), self._settings.activation)
        return wide @ self._get(rank, name + "mlp.dense_4h_to_h.weight").T

    def _scores(self, stage: Sequence[RankFile], hidden: Tensor) -> list[Tensor]:
        """The logits that every rank computes, of its vocabulary rows, (T, rows / ranks) each."""
        tied = "word_embeddings_for_head.weight" if len(self._stages) > 1 else None
        shares = []
        for rank in stage:
            features = apply_activation(self._linear(rank, "lm_head.dense", hidden), self._settings.head_activation)
            features = self._norm(rank, "lm_head.layernorm", features)
            table = self._get(rank, tied or "language_model.embedding.word_embeddings.weight")
            shares.append(features @ table.T + self._get(rank, "lm_head.bias"))
        return shares

    def _linear(self, rank: RankFile, name: str, inputs: Tensor) -> Tensor:
        return inputs @ self._get(rank, name + ".weight").T + self._get(rank, name + ".bias")

    def _norm(self, rank: RankFile, name: str, inputs: Tensor) -> Tensor:
        weight, bias = self._get(rank, name + ".weight"), self._get(rank, name + ".bias")
        return layer_norm(inputs, weight, bias, self._settings.epsilon)

    def _get(self, rank: RankFile, name: str) -> Tensor:
        return rounded(_own_tensor(rank, name), self._rounded_to)


# Names in this module -> names in Megatron Core's BertModel, with its local layers and with Transformer Engine's. The
# rules' translation of names is not used, so that the certificate would notice an error in it.
_CORE_NAMES = (
    (r"language_model\.embedding\.(.*)", (r"embedding.\1",)),
    (r"language_model\.transformer\.final_layernorm\.(.*)", (r"encoder.final_layernorm.\1",)),
    (
        r"language_model\.transformer\.(layers\.\d+\.)input_layernorm\.(.*)",
        (r"encoder.\1input_layernorm.\2", r"encoder.\1self_attention.linear_qkv.layer_norm_\2"),
    ),
    (
        r"language_model\.transformer\.(layers\.\d+\.)post_attention_layernorm\.(.*)",
        (r"encoder.\1pre_mlp_layernorm.\2", r"encoder.\1mlp.linear_fc1.layer_norm_\2"),
    ),
    (
        r"language_model\.transformer\.(layers\.\d+\.)attention\.query_key_value\.(.*)",
        (r"encoder.\1self_attention.linear_qkv.\2",),
    ),
    (
        r"language_model\.transformer\.(layers\.\d+\.)attention\.dense\.(.*)",
        (r"encoder.\1self_attention.linear_proj.\2",),
    ),
    (r"language_model\.transformer\.(layers\.\d+\.)mlp\.dense_h_to_4h\.(.*)", (r"encoder.\1mlp.linear_fc1.\2",)),
    (r"language_model\.transformer\.(layers\.\d+\.)mlp\.dense_4h_to_h\.(.*)", (r"encoder.\1mlp.linear_fc2.\2",)),
    (r"lm_head\.layernorm\.(.*)", (r"lm_head.layer_norm.\1",)),
    (r"lm_head\.bias", ("output_layer.bias",)),
    (r"word_embeddings_for_head\.weight", ("output_layer.weight",)),
    (r"lm_head\.dense\.(.*)", (r"lm_head.dense.\1",)),
)


def _own_tensor(rank: RankFile, name: str) -> LazyTensor:
    """A tensor by its name in this module."""
    if rank.form is not Form.CORE:
        return rank.tensors[name]
    pattern, names = next((pattern, names) for pattern, names in _CORE_NAMES if re.fullmatch(pattern, name))
    stored = {own: rank.tensors[canonical] for canonical, own in rank.own_names.items()}
    return next(stored[own] for own in (re.sub(pattern, core, name) for core in names) if own in stored)


def _parallel_cross_entropy(shares: Sequence[Tensor], targets: Tensor) -> Tensor:
    """Megatron-LM's vocabulary-parallel cross entropy, (T, 1), in which every row takes part, padding included.

    Maximum, sum of exponentials and target logit are reduced over the ranks.
    """
    largest = torch.stack([share.amax(dim=1) for share in shares]).amax(dim=0)
    total = sum((torch.exp(share - largest[:, None]).sum(dim=1) for share in shares), start=torch.zeros(()))
    target, first = torch.zeros_like(largest), 0
    for share in shares:
        here = (targets >= first) & (targets < first + share.shape[1])
        target = target + share[torch.arange(len(targets)), torch.where(here, targets - first, 0)] * here
        first += share.shape[1]
    return (torch.log(total) + largest - target)[:, None]


def _plain(token: str) -> str:
    """A token without brackets, in which Megatron-LM's and TAPE's vocabularies differ."""
    return token.strip("[]<>").upper() if len(token) > 1 else token
