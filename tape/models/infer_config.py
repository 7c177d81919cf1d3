"""Inference of configuration values from the weights of TAPE's and ProteinLM's checkpoints.

Their ``config.json`` states neither the kind of head nor the position of the layer norms, because each of the two code
bases has only one kind.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from tape.errors import ConfigError

_BLOCK = re.compile(r"predict\.predict\.ResidualBlock(\d+)\.")
_TASK_HEADS = ("predict.", "classify.")
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


def infer_final_layer_norm(names: Collection[str], file: Path) -> bool:
    """Whether a transformer applies its final layer norm, if its configuration lacks ``apply_final_ln``.

    ProteinLM's finetuning code did not (bug 2 in docs/compatibility.md). All of its models have the unused parameters
    ``bert_tail_dense``, which this project does not write. Models that were only pretrained have been trained with the
    final layer norm.

    Args:
        names: names of all weights.
        file: the configuration, for the message.

    Raises:
        ConfigError: the weights are those of a finetuned pre-layer-norm model of unknown origin.
    """
    is_finetuned = any(name.startswith(_TASK_HEADS) for name in names)
    if not is_finetuned or not any(".input_ln." in name for name in names):
        return True
    if any("bert_tail_dense." in name for name in names):
        return False
    raise ConfigError(
        f'{file}: add "apply_final_ln", which its weights leave open: false if the model was finetuned with the'
        " original ProteinLM, whose code skipped the final layer norm, otherwise true"
    )
