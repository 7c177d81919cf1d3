"""The commands that are interrupted, and their inputs."""

from __future__ import annotations

import json
import random
import shutil
import sys
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from benchmarks.faults.runs import ROOT, check

SAMPLE = ROOT / "tape" / "sample"
CORPUS = SAMPLE / "corpus" / "chains_valid.fasta.xz"
MODEL = """--num-layers 2 --hidden-size 32 --num-attention-heads 2 --seq-length 128 --max-position-embeddings 2176
    --micro-batch-size 2 --global-batch-size 4 --lr 1e-3 --split 90,10,0 --eval-iters 1 --num-workers 0 --peak-tflops 1
    --data-path inputs/corpus_text_document"""
EMBEDDED, TRAINED = 300, 64  # proteins
CONTACT_PROTEINS = 24


@dataclass(frozen=True)
class Command:
    """A command under test. Its words and paths are relative to the working directory.

    Attributes:
        name: name on the command line of this benchmark.
        words: the command that writes to a directory, which contains what earlier runs have left.
        prepare: creates the content that the directory has before the first run.
        needs_inputs: whether it reads what :func:`make_inputs` writes.
    """

    name: str
    words: Callable[[Path], Sequence[str]]
    prepare: Callable[[Path], None] = lambda out: None
    needs_inputs: bool = True


def _script(path: str, *words: object) -> list[str]:
    return [sys.executable, str(ROOT / path), *map(str, words)]


def _pretrain(out: Path) -> list[str]:
    words = ["--train-iters", 40, "--save-interval", 5, "--save", out / "save", "--load", out / "save"]
    return _script("pretrain/pretrain_tape.py", *MODEL.split(), *words)


def _train(out: Path) -> list[str]:
    run = out / "results" / "run"
    words = ["--output_dir", out / "results", "--log_dir", out / "logs", "--num_workers", 0, "--no_cuda"]
    if (run / "latest.json").exists():
        resumed = ["--from_pretrained", run, "--resume_from_checkpoint"]
        return _script("tape_train.py", "transformer", "stability", *resumed, *words)
    new = ["--from_pretrained", "inputs/model", "--data_dir", "inputs/data", "--exp_name", "run", "--batch_size", 16]
    return _script("tape_train.py", "transformer", "stability", *new, "--num_train_epochs", 4, *words)


def _installed(function: str, *words: object) -> list[str]:
    """A command that has no script of its own, as pip's wrapper starts it."""
    code = f"import sys; from tape.commands import {function}; sys.exit({function}())"
    return [sys.executable, "-c", code, *map(str, words), "--no_cuda"]


def _embed(out: Path) -> list[str]:
    words = ["transformer", "inputs/proteins.fasta", out / "embeddings.npz", "inputs/model", "--batch_size", 8]
    return _installed("embed_command", *words, "--num_workers", 0)


def _predict(out: Path) -> list[str]:
    words = ["--predict", "inputs/proteins.fasta", "--predict_out", out / "predictions.csv", "--batch_size", 8]
    return _script("tape_eval.py", "transformer", "stability", "inputs/finetuned", *words, "--no_cuda")


def _score(out: Path) -> list[str]:
    words = ["transformer", "inputs/variants.csv", out / "scores.csv", "inputs/model", "--batch_size", 8]
    methods = ["--methods", "masked_marginal", "pseudo_perplexity"]
    return _installed("score_command", *words, "--wild_type", "inputs/wild_type.fasta", *methods)


def _contacts(out: Path) -> list[str]:
    words = ["transformer", "inputs/model", "--data_dir", "inputs/data", "--output_dir", out, "--exp_name", "contacts"]
    return _installed("contacts_command", *words, "--overwrite", "--split", "valid")


def _evaluate(out: Path) -> list[str]:
    words = ["--data_dir", "inputs/data", "--output_dir", out / "results", "--split", "valid", "--batch_size", 4]
    return _script("tape_eval.py", "transformer", "stability", "inputs/finetuned", *words, "--no_cuda")


def _download(out: Path) -> list[str]:
    words = ["stability", "--target", out / "data", "--table", "inputs/site/table.json", "--base-url"]
    return _script("scripts/download_data.py", *words, Path("inputs/site/url").read_text(encoding="utf-8"))


