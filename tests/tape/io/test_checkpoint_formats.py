"""Recognition of checkpoints and models of other formats."""

from __future__ import annotations

from pathlib import Path

import pytest

from tape.configs import ProteinBertConfig
from tape.io import checkpoint_formats as formats
from tape.io.checkpoint_formats import CheckpointFormat, recognize_format
from tape.models.modeling_bert import ProteinBertModel


def write(path: Path, content: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (("iter_0000005/mp_rank_00/model_optim_rng.pt",), formats.MEGATRON),
        (("release/mp_rank_00/model_rng.pt",), formats.MEGATRON),
        (("mp_rank_00/model_rng.pt",), formats.MEGATRON),
        (("iter_0000005/common.pt", "iter_0000005/metadata.json"), formats.MEGATRON_CORE),
        (("common.pt", "metadata.json"), formats.MEGATRON_CORE),
        (("latest", "global_step5/mp_rank_00_model_states.pt"), formats.DEEPSPEED),
        (("mp_rank_00_model_states.pt",), formats.DEEPSPEED),
        (("bf16_zero_pp_rank_0_mp_rank_00_optim_states.pt",), formats.DEEPSPEED),
        (("args.json", "latest.json"), formats.TAPE_RUN),
        (("args.json",), None),
        (("metrics.jsonl", "arguments.json"), None),
        ((), None),
    ],
)
def test_directories_are_recognized_by_the_names_in_them(
    tmp_path: Path, files: tuple[str, ...], expected: CheckpointFormat | None
) -> None:
    for file in files:
        write(tmp_path / file)
    assert recognize_format(tmp_path) is expected


def test_model_directories_are_told_apart_by_their_configuration(tmp_path: Path) -> None:
    config = ProteinBertConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=2, intermediate_size=8)
    ProteinBertModel(config).save_pretrained(tmp_path / "tape")
    write(tmp_path / "hf" / "config.json", '{"model_type": "megatron-bert"}')
    assert recognize_format(tmp_path / "tape") is formats.TAPE_MODEL
    assert recognize_format(tmp_path / "hf") is formats.HUGGINGFACE


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("m.pt", "", formats.PYTORCH_FILE),
        ("m.bin", "", formats.BIN_FILE),
        ("m.safetensors", "", formats.SAFETENSORS_FILE),
        ("m.nemo", "", formats.NEMO),
        ("corpus.idx", "MMIDIDX\0\0", formats.CORPUS_INDEX),
        ("corpus.idx", "TNTIDX\0\0", formats.CORPUS_INDEX),
        ("notes.txt", "", None),
    ],
)
def test_files_are_recognized(tmp_path: Path, name: str, content: str, expected: CheckpointFormat | None) -> None:
    write(tmp_path / name, content)
    assert recognize_format(tmp_path / name) is expected


def test_a_missing_path_has_no_format(tmp_path: Path) -> None:
    assert recognize_format(tmp_path / "absent") is None
