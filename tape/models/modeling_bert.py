"""ProteinBert: a transformer encoder over residues, and its task models.

A block consists of attention and MLP, each with a residual connection (Shoeybi et al. 2019, section 3 and appendix)::

    x = x + dropout(attention(input_ln(x)))        attention = self attention + dense
    x = x + dropout(mlp(post_attn_ln(x)))          mlp: H -> 4H -> H

and a final layer norm follows the last block. With ``layer_norm_position="post"`` it is BERT's original arrangement
(Devlin et al. 2018), that of tape-proteins 0.5::

    x = post_attn_ln(x + dropout(attention(x)))
    x = output_ln(x + dropout(mlp(x)))

with a layer norm after the embeddings, none at the end, and a tanh pooler.

Pretraining and finetuning use the same definition, without process groups. Tensor parallelism is applied from outside;
attention infers its number of heads from the width of its projections.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tape.compatibility.names import names_of
from tape.configs import ProteinBertConfig
from tape.errors import ConfigError

from . import task_models
from .activation_checkpointing import checkpointed
from .activations import activation
from .attention import AttentionCore, PackedLayout
from .dropout import Dropout
from .input_checks import check_inputs
from .kernel_shapes import needs_few_shapes
from .modeling_utils import MLMHead, ProteinModel, normal_initialization, tie
from .neighbor_attention import neighbor_start
from .unpadding import Unpadding, is_unpadded

__getattr__ = names_of(__name__)  # of tape-proteins 0.5

# Names of the parts of a block in tape-proteins 0.5 -> our names.
_POST_NAMES = (
    (".attention.output.dense.", ".attention.dense."),
    (".attention.output.LayerNorm.", ".post_attn_ln."),
    (".intermediate.dense.", ".mlp.dense_h_4h."),
    (".output.dense.", ".mlp.dense_4h_h."),
    (".output.LayerNorm.", ".output_ln."),
)
# layer_norm_position -> parts of names that only models with the other one have
_ONLY_WITH_OTHER_POSITION = {"pre": (".attention.output.dense.", ".output_ln."), "post": (".input_ln.",)}


class ProteinBertEmbeddings(nn.Module):
    """Sum of word, position and token-type embeddings, a layer norm in the post arrangement, and dropout."""

    def __init__(self, config: ProteinBertConfig) -> None:
        super().__init__()
        self.word_embeddings = nn.Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.token_type_embeddings = nn.Embedding(config.type_vocab_size, config.hidden_size)
        if config.layer_norm_position == "post":
            self.LayerNorm: nn.Module = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        else:
            self.LayerNorm = nn.Identity()
        self.dropout = Dropout(config.hidden_dropout_prob)
        self.max_positions = config.max_position_embeddings

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        packing: PackedLayout | None = None,
    ) -> Tensor:
        """(B, S) ids, with types (default 0) and positions (default from 0) of that shape -> (B, S, H)."""
        longest = input_ids.shape[1] if packing is None else max(packing.lengths)
        if longest > self.max_positions:
            raise ConfigError(
                f"a protein of {longest} tokens (with <cls> and <sep>) exceeds the model's"
                f" {self.max_positions} positions"
            )
        if position_ids is None:
            position_ids = (
                torch.arange(longest, device=input_ids.device) if packing is None else packing.positions
            ).unsqueeze(0)
        if token_type_ids is None:
            types = self.token_type_embeddings.weight[0]  # of all tokens: one row is added by broadcasting
        else:
            types = self.token_type_embeddings(token_type_ids)
        embedded = self.word_embeddings(input_ids) + self.position_embeddings(position_ids) + types
        return self.dropout(self.LayerNorm(embedded))


class ProteinBertSelfAttention(nn.Module):
    """Query, key and value projections, and the attention core."""

    def __init__(self, config: ProteinBertConfig) -> None:
        super().__init__()
        self.head_size = config.hidden_size // config.num_attention_heads
        self.query = nn.Linear(config.hidden_size, config.hidden_size)
        self.key = nn.Linear(config.hidden_size, config.hidden_size)
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.core = AttentionCore(config.attention_probs_dropout_prob)

    def forward(
        self, hidden: Tensor, key_mask: Tensor | None, packing: PackedLayout | None, maps: list[Tensor] | None
    ) -> Tensor:
        # -1, since a tensor-parallel rank has only some of the heads
        query, key, value = (
            projection(hidden).unflatten(-1, (-1, self.head_size)) for projection in (self.query, self.key, self.value)
        )
        if maps is None:
            return self.core(query, key, value, key_mask, packing).flatten(-2)
        context, probabilities = self.core.with_probabilities(query, key, value, key_mask)
        maps.append(probabilities)
        return context.flatten(-2)


class ProteinBertAttention(nn.Module):
    """Self-attention and the output projection to the residual stream."""

    def __init__(self, config: ProteinBertConfig) -> None:
        super().__init__()
        self.self = ProteinBertSelfAttention(config)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self._heads = list(range(config.num_attention_heads))

    def forward(
        self, hidden: Tensor, key_mask: Tensor | None, packing: PackedLayout | None, maps: list[Tensor] | None
    ) -> Tensor:
        return self.dense(self.self(hidden, key_mask, packing, maps))

    def prune(self, heads: Container[int]) -> None:
        """Remove heads, numbered as before any pruning; heads that have been removed before are skipped."""
        kept = [place for place, head in enumerate(self._heads) if head not in heads]
        if len(kept) == len(self._heads):
            return
        self._heads = [self._heads[place] for place in kept]
        size = self.self.head_size
        rows = (torch.tensor(kept)[:, None] * size + torch.arange(size)).flatten()
        for projection in (self.self.query, self.self.key, self.self.value):
            _keep(projection, rows, 0)
        _keep(self.dense, rows, 1)


def _keep(linear: nn.Linear, index: Tensor, dimension: int) -> None:
    """Keep only the outputs (dimension 0, with their biases) or inputs (dimension 1) ``index`` of a linear map."""
    for name, parameter in list(linear.named_parameters()):
        if dimension < parameter.dim():
            kept = parameter.detach().index_select(dimension, index.to(parameter.device))
            setattr(linear, name, nn.Parameter(kept, parameter.requires_grad))
    linear.out_features, linear.in_features = linear.weight.shape


class ProteinBertFFN(nn.Module):
    """Feed-forward network H -> 4H -> H."""

    def __init__(self, config: ProteinBertConfig) -> None:
        super().__init__()
        self.dense_h_4h = nn.Linear(config.hidden_size, config.intermediate_size)
        self.activation = activation(config.hidden_act)
        self.dense_4h_h = nn.Linear(config.intermediate_size, config.hidden_size)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.dense_4h_h(self.activation(self.dense_h_4h(hidden)))


class ProteinBertLayer(nn.Module):
    """One transformer block; see the module's docstring."""

    def __init__(self, config: ProteinBertConfig) -> None:
        super().__init__()
        self.is_post = config.layer_norm_position == "post"
        if not self.is_post:
            self.input_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.attention = ProteinBertAttention(config)
        self.post_attn_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = ProteinBertFFN(config)
        if self.is_post:
            self.output_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.dropout = Dropout(config.hidden_dropout_prob)

    def forward(
        self,
        hidden: Tensor,
        key_mask: Tensor | None,
        packing: PackedLayout | None = None,
        maps: list[Tensor] | None = None,
    ) -> Tensor:
        if self.is_post:
            hidden = self.post_attn_ln(self.dropout.add(hidden, self.attention(hidden, key_mask, packing, maps)))
            return self.output_ln(self.dropout.add(hidden, self.mlp(hidden)))
        hidden = self.dropout.add(hidden, self.attention(self.input_ln(hidden), key_mask, packing, maps))
        return self.dropout.add(hidden, self.mlp(self.post_attn_ln(hidden)))


