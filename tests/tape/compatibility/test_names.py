"""Names of tape-proteins 0.5, imported as public code imports them."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tape
from tape.compatibility.names import NAMES

# One import per line, from public repositories that use tape-proteins 0.5.
IMPORTS = """
from tape import ProteinBertAbstractModel, ProteinResNetAbstractModel, ProteinLSTMAbstractModel, UniRepAbstractModel
from tape import ProteinOneHotAbstractModel, TRRosettaAbstractModel, TRRosettaPredictor, TRRosetta
from tape import utils, visualization, errors
from tape.datasets import TAPETokenizer, LMDBDataset, pad_sequences
from tape.main import run_train, create_base_parser, create_train_parser, create_eval_parser, create_embed_parser
from tape.main import create_distributed_parser
from tape.metrics import accuracy
from tape.models.file_utils import cached_path, get_cache
from tape.models.modeling_bert import BERT_PRETRAINED_MODEL_ARCHIVE_MAP, BERT_PRETRAINED_CONFIG_ARCHIVE_MAP, URL_PREFIX
from tape.models.modeling_bert import ProteinBertConfig, ProteinBertAbstractModel, ProteinBertModel, ProteinBertPooler
from tape.models.modeling_bert import ProteinConfig, ValuePredictionHead, LayerNorm, get_activation_fn, registry
from tape.models.modeling_lstm import LSTM_PRETRAINED_MODEL_ARCHIVE_MAP
from tape.models.modeling_resnet import MaskedConv1d, RESNET_PRETRAINED_MODEL_ARCHIVE_MAP
from tape.models.modeling_trrosetta import TRROSETTA_PRETRAINED_MODEL_ARCHIVE_MAP
from tape.models.modeling_unirep import UNIREP_PRETRAINED_CONFIG_ARCHIVE_MAP
from tape.models.modeling_utils import SimpleMLP, SimpleConv, LayerNorm, WEIGHTS_NAME, CONFIG_NAME, accuracy, Accuracy
from tape.models.modeling_utils import gelu, swish, get_activation_fn, prune_linear_layer, PredictionHeadTransform
from tape.models.modeling_utils import cached_path
from tape.optimization import WarmupCosineSchedule, WarmupConstantSchedule, ConstantLRSchedule
from tape.tokenizers import IUPAC_CODES
from tape.training import run_train, run_eval, run_embed, ForwardRunner, BackwardRunner
from tape.training import run_train_epoch, run_valid_epoch, run_eval_epoch
from tape.utils import setup_dataset, setup_loader, setup_distributed, setup_optimizer, setup_logging
from tape.utils import get_effective_num_gpus, MetricsAccumulator, IncrementalNPZ, int_or_str, check_is_dir
from tape.utils._sampler import BucketBatchSampler, SortedSampler
from tape.utils.distributed_utils import barrier_if_distributed, reduce_scalar
from tape.utils.setup_utils import setup_loader
from tape.utils.utils import MetricsAccumulator, wrap_cuda_oom_error
"""


@pytest.mark.parametrize("line", IMPORTS.strip().splitlines())
def test_the_imports_of_public_code_work(line: str) -> None:
    exec(line, {})


@pytest.mark.parametrize("module", sorted(NAMES))
def test_every_name_of_the_table_exists(module: str) -> None:
    for name in NAMES[module]:
        assert getattr(sys.modules.get(module) or __import__(module, fromlist=["_"]), name) is not None
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'nothing'"):
        _ = sys.modules[module].nothing


def test_data_sets_and_metrics_are_attributes_of_the_package() -> None:
    """``import tape`` alone, in a new process; TAPE's package imports its modules."""
    code = (
        "import tape; print(tape.datasets.LMDBDataset.__name__, tape.metrics.spearmanr.__name__, tape.models.__name__)"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == ["LMDBDataset", "spearmanr", "tape.models"]
    assert "datasets" in dir(tape)


def test_codes_of_residues() -> None:
    codes = vars(__import__("tape.tokenizers", fromlist=["_"]))["__getattr__"]("IUPAC_CODES")
    assert len(codes) == 24
    assert [codes[name] for name in ("Ala", "Asx", "Lys", "Sec", "Trp", "Xaa", "Glx")] == list("ABKUWXZ")


def test_published_models_have_the_addresses_of_tape() -> None:
    from tape.models import modeling_bert, modeling_trrosetta, modeling_unirep

    prefix = modeling_bert.URL_PREFIX
    assert prefix == "https://s3.amazonaws.com/songlabdata/proteindata/pytorch-models/"
    assert {"bert-base": f"{prefix}bert-base-pytorch_model.bin"} == modeling_bert.BERT_PRETRAINED_MODEL_ARCHIVE_MAP
    assert {"bert-base": f"{prefix}bert-base-config.json"} == modeling_bert.BERT_PRETRAINED_CONFIG_ARCHIVE_MAP
    config = modeling_unirep.UNIREP_PRETRAINED_CONFIG_ARCHIVE_MAP["babbler-1900"]
    assert config == f"{prefix}unirep-base-config.json"
    weights = modeling_trrosetta.TRROSETTA_PRETRAINED_MODEL_ARCHIVE_MAP
    assert sorted(weights) == ["xaa", "xab", "xac", "xad", "xae"]
