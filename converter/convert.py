"""A conversion from one checkpoint format to another: read, map, write, certify, publish."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from converter.formats.base import MEGATRON_FORMATS, Source
from converter.formats.detection import open_source
from converter.formats.megatron.writer import with_two_token_types
from converter.formats.model_files import open_reference
from converter.formats.record import write_record
from converter.formats.targets import choose_target
from converter.verify.certificate import Certificate, certificate_steps, certify
from converter.verify.parameters import check_parameters, check_reference
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError
from tape.runtime.out_of_memory import MemoryRemedies, explain_out_of_memory
from tape.runtime.progress import progress_bar

from .options import SourceOptions
from .output import Output
from .writing import write_model


@dataclass(frozen=True)
class ConversionRequest:
    """The settings of a conversion.

    Args:
        source: path of the checkpoint to convert, in any format (:mod:`converter.formats.detection`).
        out: a directory, or a file with one of the format's suffixes (:mod:`converter.output`).
        format: format to write, one of :data:`converter.options.FORMATS`.
        dtype: data type of the written weights.
        tensor_parallel, pipeline_parallel: parallel sizes of a written Megatron-LM or Megatron Core checkpoint.
        lm_head: ``keep``; ``drop`` omits the LM head; ``approximate`` gives a Hugging Face head the activation of the
            blocks.
        reference: an existing TAPE checkpoint with the names and shapes that the result must have.
        overwrite: whether to replace an output that isn't an earlier conversion.
        options: settings of the source that its files may leave open.

    Raises:
        ConfigError: if an option belongs to another format.
    """

    source: Path
    out: Path
    format: str = "tape"
    dtype: torch.dtype = torch.float32
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    lm_head: str = "keep"
    reference: Path | None = None
    overwrite: bool = False
    options: SourceOptions = field(default_factory=SourceOptions)

    def __post_init__(self) -> None:
        if self.format not in MEGATRON_FORMATS and (self.tensor_parallel, self.pipeline_parallel) != (1, 1):
            raise ConfigError(
                "--tensor-model-parallel-size and --pipeline-model-parallel-size require --to megatron or megatron-core"
            )
        if self.format != "tape" and self.reference is not None:
            raise ConfigError(
                "-dst requires --to tape: it names a TAPE checkpoint whose names and shapes the result must have"
            )
        if self.format == "pretraining" and self.dtype != torch.float32:
            raise ConfigError("--to pretraining writes float32, the data type of master weights; leave out -dtp")
        if self.format != "huggingface" and self.approximate_head:
            raise ConfigError(
                "--lm-head approximate requires --to huggingface; the other formats represent every head exactly"
            )

    @property
    def approximate_head(self) -> bool:
        return self.lm_head == "approximate"


@explain_out_of_memory("the conversion", None, MemoryRemedies())
def convert(request: ConversionRequest, progress: Callable[[str], None] = print) -> Certificate:
    """Convert a checkpoint and publish the result only if both compute the same.

    Args:
        request: the settings.
        progress: receives one line per step.

    Raises:
        ProteinLMError: if something is missing, damaged or contradictory, or source and result differ; nothing is left
            at the output path.
    """
    output = Output.parse(request.out, request.format, request.overwrite)
    output.check(request.source)
    target = choose_target(
        request.format, output.file, request.tensor_parallel, request.pipeline_parallel, request.approximate_head
    )
    reference = None if request.reference is None else open_reference(request.reference)
    progress(f"reading {request.source}")
    source = open_source(request.source, request.options.with_token_types_of(reference))
    progress(f"  {source.kind}: {_sizes(source.config)}" + ("" if source.has_head else ", no LM head"))
    if source.assumed:
        progress(f"  not stated, and assumed: {'; '.join(source.assumed)}")
    target.check(source.config, source.has_head and request.lm_head != "drop")
    mapped = source.map(with_head=request.lm_head != "drop")
    if request.format == "tape":
        mapped = mapped.with_pooler(source.config)
    check_parameters(mapped.state, source, pooler_needed=request.format == "tape")
    if reference is not None:
        check_reference(mapped.state, reference, request.reference)
    if request.format == "megatron-core":
        mapped = with_two_token_types(mapped)
    for line in mapped.summary():
        progress(f"  {line}")
    origin = source.provenance()
    with output.staging() as folder:
        progress(f"writing {len(mapped.state)} tensors as {request.dtype}")
        write_model(target, folder, mapped.state, source, origin, request.dtype)
        progress("comparing source and result on fixed and random proteins")
        result = open_source(folder / output.file if output.file else folder, SourceOptions())
        certificate = _certify(source, result, request)
        write_record(folder / output.record, origin, source.config, result, mapped, certificate, request.dtype)
    for line in certificate.summary():
        progress(line)
    progress(f"wrote {request.out}")
    return certificate


def _sizes(config: ProteinBertConfig) -> str:
    return (
        f"{config.num_hidden_layers} layers, hidden size {config.hidden_size}, {config.num_attention_heads} heads,"
        f" {config.max_position_embeddings} positions, {config.hidden_act}"
    )


def _certify(source: Source, result: Source, request: ConversionRequest) -> Certificate:
    if source.has_head and not result.has_head and request.lm_head != "drop":
        raise CheckpointError(f"{request.out}: the LM head is missing from the result")
    result.map()  # checks by its own rules that no key is missing or unknown and that tied copies are equal
    approximate = request.approximate_head
    with progress_bar("comparing", certificate_steps(request.dtype, approximate)) as bar:
        return certify(source, result, request.dtype, approximate_head=approximate, advance=bar.update)


@explain_out_of_memory("the comparison", None, MemoryRemedies())
def verify_only(one: Path, other: Path, options: SourceOptions) -> Certificate:
    """Certify two existing models in any formats.

    The weights of the first are rounded to the data type of the second if that is half precision.

    Raises:
        ProteinLMError: if one can't be read, or they differ.
    """
    source, result = open_source(one, options), open_source(other, SourceOptions(verify=options.verify))
    for side in (source, result):
        check_parameters(side.map().state, side)
    dtypes = {tensor.dtype for tensor in result.map().state.values()}
    dtype = min(dtypes, key=lambda dtype: torch.finfo(dtype).bits)
    with progress_bar("comparing", certificate_steps(dtype, False)) as bar:
        return certify(source, result, dtype, advance=bar.update)
