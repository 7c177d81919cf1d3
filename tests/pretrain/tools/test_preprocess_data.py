"""preprocess_data.py: input formats, counted substitutions, clear errors, complete output or none."""

from __future__ import annotations

import gzip
import hashlib
import json
import lzma
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

import pytest

from pretrain.data.corpus import open_corpus, read_description
from pretrain.data.indexed_dataset import IndexedDataset
from pretrain.data.preprocessing import preprocess
from pretrain.data.tokenization import UNKNOWN_MEANING
from pretrain.tools.preprocess_data import main
from tape.errors import ConfigError, DataError, VocabularyMismatchError
from tape.io.lmdb_store import write_lmdb
from tape.io.records import RecordOptions
from tape.io.vocabulary_files import read_vocabulary_file
from tape.runtime.run_lock import lock_beside
from tape.tokenizers import TAPETokenizer
from tests.support.run_locks import locked_by_another

SCRIPT = "pretrain/tools/preprocess_data.py"
PROTEINS = ["MKVLA", "GCTVEDRCLIGMGAILLNGC", "ACDEFGHIKLMNPQRSTVWY"]
FASTA = "".join(f">p{i} text\n{protein[:4]}\n{protein[4:]}\n" for i, protein in enumerate(PROTEINS))
STOCKHOLM = "# STOCKHOLM 1.0\n" + "".join(f"p{i} {protein}\n" for i, protein in enumerate(PROTEINS)) + "//\n"
SPACED = "".join(json.dumps({"text": " ".join(protein)}) + "\n" for protein in PROTEINS)
TAPE_JSONL = "".join(json.dumps({"primary": protein}) + "\n" for protein in PROTEINS)


def texts(prefix: Path) -> list[str]:
    corpus = open_corpus(prefix, TAPETokenizer())
    return [TAPETokenizer().decode(corpus.residues(i)) for i in range(len(corpus))]


