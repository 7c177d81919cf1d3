"""TAPE's library and benchmark with ProteinLM's transformer: tokenizer, models, data sets, tasks, evaluation.

Names are imported on first use, so that ``import tape`` does not import torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from . import installation
from .version import __version__

if TYPE_CHECKING:
    from tape.models.modeling_bert import (
        ProteinBertAbstractModel,
        ProteinBertForContactPrediction,
        ProteinBertForMaskedLM,
        ProteinBertForSequenceClassification,
        ProteinBertForSequenceToSequenceClassification,
        ProteinBertForValuePrediction,
        ProteinBertModel,
    )
    from tape.models.modeling_huggingface import (
        ProteinHuggingFaceForContactPrediction,
        ProteinHuggingFaceForMaskedLM,
        ProteinHuggingFaceForSequenceClassification,
        ProteinHuggingFaceForSequenceToSequenceClassification,
        ProteinHuggingFaceForValuePrediction,
        ProteinHuggingFaceModel,
    )
    from tape.models.modeling_lstm import (
        ProteinLSTMAbstractModel,
        ProteinLSTMForContactPrediction,
        ProteinLSTMForLM,
        ProteinLSTMForSequenceClassification,
        ProteinLSTMForSequenceToSequenceClassification,
        ProteinLSTMForValuePrediction,
        ProteinLSTMModel,
    )
    from tape.models.modeling_onehot import (
        ProteinOneHotAbstractModel,
        ProteinOneHotForContactPrediction,
        ProteinOneHotForSequenceClassification,
        ProteinOneHotForSequenceToSequenceClassification,
        ProteinOneHotForValuePrediction,
        ProteinOneHotModel,
    )
    from tape.models.modeling_resnet import (
        ProteinResNetAbstractModel,
        ProteinResNetForContactPrediction,
        ProteinResNetForMaskedLM,
        ProteinResNetForSequenceClassification,
        ProteinResNetForSequenceToSequenceClassification,
        ProteinResNetForValuePrediction,
        ProteinResNetModel,
    )
    from tape.models.modeling_trrosetta import TRRosetta, TRRosettaAbstractModel, TRRosettaPredictor
    from tape.models.modeling_unirep import (
        UniRepAbstractModel,
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
    from .loaded_model import LoadedModel, load
    from .own_table import finetune
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
    "loaded_model": ("LoadedModel", "load"),
    "models.modeling_bert": (
        "ProteinBertAbstractModel",
        "ProteinBertForContactPrediction",
        "ProteinBertForMaskedLM",
        "ProteinBertForSequenceClassification",
        "ProteinBertForSequenceToSequenceClassification",
        "ProteinBertForValuePrediction",
        "ProteinBertModel",
    ),
    "models.modeling_huggingface": (
        "ProteinHuggingFaceForContactPrediction",
        "ProteinHuggingFaceForMaskedLM",
        "ProteinHuggingFaceForSequenceClassification",
        "ProteinHuggingFaceForSequenceToSequenceClassification",
        "ProteinHuggingFaceForValuePrediction",
        "ProteinHuggingFaceModel",
    ),
    "models.modeling_lstm": (
        "ProteinLSTMAbstractModel",
        "ProteinLSTMForContactPrediction",
        "ProteinLSTMForLM",
        "ProteinLSTMForSequenceClassification",
        "ProteinLSTMForSequenceToSequenceClassification",
        "ProteinLSTMForValuePrediction",
        "ProteinLSTMModel",
    ),
    "models.modeling_onehot": (
        "ProteinOneHotAbstractModel",
        "ProteinOneHotForContactPrediction",
        "ProteinOneHotForSequenceClassification",
        "ProteinOneHotForSequenceToSequenceClassification",
        "ProteinOneHotForValuePrediction",
        "ProteinOneHotModel",
    ),
    "models.modeling_resnet": (
        "ProteinResNetAbstractModel",
        "ProteinResNetForContactPrediction",
        "ProteinResNetForMaskedLM",
        "ProteinResNetForSequenceClassification",
        "ProteinResNetForSequenceToSequenceClassification",
        "ProteinResNetForValuePrediction",
        "ProteinResNetModel",
    ),
    "models.modeling_trrosetta": ("TRRosetta", "TRRosettaAbstractModel", "TRRosettaPredictor"),
    "models.modeling_unirep": (
        "UniRepAbstractModel",
        "UniRepForContactPrediction",
        "UniRepForLM",
        "UniRepForSequenceClassification",
        "UniRepForSequenceToSequenceClassification",
        "UniRepForValuePrediction",
        "UniRepModel",
    ),
    "models.modeling_utils": ("ProteinModel",),
    "own_table": ("finetune",),
    "tokenizers": ("TAPETokenizer",),
}
# Modules that are attributes of the package, without an import of their own
_SUBMODULES = frozenset({"datasets", "metrics", "models", "registry", "tokenizers"})
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_MODULE_OF)]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f".{name}", __name__)
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE_OF[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted({*__all__, *_SUBMODULES})
