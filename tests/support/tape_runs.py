"""Runs of tape-proteins 0.5 and ProteinLM as these programs save them, with small models of one layer.

The tables list the parameters in the order of their modules: name there, shape, whether it decays there, and name here.
The moments of a parameter are all equal to a number that its name here determines.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

_SELF_ATTENTION = """
bert.encoder.layer.0.attention.self.query.weight 8,8 decays =
bert.encoder.layer.0.attention.self.query.bias 8 - =
bert.encoder.layer.0.attention.self.key.weight 8,8 decays =
bert.encoder.layer.0.attention.self.key.bias 8 - =
bert.encoder.layer.0.attention.self.value.weight 8,8 decays =
bert.encoder.layer.0.attention.self.value.bias 8 - =
"""
_TRANSFORMER_05 = f"""
bert.embeddings.word_embeddings.weight 30,8 decays =
bert.embeddings.position_embeddings.weight 40,8 decays =
bert.embeddings.token_type_embeddings.weight 1,8 decays =
bert.embeddings.LayerNorm.weight 8 - =
bert.embeddings.LayerNorm.bias 8 - =
{_SELF_ATTENTION}
bert.encoder.layer.0.attention.output.dense.weight 8,8 decays bert.encoder.layer.0.attention.dense.weight
bert.encoder.layer.0.attention.output.dense.bias 8 - bert.encoder.layer.0.attention.dense.bias
bert.encoder.layer.0.attention.output.LayerNorm.weight 8 - bert.encoder.layer.0.post_attn_ln.weight
bert.encoder.layer.0.attention.output.LayerNorm.bias 8 - bert.encoder.layer.0.post_attn_ln.bias
bert.encoder.layer.0.intermediate.dense.weight 16,8 decays bert.encoder.layer.0.mlp.dense_h_4h.weight
bert.encoder.layer.0.intermediate.dense.bias 16 - bert.encoder.layer.0.mlp.dense_h_4h.bias
bert.encoder.layer.0.output.dense.weight 8,16 decays bert.encoder.layer.0.mlp.dense_4h_h.weight
bert.encoder.layer.0.output.dense.bias 8 - bert.encoder.layer.0.mlp.dense_4h_h.bias
bert.encoder.layer.0.output.LayerNorm.weight 8 - bert.encoder.layer.0.output_ln.weight
bert.encoder.layer.0.output.LayerNorm.bias 8 - bert.encoder.layer.0.output_ln.bias
bert.pooler.dense.weight 8,8 decays untrained
bert.pooler.dense.bias 8 - untrained
"""
_RESIDUE_HEAD = """
classify.classify.main.0.weight 8 decays =
classify.classify.main.0.bias 8 - =
classify.classify.main.0.running_mean 8 buffer
classify.classify.main.0.running_var 8 buffer
classify.classify.main.1.bias 512 - =
classify.classify.main.1.weight_g scalar decays =
classify.classify.main.1.weight_v 512,8,5 decays =
classify.classify.main.4.bias 3 - =
classify.classify.main.4.weight_g scalar decays =
classify.classify.main.4.weight_v 3,512,3 decays =
"""
_MLM_HEAD = """
mlm.bias 30 - =
mlm.transform.dense.weight 8,8 decays =
mlm.transform.dense.bias 8 - =
mlm.transform.LayerNorm.weight 8 - =
mlm.transform.LayerNorm.bias 8 - =
mlm.decoder.weight 30,8 tied
"""
_VALUE_HEAD = """
predict.value_prediction.main.0.bias 6 - =
predict.value_prediction.main.0.weight_g scalar decays =
predict.value_prediction.main.0.weight_v 6,{inputs} decays =
predict.value_prediction.main.3.bias 1 - =
predict.value_prediction.main.3.weight_g scalar decays =
predict.value_prediction.main.3.weight_v 1,6 decays =
"""
_PROTEINLM = f"""
bert.embeddings.word_embeddings.weight 30,8 decays =
bert.embeddings.position_embeddings.weight 40,8 decays =
bert.embeddings.token_type_embeddings.weight 1,8 decays =
bert.encoder.layer.0.input_ln.weight 8 decays =
bert.encoder.layer.0.input_ln.bias 8 - =
{_SELF_ATTENTION}
bert.encoder.layer.0.attention.dense.weight 8,8 decays =
bert.encoder.layer.0.attention.dense.bias 8 - =
bert.encoder.layer.0.post_attn_ln.weight 8 decays =
bert.encoder.layer.0.post_attn_ln.bias 8 - =
bert.encoder.layer.0.mlp.dense_h_4h.weight 16,8 decays =
bert.encoder.layer.0.mlp.dense_h_4h.bias 16 - =
bert.encoder.layer.0.mlp.dense_4h_h.weight 8,16 decays =
bert.encoder.layer.0.mlp.dense_4h_h.bias 8 - =
bert.encoder.final_ln.weight 8 decays untrained
bert.encoder.final_ln.bias 8 - untrained
bert.bert_tail_dense.weight 8,8 decays untrained
bert.bert_tail_dense.bias 8 - untrained
"""
_LSTM = """
lstm.embed_matrix.weight 30,4 decays =
lstm.encoder.forward_lstm.0.lstm.weight_ih_l0 32,4 decays =
lstm.encoder.forward_lstm.0.lstm.weight_hh_l0 32,8 decays =
lstm.encoder.forward_lstm.0.lstm.bias_ih_l0 32 - =
lstm.encoder.forward_lstm.0.lstm.bias_hh_l0 32 - =
lstm.encoder.reverse_lstm.0.lstm.weight_ih_l0 32,4 decays =
lstm.encoder.reverse_lstm.0.lstm.weight_hh_l0 32,8 decays =
lstm.encoder.reverse_lstm.0.lstm.bias_ih_l0 32 - =
lstm.encoder.reverse_lstm.0.lstm.bias_hh_l0 32 - =
lstm.pooler.scalar_reweighting.weight 1,2 decays =
lstm.pooler.scalar_reweighting.bias 1 - =
lstm.pooler.dense.weight 8,8 decays =
lstm.pooler.dense.bias 8 - =
"""
_RESNET = """
resnet.embeddings.inverse_frequency 4 buffer
resnet.embeddings.word_embeddings.weight 30,8 decays =
resnet.embeddings.layer_norm.weight 8 decays =
resnet.embeddings.layer_norm.bias 8 - =
resnet.encoder.layer.0.conv1.weight 8,8,3 decays =
resnet.encoder.layer.0.bn1.norm.weight 8 decays =
resnet.encoder.layer.0.bn1.norm.bias 8 - =
resnet.encoder.layer.0.conv2.weight 8,8,3 decays =
resnet.encoder.layer.0.bn2.norm.weight 8 decays =
resnet.encoder.layer.0.bn2.norm.bias 8 - =
resnet.pooler.attention_weights.weight 1,8 decays untrained
resnet.pooler.attention_weights.bias 1 - untrained
resnet.pooler.dense.weight 8,8 decays untrained
resnet.pooler.dense.bias 8 - untrained
"""
_ONEHOT = """
onehot._buffer 1 buffer
"""
_UNIREP = """
unirep.embed_matrix.weight 26,4 decays =
unirep.encoder.mlstm_cell.wmx.weight_g 8,1 decays =
unirep.encoder.mlstm_cell.wmx.weight_v 8,4 decays =
unirep.encoder.mlstm_cell.wmh.weight_g 8,1 decays =
unirep.encoder.mlstm_cell.wmh.weight_v 8,8 decays =
unirep.encoder.mlstm_cell.wx.weight_g 32,1 decays =
unirep.encoder.mlstm_cell.wx.weight_v 32,4 decays =
unirep.encoder.mlstm_cell.wh.bias 32 - =
unirep.encoder.mlstm_cell.wh.weight_g 32,1 decays =
unirep.encoder.mlstm_cell.wh.weight_v 32,8 decays =
"""
_BERT_CONFIG = {
    "attention_probs_dropout_prob": 0.1,
    "hidden_act": "gelu",
    "hidden_dropout_prob": 0.1,
    "hidden_size": 8,
    "intermediate_size": 16,
    "max_position_embeddings": 40,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "type_vocab_size": 1,
    "vocab_size": 30,
}
_LSTM_CONFIG = {"hidden_size": 8, "input_size": 4, "num_hidden_layers": 1, "vocab_size": 30}
_RESNET_CONFIG = {"hidden_size": 8, "num_hidden_layers": 1, "vocab_size": 30}
ARGUMENTS: dict[str, Any] = {
    **{"learning_rate": 1e-3, "batch_size": 4, "num_train_epochs": 4, "num_log_iter": 20, "fp16": False},
    **{"warmup_steps": 2, "gradient_accumulation_steps": 1, "loss_scale": 0, "max_grad_norm": 1.0},
    **{"exp_name": None, "from_pretrained": None, "log_dir": "./logs", "eval_freq": 1, "save_freq": 1},
    **{"model_config_file": None, "output_dir": "./results", "no_cuda": True, "seed": 42, "local_rank": -1},
    **{"tokenizer": "iupac", "num_workers": 0, "debug": False, "log_level": 20, "patience": -1},
    "resume_from_checkpoint": False,
}
# Options that ProteinLM has added.
PROTEINLM_ARGUMENTS: dict[str, Any] = {"time_or_name": "time", "force_save": "FALSE", "weight_decay": 0.02}


@dataclass(frozen=True)
class Layout:
    """A model of the other program: its type and task, its configuration and its parameters."""

    model_type: str
    task: str
    config: Mapping[str, Any]
    table: str
    in_epochs: bool = False  # ProteinLM


LAYOUTS = {
    "tape transformer": Layout(
        "transformer", "secondary_structure", {**_BERT_CONFIG, "num_labels": 3}, _TRANSFORMER_05 + _RESIDUE_HEAD
    ),
    "tape tied decoder": Layout("transformer", "masked_language_modeling", _BERT_CONFIG, _TRANSFORMER_05 + _MLM_HEAD),
    "tape lstm": Layout("lstm", "stability", _LSTM_CONFIG, _LSTM + _VALUE_HEAD.format(inputs=8)),
    "tape resnet": Layout(
        "resnet", "secondary_structure", {**_RESNET_CONFIG, "num_labels": 3}, _RESNET + _RESIDUE_HEAD
    ),
    "tape onehot": Layout("onehot", "stability", {"vocab_size": 30}, _ONEHOT + _VALUE_HEAD.format(inputs=30)),
    "tape unirep": Layout(
        "unirep",
        "stability",
        {"hidden_size": 8, "input_size": 4, "vocab_size": 26},
        _UNIREP + _VALUE_HEAD.format(inputs=16),
    ),
    "ProteinLM": Layout(
        "transformer", "stability", _BERT_CONFIG, _PROTEINLM + _VALUE_HEAD.format(inputs=8), in_epochs=True
    ),
}


def code_of(name: str) -> float:
    """The first moment of a parameter, a number between 0 and 1; the second one is 1 more."""
    return zlib.crc32(name.encode()) % 9973 / 9973


@dataclass
class SavedRun:
    """The content of a run's files, which a test may change before :meth:`write`."""

    layout: Layout
    arguments: dict[str, Any]
    weights: dict[str, Tensor] = field(default_factory=dict)
    checkpoint: dict[str, Any] = field(default_factory=dict)
    own_names: set[str] = field(default_factory=set)  # of parameters with moments

    def write(self, directory: Path, epoch: int = 1) -> Path:
        """Write the run; returns the directory with its model."""
        model = directory / str(epoch) if self.layout.in_epochs else directory
        model.mkdir(parents=True, exist_ok=True)
        (directory / "args.json").write_text(json.dumps(self.arguments))
        (model / "config.json").write_text(json.dumps(dict(self.layout.config)))
        torch.save(self.weights, model / "pytorch_model.bin")
        torch.save({**self.checkpoint, "epoch": epoch}, model / "checkpoint.bin")
        return model


