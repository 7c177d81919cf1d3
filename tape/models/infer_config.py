"""Inference of configuration values from the weights of TAPE's and ProteinLM's checkpoints.

Their ``config.json`` states neither the kind of head nor the position of the layer norms, because each of the two code
bases has only one kind.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

_BLOCK = re.compile(r"predict\.predict\.ResidualBlock(\d+)\.")
_HIDDEN_LAYERS = ("predict.value_prediction.main.0.weight_v", "classify.classify.main.0.weight_v")


def infer_config(state: Mapping[str, Tensor]) -> dict[str, Any]:
    """Infer configuration values from the names and shapes of the weights.

    Args:
        state: state dict of an encoder or a task model, with TAPE's, ProteinLM's or our names.

    Returns:
        Those of ``layer_norm_position``, ``head_hidden_size``, ``contact_head`` and ``contact_num_blocks`` that can be
        inferred.
    """
    found: dict[str, Any] = {}
    if any(".attention.output.LayerNorm." in name or ".output_ln." in name for name in state):
        found["layer_norm_position"] = "post"
    for name in _HIDDEN_LAYERS:
        if name in state and state[name].dim() == 2:  # the head for residues has a batch norm under this name
            found["head_hidden_size"] = state[name].shape[0]
    contact = state.get("predict.predict.1.weight")
    if contact is not None:
        found["contact_head"] = "linear" if contact.dim() == 2 else "resnet"
        blocks = [int(match[1]) for name in state if (match := _BLOCK.match(name))]
        if blocks:
            found["contact_num_blocks"] = max(blocks) + 1
    return found
