"""--load of a model or checkpoint of another format is an error that names the format and the converter."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain.checkpointing import find_latest
from pretrain.checkpointing.other_formats import name_other_format
from pretrain.parallel import ControlGroup
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError
from tape.models.modeling_bert import ProteinBertModel


def write(path: Path, content: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"latest_checkpointed_iteration.txt": "5", "iter_0000005/mp_rank_00/model_optim_rng.pt": ""}, "Megatron-LM"),
        ({"latest_checkpointed_iteration.txt": "release", "release/mp_rank_00/model_rng.pt": ""}, "Megatron-LM"),
        ({"iter_0000005/common.pt": "", "iter_0000005/metadata.json": "{}"}, "Megatron Core"),
        ({"latest": "global_step5", "global_step5/mp_rank_00_model_states.pt": ""}, "DeepSpeed"),
        ({"config.json": '{"model_type": "megatron-bert"}', "model.safetensors": ""}, "Hugging Face"),
        ({"config.json": '{"hidden_size": 8}', "pytorch_model.bin": ""}, "TAPE model"),
        ({"args.json": "{}", "latest.json": "{}", "log": ""}, "run directory of tape-train"),
    ],
)
def test_directories_are_named(tmp_path: Path, files: dict[str, str], name: str) -> None:
    for file, content in files.items():
        write(tmp_path / file, content)
    with pytest.raises(CheckpointError, match=f"{tmp_path}: an? {name}.*megatron-converter.py -src {tmp_path} -out"):
        find_latest(tmp_path, ControlGroup())


@pytest.mark.parametrize(
    ("file", "name"),
    [("m.pt", "a PyTorch file"), ("m.safetensors", "a safetensors file"), ("m.txt", "a file, not a directory")],
)
def test_files_are_named(tmp_path: Path, file: str, name: str) -> None:
    write(tmp_path / file)
    with pytest.raises(CheckpointError, match=f"{file}: {name}"):
        find_latest(tmp_path / file, ControlGroup())


def test_a_model_directory_as_tape_writes_it(tmp_path: Path) -> None:
    config = ProteinBertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    ProteinBertModel(config).save_pretrained(tmp_path)
    assert name_other_format(tmp_path) == "a TAPE model directory"


@pytest.mark.parametrize("files", [(), ("metrics.jsonl", "arguments.json"), (".lock",)])
def test_a_run_that_has_not_saved_yet_has_no_other_format(tmp_path: Path, files: tuple[str, ...]) -> None:
    for file in files:
        write(tmp_path / file, "{}")
    assert name_other_format(tmp_path) is None
    assert find_latest(tmp_path, ControlGroup()).path is None
