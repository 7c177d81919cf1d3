"""Training a head on an encoder that stays as it is (``--freeze``).

The encoder has no gradients, and it stays in evaluation mode: without its dropout a protein has the same states in
every epoch, those that evaluation will see. Normalisation layers in it keep their running statistics.
"""

from __future__ import annotations

from torch import nn

from tape.errors import ConfigError


def encoder_of(model: nn.Module) -> nn.Module | None:
    """The encoder inside a task model; None when the model has no weights apart from its heads.

    A third party's model may be of one piece: then it is all encoder, and there is nothing to train beside it.
    """
    encoder = getattr(model, "base_model", None)
    if not isinstance(encoder, nn.Module) or encoder is model or next(encoder.parameters(), None) is None:
        return None
    return encoder


def freeze_encoder(model: nn.Module) -> None:
    """Take the encoder's parameters out of training.

    Raises:
        ConfigError: the model has no encoder with weights, or nothing beside it.
    """
    encoder = encoder_of(model)
    if encoder is None:
        raise ConfigError(f"{type(model).__name__} has no encoder with weights of its own, so nothing can be frozen")
    encoder.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ConfigError(f"{type(model).__name__} has no weights beside its encoder; with it frozen none is trained")


def set_training_mode(model: nn.Module) -> None:
    """``model.train()``, except for an encoder that has no parameter to train."""
    model.train()
    encoder = encoder_of(model)
    if encoder is not None and not any(parameter.requires_grad for parameter in encoder.parameters()):
        encoder.eval()
