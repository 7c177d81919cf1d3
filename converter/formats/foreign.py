"""Recognition of checkpoints that the converter does not read, so that errors name them and what to do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tape.errors import CheckpointError

# prefixes that wrappers of a model give to all of its keys -> the wrapper
_WRAPPERS = {
    "module.": "DistributedDataParallel or DeepSpeed",
    "_orig_mod.": "torch.compile",
    "model.": "PyTorch Lightning, NeMo or another wrapper",
    "_forward_module.": "Lightning Fabric",
}
_INDEX_MAGICS = (b"MMIDIDX\x00", b"TNTIDX\x00\x00")


def refuse_foreign_path(path: Path) -> None:
    """Refuse files and directories of other frameworks that can be recognized by their names.

    Raises:
        CheckpointError: names the framework and how to continue.
    """
    if path.suffix == ".nemo":
        raise CheckpointError(
            f"{path}: a NeMo archive, which the converter does not read: export a Megatron-LM checkpoint with NeMo's"
            " scripts, and convert that"
        )
    if path.is_file() and _starts_with(path, _INDEX_MAGICS):
        raise CheckpointError(f"{path}: the index of a pretraining corpus (Megatron-LM or fairseq), not a model")
    if not path.is_dir():
        return
    for folder in (path, *_named_by(path / "latest")):
        if any(folder.glob("mp_rank_*_model_states.pt")) or any(folder.glob("*zero_pp_rank_*_optim_states.pt")):
            raise CheckpointError(
                f"{folder}: a DeepSpeed checkpoint, which the converter does not read: run zero_to_fp32.py, which"
                " DeepSpeed saves beside its checkpoints, and convert the state dict that it writes"
            )
    if (path / "common.pt").is_file() and (path / "metadata.json").is_file():
        raise CheckpointError(
            f"{path}: a distributed checkpoint of Megatron Core, which the converter does not read: save it in the"
            " classic format with Megatron-LM's --ckpt-convert-format torch --ckpt-convert-save"
        )


def _starts_with(file: Path, magics: tuple[bytes, ...]) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(magics[0])).startswith(magics)


def _named_by(pointer: Path) -> list[Path]:
    """The directory that DeepSpeed's file ``latest`` names."""
    name = pointer.read_text(encoding="utf-8", errors="replace").strip() if pointer.is_file() else ""
    return [pointer.parent / name] if name and Path(name).name == name else []


def refuse_wrapped_keys(names: Iterable[str], path: Path) -> None:
    """Refuse a state dict in which all keys have the prefix of a wrapper.

    Raises:
        CheckpointError: names the prefix and how to remove it.
    """
    names = [str(name) for name in names]
    for prefix, wrapper in _WRAPPERS.items():
        if names and all(name.startswith(prefix) for name in names):
            raise CheckpointError(
                f"{path}: all keys have the prefix {prefix!r} of {wrapper}: remove it, for example with"
                f" {{key.removeprefix({prefix!r}): value for key, value in state.items()}}, and save the result"
            )


def describe_content(content: Mapping[Any, Any]) -> str:
    """What a file without a Megatron language model is, by its keys; else the keys themselves."""
    if "pytorch-lightning_version" in content:
        return "a PyTorch Lightning checkpoint: save its state_dict alone, without the prefix of its keys"
    if {"model", "optimizer_history"} <= content.keys():
        return "a fairseq checkpoint, whose models the converter does not support"
    if "ds_config" in content or "ds_version" in content:
        return "a DeepSpeed checkpoint: write one state dict with DeepSpeed's zero_to_fp32.py and convert that"
    shown = ", ".join(str(key)[:60] for key in list(content)[:6])
    return f"contains no Megatron language model (its keys: {shown})"
