"""Random weights that a pretrained model is compared with."""

from __future__ import annotations

from pathlib import Path


def random_weights_options(config_file: Path, initial_attention: str) -> tuple[str, ...]:
    """Options of ``tape-train`` for random weights of a pretrained model's configuration.

    All heads attend to neighboring residues initially where half of the model's did before pretraining: without
    pretraining, this is the better start for contacts (docs/results.md).

    Args:
        config_file: the model's ``config.json``.
        initial_attention: its value in the model's configuration.
    """
    overrides = ("--config", "initial_attention=neighbours") if initial_attention == "half-neighbours" else ()
    return ("--model_config_file", str(config_file), *overrides)
