"""Recognition of checkpoints and models of other formats by names and first bytes of files; nothing is loaded.

Pretraining, finetuning and the converter read different formats. Each refuses the others by the names defined here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from tape.errors import CheckpointError

from .json_files import read_json_object

MMAP_INDEX_MAGIC = b"MMIDIDX\x00\x00"
LAZY_INDEX_MAGIC = b"TNTIDX\x00\x00"
_INDEX_MAGICS = (MMAP_INDEX_MAGIC, LAZY_INDEX_MAGIC)
_CONFIG_NAME = "config.json"


@dataclass(frozen=True)
class CheckpointFormat:
    """A format of checkpoints or models.

    Attributes:
        name: the name with its article, for messages.
        export: what makes a checkpoint of it that the converter reads; None if the converter reads it as it is.
        reader: the commands that read it without a conversion, as a clause; None if there are none.
        is_model: whether it holds a model.
    """

    name: str
    export: str | None = None
    reader: str | None = None
    is_model: bool = True


TAPE_RUN = CheckpointFormat(
    "a run directory of tape-train",
    reader="tape-eval evaluates it, and tape-train continues it with --from_pretrained and --resume_from_checkpoint",
)
TAPE_MODEL = CheckpointFormat(
    "a TAPE model directory", reader="tape-train finetunes it with --from_pretrained, without a conversion"
)
HUGGINGFACE = CheckpointFormat("a Hugging Face model directory")
MEGATRON = CheckpointFormat("a Megatron-LM checkpoint")
MEGATRON_CORE = CheckpointFormat("a distributed checkpoint of Megatron Core")
DEEPSPEED = CheckpointFormat(
    "a DeepSpeed checkpoint",
    "run zero_to_fp32.py, which DeepSpeed saves beside its checkpoints, and convert the state dict that it writes",
)
NEMO = CheckpointFormat("a NeMo archive", "export a Megatron-LM checkpoint with NeMo's scripts, and convert that")
CORPUS_INDEX = CheckpointFormat("the index of a pretraining corpus (Megatron-LM or fairseq)", is_model=False)
PYTORCH_FILE = CheckpointFormat("a PyTorch file")
BIN_FILE = CheckpointFormat("a file of PyTorch or of a tokenized corpus")
SAFETENSORS_FILE = CheckpointFormat("a safetensors file")
_SUFFIXES = {
    ".nemo": NEMO,
    ".pt": PYTORCH_FILE,
    ".pth": PYTORCH_FILE,
    ".ckpt": PYTORCH_FILE,
    ".bin": BIN_FILE,
    ".safetensors": SAFETENSORS_FILE,
}

# of files of weights in directories, beside those above; .bin is also that of a corpus, with an index beside it
_WEIGHTS_SUFFIXES = {*_SUFFIXES, ".distcp", ".h5", ".msgpack"}

# prefixes that wrappers of a model give to all of its keys -> the wrapper
_WRAPPERS = {
    "module.": "DistributedDataParallel or DeepSpeed",
    "_orig_mod.": "torch.compile",
    "model.": "PyTorch Lightning, NeMo or another wrapper",
    "_forward_module.": "Lightning Fabric",
}


def recognize_format(path: Path) -> CheckpointFormat | None:
    """The format of a checkpoint or model.

    Args:
        path: a file or directory; it may be missing.

    Returns:
        The format; None for files and directories of none of the known formats.
    """
    if path.is_file():
        return CORPUS_INDEX if _starts_with_index_magic(path) else _SUFFIXES.get(path.suffix)
    if not path.is_dir():
        return None
    return next((found for found, matches in _DIRECTORIES if matches(path)), None)


def find_weights_file(path: Path) -> Path | None:
    """A file of weights in a directory, or one level below it, by its suffix; None if there is none.

    Hidden directories, such as those of checkpoints that were not completed, are left out.
    """
    for folder in (path, *sorted(child for child in path.glob("*") if child.is_dir())):
        names = [] if folder.name.startswith(".") and folder != path else sorted(folder.glob("*"))
        for file in names:
            is_corpus = file.suffix == ".bin" and file.with_suffix(".idx").is_file()
            if file.suffix in _WEIGHTS_SUFFIXES and not is_corpus and file.is_file():
                return file
    return None


def _starts_with_index_magic(file: Path) -> bool:
    with file.open("rb") as stream:
        return stream.read(len(MMAP_INDEX_MAGIC)).startswith(_INDEX_MAGICS)


def _is_deepspeed(path: Path) -> bool:
    patterns = ("mp_rank_*_model_states.pt", "*zero_pp_rank_*_optim_states.pt")
    return any(_contains(folder, pattern) for folder in (path, *path.glob("global_step*")) for pattern in patterns)


def _is_megatron_core(path: Path) -> bool:
    return any((folder / "common.pt").is_file() for folder in _iterations(path))


def _is_megatron(path: Path) -> bool:
    return any(_contains(folder, "mp_rank_*") for folder in _iterations(path))


def _iterations(path: Path) -> Iterator[Path]:
    yield path
    yield path / "release"
    yield from path.glob("iter_*")


def _contains(folder: Path, pattern: str) -> bool:
    return next(folder.glob(pattern), None) is not None


def _is_tape_run(path: Path) -> bool:
    return (path / "args.json").is_file() and any((path / name).is_file() for name in ("latest.json", "best.json"))


def _has_model_config(path: Path, huggingface: bool) -> bool:
    try:
        return ("model_type" in read_json_object(path / _CONFIG_NAME)) == huggingface
    except CheckpointError:
        return False


# in this order: DeepSpeed's files have names that begin as the directories of Megatron-LM
_DIRECTORIES: tuple[tuple[CheckpointFormat, Callable[[Path], bool]], ...] = (
    (DEEPSPEED, _is_deepspeed),
    (MEGATRON_CORE, _is_megatron_core),
    (MEGATRON, _is_megatron),
    (TAPE_RUN, _is_tape_run),
    (HUGGINGFACE, lambda path: _has_model_config(path, huggingface=True)),
    (TAPE_MODEL, lambda path: _has_model_config(path, huggingface=False)),
)


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
