"""One conversion from beginning to end: read, map, write, certify, publish."""

from __future__ import annotations

import datetime
import platform
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tape.atomic_files import write_json
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError
from tape.models.model_directory import load_state_dict, save_model_directory
from tape.models.modeling_bert import ProteinBertForMaskedLM, ProteinBertModel

from .mapping import PROTEINLM_DROPS, Mapped, check_total
from .options import SourceOptions
from .output import RECORD_NAME, Output
from .provenance import file_hashes
from .sources import Source, open_source
from .verify import Certificate, certify

RECORD_FORMAT = "proteinlm-conversion"
RECORD_VERSION = 1
_TOKEN_TYPES = "bert.embeddings.token_type_embeddings.weight"


@dataclass(frozen=True)
class Request:
    """What a user asks for.

    Args:
        source: see :mod:`converter.sources`.
        out: a directory, or a file ending in ``.bin`` or ``.safetensors``.
        dtype: of the written weights.
        reference: an existing TAPE checkpoint whose names and shapes the result must have.
        overwrite: replace an output that isn't an earlier conversion.
    """

    source: Path
    out: Path
    dtype: torch.dtype = torch.float32
    reference: Path | None = None
    overwrite: bool = False
    options: SourceOptions = field(default_factory=SourceOptions)


def convert(request: Request, progress: Callable[[str], None] = print) -> Certificate:
    """Convert, prove, and only then publish under the output's name.

    Raises:
        ProteinLMError: anything missing, damaged, contradicting or differing; nothing is left under the output's name.
    """
    output = Output.parse(request.out, request.overwrite)
    output.check(request.source)
    reference = None if request.reference is None else load_state_dict(request.reference)
    progress(f"reading {request.source}")
    source = open_source(request.source, _with_token_types(request.options, reference))
    progress(f"  {source.kind}: {_sizes(source.config)}" + ("" if source.has_head else ", no LM head"))
    mapped = source.map()
    state = _finish(mapped, source, request.dtype)
    if reference is not None:
        check_against(reference, state, request.reference)
    with output.staging() as folder:
        progress(f"writing {len(state)} tensors as {request.dtype}")
        origin = source.provenance()
        provenance = {"written_by": "converter/megatron-converter.py", "source": origin}
        save_model_directory(folder, state, source.config, weights=output.weights, provenance=provenance)
        progress("comparing source and result on fixed and random proteins")
        certificate = certify(source, folder, request.dtype, folder / output.weights)
        record = _record(source, mapped, certificate, folder / output.weights)
        record |= {"source": origin, "dtype": str(request.dtype)}
        write_json(folder / RECORD_NAME, record)
    stage, difference = certificate.parity.worst
    progress(f"  largest difference {difference:.3g} ({stage}), allowed {certificate.parity.bound:g}")
    progress(f"wrote {request.out}")
    return certificate


def _with_token_types(options: SourceOptions, reference: dict[str, Tensor] | None) -> SourceOptions:
    """Token types that the source doesn't have are zeros, as many as the reference has."""
    if reference is None or _TOKEN_TYPES not in reference:
        return options
    return replace(options, token_types=reference[_TOKEN_TYPES].shape[0])


def _sizes(config: ProteinBertConfig) -> str:
    return (
        f"{config.num_hidden_layers} layers, hidden size {config.hidden_size}, {config.num_attention_heads} heads,"
        f" {config.max_position_embeddings} positions, {config.hidden_act}"
    )


def _finish(mapped: Mapped, source: Source, dtype: torch.dtype) -> dict[str, Tensor]:
    """Check that the model's parameters are produced, all and no others, and apply the data type.

    Raises:
        CheckpointError: a key is missing, unknown or of another shape, or a value isn't finite in ``dtype``.
    """
    with torch.device("meta"):
        model = (ProteinBertForMaskedLM if source.has_head else ProteinBertModel)(source.config)
    prefix = "" if source.has_head else "bert."
    check_total(mapped.state, {prefix + key: value.shape for key, value in model.state_dict().items()})
    state = {}
    for key, tensor in mapped.state.items():
        state[key.removeprefix(prefix)] = cast = tensor.to(dtype)
        if not bool(torch.isfinite(cast).all()):
            raise CheckpointError(f"{source.path}: {key} has values that aren't finite numbers as {dtype}")
    return state


def check_against(reference: dict[str, Tensor], state: dict[str, Tensor], path: Path | None) -> None:
    """The result has the reference's names and shapes, its values aside.

    Raises:
        ConfigError: names the first difference.
    """
    unused = tuple(pattern.rstrip("*") for pattern in PROTEINLM_DROPS)
    expected = {key: value.shape for key, value in reference.items() if not key.startswith(unused)}
    try:
        check_total(state, expected)
    except CheckpointError as error:
        raise ConfigError(f"-dst {path} is no model of this kind: {error}") from None


def _record(source: Source, mapped: Mapped, certificate: Certificate, weights: Path) -> dict[str, Any]:
    """What ``conversion.json`` holds beside the source's provenance."""
    (hashed,) = file_hashes([weights]).values()
    return {
        "format": RECORD_FORMAT,
        "version": RECORD_VERSION,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "result": {"files": {weights.name: hashed}, "config": source.config.to_dict()},
        "dropped": mapped.dropped,
        "filled": mapped.filled,
        "lm_head": source.has_head,
        "certificate": certificate.as_json(),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
    }
