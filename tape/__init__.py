"""TAPE's library and benchmark with ProteinLM's transformer: tokenizer, models, data sets, tasks, evaluation.

Names are imported on first use, so that ``import tape`` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from tape.models.modeling_bert import (
        ProteinBertForContactPrediction,
        ProteinBertForMaskedLM,
        ProteinBertForSequenceClassification,
        ProteinBertForSequenceToSequenceClassification,
        ProteinBertForValuePrediction,
        ProteinBertModel,
    )
    from tape.models.modeling_lstm import (
        ProteinLSTMForContactPrediction,
        ProteinLSTMForLM,
        ProteinLSTMForSequenceClassification,
        ProteinLSTMForSequenceToSequenceClassification,
        ProteinLSTMForValuePrediction,
        ProteinLSTMModel,
    )
    from tape.models.modeling_onehot import (
        ProteinOneHotForContactPrediction,
        ProteinOneHotForSequenceClassification,
        ProteinOneHotForSequenceToSequenceClassification,
        ProteinOneHotForValuePrediction,
        ProteinOneHotModel,
    )
    from tape.models.modeling_resnet import (
        ProteinResNetForContactPrediction,
        ProteinResNetForMaskedLM,
        ProteinResNetForSequenceClassification,
        ProteinResNetForSequenceToSequenceClassification,
        ProteinResNetForValuePrediction,
        ProteinResNetModel,
    )
    from tape.models.modeling_trrosetta import TRRosetta
    from tape.models.modeling_unirep import (
        UniRepForContactPrediction,
        UniRepForLM,
        UniRepForSequenceClassification,
        UniRepForSequenceToSequenceClassification,
        UniRepForValuePrediction,
        UniRepModel,
    )
    from tape.models.modeling_utils import ProteinModel

    from .configs import (
        ProteinBertConfig,
        ProteinConfig,
        ProteinLSTMConfig,
        ProteinOneHotConfig,
        ProteinResNetConfig,
        TRRosettaConfig,
        UniRepConfig,
    )
    from .tokenizers import TAPETokenizer

_HOMES: dict[str, tuple[str, ...]] = {
    "configs": (
        "ProteinBertConfig",
        "ProteinConfig",
        "ProteinLSTMConfig",
        "ProteinOneHotConfig",
        "ProteinResNetConfig",
        "TRRosettaConfig",
        "UniRepConfig",
    ),
    "models.modeling_bert": (
        "ProteinBertForContactPrediction",
        "ProteinBertForMaskedLM",
        "ProteinBertForSequenceClassification",
        "ProteinBertForSequenceToSequenceClassification",
        "ProteinBertForValuePrediction",
        "ProteinBertModel",
    ),
    "models.modeling_lstm": (
        "ProteinLSTMForContactPrediction",
        "ProteinLSTMForLM",
        "ProteinLSTMForSequenceClassification",
        "ProteinLSTMForSequenceToSequenceClassification",
        "ProteinLSTMForValuePrediction",
        "ProteinLSTMModel",
    ),
    "models.modeling_onehot": (
        "ProteinOneHotForContactPrediction",
        "ProteinOneHotForSequenceClassification",
        "ProteinOneHotForSequenceToSequenceClassification",
        "ProteinOneHotForValuePrediction",
        "ProteinOneHotModel",
    ),
    "models.modeling_resnet": (
        "ProteinResNetForContactPrediction",
        "ProteinResNetForMaskedLM",
        "ProteinResNetForSequenceClassification",
        "ProteinResNetForSequenceToSequenceClassification",
        "ProteinResNetForValuePrediction",
        "ProteinResNetModel",
    ),
    "models.modeling_trrosetta": ("TRRosetta",),
    "models.modeling_unirep": (
        "UniRepForContactPrediction",
        "UniRepForLM",
        "UniRepForSequenceClassification",
        "UniRepForSequenceToSequenceClassification",
        "UniRepForValuePrediction",
        "UniRepModel",
    ),
    "models.modeling_utils": ("ProteinModel",),
    "tokenizers": ("TAPETokenizer",),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
