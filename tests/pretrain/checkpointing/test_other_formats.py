"""--load of a model or checkpoint of another format is an error that names the format and what reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pretrain.checkpointing import find_latest
from pretrain.parallel import ControlGroup
from tape.errors import CheckpointError


def write(path: Path, content: str = "") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


CONVERT = "add --finetune; .*convert it: proteinlm convert -src .* -out MODEL_DIRECTORY"


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"iter_0000005/mp_rank_00/model_optim_rng.pt": ""}, f"a Megatron-LM checkpoint, .*{CONVERT}"),
        ({"iter_0000005/common.pt": "", "iter_0000005/metadata.json": "{}"}, f"Megatron Core, .*{CONVERT}"),
        ({"common.pt": "", "metadata.json": "{}"}, f"Megatron Core, .*{CONVERT}"),
        ({"global_step5/mp_rank_00_model_states.pt": ""}, r"a DeepSpeed checkpoint, .*zero_to_fp32\.py"),
        ({"config.json": '{"model_type": "bert"}'}, f"a Hugging Face model directory, .*{CONVERT}"),
        ({"config.json": '{"hidden_size": 8}'}, "a TAPE model directory, .*add --finetune; tape-train finetunes it"),
        ({"args.json": "{}", "latest.json": "{}"}, "run directory of tape-train, .*--resume_from_checkpoint"),
    ],
)
def test_directories_are_named_with_what_reads_them(tmp_path: Path, files: dict[str, str], words: str) -> None:
    for file, content in files.items():
        write(tmp_path / file, content)
    with pytest.raises(CheckpointError, match=f"{tmp_path}: .*{words}"):
        find_latest(tmp_path, ControlGroup())


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("m.pt", "", f"a PyTorch file, .*{CONVERT}"),
        ("m.nemo", "", "a NeMo archive, .*export a Megatron-LM checkpoint"),
        ("corpus.idx", "MMIDIDX\0\0", "the index of a pretraining corpus .*--data-path"),
        ("m.txt", "", "a file, not a directory of checkpoints"),
    ],
)
def test_files_are_named_with_what_reads_them(tmp_path: Path, file: str, content: str, words: str) -> None:
    write(tmp_path / file, content)
    with pytest.raises(CheckpointError, match=f"{file}: {words}"):
        find_latest(tmp_path / file, ControlGroup())


def test_no_conversion_is_advised_for_a_tape_model(tmp_path: Path) -> None:
    write(tmp_path / "config.json", "{}")
    with pytest.raises(CheckpointError) as caught:
        find_latest(tmp_path, ControlGroup())
    assert "megatron-converter" not in str(caught.value)


@pytest.mark.parametrize(
    "file",
    [
        *("model_optim_rng.pt", "last.ckpt", "m.nemo", "model.safetensors", "pytorch_model.bin", "__0_0.distcp"),
        *("checkpoint-500/model.safetensors", "3/pytorch_model.bin", "weights/common.pt", "tf_model.h5"),
    ],
)
def test_weights_of_any_format_are_no_start_from_random_ones(tmp_path: Path, file: str) -> None:
    """Of a run that saves to the directory that it loads; one that starts from a model may have others there."""
    write(tmp_path / file)
    with pytest.raises(CheckpointError, match=f"{tmp_path}: has no checkpoint of .*, but {file}.*--finetune"):
        find_latest(tmp_path, ControlGroup())
    assert find_latest(tmp_path, ControlGroup(), has_model=True).path is None


@pytest.mark.parametrize(
    "files",
    [
        (),
        ("metrics.jsonl", "arguments.json"),
        (".lock",),
        ("x_text_document.bin", "x_text_document.idx", "x_text_document.json"),
        (".iter_0000002.5.tmp/__0_0.distcp",),
    ],
)
def test_a_run_that_has_not_saved_yet_has_no_other_format(tmp_path: Path, files: tuple[str, ...]) -> None:
    for file in files:
        write(tmp_path / file, "{}")
    assert find_latest(tmp_path, ControlGroup()).path is None
