"""Names that modules of tape-proteins 0.5 have, and where they are defined here.

A module of this table has ``__getattr__ = names_of(__name__)``. A name is imported on its first use, so that it costs
nothing else.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

_HEADS = "tape.models.heads"
_LAYERS = "tape.compatibility.layers"
_MAPS = "tape.compatibility.archive_maps"

# imported by all modules of TAPE's architectures, and therefore from any of them by others
_OF_ARCHITECTURES = {
    "ProteinConfig": "tape.configs",
    "ProteinModel": "tape.models.modeling_utils",
    "ValuePredictionHead": _HEADS,
    "SequenceClassificationHead": _HEADS,
    "SequenceToSequenceClassificationHead": _HEADS,
    "PairwiseContactPredictionHead": "tape.models.contact_heads",
    "registry": "tape.registry",
}
_OF_LAYERS = dict.fromkeys(
    ("Accuracy", "LayerNorm", "accuracy", "gelu", "get_activation_fn", "prune_linear_layer", "swish"), _LAYERS
)


def _of_architecture(prefix: str) -> dict[str, str]:
    names = ("URL_PREFIX", f"{prefix}_PRETRAINED_MODEL_ARCHIVE_MAP", f"{prefix}_PRETRAINED_CONFIG_ARCHIVE_MAP")
    return {**_OF_ARCHITECTURES, **_OF_LAYERS, **dict.fromkeys(names, _MAPS)}


# module -> name -> the module that defines it
NAMES: dict[str, dict[str, str]] = {
    "tape.registry": {"TAPETaskSpec": "tape.compatibility.task_specs", "ProteinModel": "tape.models.modeling_utils"},
    "tape.datasets": {"TAPETokenizer": "tape.tokenizers", "registry": "tape.registry"},
    "tape.tokenizers": {"IUPAC_CODES": "tape.compatibility.residue_codes"},
    "tape.models.modeling_utils": {
        **dict.fromkeys(("PredictionHeadTransform", "SimpleConv", "SimpleMLP"), _HEADS),
        **_OF_LAYERS,
        "WEIGHTS_NAME": _LAYERS,
        "cached_path": "tape.models.file_utils",
    },
    "tape.models.modeling_bert": _of_architecture("BERT"),
    "tape.models.modeling_lstm": _of_architecture("LSTM"),
    "tape.models.modeling_onehot": _OF_ARCHITECTURES,
    "tape.models.modeling_resnet": _of_architecture("RESNET"),
    "tape.models.modeling_trrosetta": _of_architecture("TRROSETTA"),
    "tape.models.modeling_unirep": _of_architecture("UNIREP"),
}


def names_of(module: str) -> Callable[[str], Any]:
    """The ``__getattr__`` of a module in :data:`NAMES`."""

    def find(name: str) -> Any:
        if name not in NAMES[module]:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        return getattr(importlib.import_module(NAMES[module][name]), name)

    return find
