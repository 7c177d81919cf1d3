"""Bad input on the real command lines: one line names file and record, the exit code is not 0, no partial files.

Most cases call the commands in this process, which is fast. A few run in a process of their own, which shows the real
exit code and output. tests/tape/test_bad_input.py has the cases of tape_train.py, tape_eval.py and tape-embed. What is
replaced instead of refused must be counted and reported.
"""

from __future__ import annotations

import json
import lzma
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from pretrain import pretrain_tape
from pretrain.tools import preprocess_data
from proteinlm.data import prepare_data
from tests.support.bad_input import CSV, FASTA, LONG, contains, cut, delete_key, evaluation, training, write, write_data

ROOT = Path(__file__).resolve().parent.parent
pytestmark = pytest.mark.usefixtures("in_an_empty_folder")
Call = Callable[..., str]


# --- preprocess_data.py ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("digit.fasta", ">a\nMK\n>b\nM1\n", ["digit.fasta, record 2 (b)", "'1' at position 2"]),
        ("empty.fasta", ">a\nMK\n>b\n>c\nMK\n", ["empty.fasta, record 2 (b)", "empty record"]),
        ("gaps.fasta", ">a\n--*\n", ["gaps.fasta, record 1 (a)", "no residues, only gaps"]),
        ("J.fasta", ">a\nMKJ\n", ["J.fasta", "1 of 3 residues", "--max-unknown-fraction"]),
        ("nothing.fasta", "", ["nothing.fasta"]),
        ("no_header.fasta", "MKV\n", ["no_header.fasta, line 1", "not FASTA"]),
        ("bytes.fasta", b"\xff\xfe\x00", ["bytes.fasta", "UTF-16"]),
        ("cut.fasta.xz", lzma.compress(FASTA.encode())[:-20], ["cut.fasta.xz", "truncated"]),
        ("plain.fasta.gz", FASTA, ["plain.fasta.gz", "not compressed as its suffix indicates"]),
        ("broken.jsonl", '{"text": "MK"}\n{"text"\n', ["broken.jsonl, record 2", "not valid JSON"]),
        ("number.jsonl", '{"text": %s}\n' % ("1" * 5000), ["number.jsonl, record 1"]),
        ("nested.json", "[" * 100_000, ["nested.json, record 1"]),
        ("column.csv", "name,residues\na,MK\n", ["column.csv, record 1", "not text or primary or sequence"]),
        ("kind.docx", "MK", ["kind.docx", "unknown suffix", ".fasta"]),
    ],
)
def test_preprocessing_names_the_bad_file_and_record(
    fails: Call, name: str, content: str | bytes, words: list[str]
) -> None:
    line = fails(preprocess_data.main, "--input", write(name, content), "--output-prefix", "corpus/x")
    contains(line, words)
    assert list(Path("corpus").glob("*")) == []


@pytest.mark.parametrize(
    ("source", "prefix", "words"),
    [
        ("absent.fasta", "corpus/x", ["absent.fasta", "No such file"]),
        (".", "corpus/x", ["."]),
        ("good.fasta", "good.fasta/x", ["good.fasta"]),
        ("good.fasta", "/proc/corpus/x", ["/proc/corpus"]),
    ],
)
def test_preprocessing_names_the_bad_path(fails: Call, source: str, prefix: str, words: list[str]) -> None:
    write("good.fasta", FASTA)
    contains(fails(preprocess_data.main, "--input", source, "--output-prefix", prefix), words)


def test_preprocessing_counts_substitutions(capsys: pytest.CaptureFixture[str]) -> None:
    """Lower case, gaps, stops, J (up to a fraction) and 40,000 residues are not errors."""
    write("x.fasta", f">a\nmkv\n>b\nAC*\n>c\nA-CJ\n>d\n{LONG}\n>e\n\n")
    preprocess_data.main(["--input", "x.fasta", "--output-prefix", "x", "--skip-empty"])
    shown = capsys.readouterr().out
    contains(
        shown, ["4 documents, 40,008 residues", "J_to_X 1, gap_removed 1, lower_case 3, stop_removed 1", "empty 1"]
    )
    described = json.loads(Path("x_text_document.json").read_text())
    assert described["substitutions"] == {"J_to_X": 1, "gap_removed": 1, "lower_case": 3, "stop_removed": 1}


