"""The reference forward pass of a checkpoint from the tensors in its files, by their names there.

It follows the papers (pre-layer-norm: Shoeybi et al. 2019; post-layer-norm: Devlin et al. 2018) and uses neither the
rule tables nor the model's code. A tensor may be stored in shards, as in sharded checkpoints; they are not gathered.
Every shard multiplies its columns of the input and adds to its rows of the output.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tape.configs import ProteinBertConfig
from tape.models.lazy_tensors import LazyTensor
from tape.tokenizers import IUPAC_VOCAB

from .reference_forward import FINAL, LOGITS, LOSS, POOLED, cross_entropy, layer_activations, rounded
from .reference_layers import apply_activation, layer_norm, packed_attention


@dataclass(frozen=True)
class TensorShard:
    """A rectangular shard of a matrix, or a range of a vector, which starts at ``offsets`` in the complete tensor."""

    offsets: tuple[int, ...]
    values: LazyTensor


@dataclass(frozen=True)
class TensorNames:
    """The names of a format's tensors, without ``.weight`` and ``.bias``; empty if it lacks a tensor.

    Args:
        layer: prefix of a block, with ``{i}`` for its number.
        first_norm, second_norm: layer norms of a block, before attention and FFN or after their residual sums.
        head_bias: complete name of the head's bias.
    """

    layer: str
    attention_dense: str
    first_norm: str
    second_norm: str
    ffn_up: str
    ffn_down: str
    final_norm: str
    head_dense: str
    head_norm: str
    head_bias: str
    embedding_norm: str = ""
    pooler: str = ""


_HEAD = {
    "head_dense": "cls.predictions.transform.dense",
    "head_norm": "cls.predictions.transform.LayerNorm",
    "head_bias": "cls.predictions.bias",
}
_TAPE_HEAD = {"head_dense": "mlm.transform.dense", "head_norm": "mlm.transform.LayerNorm", "head_bias": "mlm.bias"}
PROTEINLM_NAMES = TensorNames(
    layer="bert.encoder.layer.{i}.",
    attention_dense="attention.dense",
    first_norm="input_ln",
    second_norm="post_attn_ln",
    ffn_up="mlp.dense_h_4h",
    ffn_down="mlp.dense_4h_h",
    final_norm="bert.encoder.final_ln",
    **_TAPE_HEAD,
)
HUGGINGFACE_NAMES = TensorNames(
    layer="bert.encoder.layer.{i}.",
    attention_dense="attention.output.dense",
    first_norm="attention.ln",
    second_norm="ln",
    ffn_up="intermediate.dense",
    ffn_down="output.dense",
    final_norm="bert.encoder.ln",
    **_HEAD,
)
_POST = {
    "layer": "bert.encoder.layer.{i}.",
    "attention_dense": "attention.output.dense",
    "first_norm": "attention.output.LayerNorm",
    "second_norm": "output.LayerNorm",
    "ffn_up": "intermediate.dense",
    "ffn_down": "output.dense",
    "final_norm": "",
    "embedding_norm": "bert.embeddings.LayerNorm",
    "pooler": "bert.pooler.dense",
}
PROTEINLM_POST_NAMES = replace(
    PROTEINLM_NAMES,
    first_norm="post_attn_ln",
    second_norm="output_ln",
    final_norm="",
    embedding_norm="bert.embeddings.LayerNorm",
    pooler="bert.pooler.dense",
)
TAPE_05_NAMES = TensorNames(**_POST, **_TAPE_HEAD)
POST_LN_NAMES = TensorNames(**_POST, **_HEAD)


@dataclass(frozen=True)
class ForwardSettings:
    """Settings that the tensors don't determine; ``token_rows`` is the embedding row of each TAPE token."""

    layers: int
    heads: int
    epsilon: float
    activation: str
    head_activation: str
    token_rows: tuple[int, ...]
    pre_layer_norm: bool = True
    final_norm: bool = True

    @classmethod
    def of(cls, config: ProteinBertConfig, token_rows: tuple[int, ...]) -> ForwardSettings:
        """The settings of a model configuration."""
        return cls(
            layers=config.num_hidden_layers,
            heads=config.num_attention_heads,
            epsilon=config.layer_norm_eps,
            activation=config.hidden_act,
            head_activation=config.mlm_hidden_act or config.hidden_act,
            token_rows=token_rows,
            pre_layer_norm=config.layer_norm_position == "pre",
            final_norm=config.apply_final_ln,
        )


def unsharded(weights: Mapping[str, LazyTensor]) -> dict[str, tuple[TensorShard, ...]]:
    """Complete tensors as single shards."""
    return {name: (TensorShard((0,) * len(tensor.shape), tensor),) for name, tensor in weights.items()}