def saved_run(name: str, data: Path, steps: int = 6) -> SavedRun:
    """A run of one of the ``LAYOUTS`` after two epochs of 3 steps."""
    layout = LAYOUTS[name]
    arguments = {**ARGUMENTS, "model_type": layout.model_type, "task": layout.task, "data_dir": str(data)}
    if layout.in_epochs:
        arguments |= PROTEINLM_ARGUMENTS
    run = SavedRun(layout, arguments)
    generator = torch.Generator().manual_seed(1)
    groups: dict[str, list[tuple[str, tuple[int, ...]]]] = {"decays": [], "-": []}
    for line in layout.table.split("\n"):
        if not line:
            continue
        theirs, sizes, kind, *own = line.split()
        shape = () if sizes == "scalar" else tuple(map(int, sizes.split(",")))
        run.weights[theirs] = torch.rand(shape, generator=generator) * 0.1 + 0.01
        if kind in groups:
            groups[kind].append((theirs if own == ["="] else own[0], shape))
    if "mlm.decoder.weight" in run.weights:
        run.weights["mlm.decoder.weight"] = run.weights["bert.embeddings.word_embeddings.weight"]
    state, param_groups, position = {}, [], 0
    for kind, decay in (("decays", arguments.get("weight_decay", 0.01)), ("-", 0.0)):
        members = list(range(position, position + len(groups[kind])))
        position += len(members)
        fields = {"lr": 5e-4, "betas": (0.9, 0.999), "eps": 1e-6, "correct_bias": True, "initial_lr": 1e-3}
        param_groups.append({"weight_decay": decay, **fields, "params": members})
        for key, (own_name, shape) in zip(members, groups[kind], strict=True):
            if own_name == "untrained":
                continue
            first = torch.full(shape, code_of(own_name))
            state[key] = {"step": steps, "exp_avg": first, "exp_avg_sq": first + 1}
            run.own_names.add(own_name)
    schedule = {"warmup_steps": 2, "t_total": 10, "base_lrs": [1e-3, 1e-3], "last_epoch": steps, "lr_lambdas": [{}, {}]}
    schedule |= {"_step_count": steps + 1, "_get_lr_called_within_step": False, "_last_lr": [5e-4, 5e-4]}
    run.checkpoint = {"optimizer": {"state": state, "param_groups": param_groups}, "scheduler": schedule}
    return run
