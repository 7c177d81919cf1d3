"""How packed rows compute attention: with FlashAttention's kernel, or in padded groups of proteins."""

from __future__ import annotations

import torch

from tape.configs import ProteinBertConfig
from tape.errors import ConfigError
from tape.models.flash_attention import unusable_reason

from .context import ParallelContext


def choose_attention_backend(
    requested: str, model: ProteinBertConfig, dtype: torch.dtype, context: ParallelContext
) -> tuple[str, str | None]:
    """The backend of packed attention, and a notice if the fast one can't be used; called by all ranks together.

    All ranks use the same one: it determines how far dropout advances the random states, which tensor-parallel ranks
    must keep equal.

    Args:
        requested: one of :data:`pretrain.choices.ATTENTION_BACKENDS`.
        model: the model; its head size and attention dropout determine which kernel is needed.
        dtype: data type of matrix products.
        context: the parallel layout.

    Returns:
        ``flash`` or ``padded``, and a line for the user.

    Raises:
        ConfigError: ``flash`` is requested and can't be used.
    """
    if requested == "padded":
        return requested, None
    head_size = model.hidden_size // model.num_attention_heads
    own = unusable_reason(context.device, dtype, head_size, model.attention_probs_dropout_prob)
    reason = next((reason for reason in context.gather(own) if reason is not None), None)
    if reason is None:
        return "flash", None
    if requested == "flash":
        raise ConfigError(f"--attention-backend flash can't be used: {reason}; omit it, or give padded")
    is_expected = context.device.type != "cuda" or dtype == torch.float32
    return "padded", None if is_expected else f"WARNING: attention uses padded groups, which are slower: {reason}"