def test_two_commands_do_not_write_the_same_corpus(tmp_path: Path) -> None:
    source = tmp_path / "a.fasta"
    source.write_text(FASTA, encoding="utf-8")
    lock = lock_beside(tmp_path / "out_text_document")
    with locked_by_another(lock) as owner:
        with pytest.raises(ConfigError, match=rf"document: in use by process {owner} .*another --output-prefix"):
            preprocess([source], tmp_path / "out")
    assert sorted(tmp_path.iterdir()) == [lock, source]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("x.fasta", FASTA.encode()),
        ("x.faa", FASTA.lower().encode()),
        ("x.fasta.gz", gzip.compress(FASTA.encode())),
        ("x.fasta.xz", lzma.compress(FASTA.encode())),
        ("x.sto", STOCKHOLM.encode()),
        ("x.jsonl", SPACED.encode()),
        ("x.json", SPACED.encode()),
        ("x2.jsonl", TAPE_JSONL.encode()),
        ("x.csv", ("id,sequence\n" + "".join(f"{i},{p}\n" for i, p in enumerate(PROTEINS))).encode()),
        ("x.txt", "\n".join(PROTEINS).encode()),
    ],
    ids=lambda value: (
        value if isinstance(value, str) else ""
    ),  # compressed files contain the time, so parameters have no names
)
def test_every_format_gives_the_same_corpus(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    summary = preprocess([tmp_path / name], tmp_path / "out")
    assert summary.prefix == tmp_path / "out_text_document"
    assert texts(summary.prefix) == PROTEINS
    assert (summary.documents, summary.tokens) == (3, 45)


def test_proteins_are_read_from_lmdb(tmp_path: Path) -> None:
    records = [{"primary": protein, "protein_length": len(protein)} for protein in PROTEINS]
    write_lmdb(tmp_path / "x.lmdb", records)
    assert texts(preprocess([tmp_path / "x.lmdb"], tmp_path / "out").prefix) == PROTEINS


def test_all_inputs_are_recorded_in_the_sidecar(tmp_path: Path) -> None:
    (tmp_path / "a.fasta").write_text(">a\nMKV\n>b\nAC\n")
    (tmp_path / "b.txt").write_text("GG\n")
    summary = preprocess([tmp_path / "a.fasta", tmp_path / "b.txt"], tmp_path / "deep" / "out")
    description = read_description(summary.prefix)
    assert description is not None
    assert [(Path(s.path).name, s.sequences, len(s.sha256)) for s in description.sources] == [
        ("a.fasta", 2, 64),
        ("b.txt", 1, 64),
    ]
    assert (description.documents, description.tokens) == (3, 7)
    assert description.vocabulary_fingerprint == TAPETokenizer().fingerprint
    assert texts(summary.prefix) == ["MKV", "AC", "GG"]


@pytest.mark.parametrize(
    "content",
    [
        '{"heavy": "MKV", "light": "AC"}\n{"heavy": "GG", "light": "TT"}\n',
        '{"heavy": "M K V", "light": "A C"}\n{"heavy": "G G", "light": "T T"}\n',
    ],
    ids=["plain", "spaced"],
)
def test_several_json_keys_make_several_corpora(tmp_path: Path, content: str) -> None:
    (tmp_path / "x.jsonl").write_text(content)
    summary = preprocess([tmp_path / "x.jsonl"], tmp_path / "out", json_keys=("heavy", "light"))
    assert [corpus.prefix.name for corpus in summary.corpora] == ["out_heavy_document", "out_light_document"]
    assert [texts(corpus.prefix) for corpus in summary.corpora] == [["MKV", "GG"], ["AC", "TT"]]


def test_several_corpora_are_published_together_or_not_at_all(tmp_path: Path) -> None:
    """An error in the records of the second key leaves an earlier corpus of the first key unchanged."""
    source = tmp_path / "x.jsonl"
    source.write_text('{"heavy": "MKV", "light": "AC"}\n')
    keys = ("heavy", "light")
    preprocess([source], tmp_path / "out", json_keys=keys)
    before = {path.name: path.read_bytes() for path in tmp_path.glob("*out*")}
    assert len(before) == 6
    source.write_text('{"heavy": "GG", "light": "AC"}\n{"heavy": "GG"}\n')
    with pytest.raises(DataError, match=r"x\.jsonl, record 2.*light"):
        preprocess([source], tmp_path / "out", json_keys=keys)
    assert {path.name: path.read_bytes() for path in tmp_path.glob("*out*")} == before
    with pytest.raises(DataError, match="light"):
        preprocess([source], tmp_path / "new", json_keys=keys)
    assert not list(tmp_path.glob("*new*"))
    with pytest.raises(ConfigError, match="--json-keys heavy heavy.*once"):
        preprocess([source], tmp_path / "new", json_keys=("heavy", "heavy"))


@pytest.mark.parametrize("layout", ["lazy", "cached"])
def test_the_lazy_and_cached_layouts_are_written(tmp_path: Path, layout: str) -> None:
    (tmp_path / "x.fasta").write_text(FASTA)
    summary = preprocess([tmp_path / "x.fasta"], tmp_path / "out", dataset_impl=layout)
    assert (tmp_path / "out_text_document.idx").read_bytes()[:6] == b"TNTIDX"
    assert texts(summary.prefix) == PROTEINS


def test_workers_write_the_same_bytes(tmp_path: Path, proteins: list[str]) -> None:
    (tmp_path / "x.txt").write_text("\n".join(proteins * 40))
    one = preprocess([tmp_path / "x.txt"], tmp_path / "one").prefix
    two = preprocess([tmp_path / "x.txt"], tmp_path / "two", workers=2).prefix
    for suffix in (".bin", ".idx"):
        assert Path(f"{one}{suffix}").read_bytes() == Path(f"{two}{suffix}").read_bytes()


def test_substitutions_are_counted(tmp_path: Path) -> None:
    (tmp_path / "x.fasta").write_text(">a\nmkV-A.*\n>b\n" + "ACD" * 400 + "J\n")
    summary = preprocess([tmp_path / "x.fasta"], tmp_path / "out")
    assert texts(summary.prefix)[0] == "MKVA"
    assert texts(summary.prefix)[1].endswith("ACDX")
    counts = {"J_to_X": 1, "gap_removed": 2, "lower_case": 2, "stop_removed": 1}
    assert summary.corpora[0].description.substitutions == counts
    assert json.loads((tmp_path / "out_text_document.json").read_text())["substitutions"] == counts


@pytest.mark.parametrize("workers", [1, 2])
def test_few_unknown_residues_are_counted_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int
) -> None:
    """One in a thousand is the limit, which itself is allowed."""
    (tmp_path / "x.txt").write_text("A" * 3995 + "J?1J" + "\nA\n")
    arguments = ["--input", str(tmp_path / "x.txt"), "--output-prefix", str(tmp_path / "out")]
    main([*arguments, "--workers", str(workers)])
    assert texts(tmp_path / "out_text_document")[0].endswith("AXXXX")
    description = read_description(tmp_path / "out_text_document")
    assert description is not None
    assert description.substitutions == {"J_to_X": 2, "other_to_X": 2}
    assert description.unknown == {"residues": 4, "meaning": UNKNOWN_MEANING}
    assert "unknown residues: 4 (0.1000%)" in capsys.readouterr().out


