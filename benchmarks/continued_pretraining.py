#!/usr/bin/env python
"""Continue pretraining from one model in every form: the losses of the first steps, by form and layout.

    python benchmarks/continued_pretraining.py --json continued.json

A small model is pretrained on the packaged chains and converted to every form that the converter writes. From each of
them, ``--finetune`` starts a run on other chains, in a single process and with tensor parallelism over two. All forms
hold the same weights, and every run sees the same rows, so that all have the same losses; a run from random weights
shows what the weights are worth. Runs on the CPU; three minutes of one core.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

from tape.cli.parser import ArgumentParser
from tape.errors import ProteinLMError, run_cli
from tape.io.writing import write_text

ROOT = Path(__file__).resolve().parents[1]
SAMPLE = ROOT / "tape" / "sample" / "corpus"
# blocks and head have the erf GELU, because a Hugging Face model has one activation for both
MODEL = """--num-layers 4 --hidden-size 64 --num-attention-heads 4 --max-position-embeddings 512
    --init-method-std 0.1 --no-bias-gelu-fusion"""
RUN = """--seq-length 256 --micro-batch-size 4 --global-batch-size 4 --attention-dropout 0 --hidden-dropout 0 --seed 1
    --split 1,0,0 --eval-iters 0 --num-workers 1 --log-interval 1000 --peak-tflops 1"""
TENSOR = ("--tensor-model-parallel-size", "2")
LAYOUTS: dict[str, tuple[str, ...]] = {"1 process": (), "TP 2": TENSOR}
RANDOM, RUN_ITSELF = "random weights", "run of pretrain_tape.py"
# form -> options of the converter
CONVERSIONS = {
    "--to pretraining": ("--to", "pretraining"),
    "Megatron-LM, TP 2": ("--to", "megatron", *TENSOR),
    "Megatron Core, TP 2": ("--to", "megatron-core", *TENSOR),
    "TAPE": ("--to", "tape"),
    "Hugging Face": ("--to", "huggingface"),
}


@dataclass(frozen=True)
class Continuation:
    """The losses of a run, in nats per masked residue, by step."""

    form: str
    layout: str
    losses: list[float]


class Commands:
    """Runs the commands in a folder.

    Args:
        folder: where they write.
        pretraining_steps, steps: iterations of the first run and of those that continue it.
    """

    def __init__(self, folder: Path, pretraining_steps: int, steps: int) -> None:
        self._folder, self._pretraining_steps, self._steps = folder, pretraining_steps, steps

    def prepare(self) -> None:
        """Tokenize both sets of chains, pretrain the model, and convert it to every form."""
        for split in ("train", "valid"):
            source = SAMPLE / f"chains_{split}.fasta.xz"
            self._run("pretrain/tools/preprocess_data.py", "--input", str(source), "--output-prefix", split)
        rate = ("--lr", "2e-3", "--lr-warmup-fraction", ".1")
        self._pretrain("train", self._pretraining_steps, "model", [*MODEL.split(), *rate])
        for number, options in enumerate(CONVERSIONS.values()):
            self._run("converter/megatron-converter.py", "-src", "model", "-out", f"form{number}", *options)

    def continuations(self) -> Iterator[Continuation]:
        """The losses of the run from each form at each layout."""
        forms = {RUN_ITSELF: "model", **{form: f"form{number}" for number, form in enumerate(CONVERSIONS)}}
        starts = {RANDOM: MODEL.split()}
        starts |= {form: ["--load", path, "--finetune"] for form, path in forms.items()}
        for form, flags in starts.items():
            for layout, own in LAYOUTS.items():
                save = f"{form}, {layout}"
                self._pretrain("valid", self._steps, save, [*flags, *own, "--lr", "5e-4"], 2 if own else 1)
                yield Continuation(form, layout, self._losses(save))

    def _pretrain(self, corpus: str, steps: int, save: str, flags: Sequence[str], processes: int = 1) -> None:
        words = [*RUN.split(), "--data-path", f"{corpus}_text_document", "--train-iters", str(steps), "--save", save]
        self._run("pretrain/pretrain_tape.py", *words, *flags, processes=processes)

    def _losses(self, save: str) -> list[float]:
        records = map(json.loads, (self._folder / save / "metrics.jsonl").read_text(encoding="utf-8").splitlines())
        return [record["lm_loss"] for record in records if record["kind"] == "train"]

    def _run(self, script: str, *words: str, processes: int = 1) -> None:
        launcher = f"-m torch.distributed.run --standalone --nproc-per-node {processes}".split()
        command = [sys.executable, *(launcher if processes > 1 else ()), str(ROOT / script), *words]
        own = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "TMPDIR": str(self._folder)}
        result = subprocess.run(
            command, cwd=self._folder, env={**os.environ, **own}, capture_output=True, text=True, check=False
        )
        if result.returncode:
            raise ProteinLMError(f"{script} failed:", details=result.stderr.splitlines()[-20:])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--pretraining-steps", type=int, default=200, help="iterations of the model's run (%(default)s)"
    )
    parser.add_argument("--steps", type=int, default=20, help="iterations of each continuation (%(default)s)")
    parser.add_argument("--json", type=Path, help="file to write the losses of all steps to")
    options = parser.parse_args(arguments)
    results = []
    with tempfile.TemporaryDirectory(prefix="continued_pretraining_") as folder:
        commands = Commands(Path(folder), options.pretraining_steps, options.steps)
        commands.prepare()
        shown = sorted({1, 2, max(1, options.steps // 3), options.steps})
        print("| start | layout | " + " | ".join(f"step {step}" for step in shown) + " |")
        print("|:--|:--|" + "--:|" * len(shown))
        for result in commands.continuations():
            results.append(result)
            losses = " | ".join(f"{result.losses[step - 1]:.6f}" for step in shown)
            print(f"| {result.form} | {result.layout} | {losses} |", flush=True)
    own = [result for result in results if result.form != RANDOM]
    spread = max(abs(a - b) for result in own for a, b in zip(result.losses, own[0].losses, strict=True))
    print(f"largest difference between forms and layouts, of all steps: {spread:.1e}")
    if options.json is not None:
        write_text(options.json, json.dumps([asdict(result) for result in results], indent=1) + "\n")


if __name__ == "__main__":
    sys.exit(run_cli(main))
