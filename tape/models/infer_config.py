"""What the weights of TAPE's and ProteinLM's checkpoints say that their ``config.json`` does not.

Neither states which head it has or where its layer norms stand, since its code knew one kind only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_BLOCK = re.compile(r"predict\.predict\.ResidualBlock(\d+)\.")
_HIDDEN_LAYERS = ("predict.value_prediction.main.0.weight_v", "classify.classify.main.0.weight_v")


def config_of_weights(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Configuration values that can be read off names and shapes; nothing for parts that are not there.

    Args:
        state: state dict of an encoder or a task model, under TAPE's, ProteinLM's or our names.

    Returns:
        Some of ``layer_norm_position``, ``head_hidden_size``, ``contact_head``, ``contact_num_blocks``.
    """
    found: dict[str, Any] = {}
    if any(".attention.output.LayerNorm." in name or ".output_ln." in name for name in state):
        found["layer_norm_position"] = "post"
    for name in _HIDDEN_LAYERS:
        if name in state and state[name].dim() == 2:  # a residue head keeps a normalisation there
            found["head_hidden_size"] = state[name].shape[0]
    contact = state.get("predict.predict.1.weight")
    if contact is not None:
        found["contact_head"] = "linear" if contact.dim() == 2 else "resnet"
        blocks = [int(match[1]) for name in state if (match := _BLOCK.match(name))]
        if blocks:
            found["contact_num_blocks"] = max(blocks) + 1
    return found