class ProteinBertEncoder(nn.Module):
    """All blocks and the final layer norm. ``checkpoint_activations`` turns on activation checkpointing per block."""

    def __init__(self, config: ProteinBertConfig) -> None:
        super().__init__()
        self.config = config
        self.layer = nn.ModuleList(ProteinBertLayer(config) for _ in range(config.num_hidden_layers))
        self.apply_final_ln = config.apply_final_ln and config.layer_norm_position == "pre"
        if config.layer_norm_position == "pre":
            self.final_ln = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.checkpoint_activations = False
        self.prune(config.pruned_heads)

    def prune(self, heads: Mapping[int, Container[int]]) -> None:
        """Remove the attention heads given as layer -> heads."""
        for number, layer in enumerate(self.layer):
            if number in heads:
                assert isinstance(layer, ProteinBertLayer)
                layer.attention.prune(heads[number])

    def forward(
        self,
        hidden_states: Tensor,
        attention_mask: Tensor | None = None,
        chunks: int | None = None,
        packing: PackedLayout | None = None,
    ) -> tuple[Any, ...]:
        """Run all blocks.

        Args:
            hidden_states: (B, S, H) embeddings; (1, T, H) with ``packing``.
            attention_mask: (B, S), nonzero at real tokens; or (B, 1, 1, S) as in TAPE, -10000 at padding and 0
                elsewhere; None means no padding.
            chunks: unused, part of TAPE's signature.
            packing: layout of several proteins in one row; can't be combined with a mask.

        Returns:
            (states[, all states][, all attention maps]): the output; if the configuration has
            ``output_hidden_states``, the input of each block and the output; if it has ``output_attentions``, the
            attention maps (B, heads, S, S) of each block.

        Raises:
            ConfigError: the mask is none of these, or attention maps of a packed row are wanted.
        """
        key_mask = _key_mask(attention_mask)
        states: list[Tensor] = []
        maps: list[Tensor] | None = [] if self.config.output_attentions else None
        if maps is not None and packing is not None:
            raise ConfigError("a packed row has no attention maps (output_attentions); give the proteins as a batch")
        hidden = hidden_states
        for layer in self.layer:
            if self.config.output_hidden_states:
                states.append(hidden)
            if self.checkpoint_activations and torch.is_grad_enabled():
                hidden = checkpointed(layer, hidden, key_mask, packing, maps)
            else:
                hidden = layer(hidden, key_mask, packing, maps)
        output = self.final_ln(hidden) if self.apply_final_ln else hidden
        outputs: tuple[Any, ...] = (output,)
        if self.config.output_hidden_states:
            outputs += ((*states, output),)
        return outputs if maps is None else (*outputs, tuple(maps))


