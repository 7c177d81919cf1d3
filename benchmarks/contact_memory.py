#!/usr/bin/env python
"""Peak memory of one training step of contact prediction against the length of the protein.

    python benchmarks/contact_memory.py                     the released model's size, lengths 100 to 1,000
    python benchmarks/contact_memory.py --layers 2 --hidden 128 --lengths 100 200 --heads linear pair_tensor

Each measurement runs in a separate process, which builds the model, takes one AdamW step (forward, backward, update;
batch of one) and reports its peak memory (:mod:`tape.runtime.memory`). The heads are:

    linear              TAPE's head in its low-rank form, as this repository computes it
    resnet              ProteinLM's head: 1x1 convolution in the same form, 30 residual blocks
    resnet_checkpoint   the same with ``contact_checkpoint``: blocks and attention maps recomputed in the backward pass
    pair_tensor         TAPE's head as tape-proteins 0.5 evaluates it, over the L x L x 2H tensor of pair features

Prints a line per measurement, then a table with a row per length and a column per head. Lengths at which the
extrapolated memory of a head exceeds ``--limit-gb`` are skipped. RLIMIT_DATA ends a process that exceeds the limit
nevertheless, before the machine runs out of memory. The processes use huge pages (THP_MEM_ALLOC_ENABLE, which is useful
for training as well), because tensors of 256 MB are allocated and freed repeatedly: with pages of 4 KiB, the kernel
took two fifths of the step at 1,000 residues.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tape.cli.parser import ArgumentParser
from tape.io.writing import write_json
from tape.runtime.memory import peak_memory

if TYPE_CHECKING:  # imports torch, which --help doesn't need
    from tape.models.modeling_bert import ProteinBertForContactPrediction

HEADS = ("linear", "resnet", "resnet_checkpoint", "pair_tensor")
LENGTHS = (100, 200, 400, 700, 1000)
_OVER_LIMIT = 3  # exit code of a measurement


@dataclass(frozen=True)
class Measurement:
    """One process's result: peak resident memory in GB (10^9 bytes), seconds of the step."""

    head: str
    length: int
    peak_gb: float
    seconds: float


def build_model(head: str, hidden: int, layers: int, length: int) -> ProteinBertForContactPrediction:
    """A transformer with this head, in training mode."""
    from tape.configs import ProteinBertConfig
    from tape.models.modeling_bert import ProteinBertForContactPrediction

    config = ProteinBertConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 64),
        intermediate_size=4 * hidden,
        max_position_embeddings=max(2176, length + 2),
        type_vocab_size=1,
        contact_head="linear" if head in ("linear", "pair_tensor") else "resnet",
        contact_checkpoint=head == "resnet_checkpoint",
    )
    model = ProteinBertForContactPrediction(config)
    if head == "pair_tensor":
        from benchmarks.pair_tensor_head import PairTensorHead

        model.predict = PairTensorHead(hidden)  # type: ignore[assignment]  # the same call
    return model.train()


def measure(head: str, length: int, hidden: int, layers: int) -> Measurement:
    """One training step in this process."""
    import torch

    torch.manual_seed(0)
    model = build_model(head, hidden, layers, length)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
    ids = torch.randint(5, 30, (1, length + 2))
    targets = torch.randint(0, 2, (1, length, length))
    start = time.monotonic()
    (loss, _), _ = model(ids, torch.ones_like(ids), targets)
    loss.backward()
    optimizer.step()
    seconds = time.monotonic() - start
    return Measurement(head, length, round(peak_memory() / 1e9, 2), round(seconds, 1))


def measure_within(limit_gb: float, head: str, length: int, hidden: int, layers: int) -> int:
    """Print the measurement as JSON; the exit code is ``_OVER_LIMIT`` if it needs more memory than the limit."""
    limit = int(limit_gb * 1e9)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    try:
        print(json.dumps(asdict(measure(head, length, hidden, layers))))
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, MemoryError) or "allocate memory" in str(error) or "bad_alloc" in str(error):
            return _OVER_LIMIT
        raise
    return 0


