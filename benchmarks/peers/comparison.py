"""What the comparisons have in common: their options, the workers of the tools, the table and the result file."""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tape.errors import ConfigError
from tape.io.writing import write_json
from tape.runtime.cpu import usable_cores

from .environment import DEFAULT_FOLDER, peers_python
from .protocol import ROOT, Message, Worker, WorkerError
from .rounds import OURS, Series, best_of, ratios_of

SAMPLE = ROOT / "tape" / "sample" / "corpus" / "chains_train.fasta.xz"
WORKER_OF_OURS = "benchmarks.peers.ours"
_WORKER_OF = {"tape-proteins": "benchmarks.peers.tape_proteins"}
_WORKER_OF_OTHERS = "benchmarks.peers.hugging_face"


def add_options(parser: argparse.ArgumentParser, peers: Sequence[str], rounds: int = 3) -> None:
    """Add the options that every comparison has.

    Args:
        parser: the parser of the command line.
        peers: the tools that can be measured; all by default.
        rounds: default number of rounds.
    """
    parser.add_argument("--peers", nargs="*", default=list(peers), choices=list(peers), metavar="PEER", help="tools")
    parser.add_argument("--rounds", type=int, default=rounds, help="measurements of each tool (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=usable_cores(), help="of every tool (default: usable cores)")
    parser.add_argument("--quick", action="store_true", help="a toy size")
    parser.add_argument("--peers-env", type=Path, default=DEFAULT_FOLDER, help="environment of the peers")
    parser.add_argument("--no-install", dest="install", action="store_false", help="skip peers that aren't installed")
    parser.add_argument("--json", type=Path, help="also write all measurements to this file")


def parse_options(
    parser: argparse.ArgumentParser, words: Sequence[str] | None, quick: Mapping[str, Any]
) -> argparse.Namespace:
    """Parse a command line; ``quick`` are the defaults of the options under ``--quick``."""
    options = parser.parse_args(words)
    if options.quick:
        parser.set_defaults(**quick)
        options = parser.parse_args(words)
    return options


def parse_size(text: str) -> tuple[int, int]:
    """Hidden size and layers of ``512x8``.

    Raises:
        ConfigError: another form.
    """
    hidden, _, layers = text.partition("x")
    if not (hidden.isdigit() and layers.isdigit()):
        raise ConfigError(f"--sizes takes HIDDENxLAYERS such as 512x8, not {text}")
    return int(hidden), int(layers)


def open_worker(stack: ExitStack, tool: str, setup: Message, options: argparse.Namespace) -> Worker | str:
    """The worker of a tool, closed with ``stack``, or the reason why there is none."""
    try:
        if tool == OURS:
            python, module = Path(sys.executable), WORKER_OF_OURS
        else:
            python = peers_python(options.peers_env.absolute(), options.install)
            module = _WORKER_OF.get(tool, _WORKER_OF_OTHERS)
        return stack.enter_context(Worker(module, python, {**setup, "tool": tool}, options.threads))
    except (WorkerError, ConfigError) as error:
        return str(error)


def table(series: Sequence[Series]) -> list[str]:
    """A Markdown table with a line per variant; the fastest setting of each tool is bold.

    The replies have ``tokens`` without padding, and optionally ``padded_tokens`` and ``memory_bytes``, whose maximum is
    shown.
    """
    lines = [
        "| tool | setting | tokens/s | min - max | unpadded | memory | time / ours |",
        "|:--|:--|--:|:--|--:|--:|:--|",
    ]
    for one, ratio in zip(series, ratios_of(series), strict=True):
        cells = [one.variant.tool, one.variant.setting]
        if one.error is not None:
            cells += [f"skipped: {one.error}", "", "", "", ""]
        else:
            is_best = one is best_of(series, one.variant.tool)
            cells += [*_speeds(one, is_best), _memory(one), "" if ratio is None else str(ratio)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _speeds(series: Series, is_best: bool) -> list[str]:
    tokens = series.replies[0]["tokens"]
    speed = f"{tokens / series.median:,.0f}"
    spread = f"{tokens / max(series.seconds):,.0f} - {tokens / min(series.seconds):,.0f}"
    unpadded = tokens / series.replies[0].get("padded_tokens", tokens)
    return [f"**{speed}**" if is_best else speed, spread, f"{unpadded:.0%}"]


def _memory(series: Series) -> str:
    found = [reply.get("memory_bytes") for reply in [series.warm_up, *series.replies]]
    known = [memory for memory in found if memory is not None]
    return f"{max(known) / 1e9:.2f} GB" if known else ""


def records(series: Sequence[Series]) -> list[dict[str, Any]]:
    """The measurements for the result file, with median, ratio and all replies."""
    return [
        {
            "tool": one.variant.tool,
            "setting": one.variant.setting,
            "error": one.error,
            "median_seconds": one.median if one.error is None else None,
            "median_tokens_per_second": one.replies[0]["tokens"] / one.median if one.error is None else None,
            "ratio": None if ratio is None else asdict(ratio),
            "warm_up": one.warm_up,
            "replies": one.replies,
        }
        for one, ratio in zip(series, ratios_of(series), strict=True)
    ]


def descriptions_of(workers: Mapping[str, Worker | str]) -> dict[str, Message]:
    """What each worker has replied to its setup."""
    return {tool: worker.description for tool, worker in workers.items() if isinstance(worker, Worker)}


def write_results(options: argparse.Namespace, data: Mapping[str, Any], results: Sequence[Mapping[str, Any]]) -> None:
    """Write the result file, if one was asked for: machine, options, data and results."""
    if options.json is not None:
        record = {"machine": machine(), "options": option_values(options)}
        write_json(options.json, {**record, "data": data, "results": results})


def option_values(options: argparse.Namespace) -> dict[str, Any]:
    """The options of a command as JSON values."""
    return {name: str(value) if isinstance(value, Path) else value for name, value in vars(options).items()}


def machine() -> dict[str, Any]:
    """Processor, its instructions for matrix products, versions and the date."""
    fields: dict[str, str] = {}
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        fields = {name.strip(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    flags = fields.get("flags", "").split()
    return {
        "processor": fields.get("model name") or platform.processor() or platform.machine(),
        "instructions": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags],
        "torch": version("torch"),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
    }