# --- prepare_data.py -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("stability_train.csv", CSV + "MK*,1\n", ["stability_train.csv, record 2", "'*' at position 3"]),
        ("stability_train.csv", CSV + "M-K,1\n", ["stability_train.csv, record 2", "'-' at position 2"]),
        ("stability_train.csv", CSV + ",1\n", ["stability_train.csv, record 2", "empty record"]),
        ("stability_train.csv", CSV + "MK,nan\n", ["stability_train.csv, record 2", "finite"]),
        ("stability_train.csv", CSV + "MK\n", ["stability_train.csv, record 2", "the header has 2 columns"]),
        ("stability_train.csv.xz", lzma.compress(CSV.encode())[:-9], ["stability_train.csv.xz", "truncated"]),
        ("stability_training.csv", CSV, ["stability_training.csv", "unknown split 'training'"]),
        ("remote_homology_train.csv", "primary,fold_label\nMK,1195\n", ["csv, record 1", "0 to 1194"]),
        (
            "secondary_structure_train.jsonl",
            '{"primary": "MKV", "ss3": "CH"}',
            ["record 1", "'ss3' has 2", "3 residues"],
        ),
        ("proteinnet_train.jsonl", '{"primary": "MK", "tertiary": [null]}', ["record 1", "'tertiary' has 1"]),
        ("corpus_train.fasta", ">a\n>b\nMK\n", ["corpus_train.fasta, record 1 (a)", "empty record"]),
        ("corpus_train.fasta/x", "", ["corpus_train.fasta", "a directory"]),
        ("provenance.json", "{", ["provenance.json", "JSON"]),
        ("provenance.json", '{"datasets": []}', ["provenance.json", "datasets"]),
        ("provenance.json", '{"corpus_files": {"train": "x.fasta"}}', ["provenance.json", "corpus_files"]),
        ("unrelated.txt", "MK", ["source", "no data set found"]),
    ],
)
def test_data_preparation_names_the_bad_file_and_record(
    fails: Call, name: str, content: str | bytes, words: list[str]
) -> None:
    write(f"source/{name}", content)
    contains(fails(prepare_data.main, "source", "data"), words)
    assert not [path for path in Path("data").rglob("*") if path.suffix in (".mdb", ".bin", ".idx", ".tmp")]


def test_data_preparation_names_the_bad_path(fails: Call) -> None:
    contains(fails(prepare_data.main, "absent", "data"), ["absent", "no such file or directory"])
    write("source/stability_train.csv", CSV)
    contains(fails(prepare_data.main, "source", "source/stability_train.csv"), ["stability_train.csv"])


def test_data_preparation_accepts_the_options_that_its_messages_suggest(capsys: pytest.CaptureFixture[str]) -> None:
    """J in a labeled record is counted; for a corpus the limit can be raised, and empty records skipped."""
    write("source/stability_train.csv", CSV + "mJ,2\n")
    write("source/corpus_train.fasta", ">a\n\n>b\nMKJ\n")
    prepare_data.main(["source", "data", "--max-unknown-fraction", "1", "--skip-empty"])
    shown = capsys.readouterr().out
    contains(shown, ["substitutions: J_to_X 1, lower_case 1", "substitutions: J_to_X 1\n"])


# --- pretrain_tape.py and the converter ------------------------------------------------------------------------------

PRETRAIN = {
    "--num-layers": 1,
    "--hidden-size": 16,
    "--num-attention-heads": 2,
    "--seq-length": 32,
    "--max-position-embeddings": 32,
    "--micro-batch-size": 2,
    "--train-iters": 2,
    "--lr-decay-iters": 4,
    "--num-workers": 0,
    "--split": "90,10,0",
    "--eval-iters": 0,
    "--data-path": "corpus/x_text_document",
}