def test_a_given_limit_of_x_applies_to_small_corpora(tmp_path: Path) -> None:
    (tmp_path / "x.fasta").write_text(">a\nMKVX\n")
    arguments = ["--input", str(tmp_path / "x.fasta"), "--output-prefix", str(tmp_path / "out")]
    with pytest.raises(DataError, match="are X, more than 10.00%"):
        main([*arguments, "--max-x-fraction", "0.1"])


@pytest.mark.parametrize(
    ("content", "words"),
    [(">a\nMK\n>b\nM1K\n", r"record 2 \(b\).*'1'"), (">a\nMK\n>b\n>c\nMK\n", r"record 2 \(b\).*empty.*--skip-empty")],
)
@pytest.mark.parametrize("workers", [1, 2])
def test_a_bad_record_is_named(tmp_path: Path, content: str, words: str, workers: int) -> None:
    (tmp_path / "x.fasta").write_text(content)
    with pytest.raises(DataError, match=r"x\.fasta, " + words):
        preprocess([tmp_path / "x.fasta"], tmp_path / "out", workers=workers)
    assert [path.name for path in tmp_path.iterdir()] == ["x.fasta"]


def test_empty_records_can_be_omitted(tmp_path: Path) -> None:
    (tmp_path / "x.fasta").write_text(">a\nMK\n>b\n>c\n--\n>d\nGG\n")
    (tmp_path / "y.jsonl").write_text('{"text": ""}\n{"text": "AC"}\n')
    inputs = [tmp_path / "x.fasta", tmp_path / "y.jsonl"]
    summary = preprocess(inputs, tmp_path / "out", skip_empty=True)
    assert texts(summary.prefix) == ["MK", "GG", "AC"]
    assert summary.corpora[0].description.filtered == {"empty": 3}


def test_proteins_outside_the_length_limits_are_omitted_and_counted(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("M\nMKV\nMKVLA\n")
    summary = preprocess([tmp_path / "x.txt"], tmp_path / "out", min_length=2, max_length=4)
    assert texts(summary.prefix) == ["MKV"]
    assert summary.corpora[0].description.filtered == {"too_long": 1, "too_short": 1}


@pytest.mark.parametrize("workers", [1, 2])
def test_duplicates_are_omitted_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str], workers: int) -> None:
    """Within a file and across files, in any spelling; the first occurrence is kept, in its place."""
    (tmp_path / "x.txt").write_text("MKV\nAC\nm k v\nMKV-\nGG\n")
    (tmp_path / "y.fasta").write_text(">a\nAC\n>b\nTT\n>c\nGGG\n")
    main(
        [
            "--input",
            *(str(tmp_path / name) for name in ("x.txt", "y.fasta")),
            "--output-prefix",
            str(tmp_path / "out"),
            "--deduplicate",
            "--workers",
            str(workers),
        ]
    )
    assert texts(tmp_path / "out_text_document") == ["MKV", "AC", "GG", "TT", "GGG"]
    description = read_description(tmp_path / "out_text_document")
    assert description is not None
    assert description.filtered == {"duplicate": 3}
    assert [source.sequences for source in description.sources] == [5, 3]
    assert "omitted: duplicate 3" in capsys.readouterr().out