def run_one(head: str, length: int, options: argparse.Namespace) -> Measurement | str:
    """Measure in a separate process; without a result, the reason as text."""
    words = ["--one", head, str(length), "--hidden", str(options.hidden), "--layers", str(options.layers)]
    words += ["--limit-gb", str(options.limit_gb)]
    command = [sys.executable, __file__, *words]
    environment = {"THP_MEM_ALLOC_ENABLE": "1", **os.environ}
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, env=environment)
    if result.returncode == _OVER_LIMIT:
        return f"over {options.limit_gb:g} GB"
    if result.returncode:
        return f"failed with exit code {result.returncode}"
    return Measurement(**json.loads(result.stdout.splitlines()[-1]))


def expected_gb(curve: list[Measurement], length: int) -> float:
    """Memory at the next length, extrapolated from the last two points with the square of the length."""
    if len(curve) < 2:
        return 0.0
    (x0, y0), (x1, y1) = ((point.length**2, point.peak_gb) for point in curve[-2:])
    return y1 + (y1 - y0) / (x1 - x0) * (length**2 - x1)


def measure_head(head: str, options: argparse.Namespace) -> list[Measurement]:
    """The measurements of one head, up to the limit."""
    curve: list[Measurement] = []
    for length in sorted(options.lengths):
        expected = expected_gb(curve, length)
        if expected > options.limit_gb:
            print(f"{head:18}{length:6}  skipped: would take about {expected:.0f} GB", flush=True)
            break
        point = run_one(head, length, options)
        if isinstance(point, str):
            print(f"{head:18}{length:6}  {point}", flush=True)
            break
        curve.append(point)
        print(f"{head:18}{length:6}{point.peak_gb:9.2f} GB{point.seconds:9.1f} s", flush=True)
    return curve


def curve_table(points: list[Measurement], heads: list[str], lengths: list[int]) -> str:
    """Markdown table of peak memory and step time: a row per length, a column per head; a dash if not measured."""
    found = {(point.head, point.length): point for point in points}
    lines = ["| residues | " + " | ".join(heads) + " |", "|--:|" + "--:|" * len(heads)]
    for length in sorted(lengths):
        cells = [found.get((head, length)) for head in heads]
        shown = ["-" if cell is None else f"{cell.peak_gb:.2f} GB, {cell.seconds:.1f} s" for cell in cells]
        lines.append(f"| {length} | " + " | ".join(shown) + " |")
    return "\n".join(lines)


def parse(words: list[str] | None = None) -> argparse.Namespace:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", nargs="+", type=int, default=list(LENGTHS), help="residues (default %(default)s)")
    parser.add_argument("--heads", nargs="+", choices=HEADS, default=list(HEADS))
    parser.add_argument("--hidden", type=int, default=1024, help="hidden size (default %(default)s)")
    parser.add_argument("--layers", type=int, default=16, help="layers (default %(default)s)")
    parser.add_argument(
        "--limit-gb", type=float, default=12.0, help="memory limit of a process in GB (default %(default)s)"
    )
    parser.add_argument("--json", type=Path, help="also write the measurements to this file")
    parser.add_argument("--one", nargs=2, metavar=("HEAD", "LENGTH"), help="measure in this process, print JSON")
    return parser.parse_args(words)


def main(words: list[str] | None = None) -> int:
    options = parse(words)
    if options.one:
        head, length = options.one
        return measure_within(options.limit_gb, head, int(length), options.hidden, options.layers)
    print(f"{'head':18}{'length':>6}{'peak':>9}   {'step':>9}")
    found = [point for head in options.heads for point in measure_head(head, options)]
    print(f"\n{curve_table(found, options.heads, options.lengths)}")
    if options.json:
        write_json(options.json, [asdict(point) for point in found])
    return 0


if __name__ == "__main__":
    sys.exit(main())
