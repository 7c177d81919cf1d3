#!/usr/bin/env python
"""The operations whose implementation on a CPU was chosen by measurement, side by side with torch's own.

    python benchmarks/cpu_operations.py --json cpu_operations.json

Each line has the time of a forward and backward pass by torch's own operation and in ours, in turn, as the minimum of
several passes, and their ratio: attention by length (tape/models/attention.py), GELU (activations.py), dropout
(dropout.py), the last convolution of the head of secondary structure (packed_convolution.py), the loss of contacts
(contact_heads.py, beside the cross entropy of both classes), and a linear map with and without reuse of freed memory
(tape/runtime/cpu.py).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

from tape.cli.parser import ArgumentParser
from tape.errors import run_cli
from tape.runtime.cpu import configure_cpu

_TOKENS = 2176


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=7, help="counted passes (default: 7)")
    parser.add_argument("--tokens", type=int, default=_TOKENS, help="tokens of a pass (default: 2176)")
    parser.add_argument("--json", type=Path, help="also write the times to this file")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    parser.add_argument("--configure", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    import torch

    from benchmarks.cpu_timing import compare_operations, compare_settings, measure_setting

    if options.measure is not None:
        if options.configure:
            configure_cpu()
        print(measure_setting(options.measure, options.repeats))
        return
    results = list(compare_settings(options.repeats))
    configure_cpu()
    results += compare_operations(options.tokens, options.repeats)
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}; milliseconds, forward and backward pass")
    print("| operation | precision | torch | ours | torch / ours |\n|:--|:--|--:|--:|--:|")
    for result in results:
        print(result.line(), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps([asdict(result) for result in results], indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(run_cli(main))
