#!/usr/bin/env python
"""Peak memory of a conversion, including its certificate, relative to the model's size in fp32.

    python benchmarks/converter_memory.py                      # 1 billion parameters in fp16; 6 GB of disk
    python benchmarks/converter_memory.py --hidden 2560 --layers 38 --folder /scratch     # 3 billion

Writes a Megatron-LM checkpoint with random weights, converts it with the converter's command line in a separate
process, and prints that process's peak resident memory (:mod:`tape.runtime.memory`), which includes mapped file pages.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tape.cli.parser import ArgumentParser

if TYPE_CHECKING:
    import torch

ROOT = Path(__file__).resolve().parent.parent

_MEASURED = """
import json, runpy, sys
sys.path.insert(0, sys.argv[1])
from tape.runtime.memory import peak_memory
sys.argv = sys.argv[2:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
except SystemExit as stopped:
    print("PEAK", json.dumps([stopped.code or 0, peak_memory()]))
"""


def build_parser() -> argparse.ArgumentParser:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--hidden", type=int, default=2048, help="hidden size (default %(default)s)")
    add("--layers", type=int, default=20, help="layers (default %(default)s: 1.0 billion parameters with 2048)")
    add("--heads", type=int, default=32, help="attention heads (default %(default)s)")
    add("--positions", type=int, default=2176, help="rows of the position table (default %(default)s)")
    add(
        "--source-dtype",
        choices=("float16", "float32"),
        default="float16",
        help="data type of the source (default %(default)s)",
    )
    add("--dtype", default="torch.float32", help="data type of the result, the converter's -dtp (default %(default)s)")
    add(
        "--to",
        choices=("tape", "megatron", "huggingface"),
        default="tape",
        help="format to write (default %(default)s)",
    )
    add(
        "--folder",
        type=Path,
        help="directory for both models, which are removed afterwards (default: the temporary directory)",
    )
    return parser


def synthetic_model(arguments: argparse.Namespace) -> dict[str, Any]:
    """The ``model`` entry of a checkpoint of one rank, in Megatron's names."""
    import torch  # here: --help doesn't need it

    hidden, wide = arguments.hidden, 4 * arguments.hidden
    dtype = getattr(torch, arguments.source_dtype)
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, mean: float = 0.0) -> torch.Tensor:
        return (torch.randn(*shape, generator=generator) * 0.02 + mean).to(dtype)

    def dense(name: str, rows: int, columns: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": draw(rows, columns), f"{name}.bias": draw(rows)}

    def norm(name: str) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": draw(hidden, mean=1.0), f"{name}.bias": draw(hidden)}

    transformer = norm("final_layernorm")
    for number in range(arguments.layers):
        layer = f"layers.{number}."
        transformer |= norm(layer + "input_layernorm") | norm(layer + "post_attention_layernorm")
        transformer |= dense(layer + "attention.query_key_value", 3 * hidden, hidden)
        transformer |= dense(layer + "attention.dense", hidden, hidden)
        transformer |= dense(layer + "mlp.dense_h_to_4h", wide, hidden)
        transformer |= dense(layer + "mlp.dense_4h_to_h", hidden, wide)
    embedding = {"word_embeddings": {"weight": draw(128, hidden)}}
    embedding["position_embeddings"] = {"weight": draw(arguments.positions, hidden)}
    head = {"bias": draw(128), **dense("dense", hidden, hidden), **norm("layernorm")}
    return {"language_model": {"embedding": embedding, "transformer": transformer}, "lm_head": head}


def write_source(file: Path, arguments: argparse.Namespace) -> int:
    """Write the checkpoint; returns its number of parameters without the padding rows of the vocabulary."""
    import torch

    model = synthetic_model(arguments)
    settings = argparse.Namespace(num_attention_heads=arguments.heads, bias_gelu_fusion=arguments.to != "huggingface")
    settings.openai_gelu = False
    torch.save({"args": settings, "checkpoint_version": 3.0, "iteration": 1, "model": model}, file)
    language = model["language_model"]
    tensors = [*language["transformer"].values(), *(table["weight"] for table in language["embedding"].values())]
    tensors += model["lm_head"].values()
    return sum(tensor.numel() for tensor in tensors) - 98 * (arguments.hidden + 1)


def convert(source: Path, out: Path, arguments: argparse.Namespace) -> tuple[int, float]:
    """Peak memory in bytes and seconds of the conversion.

    Raises:
        SystemExit: the conversion failed; the message has its output.
    """
    script = ROOT / "converter" / "megatron-converter.py"
    options = ["-src", source, "-out", out, "-dtp", arguments.dtype, "--to", arguments.to]
    command = [sys.executable, "-c", _MEASURED, *map(str, [ROOT, script, *options])]
    start = time.monotonic()
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    peaks = [line for line in result.stdout.splitlines() if line.startswith("PEAK ")]
    code, peak = json.loads(peaks[0].removeprefix("PEAK ")) if peaks else (result.returncode, 0)
    if code:
        raise SystemExit(f"the conversion failed ({code})\n{result.stdout}")
    return peak, time.monotonic() - start


def main() -> None:
    arguments = build_parser().parse_args()
    import torch

    folder = Path(tempfile.mkdtemp(prefix="converter_memory.", dir=arguments.folder))
    try:
        source = folder / "model_optim_rng.pt"
        parameters = write_source(source, arguments)
        peak, seconds = convert(source, folder / "out", arguments)
        size = 4 * parameters
        record = {
            "parameters": parameters,
            "source_bytes": source.stat().st_size,
            "fp32_bytes": size,
            "peak_bytes": peak,
            "peak_over_fp32": round(peak / size, 3),
            "seconds": round(seconds, 1),
            "threads": torch.get_num_threads(),
            "cores": os.cpu_count(),
        }
        print(json.dumps({**vars(arguments), **record}, default=str, indent=2))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