def test_without_the_option_duplicates_are_kept(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("MKV\nMKV\n")
    assert texts(preprocess([tmp_path / "x.txt"], tmp_path / "out").prefix) == ["MKV", "MKV"]


def test_an_empty_file_among_others_is_reported(tmp_path: Path) -> None:
    (tmp_path / "x.txt").write_text("MKV\n")
    (tmp_path / "empty.fasta").write_text("")
    inputs = [tmp_path / "x.txt", tmp_path / "empty.fasta"]
    with pytest.raises(DataError, match=r"empty\.fasta: no records.*--skip-empty"):
        preprocess(inputs, tmp_path / "out")
    assert not list(tmp_path.glob("out*"))
    summary = preprocess(inputs, tmp_path / "out", skip_empty=True)
    assert [source.sequences for source in summary.corpora[0].description.sources] == [1, 0]


def test_a_protein_of_40000_residues_is_stored_whole(tmp_path: Path) -> None:
    (tmp_path / "titin.fasta").write_text(">titin\n" + "ACDEFGHIKL" * 4000 + "\n")
    summary = preprocess([tmp_path / "titin.fasta"], tmp_path / "out")
    assert IndexedDataset(summary.prefix).sizes.tolist() == [40_000]


def test_nothing_to_write_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "x.fasta").write_text("")
    with pytest.raises(DataError, match=r"x\.fasta: no records"):
        preprocess([tmp_path / "x.fasta"], tmp_path / "out")
    with pytest.raises(ConfigError):
        preprocess([], tmp_path / "out")


def test_a_pipe_is_read_once_and_hashed(tmp_path: Path) -> None:
    content = b">a\nMKV\n"
    os.mkfifo(tmp_path / "x.fasta")
    writer = threading.Thread(target=(tmp_path / "x.fasta").write_bytes, args=(content,))
    writer.start()
    summary = preprocess([tmp_path / "x.fasta"], tmp_path / "out")
    writer.join()
    (source,) = summary.corpora[0].description.sources
    assert (summary.documents, source.sha256) == (1, hashlib.sha256(content).hexdigest())
    with pytest.raises(ConfigError, match=r"x\.fasta: can be read only once"):
        preprocess([tmp_path / "x.fasta"], tmp_path / "two", ("text", "other"))


def test_the_standard_input_is_read(tmp_path: Path, repository_root: Path) -> None:
    command = [sys.executable, "pretrain/tools/preprocess_data.py", "--input", "-", "--format", "fasta.gz"]
    data = gzip.compress(b">a\nMKV\n")
    subprocess.run([*command, "--output-prefix", str(tmp_path / "x")], input=data, cwd=repository_root, check=True)
    description = json.loads((tmp_path / "x_text_document.json").read_text())
    assert description["sources"] == [{"path": "-", "sha256": hashlib.sha256(data).hexdigest(), "sequences": 1}]


def test_nucleotides_are_refused_unless_allowed(tmp_path: Path) -> None:
    (tmp_path / "x.fasta").write_text(">gene\n" + "ATGGCCATTGTAATGGGCCGCTGAAAGGGTGCC" * 3 + "\n")
    with pytest.raises(DataError, match=r"x\.fasta: almost all letters .*--allow-nucleotides"):
        preprocess([tmp_path / "x.fasta"], tmp_path / "out")
    assert preprocess([tmp_path / "x.fasta"], tmp_path / "out", allow_nucleotides=True).documents == 1


