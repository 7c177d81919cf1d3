"""A conversion from one checkpoint format to another: read, map, write, certify, publish."""

from __future__ import annotations

import datetime
import importlib.metadata
import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from converter.formats.base import Source, Target
from converter.formats.detection import open_source
from converter.formats.huggingface.writer import HuggingFaceTarget
from converter.formats.megatron.writer import MegatronTarget
from converter.formats.model_files import file_hashes, modern_name
from converter.formats.tape.writer import TapeTarget
from converter.formats.tensor_files import find_weights, open_weights
from converter.mapping.rules import Mapped, check_complete
from converter.mapping.tables import PROTEINLM_DROPS, TOKEN_TYPES
from converter.verify.certificate import Certificate, certificate_steps, certify
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError
from tape.io.atomic import write_json
from tape.models.lazy_tensors import LazyState, LazyTensor
from tape.models.model_directory import SAFETENSORS_NAME
from tape.models.modeling_bert import ProteinBertForMaskedLM, ProteinBertModel
from tape.runtime.progress import progress_bar

from .options import SourceOptions
from .output import Output

RECORD_FORMAT = "proteinlm-conversion"
RECORD_VERSION = 2
LM_HEADS = ("keep", "drop", "approximate")


@dataclass(frozen=True)
class ConversionRequest:
    """The settings of a conversion.

    Args:
        source: path of the checkpoint to convert, in any format (:mod:`converter.formats.detection`).
        out: a directory, or a file with one of the format's suffixes (:mod:`converter.output`).
        format: format to write: ``tape``, ``megatron`` or ``huggingface``.
        dtype: data type of the written weights.
        tensor_parallel, pipeline_parallel: parallel sizes of a written Megatron-LM checkpoint.
        lm_head: ``keep``; ``drop`` omits the LM head; ``approximate`` gives a Hugging Face head the activation of the
            blocks.
        reference: an existing TAPE checkpoint with the names and shapes that the result must have.
        overwrite: whether to replace an output that isn't an earlier conversion.
        options: settings of the source that its files may leave open.
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

    @property
    def approximate_head(self) -> bool:
        return self.lm_head == "approximate"


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
    target = _target(request, output)
    reference = _reference(request)
    progress(f"reading {request.source}")
    source = open_source(request.source, _with_token_types(request.options, reference))
    progress(f"  {source.kind}: {_sizes(source.config)}" + ("" if source.has_head else ", no LM head"))
    target.check(source.config, source.has_head and request.lm_head != "drop")
    mapped = _without_head(source.map()) if request.lm_head == "drop" else source.map()
    _check_parameters(mapped.state, source, pooler_needed=request.format == "tape")
    if reference is not None:
        check_reference(reference, mapped.state, request.reference)
    origin = source.provenance()
    with output.staging() as folder:
        progress(f"writing {len(mapped.state)} tensors as {request.dtype}")
        _write(target, folder, mapped.state, source, origin, request.dtype)
        progress("comparing source and result on fixed and random proteins")
        result = open_source(folder / output.file if output.file else folder, SourceOptions())
        certificate = _certify(source, result, request)
        record = _record(source, result, mapped, certificate, folder)
        write_json(folder / output.record, record | {"source": origin, "dtype": str(request.dtype)})
    for line in summary(certificate):
        progress(line)
    progress(f"wrote {request.out}")
    return certificate


def summary(certificate: Certificate) -> list[str]:
    """Lines that report what was compared and the largest differences."""
    stage, difference = certificate.parity.worst
    lines = [f"  largest difference {difference:.3g} ({stage}), allowed {certificate.parity.bound:g}"]
    for name, comparison in (("rounding", certificate.rounding), ("head", certificate.approximation)):
        if comparison is not None:
            stage, difference = comparison.worst
            lines.append(f"  {name}: {difference:.3g} of the largest value ({stage}), allowed {comparison.bound:g}")
    if certificate.not_compared:
        lines.append(f"  not compared, because only one side has it: {', '.join(certificate.not_compared)}")
    return lines


def _target(request: ConversionRequest, output: Output) -> Target:
    """The format to write, with its options.

    Raises:
        ConfigError: if an option belongs to another format.
    """
    if request.format != "megatron" and (request.tensor_parallel, request.pipeline_parallel) != (1, 1):
        raise ConfigError("--tensor-model-parallel-size and --pipeline-model-parallel-size require --to megatron")
    if request.format != "tape" and request.reference is not None:
        raise ConfigError(
            "-dst requires --to tape: it names a TAPE checkpoint whose names and shapes the result must have"
        )
    if request.format != "huggingface" and request.approximate_head:
        raise ConfigError(
            "--lm-head approximate requires --to huggingface; the other formats represent every head exactly"
        )
    if request.format == "megatron":
        return MegatronTarget(request.tensor_parallel, request.pipeline_parallel, output.file)
    if request.format == "huggingface":
        return HuggingFaceTarget(request.approximate_head)
    return TapeTarget(output.file or SAFETENSORS_NAME)


def _reference(request: ConversionRequest) -> LazyState | None:
    """The tensors of the checkpoint given by ``-dst``; those of a bare encoder get the prefix ``bert.``."""
    if request.reference is None:
        return None
    weights = find_weights(request.reference)
    if weights is None or not weights.is_file():
        raise CheckpointError(f"{request.reference}: no such model directory or weights file")
    return {modern_name(name): tensor for name, tensor in open_weights(weights).items()}


def _with_token_types(options: SourceOptions, reference: LazyState | None) -> SourceOptions:
    """A source without token types gets as many zero rows as the reference has."""
    if reference is None or TOKEN_TYPES not in reference:
        return options
    return replace(options, token_types=reference[TOKEN_TYPES].shape[0])


def _sizes(config: ProteinBertConfig) -> str:
    return (
        f"{config.num_hidden_layers} layers, hidden size {config.hidden_size}, {config.num_attention_heads} heads,"
        f" {config.max_position_embeddings} positions, {config.hidden_act}"
    )


def _without_head(mapped: Mapped) -> Mapped:
    head = {name: "requested by --lm-head drop" for name in mapped.state if name.startswith("mlm.")}
    state = {name: tensor for name, tensor in mapped.state.items() if name not in head}
    return Mapped(state, mapped.dropped | head, mapped.filled)


def _check_parameters(state: LazyState, source: Source, pooler_needed: bool = False) -> None:
    """Check that the mapping produces exactly the model's parameters (masked-LM models may lack BERT's pooler).

    Raises:
        CheckpointError: if a key is missing, unknown, has another shape, or is not a floating-point tensor.
    """
    for name, tensor in state.items():
        if not tensor.dtype.is_floating_point:
            raise CheckpointError(
                f"{source.path}: {name} has the data type {tensor.dtype}, but weights must be floating-point numbers"
            )
    has_head = "mlm.bias" in state
    with torch.device("meta"):
        model = (ProteinBertForMaskedLM if has_head else ProteinBertModel)(source.config)
    prefix = "" if has_head else "bert."
    expected = {prefix + key: tuple(value.shape) for key, value in model.state_dict().items()}
    if not pooler_needed and not any(name.startswith("bert.pooler.") for name in state):
        expected = {name: shape for name, shape in expected.items() if not name.startswith("bert.pooler.")}
    try:
        check_complete(state, expected)
    except CheckpointError as error:
        raise CheckpointError(f"{source.path}: {error}") from None


def _write(
    target: Target, folder: Path, state: LazyState, source: Source, origin: dict[str, Any], dtype: torch.dtype
) -> None:
    with progress_bar("writing", sum(tensor.bytes for tensor in state.values()), "B") as bar:
        counted: set[str] = set()  # some formats load a tensor once per rank

        def count(name: str) -> None:
            if name not in counted:
                counted.add(name)
                bar.update(state[name].bytes)

        finished = {name: _finished(name, tensor, dtype, source.path, count) for name, tensor in state.items()}
        target.write(folder, finished, source.config, origin)


def _finished(
    name: str, tensor: LazyTensor, dtype: torch.dtype, path: Path, count: Callable[[str], None]
) -> LazyTensor:
    """The tensor in the data type to write; loading it raises CheckpointError if a value is not finite."""

    def load() -> Tensor:
        cast = tensor.load().to(dtype)
        if not bool(torch.isfinite(cast).all()):
            raise CheckpointError(f"{path}: {name} has values that are not finite as {dtype}")
        count(name)
        return cast

    return LazyTensor(tensor.shape, dtype, load)


def _certify(source: Source, result: Source, request: ConversionRequest) -> Certificate:
    with progress_bar("comparing", certificate_steps(request.dtype, request.approximate_head)) as bar:
        if source.has_head and not result.has_head and request.lm_head != "drop":
            raise CheckpointError(f"{request.out}: the LM head is missing from the result")
        result.map()  # checks by its own rules that no key is missing or unknown and that tied copies are equal
        approximate = request.approximate_head
        return certify(source, result, request.dtype, approximate_head=approximate, advance=bar.update)


def verify_only(one: Path, other: Path, options: SourceOptions) -> Certificate:
    """Certify two existing models in any formats.

    The weights of the first are rounded to the data type of the second if that is half precision.

    Raises:
        ProteinLMError: if one can't be read, or they differ.
    """
    source, result = open_source(one, options), open_source(other, SourceOptions())
    for side in (source, result):
        _check_parameters(side.map().state, side)
    dtypes = {tensor.dtype for tensor in result.map().state.values()}
    dtype = min(dtypes, key=lambda dtype: torch.finfo(dtype).bits)
    with progress_bar("comparing", certificate_steps(dtype, False)) as bar:
        return certify(source, result, dtype, advance=bar.update)


def check_reference(reference: LazyState, state: LazyState, path: Path | None) -> None:
    """Check that the result has the reference's names and shapes.

    Raises:
        ConfigError: names the first difference.
    """
    unused = tuple(pattern.rstrip("*") for pattern in PROTEINLM_DROPS)
    expected = {key: value.shape for key, value in reference.items() if not key.startswith(unused)}
    try:
        check_complete(state, expected)
    except CheckpointError as error:
        raise ConfigError(f"-dst {path} does not match the result: {error}") from None


def _record(source: Source, result: Source, mapped: Mapped, certificate: Certificate, folder: Path) -> dict[str, Any]:
    """The content of ``conversion.json`` except the source's provenance."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    hashes = {Path(file).relative_to(folder).as_posix(): entry for file, entry in file_hashes(files).items()}
    return {
        "format": RECORD_FORMAT,
        "version": RECORD_VERSION,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "result": {"kind": result.kind, "files": hashes, "config": source.config.to_dict()},
        "dropped": mapped.dropped,
        "filled": mapped.filled,
        "lm_head": result.has_head,
        "certificate": certificate.as_json(),
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    """Versions of Python and of the packages used, if installed."""
    versions = {"python": platform.python_version()}
    for package in ("torch", "numpy", "safetensors", "transformers"):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