def pretraining(**changes: object) -> list[str]:
    options = {**PRETRAIN, **{"--" + name.replace("_", "-"): value for name, value in changes.items()}}
    return [str(word) for item in options.items() for word in item]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `corpus/x_text_document` and the checkpoint of two iterations, `run/`."""
    folder = tmp_path_factory.mktemp("pretrained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        preprocess_data.preprocess([write("x.fasta", FASTA)], "corpus/x")
        patch.setattr(sys, "argv", ["pretrain_tape.py", *pretraining(save="run")])
        pretrain_tape.main()
    return folder


def other_vocabulary(prefix: Path) -> None:
    sidecar = prefix.with_suffix(".json")
    sidecar.write_text(json.dumps({**json.loads(sidecar.read_text()), "vocabulary_fingerprint": "0" * 16}))


@pytest.mark.parametrize(
    ("damage", "changes", "words"),
    [
        (other_vocabulary, {}, ["x_text_document", "vocabulary", "0000000000000000"]),
        (lambda prefix: prefix.with_suffix(".json").unlink(), {}, ["x_text_document", "--vocab-file"]),
        (lambda prefix: cut(prefix.with_suffix(".bin")), {}, ["x_text_document.bin", "truncated"]),
        (lambda prefix: cut(prefix.with_suffix(".idx")), {}, ["x_text_document.idx", "truncated"]),
        (None, {"data_path": "absent"}, ["absent.idx", "no such file"]),
        (None, {"save": "x.fasta/run"}, ["x.fasta/run"]),
        (None, {"tensorboard_dir": "x.fasta/run"}, ["x.fasta/run"]),
        (None, {"tensor_model_parallel_size": 2}, ["--tensor-model-parallel-size 2", "torchrun"]),
        (None, {"max_position_embeddings": 16}, ["--seq-length 32", "--max-position-embeddings 16"]),
        (None, {"trian_iters": 2}, ["--trian-iters", "--train-iters"]),
    ],
)
def test_pretraining_names_the_bad_file_or_flag(
    fails: Call, pretrained: Path, damage: Callable[[Path], None] | None, changes: dict[str, object], words: list[str]
) -> None:
    shutil.copytree(pretrained / "corpus", "corpus")
    write("x.fasta", FASTA)
    if damage is not None:
        damage(Path("corpus/x_text_document"))
    contains(fails(pretrain_tape.main, *pretraining(**changes)), words)


def weights_of(run: Path) -> Path:
    return max(run.rglob("*.distcp"), key=lambda file: file.stat().st_size)


CHECKPOINTS: list[tuple[Callable[[Path], object], list[str]]] = [
    (lambda run: cut(weights_of(run)), [".distcp", "truncated"]),
    (lambda run: weights_of(run).unlink(), [".distcp", "missing"]),
    (lambda run: write(str(run / "iter_0000002/metadata.json"), "{"), ["iter_0000002/metadata.json"]),
    (lambda run: (run / "iter_0000002/metadata.json").unlink(), ["iter_0000002", "metadata.json"]),
    (lambda run: shutil.rmtree(run / "iter_0000002"), ["iter_0000002"]),
]


@pytest.mark.parametrize(("damage", "words"), CHECKPOINTS)
def test_pretraining_and_conversion_name_the_damaged_checkpoint_file(
    fails: Call, pretrained: Path, convert: Callable[[], object], damage: Callable[[Path], object], words: list[str]
) -> None:
    shutil.copytree(pretrained, ".", dirs_exist_ok=True)
    damage(Path("run"))
    contains(fails(pretrain_tape.main, *pretraining(load="run", train_iters=4)), words)
    contains(fails(convert, "-src", "run", "-out", "model"), words)
    assert not list(Path().glob("*model*"))


def test_conversion_names_the_damaged_pointer_from_which_pretraining_recovers(
    fails: Call, pretrained: Path, convert: Callable[[], object]
) -> None:
    """Pretraining resumes from the newest complete checkpoint; a conversion must not choose one."""
    shutil.copytree(pretrained, ".", dirs_exist_ok=True)
    write("run/latest_checkpointed_iteration.txt", "x")
    contains(fails(convert, "-src", "run", "-out", "model"), ["latest_checkpointed_iteration.txt"])
    assert not list(Path().glob("*model*"))


@pytest.fixture(scope="module")
def convert() -> Callable[[], object]:
    """The converter's `main`; its file name is not a module name."""
    import runpy

    main: Callable[[], object] = runpy.run_path(str(ROOT / "converter" / "megatron-converter.py"))["main"]
    return main


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent", None, ["absent", "no such file"]),
        ("x.pt", b"", ["x.pt", "empty"]),
        ("x.pt", os.urandom(300), ["x.pt"]),
        ("x.pt", {"a": 1}, ["x.pt", "no Megatron language model"]),
        ("folder/x.txt", b"", ["folder", "no checkpoint found"]),
    ],
)
def test_conversion_names_the_bad_source(
    fails: Call, convert: Callable[[], object], name: str, content: Any, words: list[str]
) -> None:
    if isinstance(content, bytes):
        write(name, content)
    elif content is not None:
        torch.save(content, name)
    contains(fails(convert, "-src", name.split("/")[0], "-out", "model"), words)
    assert not Path("model").exists()


