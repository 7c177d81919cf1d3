#!/usr/bin/env python
"""Check that a change affects no number: compare all losses, metrics and weights of short runs before and after it.

    git worktree add /tmp/before COMMIT
    python benchmarks/loss_compare.py record before.json --root /tmp/before
    python benchmarks/loss_compare.py record after.json
    python benchmarks/loss_compare.py compare before.json after.json

``record`` runs the commands of a checkout on the packaged sample, with fixed seeds and dropout: preprocessing, 20 steps
of pretraining at several layouts, conversion in each direction, 20 steps of finetuning of each task, and evaluation. It
keeps everything that they write except timings: numbers in full; corpora, weights and optimizer states as SHA-256 of
names and bytes. ``compare`` prints a table, and exits with 1 if a value differs or exists on one side only.

It relies only on command lines, names of output files and formats, not on modules of the checkout, so that checkouts
with different modules can be compared. Everything runs on the CPU with one thread per process: two recordings of one
commit are equal to the last digit; those of other CPUs or versions of torch may differ. One recording takes five
minutes on two cores.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import struct
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from tape.cli.parser import ArgumentParser

ROOT = Path(__file__).resolve().parents[1]
Values = dict[str, float | str]
TIMINGS = {"seconds", "tokens_per_second", "utilisation", "memory_bytes", "seconds_left"}  # differ between runs
PREPROCESSING = "--workers 2 --deduplicate --min-length 30 --output-prefix corpus/train --input"
PRETRAINING = """--num-layers 4 --hidden-size 64 --num-attention-heads 4 --init-method-std 0.1 --seq-length 256
    --seed 1234 --max-position-embeddings 2176 --attention-dropout .1 --hidden-dropout .1 --lr 2e-3 --lr-warmup-iters 4
    --micro-batch-size 2 --global-batch-size 8 --train-iters 20 --eval-interval 10 --eval-iters 4 --peak-tflops 1
    --data-path corpus/train_text_document --valid-data-path data/corpus/valid_text_document --num-workers 1"""
BLEND = "--data-path 0.7 corpus/train_text_document 0.3 data/corpus/train_text_document"
TENSOR, PIPELINE = "--tensor-model-parallel-size 2", "--pipeline-model-parallel-size 2"
# processes, and flags that replace those above
LAYOUTS = {
    "1 process": (1, ""),
    "TP 2": (2, TENSOR),
    "TP 2, sequence parallel": (2, f"{TENSOR} --sequence-parallel"),
    "PP 2": (2, PIPELINE),
    "PP 2, gpipe": (2, f"{PIPELINE} --pipeline-schedule gpipe --recompute-granularity selective"),
    "DP 2": (2, ""),
    "FSDP 2": (2, "--data-parallel-sharding"),
    "bf16, blocks recomputed": (1, "--bf16 --recompute-granularity full"),
    "fp16, ramp-up": (1, "--fp16 --initial-loss-scale 1048576 --rampup-batch-size 4 2 40"),
    "SGD, blend": (1, f"{BLEND} --optimizer sgd --initial-attention neighbours --no-sep"),
}
# source and flags; each may build on those before it
CONVERSIONS = {
    "tape": ("pretrain/1 process", ""),
    "tape from TP 2": ("pretrain/TP 2", ""),
    "tape in fp16": ("convert/tape", "-dtp torch.float16"),
    "megatron": ("convert/tape", "--to megatron"),
    "megatron TP 2 PP 2": ("convert/tape", f"--to megatron {TENSOR} {PIPELINE}"),
    "huggingface": ("convert/tape", "--to huggingface --lm-head approximate"),
    "tape from megatron": ("convert/megatron TP 2 PP 2", ""),
    "tape from huggingface": ("convert/huggingface", ""),
}
PROTEINS = 40  # of each split: two epochs of ten steps
STEPS = "--batch_size 4 --num_train_epochs 2 --learning_rate 1e-3 --seed 42 --num_log_iter 1 --output_dir finetune"
SPLITS = {"remote_homology": "test_fold_holdout"}  # others: test
# processes and command
FINETUNING = {
    "contact_prediction": (1, "transformer contact_prediction --config contact_num_blocks=4"),  # of 30, all alike
    "contact_prediction, linear": (1, "transformer contact_prediction --contact_head linear"),
    "remote_homology": (1, "transformer remote_homology"),
    "remote_homology, one-hot": (1, "onehot remote_homology"),
    "secondary_structure": (1, "transformer secondary_structure"),
    "secondary_structure, DP 2": (2, "transformer secondary_structure"),
    "fluorescence": (1, "transformer fluorescence --pooling attention"),
    "fluorescence, bf16": (1, "transformer fluorescence --bf16 --gradient_accumulation_steps 2"),
    "stability": (1, "transformer stability"),
    "stability, frozen": (1, "transformer stability --freeze --pooling mean"),
}


class Checkout:
    """Runs the commands of a checkout, one after the other, in a folder."""

    def __init__(self, root: Path, folder: Path) -> None:
        self.root, self.folder = root, folder
        own = {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        # torchelastic creates log directories in TMPDIR and leaves them there
        self._environment = {**os.environ, **own, "TMPDIR": str(folder)}
        code = "import importlib.util as u; print(*[u.find_spec(n).origin for n in ('tape', 'pretrain', 'converter')])"
        found = self._run("-c", code).split()
        if not all(Path(path).is_relative_to(root) for path in found):
            sys.exit(f"packages of another checkout than {root} would be imported: {found}")

    def record(self) -> dict[str, Values]:
        """The values of each run."""
        runs = self._data()
        for name, (processes, flags) in LAYOUTS.items():
            save, words = f"pretrain/{name}", f"{PRETRAINING} {flags}".split()
            self._run("pretrain/pretrain_tape.py", *words, "--save", save, processes=processes)
            runs[f"pretrain: {name}"] = values_of(self.folder / save)
        for name, (source, flags) in CONVERSIONS.items():
            out = f"convert/{name}"
            self._run("converter/megatron-converter.py", "-src", source, *flags.split(), "-out", out)
            runs[f"convert: {name}"] = values_of(self.folder / out)
        for name, (processes, command) in FINETUNING.items():
            runs[f"finetune: {name}"] = self._finetune(name, processes, command.split())
        return runs

    def _data(self) -> dict[str, Values]:
        sample = f"{self.root}/tape/sample"
        self._run("pretrain/tools/preprocess_data.py", *PREPROCESSING.split(), f"{sample}/corpus/chains_train.fasta.xz")
        self._run("scripts/prepare_data.py", sample, "data", "--limit", str(PROTEINS))
        return {name: values_of(self.folder / name) for name in ("corpus", "data")}

    def _finetune(self, name: str, processes: int, words: list[str]) -> Values:
        (model, task), run = words[:2], f"finetune/{name}"
        start = ("--from_pretrained", "convert/tape") if model == "transformer" else ()
        self._run("tape_train.py", *words, *start, *STEPS.split(), "--exp_name", name, processes=processes)
        self._run("tape_eval.py", model, task, run, "--split", SPLITS.get(task, "test"))
        return values_of(self.folder / run) | values_of(self.folder / "logs" / name)

    def _run(self, *words: str, processes: int = 1) -> str:
        """Run ``python WORDS``; its output. A first word ending in ``.py`` is a path in the checkout."""
        launcher = f"-m torch.distributed.run --standalone --nproc-per-node {processes}".split()
        script = str(self.root / words[0]) if words[0].endswith(".py") else words[0]
        command = [sys.executable, *(launcher if processes > 1 else ()), script, *words[1:]]
        began = time.monotonic()
        result = subprocess.run(command, cwd=self.folder, env=self._environment, capture_output=True, text=True)
        if result.returncode:
            sys.exit(f"exit code {result.returncode} of {' '.join(command)}\n{result.stderr[-4000:]}")
        print(f"{time.monotonic() - began:6.1f} s  {words[0]} ... {words[-1]}", flush=True)
        return result.stdout


def values_of(folder: Path) -> Values:
    """What the files of weights, data and records below a folder hold: numbers, and a sum of the rest of each file."""
    found: Values = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix().partition(".tfevents")[0]  # host and time follow
        total = hashlib.sha256()
        for key, value in sorted(leaves(load(path), name), key=lambda leaf: leaf[0]):
            if isinstance(value, bytes):
                total.update(f"{key} {len(value)}\n".encode() + value)
                found[name] = total.hexdigest()
            else:
                found[key] = value
    return found


def load(path: Path) -> Any:
    """Nested tensors, bytes and numbers; None of a file that isn't compared."""
    if path.suffix == ".safetensors":
        from safetensors.torch import load_file  # here: --help needs none of these libraries

        return load_file(path)
    if path.name == ".metadata":  # of a sharded checkpoint
        from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

        with tempfile.TemporaryDirectory() as folder:
            dcp_to_torch_save(path.parent, f"{folder}/whole.pt")
            return load(Path(folder, "whole.pt"))
    if path.suffix in (".pt", ".bin") and zipfile.is_zipfile(path):
        import torch

        with torch.serialization.safe_globals([argparse.Namespace]):  # Megatron's arguments
            return torch.load(path, map_location="cpu", weights_only=True)
    if path.suffix == ".lmdb":
        import lmdb

        with lmdb.open(str(path), readonly=True, lock=False) as store, store.begin() as reading:
            return {key.hex(): value for key, value in reading.cursor()}
    if path.name == "metrics.jsonl":
        records = map(json.loads, path.read_text(encoding="utf-8").splitlines())
        return {f"{r.get('kind', 'epoch')} {r.get('iteration', r.get('epoch'))}": r for r in records}
    if path.name == "config.json" or path.match("eval_*.json"):
        return json.loads(path.read_text(encoding="utf-8"))
    if path.match("events.*"):
        return dict(scalars(path.read_bytes()))
    return path.read_bytes() if path.suffix in (".bin", ".idx") else None