def test_the_column_of_the_sequence_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("text,sequence\nof a protein,MKV\n")
    with pytest.raises(DataError, match="'text' and 'sequence' may both be the sequence"):
        preprocess([tmp_path / "x.csv"], tmp_path / "out")
    summary = preprocess([tmp_path / "x.csv"], tmp_path / "out", records=RecordOptions(sequence_column="sequence"))
    assert (summary.prefix.name, summary.tokens) == ("out_text_document", 3)
    with pytest.raises(ConfigError, match="both name the column"):
        preprocess([tmp_path / "x.csv"], tmp_path / "b", ("a",), records=RecordOptions(sequence_column="sequence"))


def test_the_command_of_the_original_pipeline_is_accepted(
    tmp_path: Path, run_script: Callable, repository_root: Path
) -> None:
    """The command of the original's pipeline, in another directory."""
    (tmp_path / "x.json").write_text(SPACED)
    vocabulary = repository_root / "pretrain" / "protein_tools" / "megatron_iupac_vocab.txt"
    flags = "--tokenizer-type BertWordPieceCase --dataset-impl mmap --json-keys text --append-eod --log-interval 10"
    result = run_script(
        SCRIPT, "--input", "x.json", "--output-prefix", "out", "--vocab-file", vocabulary, *flags.split(), cwd=tmp_path
    )
    assert result.returncode == 0, result.stderr
    assert texts(tmp_path / "out_text_document") == PROTEINS
    assert "31 tokens; the ids written are those of TAPE's 30" in result.stderr
    assert "--append-eod is ignored" in result.stderr
    assert "3 documents, 45 residues" in result.stdout


def test_the_ids_of_a_vocabulary_file_can_be_written(tmp_path: Path, repository_root: Path) -> None:
    """Megatron's 31 tokens: the ids of the residues are shifted by one; tokens are 16-bit in both vocabularies."""
    (tmp_path / "x.fasta").write_text(FASTA)
    vocabulary = repository_root / "pretrain" / "protein_tools" / "megatron_iupac_vocab.txt"
    tokens = vocabulary.read_text().split()
    files = ["--input", str(tmp_path / "x.fasta"), "--vocab-file", str(vocabulary)]
    main([*files, "--output-prefix", str(tmp_path / "out"), "--vocab-file-ids"])
    prefix = tmp_path / "out_text_document"
    assert ["".join(tokens[index] for index in ids) for ids in IndexedDataset(prefix)] == PROTEINS
    corpus = open_corpus(prefix, TAPETokenizer(), vocabulary)
    assert TAPETokenizer().decode(corpus.residues(1)) == PROTEINS[1]
    with pytest.raises(VocabularyMismatchError, match=r"written with vocabulary megatron_iupac_vocab\.txt"):
        texts(prefix)


def test_ids_of_a_vocabulary_file_without_all_residues_are_refused(tmp_path: Path) -> None:
    (tmp_path / "x.fasta").write_text(FASTA)
    (tmp_path / "v.txt").write_text("\n".join(["[PAD]", *"ACDEFGHIKLMNPQRSTVWYBUXZ"]))
    vocabulary = read_vocabulary_file(tmp_path / "v.txt")
    with pytest.raises(VocabularyMismatchError, match=r"v\.txt: lacks the residues O"):
        preprocess([tmp_path / "x.fasta"], tmp_path / "out", vocabulary=vocabulary)