# --- the real processes ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "arguments", "words"),
    [
        ("pretrain/tools/preprocess_data.py", ("--input", "bad.fasta", "--output-prefix", "x"), ["record 2 (b)"]),
        ("pretrain/tools/preprocess_data.py", ("--inptu", "bad.fasta", "--output-prefix", "x"), ["--input"]),
        ("scripts/prepare_data.py", ("source", "data/new"), ["stability_train.csv, record 2"]),
        ("pretrain/pretrain_tape.py", tuple(pretraining(data_path="absent")), ["absent.idx"]),
        ("converter/megatron-converter.py", ("-src", "bad.fasta", "-out", "model"), ["bad.fasta"]),
        ("tape_train.py", training, ["stability_train.lmdb, record 3: missing"]),
        ("tape_eval.py", lambda: evaluation("absent"), ["absent"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_commands_print_one_line_and_exit_with_an_error(
    run_script, assert_clean_error, tmp_path: Path, script: str, arguments: Any, words: list[str]
) -> None:
    write("bad.fasta", ">a\nMK\n>b\nM1\n")
    write("source/stability_train.csv", CSV + "M1,2\n")
    delete_key(write_data(), "train", b"3")
    result = run_script(script, *(arguments() if callable(arguments) else arguments), cwd=tmp_path)
    assert_clean_error(result, *words)


def test_the_shell_script_prints_one_line_and_exits_with_an_error(assert_clean_error) -> None:
    command = ["bash", str(ROOT / "scripts" / "shells" / "megatron-tape-generator.sh"), "absent", "model"]
    environment = {**os.environ, "PYTHON": sys.executable}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert_clean_error(result, "absent", "no such file")
    assert not Path("model").exists()


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("damage", "changes", "words"),
    [
        (other_vocabulary, {}, ["x_text_document", "vocabulary"]),
        (None, {"load": "run", "train_iters": 4}, [".distcp", "truncated"]),
    ],
)
def test_two_ranks_print_an_error_once(
    pretrained: Path, damage: Callable[[Path], None] | None, changes: dict[str, object], words: list[str]
) -> None:
    """torchrun adds a report of the process that ended; the ranks themselves print one line."""
    shutil.copytree(pretrained, ".", dirs_exist_ok=True)
    cut(weights_of(Path("run")))
    if damage is not None:
        damage(Path("corpus/x_text_document"))
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    script = str(ROOT / "pretrain" / "pretrain_tape.py")
    flags = pretraining(tensor_model_parallel_size=2, **changes)
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    result = subprocess.run([*launcher, script, *flags], env=environment, capture_output=True, text=True, check=False)
    assert result.returncode != 0
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    contains(lines[0], words)
    ours = [line for line in result.stderr.splitlines() if "pretrain_tape.py" in line and line.startswith("  File")]
    assert ours == [], result.stderr