def _key_mask(mask: Tensor | None) -> Tensor | None:
    """(B, S) bool, True at real tokens, of either form of attention mask.

    It is boolean, since an additive -10000 is not exact in half precision (bug 3 in docs/compatibility.md).
    """
    if mask is None or mask.dtype == torch.bool:
        return mask
    if mask.dim() == 2:
        return mask != 0
    if mask.dim() == 4 and mask.shape[1:3] == (1, 1) and bool(((mask == 0) | (mask < -1000)).all()):
        return mask[:, 0, 0] == 0
    raise ConfigError(
        f"an attention mask {tuple(mask.shape)} is not supported: give (B, S) with 1 at real tokens, or (B, 1, 1, S)"
        " with -10000 at padding and 0 elsewhere"
    )


class ProteinBertPooler(nn.Module):
    """State of ``<cls>``, and in the post arrangement tanh(dense(it)); (B, S, H) -> (B, H)."""

    def __init__(self, config: ProteinBertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size) if config.layer_norm_position == "post" else None

    def forward(self, hidden_states: Tensor) -> Tensor:
        first = hidden_states[:, 0]
        return first if self.dense is None else torch.tanh(self.dense(first))


class ProteinBertAbstractModel(ProteinModel):
    """Base class of all ProteinBert models: configuration class, names and initialization."""

    config_class = ProteinBertConfig
    config: ProteinBertConfig
    base_model_prefix = "bert"
    unused_parameters = ("bert_tail_dense.",)

    def _init_weights(self, module: nn.Module) -> None:
        """N(0, std); in the pre arrangement, output projections have N(0, std / sqrt(2 L)) as in Megatron-LM."""
        normal_initialization(module, self.config.initializer_range)
        if isinstance(module, ProteinBertLayer) and not module.is_post:
            std = self.config.initializer_range / (2 * self.config.num_hidden_layers) ** 0.5
            for projection in (module.attention.dense, module.mlp.dense_4h_h):
                nn.init.normal_(projection.weight, 0.0, std)
        # The encoder is initialized after its layers; only there are their numbers known.
        if self.config.initial_attention != "random" and isinstance(module, ProteinBertEmbeddings | ProteinBertEncoder):
            self._look_at_neighbors(module)

    @torch.no_grad()
    def _look_at_neighbors(self, module: nn.Module) -> None:
        for name, parameter in module.named_parameters():
            if parameter.is_meta:  # without values, which are loaded later
                continue
            heads, std = self.config.num_attention_heads, self.config.initializer_range
            parameter.copy_(neighbor_start(name, parameter, heads, std, self.config.initial_attention))

    def prune_heads(self, heads_to_prune: Mapping[int, Iterable[int]]) -> None:
        """Remove attention heads and their weights. The configuration records them, for building the model again.

        Args:
            heads_to_prune: layer -> heads, both numbered from 0 as before any pruning.

        Raises:
            ConfigError: there is no such head, or a layer would lose all heads. The model is unchanged then.
        """
        self.config.prune_heads(heads_to_prune)
        for module in self.modules():
            if isinstance(module, ProteinBertEncoder):
                module.prune(self.config.pruned_heads)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """As in the base class, but weights of the other arrangement are an error, even if some may be missing."""
        position = self.config.layer_norm_position
        names = [name for name in state_dict if name.startswith(prefix)]
        if any(part in name for part in _ONLY_WITH_OTHER_POSITION[position] for name in names):
            other = "pre" if position == "post" else "post"
            error = (
                f"the weights are those of a {other}-layer-norm model, but this one has"
                f" layer_norm_position={position!r}: build it with {other!r}, or use from_pretrained"
            )
            errors: list[str] = others[-1]
            errors += [] if error in errors else [error]
        super()._load_from_state_dict(state_dict, prefix, *others)

    def _our_name(self, name: str) -> str:
        name = super()._our_name(name)
        if self.config.layer_norm_position == "post":
            for theirs, ours in _POST_NAMES:
                if theirs in name:
                    return name.replace(theirs, ours)
        return name