def scalars(events: bytes) -> Iterator[tuple[str, float]]:
    """Values of a TensorBoard file; in fp32, as losses and gradient norms of finetuning are."""
    from tensorboardX.proto.event_pb2 import Event

    position = 0
    while position < len(events):  # length (8 bytes), its checksum (4), an event, its checksum (4)
        (length,) = struct.unpack_from("<Q", events, position)
        event = Event.FromString(events[position + 12 : position + 12 + length])
        position += length + 16
        yield from ((f"step {event.step} {scalar.tag}", scalar.simple_value) for scalar in event.summary.value)


def leaves(content: Any, name: str) -> Iterator[tuple[str, bytes | float]]:
    """Numbers, bytes and the bytes of tensors, each with its path; a tensor's has its type and shape as well."""
    import torch

    if isinstance(content, torch.Tensor):
        flat = content.detach().contiguous().reshape(-1).view(torch.uint8)
        yield f"{name} {content.dtype} {tuple(content.shape)}", flat.numpy().tobytes()
    elif isinstance(content, bytes | int | float):
        yield name, content
    elif isinstance(content, dict | list | tuple):
        for key, item in content.items() if isinstance(content, dict) else enumerate(content):
            if key not in TIMINGS:
                yield from leaves(item, f"{name} {key}")