def _convert(out: Path) -> list[str]:
    return _script("converter/megatron-converter.py", "-src", "inputs/save", "-out", out / "model")


def _other_model(out: Path) -> None:
    shutil.copytree("inputs/other", out / "model")


COMMANDS = {
    command.name: command
    for command in (
        Command(
            "prepare",
            lambda out: _script("scripts/prepare_data.py", SAMPLE, out / "data", "--tasks", "stability", "corpus"),
            needs_inputs=False,
        ),
        Command(
            "preprocess",
            lambda out: _script("pretrain/tools/preprocess_data.py", "--input", CORPUS, "--output-prefix", out / "x"),
            needs_inputs=False,
        ),
        Command("pretrain", _pretrain),
        Command("convert", _convert),
        Command("replace", _convert, _other_model),
        Command("train", _train),
        Command("embed", _embed),
        Command("predict", _predict),
        Command("score", _score),
        Command("contacts", _contacts),
        Command("evaluate", _evaluate),
        Command("download", _download),
        Command(
            "report",
            lambda out: _script("scripts/report.py", "inputs/finetuned", "--out", out / "report"),
        ),
        Command(
            "quickstart",
            lambda out: _script("scripts/quickstart.py", "--out", out / "q", "--tasks", "st"),
            needs_inputs=False,
        ),
    )
}
DEFAULT = [name for name in COMMANDS if name != "quickstart"]


def make_inputs(url: str) -> None:
    """Write corpus, checkpoint, models, labeled data, proteins and a download for all commands to ``inputs``.

    Args:
        url: address of the web server for ``inputs/site``.
    """
    check(_script("pretrain/tools/preprocess_data.py", "--input", CORPUS, "--output-prefix", "inputs/corpus"))
    for seed, save in ((1, "inputs/save"), (2, "inputs/other_save")):
        words = ["--train-iters", 2, "--seed", seed, "--save", save]
        check(_script("pretrain/pretrain_tape.py", *MODEL.split(), *words))
    for save, model in (("inputs/save", "inputs/model"), ("inputs/other_save", "inputs/other")):
        check(_script("converter/megatron-converter.py", "-src", save, "-out", model))
    for task, limit in (("stability", TRAINED), ("contact_prediction", CONTACT_PROTEINS)):
        check(_script("scripts/prepare_data.py", SAMPLE, "inputs/data", "--tasks", task, "--limit", limit))
    check([*_train(Path("inputs")), "--eval_splits", "valid"])
    Path("inputs/results/run").rename("inputs/finetuned")
    random_residues = random.Random(0)
    with Path("inputs/proteins.fasta").open("w", encoding="utf-8") as stream:
        for number in range(EMBEDDED):
            residues = "".join(random_residues.choices("ACDEFGHIKLMNPQRSTVWY", k=100))
            stream.write(f">p{number}\n{residues}\n")
    Path("inputs/wild_type.fasta").write_text(f">p\n{residues}\n", encoding="utf-8")
    mutations = [f"{residue}{number}A" for number, residue in enumerate(residues, 1) if residue != "A"]
    Path("inputs/variants.csv").write_text("\n".join(["mutations", *mutations, ""]), encoding="utf-8")
    _make_site(Path("inputs/site"), url)


def _make_site(folder: Path, url: str) -> None:
    """An archive of labeled data as TAPE's, with the table that describes it."""
    folder.mkdir()
    with tarfile.open(folder / "stability.tar.gz", "w:gz") as archive:
        for path in sorted(Path("inputs/data/stability").glob("*.lmdb")):
            archive.add(path, f"stability/{path.name}")
    described = json.loads(Path("inputs/data/stability/dataset.json").read_text(encoding="utf-8"))
    entry = {"md5": None, "splits": described["splits"], "name": "sample", "source": "sample"}
    table = {"base_url": url, "archives": {"stability": entry}}
    (folder / "table.json").write_text(json.dumps(table), encoding="utf-8")
    (folder / "url").write_text(url, encoding="utf-8")


class _QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *values: object) -> None:
        """Not logged."""


@contextmanager
def local_site() -> Iterator[str]:
    """A web server for ``inputs/site`` inside the block; its address."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_QuietHandler, directory="inputs/site")) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
