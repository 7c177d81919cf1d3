"""Training a head on a frozen encoder (``--freeze``).

The encoder has no gradients and stays in evaluation mode. Without dropout, a protein has the same states in every epoch
and in the evaluation, and normalization layers keep their running statistics.
"""

from __future__ import annotations

from torch import nn

from tape.errors import ConfigError


def encoder_of(model: nn.Module) -> nn.Module | None:
    """The encoder of a task model; None if it has no weights, or if the model has no separate encoder (as third-party
    models may)."""
    encoder = getattr(model, "base_model", None)
    if not isinstance(encoder, nn.Module) or encoder is model or next(encoder.parameters(), None) is None:
        return None
    return encoder


def freeze_encoder(model: nn.Module) -> None:
    """Set ``requires_grad`` of the encoder's parameters to False.

    Raises:
        ConfigError: the model has no encoder with weights, or no weights besides it.
    """
    encoder = encoder_of(model)
    if encoder is None:
        raise ConfigError(f"{type(model).__name__} has no encoder with weights of its own, so nothing can be frozen")
    encoder.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(
            f"{type(model).__name__} has no weights besides its encoder: --freeze leaves nothing to train"
        )


def frozen_encoder_of(model: nn.Module) -> nn.Module | None:
    """The encoder of a task model, if none of its weights is trained."""
    encoder = encoder_of(model)
    if encoder is None or any(parameter.requires_grad for parameter in encoder.parameters()):
        return None
    return encoder


def set_training_mode(model: nn.Module) -> None:
    """Call ``model.train()``, but keep a frozen encoder in evaluation mode."""
    model.train()
    if (encoder := frozen_encoder_of(model)) is not None:
        encoder.eval()