class NamedForward:
    """The forward pass; see the module's docstring.

    Args:
        weights: shards of each tensor, by the format's names.
        names: the format's names of the tensors.
        settings: what the tensors don't determine.
        description: names the implementation in the certificate.
        rounded_to: data type to which weights are rounded before use; None uses them unchanged.
    """

    def __init__(
        self,
        weights: Mapping[str, Sequence[TensorShard]],
        names: TensorNames,
        settings: ForwardSettings,
        description: str,
        rounded_to: torch.dtype | None = None,
    ) -> None:
        self.description = description
        self._weights, self._names, self._settings = weights, names, settings
        self._rounded_to = rounded_to

    @torch.no_grad()
    def states(self, proteins: Sequence[str]) -> list[dict[str, Tensor]]:
        """All proteins are packed into one row, each attending to itself, so that every weight is loaded once."""
        lengths = [len(protein) + 2 for protein in proteins]
        stages = self._states(torch.cat([self.embeddings(protein) for protein in proteins]), lengths)
        if self._names.head_bias in self._weights:
            scores = self._scores(stages[FINAL])
            rows = torch.tensor([row for protein in proteins for row in self._rows_of(protein)])
            stages[LOGITS] = scores[:, list(self._settings.token_rows)]
            stages[LOSS] = cross_entropy(scores, rows)
        pooled = stages.pop(POOLED, None)
        split = {name: state.split(lengths) for name, state in stages.items()}
        if pooled is not None:
            split[POOLED] = pooled.split(1)
        return [{name: parts[number] for name, parts in split.items()} for number in range(len(proteins))]

    @torch.no_grad()
    def embeddings(self, protein: str) -> Tensor:
        ids = self._rows_of(protein)
        table = "bert.embeddings.{}_embeddings.weight"
        words = self._look_up(table.format("word"), ids)
        types = self._look_up(table.format("token_type"), [0] * len(ids))
        embedded = words + self._look_up(table.format("position"), list(range(len(ids)))) + types
        return self._norm(self._names.embedding_norm, embedded) if self._names.embedding_norm else embedded

    def _states(self, hidden: Tensor, lengths: list[int]) -> dict[str, Tensor]:
        stages: dict[str, Tensor] = {}
        for number in range(self._settings.layers):
            stages |= zip(layer_activations(number), self._block(number, hidden, lengths), strict=True)
            hidden = stages[layer_activations(number)[1]]
        if self._names.final_norm and self._settings.final_norm:
            hidden = self._norm(self._names.final_norm, hidden)
        stages[FINAL] = hidden
        if self._names.pooler and self._names.pooler + ".weight" in self._weights:
            first = hidden[[sum(lengths[:number]) for number in range(len(lengths))]]
            stages[POOLED] = torch.tanh(self._linear(self._names.pooler, first))
        return stages

    def _rows_of(self, protein: str) -> list[int]:
        """Embedding rows of a protein's tokens."""
        return [self._settings.token_rows[IUPAC_VOCAB[token]] for token in ("<cls>", *protein, "<sep>")]

    def _block(self, number: int, hidden: Tensor, lengths: list[int]) -> tuple[Tensor, Tensor]:
        """The keys of all heads and the output of a block, both (T, H)."""
        names, prefix = self._names, self._names.layer.replace("{i}", str(number))
        keys: list[Tensor] = []

        def attention(inputs: Tensor) -> Tensor:
            query, key, value = (
                self._linear(f"{prefix}attention.self.{part}", inputs) for part in ("query", "key", "value")
            )
            keys.append(key)
            context = packed_attention(query, key, value, self._settings.heads, lengths)
            return self._linear(prefix + names.attention_dense, context)

        def feed_forward(inputs: Tensor) -> Tensor:
            wide = apply_activation(self._linear(prefix + names.ffn_up, inputs), self._settings.activation)
            return self._linear(prefix + names.ffn_down, wide)

        hidden = self._residual(attention, prefix + names.first_norm, hidden)
        return keys[0], self._residual(feed_forward, prefix + names.second_norm, hidden)

    def _residual(self, part: Callable[[Tensor], Tensor], norm: str, hidden: Tensor) -> Tensor:
        if self._settings.pre_layer_norm:
            return hidden + part(self._norm(norm, hidden))
        return self._norm(norm, hidden + part(hidden))

    def _scores(self, hidden: Tensor) -> Tensor:
        """The logits of all rows of the output layer, (T, rows)."""
        features = apply_activation(self._linear(self._names.head_dense, hidden), self._settings.head_activation)
        features = self._norm(self._names.head_norm, features)
        words = "bert.embeddings.word_embeddings.weight"
        return self._multiply(words, features) + self._vector(self._names.head_bias)

    def _linear(self, name: str, inputs: Tensor) -> Tensor:
        return self._multiply(name + ".weight", inputs) + self._vector(name + ".bias")

    def _multiply(self, name: str, inputs: Tensor) -> Tensor:
        """``inputs @ weight.T``, computed shard by shard."""
        output = inputs.new_zeros(len(inputs), self._rows(name))
        for part in self._weights[name]:
            (row, column), (rows, columns) = part.offsets, part.values.shape
            output[:, row : row + rows] += inputs[:, column : column + columns] @ self._value(part).T
        return output

    def _vector(self, name: str) -> Tensor:
        vector = torch.zeros(self._rows(name), dtype=torch.float64)
        for part in self._weights[name]:
            vector[part.offsets[0] : part.offsets[0] + part.values.shape[0]] += self._value(part)
        return vector

    def _look_up(self, name: str, ids: Sequence[int]) -> Tensor:
        """Rows of an embedding table (len(ids), H), each taken from the shard that contains it."""
        wanted = torch.tensor(list(ids))
        width = max(part.offsets[1] + part.values.shape[1] for part in self._weights[name])
        found = torch.zeros(len(wanted), width, dtype=torch.float64)
        for part in self._weights[name]:
            (row, column), (rows, columns) = part.offsets, part.values.shape
            here = (wanted >= row) & (wanted < row + rows)
            found[here, column : column + columns] += self._value(part)[wanted[here] - row]
        return found

    def _rows(self, name: str) -> int:
        return max(part.offsets[0] + part.values.shape[0] for part in self._weights[name])

    def _norm(self, name: str, inputs: Tensor) -> Tensor:
        return layer_norm(inputs, self._vector(name + ".weight"), self._vector(name + ".bias"), self._settings.epsilon)

    def _value(self, part: TensorShard) -> Tensor:
        return rounded(part.values, self._rounded_to)
