"""Choice of the format to write."""

from __future__ import annotations

from converter.formats.huggingface.writer import HuggingFaceTarget
from converter.formats.megatron.writer import MegatronTarget
from converter.formats.sharded.writer import ShardedTarget
from converter.formats.tape.writer import TapeTarget
from tape.models.model_directory import SAFETENSORS_NAME

from .base import MEGATRON_FORMATS, Target


def choose_target(
    format: str, file: str | None, tensor_parallel: int, pipeline_parallel: int, approximate_head: bool
) -> Target:
    """The format to write, with its options.

    Args:
        format: one of :data:`converter.options.FORMATS`.
        file: name of the single file to write; None writes a directory.
        tensor_parallel, pipeline_parallel: parallel sizes of a Megatron-LM checkpoint.
        approximate_head: whether a Hugging Face head gets the activation of the blocks.
    """
    if format in MEGATRON_FORMATS:
        return MegatronTarget(tensor_parallel, pipeline_parallel, file, core=format == "megatron-core")
    if format == "huggingface":
        return HuggingFaceTarget(approximate_head)
    if format == "pretraining":
        return ShardedTarget()
    return TapeTarget(file or SAFETENSORS_NAME)