class ProteinBertModel(ProteinBertAbstractModel):
    """The encoder: maps token ids to a state per token."""

    def __init__(self, config: ProteinBertConfig) -> None:
        super().__init__(config)
        self.embeddings = ProteinBertEmbeddings(config)
        self.encoder = ProteinBertEncoder(config)
        self.pooler = ProteinBertPooler(config)
        self.state_size = self.pooled_size = config.hidden_size
        self.init_weights()

    def forward(
        self,
        input_ids: Tensor,
        input_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        packing: PackedLayout | None = None,
    ) -> tuple[Any, ...]:
        """Encode proteins.

        Args:
            input_ids: (B, S) token ids, with ``<cls>`` first; (1, T) with ``packing``.
            input_mask: (B, S), nonzero at real tokens; None means no padding.
            position_ids: (B, S); by default from 0 at each ``<cls>``.
            packing: layout of several proteins in one row; can't be combined with ``input_mask``.

        Returns:
            (states (B, S, H), pooled (B, H)[, all states][, all attention maps]). ``pooled`` is the state of the first
            token, with ``packing`` that of each protein (N, H); in the post arrangement, it goes through the pooler.

        Raises:
            ConfigError: a protein is longer than the position table, both ``input_mask`` and ``packing`` are given, or
                see :func:`tape.models.input_checks.check_inputs`.
        """
        if packing is not None and input_mask is not None:
            raise ConfigError("a packed row has no padding: give packing or input_mask, not both")
        check_inputs(input_ids, input_mask, self.embeddings.word_embeddings.num_embeddings)
        key_mask = _key_mask(input_mask)
        if key_mask is not None and is_unpadded(key_mask):
            key_mask = None
        unpadding = None
        if key_mask is not None and position_ids is None and not self.config.output_attentions:
            unpadding = Unpadding.of(key_mask, needs_few_shapes(self.embeddings.word_embeddings.weight))
        if unpadding is not None:
            hidden = self.embeddings(unpadding.unpad(input_ids), packing=unpadding.layout)
            packed, *others = self.encoder(hidden, packing=unpadding.layout)
            output = unpadding.pad(packed)
            others = [(*map(unpadding.pad, states[:-1]), output) for states in others]
        else:
            hidden = self.embeddings(input_ids, position_ids=position_ids, packing=packing)
            output, *others = self.encoder(hidden, key_mask, packing=packing)
        first = output if packing is None else output[0, packing.cumulative[:-1].long()].unsqueeze(1)
        return (output, self.pooler(first), *others)


class ProteinBertForMaskedLM(ProteinBertAbstractModel):
    """Masked language model, whose decoder is tied to the word embeddings."""

    def __init__(self, config: ProteinBertConfig) -> None:
        super().__init__(config)
        self.bert = ProteinBertModel(config)
        hidden_act = config.mlm_hidden_act or config.hidden_act
        self.mlm = MLMHead(config.hidden_size, config.vocab_size, hidden_act, config.layer_norm_eps)
        self.init_weights()

    def tie_weights(self) -> None:
        tie(self.bert.embeddings.word_embeddings, self.mlm.decoder)

    def mlm_logits(self, hidden: Tensor) -> Tensor:
        """Logits (..., V) of states (..., H)."""
        return self.mlm.logits(hidden)

    def forward(
        self,
        input_ids: Tensor,
        input_mask: Tensor | None = None,
        targets: Tensor | None = None,
        position_ids: Tensor | None = None,
        packing: PackedLayout | None = None,
    ) -> tuple[Any, ...]:
        """Return ``(logits, ...)``, or ``((loss, metrics), logits, ...)``.

        The loss is the mean over targets from 0 on, and the metric ``perplexity`` its exponential.
        """
        outputs = self.bert(input_ids, input_mask, position_ids, packing)
        return self.mlm(outputs[0], targets) + outputs[2:]


class ProteinBertForValuePrediction(task_models.ForValuePrediction, ProteinBertAbstractModel):
    encoder_class = ProteinBertModel


class ProteinBertForSequenceClassification(task_models.ForSequenceClassification, ProteinBertAbstractModel):
    encoder_class = ProteinBertModel


class ProteinBertForSequenceToSequenceClassification(
    task_models.ForSequenceToSequenceClassification, ProteinBertAbstractModel
):
    encoder_class = ProteinBertModel


class ProteinBertForContactPrediction(task_models.ForContactPrediction, ProteinBertAbstractModel):
    encoder_class = ProteinBertModel

    def __init__(self, config: ProteinBertConfig) -> None:
        super().__init__(config)
        for module in self.modules():
            if isinstance(module, AttentionCore):
                module.recompute = config.contact_checkpoint