def record(out: Path, root: Path) -> int:
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="loss_compare_") as folder:
        runs = Checkout(root, Path(folder)).record()
    git = subprocess.run(["git", "-C", str(root), "describe", "--always", "--dirty"], capture_output=True, text=True)
    seconds = round(time.monotonic() - began)
    about = {"root": str(root), "commit": git.stdout.strip(), "torch": version("torch"), "seconds": seconds}
    out.write_text(json.dumps({"about": about, "runs": runs}, indent=1) + "\n", encoding="utf-8")
    print(f"{out}: {sum(map(len, runs.values())):,} values of {len(runs)} runs in {seconds} s")
    return 0


def compare(first: Path, second: Path) -> int:
    """Print the table; returns the exit code."""
    a, b = (json.loads(path.read_text(encoding="utf-8")) for path in (first, second))
    print(f"{first}: {a['about']}\n{second}: {b['about']}\n")
    print("| run | values | largest difference | equal |\n|:--|--:|--:|:--|")
    found: list[str] = []
    for run in {**a["runs"], **b["runs"]}:
        one, two = a["runs"].get(run, {}), b["runs"].get(run, {})
        own = list(differences(one, two))
        equal = f"no: {len(own)} differ" if own else "yes"
        print(f"| {run} | {len({**one, **two})} | {largest(one, two):.3g} | {equal} |")
        found += [f"{run}: {line}" for line in own]
    print("\n".join(["", f"{len(found)} values differ or are missing" if found else "all equal", *found[:20]]))
    return 1 if found or not a["runs"] else 0


def differences(one: Values, two: Values) -> Iterator[str]:
    for name in {**one, **two}:
        sides = [json.dumps(side[name]) if name in side else "missing" for side in (one, two)]
        if sides[0] != sides[1]:  # as text: every digit counts, and NaN equals itself
            yield f"{name}: {sides[0]} | {sides[1]}"


def largest(one: Values, two: Values) -> float:
    pairs = ((one[name], two[name]) for name in one.keys() & two.keys())
    return max((abs(a - b) for a, b in pairs if not isinstance(a, str) and not isinstance(b, str)), default=0.0)


def main() -> int:
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=("record", "compare"))
    parser.add_argument("files", type=Path, nargs="+", metavar="FILE.json", help="record: one; compare: two")
    parser.add_argument("--root", type=Path, default=ROOT, help="checkout to record (default: this one)")
    options = parser.parse_args()
    if len(options.files) != (1 if options.command == "record" else 2):
        parser.error("record takes one file, compare two")
    return record(options.files[0], options.root.resolve()) if options.command == "record" else compare(*options.files)


if __name__ == "__main__":
    sys.exit(main())