def test_split_sentences_names_the_output(tmp_path: Path, run_script: Callable) -> None:
    (tmp_path / "x.json").write_text(SPACED)
    result = run_script(SCRIPT, "--input", "x.json", "--output-prefix", "out", "--split-sentences", cwd=tmp_path)
    assert result.returncode == 0
    assert texts(tmp_path / "out_text_sentence") == PROTEINS


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--input", "none.fasta"], ["none.fasta"]),
        (["--input", "x.pdf"], ["x.pdf", "No such file"]),
        (["--input", "x.json", "--vocab-file", "none.txt"], ["none.txt"]),
        (["--input", "x.json", "--vocab-file-ids"], ["--vocab-file-ids", "--vocab-file, which is missing"]),
        (["--input", "x.json", "--tokenizer-type", "GPT2BPETokenizer"], ["byte pairs"]),
    ],
)
def test_user_errors_are_one_line(
    tmp_path: Path, run_script: Callable, assert_clean_error: Callable, arguments: list[str], words: list[str]
) -> None:
    (tmp_path / "x.json").write_text(SPACED)
    assert_clean_error(run_script(SCRIPT, *arguments, "--output-prefix", "out", cwd=tmp_path), *words)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("sent", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_run_leaves_no_corpus(tmp_path: Path, sent: signal.Signals, workers: int) -> None:
    """On SIGTERM, temporary files are removed; after SIGKILL, the next run removes them."""
    with _run_that_reads(tmp_path, workers) as run:
        run.process.send_signal(sent)
        run.process.wait(30)
    assert run.process.returncode == {signal.SIGTERM: 143, signal.SIGKILL: -9}[sent]
    assert not list(tmp_path.glob("out*"))
    _wait_until(lambda: not any(Path(f"/proc/{child}").exists() for child in run.workers))
    if sent == signal.SIGKILL:
        (tmp_path / "y.txt").write_text("MKV\n")
        preprocess([tmp_path / "y.txt"], tmp_path / "out")
    assert not list(tmp_path.glob(".out*"))


def test_a_killed_worker_ends_the_run(tmp_path: Path) -> None:
    """The system kills processes when memory runs out; the run must end with an error instead of waiting."""
    with _run_that_reads(tmp_path, workers=2) as run:
        os.kill(run.workers[0], signal.SIGKILL)
        os.kill(run.workers[1], signal.SIGKILL)
        with suppress(BrokenPipeError):  # more batches than are in flight
            for _ in range(12):
                run.stream.write("M" * 600_000 + "\n")
    assert run.process.returncode == 1
    assert run.errors.startswith("error: a worker process was killed by signal 9 (SIGKILL)")
    assert run.errors.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


@dataclass
class _Run:
    process: subprocess.Popen[str]
    workers: list[int]
    stream: TextIO
    errors: str = ""


# A pipe lets a test stop a run in the middle of its input. The tool refuses pipes, so this check is disabled.
@contextmanager
def _run_that_reads(folder: Path, workers: int) -> Iterator[_Run]:
    """A run in the middle of its input; the input ends with the block."""
    os.mkfifo(folder / "x.txt")
    command = [sys.executable, str(Path(__file__).parents[3] / SCRIPT), "--input", "x.txt", "--output-prefix", "out"]
    expected = workers if workers > 1 else 0  # one worker is the process itself
    process = subprocess.Popen(
        [*command, "--workers", str(workers)],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        with suppress(BrokenPipeError), _opened_when_read(folder / "x.txt", process) as stream:
            stream.write("MKV\n")
            stream.flush()
            _wait_until(lambda: bool(list(folder.glob(".out*"))) and len(_workers_of(process)) == expected)
            run = _Run(process, _workers_of(process), stream)
            yield run
        run.errors = process.communicate(timeout=30)[1]
    finally:
        process.kill()
        process.communicate()


def _opened_when_read(pipe: Path, process: subprocess.Popen[str]) -> TextIO:
    """Open the pipe for writing once the process reads it; open() would block forever if the process had ended."""
    ends: list[int] = []

    def opened() -> bool:
        assert process.poll() is None, process.stderr and process.stderr.read()
        with suppress(OSError):  # the process has not opened it yet
            ends.append(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK))
        return bool(ends)

    _wait_until(opened)
    os.set_blocking(ends[0], True)
    return os.fdopen(ends[0], "w")


def _workers_of(process: subprocess.Popen[str]) -> list[int]:
    """The worker processes, without the resource tracker of multiprocessing."""
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    return [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]


def _wait_until(condition: Callable[[], bool], seconds: float = 30) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_swissprot_validation_split_is_preprocessed(shared_data: Path, tmp_path: Path) -> None:
    summary = preprocess([shared_data / "corpus" / "swissprot_valid.fasta.xz"], tmp_path / "valid")
    assert (summary.documents, summary.tokens) == (2831, 1_160_670)
    assert summary.corpora[0].description.unknown["residues"] == 50  # far below the default limit
