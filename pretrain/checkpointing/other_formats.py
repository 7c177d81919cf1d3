"""Names the format of a model or checkpoint that is not a pretraining run's; by file names, nothing is loaded."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tape.errors import CheckpointError
from tape.io.json_files import read_json_object

from .format import METADATA_NAME

_CONFIG_NAME = "config.json"
_SINGLE_FILES = {
    ".pt": "a PyTorch file",
    ".pth": "a PyTorch file",
    ".ckpt": "a PyTorch file",
    ".bin": "a PyTorch file (or a tokenized corpus)",
    ".safetensors": "a safetensors file",
}


def name_other_format(path: Path) -> str | None:
    """What ``path`` is, as words with an article, if it is a model or checkpoint of another format.

    Args:
        path: a file or directory; it may be missing.

    Returns:
        Such as ``a Megatron-LM checkpoint``; None for a directory of none of the known formats.
    """
    if path.is_file():
        return _SINGLE_FILES.get(path.suffix, "a file, not a directory of checkpoints")
    if not path.is_dir() or (path / METADATA_NAME).is_file():
        return None
    return next((name for name, matches in _DIRECTORIES if matches(path)), None)


def _is_megatron_core(path: Path) -> bool:
    return any((folder / "common.pt").is_file() for folder in _iterations(path))


def _is_megatron(path: Path) -> bool:
    return any(next(folder.glob("mp_rank_*"), None) is not None for folder in _iterations(path))


def _iterations(path: Path) -> list[Path]:
    return [path, path / "release", *path.glob("iter_*")]


def _is_deepspeed(path: Path) -> bool:
    return (path / "latest").is_file() and next(path.glob("global_step*"), None) is not None


def _is_tape_run(path: Path) -> bool:
    return (path / "args.json").is_file() and any((path / name).is_file() for name in ("latest.json", "best.json"))


def _has_model_config(path: Path, huggingface: bool) -> bool:
    try:
        return ("model_type" in read_json_object(path / _CONFIG_NAME)) == huggingface
    except CheckpointError:
        return False


_DIRECTORIES: tuple[tuple[str, Callable[[Path], bool]], ...] = (
    ("a Megatron Core checkpoint", _is_megatron_core),
    ("a DeepSpeed checkpoint", _is_deepspeed),
    ("a Megatron-LM checkpoint", _is_megatron),
    ("a run directory of tape-train", _is_tape_run),
    ("a Hugging Face model directory", lambda path: _has_model_config(path, huggingface=True)),
    ("a TAPE model directory", lambda path: _has_model_config(path, huggingface=False)),
)
