"""Every format and compression, and the errors for empty, truncated and invalid files."""

from __future__ import annotations

import gzip
import json
import lzma
from pathlib import Path

import pytest
import zstandard

from tape.errors import DataError
from tape.io.lmdb_store import write_lmdb
from tape.io.records import is_sequence_file, json_values, open_records, open_rows
from tape.io.text_files import file_size, split_suffix

FASTA = ">P1 first protein\nMKV\nLLA\n\n>P2\r\nac-d*J\r\n"
PAIRS = [("P1", "MKVLLA"), ("P2", "ac-d*J")]
COMPRESS = {
    "": lambda data: data,
    ".gz": gzip.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: zstandard.ZstdCompressor().compress(data),
}


def write(path: Path, text: str, compression: str = "") -> Path:
    path = path.with_name(path.name + compression)
    path.write_bytes(COMPRESS[compression](text.encode()))
    return path


def pairs(path: Path) -> list[tuple[str, str]]:
    return [(record.name, record.sequence) for record in open_records(path)]


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("suffix", [".fasta", ".fa", ".faa", ".fna", ".ffn", ".frn"])
def test_fasta_is_read_with_any_compression(tmp_path: Path, suffix: str, compression: str) -> None:
    path = write(tmp_path / f"x{suffix}", FASTA, compression)
    assert pairs(path) == PAIRS
    assert [record.where for record in open_records(path)] == [f"{path}, record 1 (P1)", f"{path}, record 2 (P2)"]


def test_fasta_may_have_40000_residues_or_no_records(tmp_path: Path) -> None:
    long = "ACDEFGHIKL" * 4000
    lines = "\n".join(long[i : i + 60] for i in range(0, len(long), 60))
    assert pairs(write(tmp_path / "long.fasta", f">titin\n{lines}")) == [("titin", long)]
    assert pairs(write(tmp_path / "none.fasta", "")) == []


def test_interleaved_stockholm_alignments_are_read(tmp_path: Path) -> None:
    text = (
        "# STOCKHOLM 1.0\n#=GF ID X\na/1-4  MK.\nb/1-4  -KV\n#=GC RF xxx\n\na/1-4  LL\nb/1-4  AA\n//\n"
        "# STOCKHOLM 1.0\nc  GG\n//\n"
    )
    assert pairs(write(tmp_path / "x.sto", text, ".gz")) == [("a/1-4", "MK.LL"), ("b/1-4", "-KVAA"), ("c", "GG")]
    with pytest.raises(DataError, match="no closing '//'"):
        pairs(write(tmp_path / "cut.sto", text[:60]))
    with pytest.raises(DataError, match=r"other\.sto, line 1: not Stockholm"):
        pairs(write(tmp_path / "other.sto", FASTA))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("spaced.jsonl", '{"text": "G C T V"}\n\n{"text": "M K"}\n'),
        ("plain.jsonl", '{"primary": "GCTV"}\n{"sequence": "MK"}'),
        ("lines.json", '{"text": "GCTV"}\n{"text": "MK"}\n'),
        ("pretty.json", '{\n "text": "GCTV"\n}\n{\n "text": "MK"\n}\n'),
        ("list.json", ' [ {"primary": "GCTV"}, \n{"primary": "MK"} ] '),
        ("table.csv", "name,primary\n,GCTV\n,MK\n"),
        ("table.tsv", "sequence\tfold\nGCTV\t1\nM K\t2\n"),
        ("lines.txt", "G C T V\n\nMK\n"),
    ],
)
def test_every_text_format_gives_the_same_sequences(tmp_path: Path, name: str, text: str) -> None:
    sequences = [sequence for _, sequence in pairs(write(tmp_path / name, text, ".xz"))]
    assert sequences == ["GCTV", "MK"]


def test_identifiers_are_read_or_numbered(tmp_path: Path) -> None:
    assert pairs(write(tmp_path / "a.jsonl", '{"id": 7, "text": "A"}\n{"text": "C"}')) == [("7", "A"), ("1", "C")]
    assert pairs(write(tmp_path / "a.tab", "P1\tAC\nP2\tD\n")) == [("P1", "AC"), ("P2", "D")]
    assert pairs(write(tmp_path / "a.fasta", ">\nAC\n> P2\nD\n")) == [("0", "AC"), ("P2", "D")]


def test_lmdb_records_are_read_in_order(tmp_path: Path) -> None:
    write_lmdb(tmp_path / "pfam.lmdb", [{"primary": "MKV"}, {"primary": "AC", "id": b"x"}])
    assert pairs(tmp_path / "pfam.lmdb") == [("0", "MKV"), ("x", "AC")]
    # numbered like the keys of the file, as in the messages of LMDBReader
    places = [record.where for record in open_records(tmp_path / "pfam.lmdb")]
    assert places == [f"{tmp_path / 'pfam.lmdb'}, record 0 (0)", f"{tmp_path / 'pfam.lmdb'}, record 1 (x)"]


def test_json_is_streamed_across_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "_BLOCK_CHARACTERS", 7)
    records = [{"id": str(i), "text": "ACDEF" * i} for i in range(1, 30)]
    expected = [(record["id"], record["text"]) for record in records]
    assert pairs(write(tmp_path / "list.json", json.dumps(records, indent=1))) == expected
    assert pairs(write(tmp_path / "one.json", "".join(map(json.dumps, records)))) == expected


@pytest.mark.parametrize(
    "text", ['[{"text": "%s"}]' % ("A" * 300), '[{"text": "' + "A" * 300, '[{"text": [' + "1, " * 300]
)
def test_a_value_of_json_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setattr(json_values, "LONGEST_LINE", 200)
    monkeypatch.setattr(json_values, "_BLOCK_CHARACTERS", 50)
    with pytest.raises(DataError, match=r"x\.json, record 1: longer than 200 characters"):
        pairs(write(tmp_path / "x.json", text))


def test_json_is_read_no_further_than_its_first_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_values, "_BLOCK_CHARACTERS", 100)
    steps: list[int] = []
    path = write(tmp_path / "x.json", '[{"text" "MK"},' + " " * 10_000_000 + "]")
    with pytest.raises(DataError, match="record 1: not valid JSON: Expecting ':' delimiter"):
        list(open_records(path, progress=steps.append))
    assert sum(steps) < 1_000_000


@pytest.mark.parametrize(
    ("name", "text", "record"),
    [
        ("e.fasta", ">a\nMK\n>empty\n\n>c\nA\n", r"record 2 \(empty\)"),
        ("e.jsonl", '{"text": "A"}\n{"text": "  ", "id": "q"}', r"record 2 \(q\)"),
        ("e.json", '[{"text": ""}]', "record 1"),
        ("e.csv", "primary,id\nA,1\n,2\n", r"record 2 \(2\)"),
        ("e.txt", "p1\tAC\np2\t\n", r"record 2 \(p2\)"),
    ],
)
def test_empty_record_is_named(tmp_path: Path, name: str, text: str, record: str) -> None:
    with pytest.raises(DataError, match=rf"{name}, {record}: empty record"):
        pairs(write(tmp_path / name, text))


def test_empty_records_can_be_skipped_and_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "e.fasta", ">a\nMK\n>empty\n>c\nA\n")
    places: list[str] = []
    assert [record.sequence for record in open_records(path, on_empty=places.append)] == ["MK", "A"]
    assert places == [f"{path}, record 2 (empty)"]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("x.jsonl", '{"text": "A"}\n{"text": ', "record 2: not valid JSON"),
        ("x.json", '[{"text": "A"}, {"text": ', "record 2: not valid JSON"),
        ("y.json", '[{"text": "A"}', "record 2: not valid JSON"),
        ("x.json", '[{"text": "A"}] [{"text": "C"}]', "text follows the list of records"),
        ("x.txt", "p1\tMKV\tHHC\n", "line 1: more than one tab"),
        ("x.jsonl", '{"text": "A", "text": "C"}', "record 1: JSON that can't be read: the key 'text' is repeated"),
        ("x.json", '[{"text": "A"}, {"text": "A", "text": "C"}]', "record 2: .* the key 'text' is repeated"),
        ("x.txt", "protA MKV\n", r"line 1: 'protA MKV' has blanks, .*id<TAB>sequence"),
        ("x.txt", "MKVLAAGIVG\nprotB MKV LLA\n", "line 2: 'protB MKV LLA' has blanks"),
        ("x.csv", "id,sequence\na,MKV\nb,\n", r"record 2 \(b\): empty record: no residues in column 'sequence'"),
        ("x.fasta", ">a\n>b\nMK\n", r"record 1 \(a\): empty record: a header without residues"),
        ("x.jsonl", "[1]", "record 1: expected a JSON object, found list"),
        ("x.jsonl", '{"residues": "A"}', "no sequence: its fields are residues, not text or primary or sequence"),
        ("x.jsonl", '{"text": 5}', "'text' must be text, not int"),
        ("x.csv", "primary,id\nA\n", "record 1: the header has 2 columns"),
        ("x.csv", "primary,id\nA,1,2\n", "record 1: the header has 2 columns"),
        ("x.fasta", "MKV\n", "line 1: not FASTA"),
        ("x.pdb", "ATOM", "unknown suffix; allowed are .fasta"),
    ],
)
def test_malformed_files_are_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    with pytest.raises(DataError, match=rf"{name}.*{message}"):
        pairs(write(tmp_path / name, text))


@pytest.mark.parametrize("compression", [".gz", ".xz", ".zst"])
def test_truncated_and_mislabeled_archives_are_refused(tmp_path: Path, compression: str) -> None:
    path = write(
        tmp_path / "big.fasta", "".join(f">{i}\n{'ACDEFGH' * (i % 97 + 1)}\n" for i in range(3000)), compression
    )
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(DataError, match=rf"big\.fasta\{compression}: truncated"):
        pairs(path)
    path.write_text(FASTA)
    with pytest.raises(DataError, match=rf"big\.fasta\{compression}: damaged, or not compressed"):
        pairs(path)


def test_several_zstd_frames_are_read(tmp_path: Path) -> None:
    path = tmp_path / "two.fasta.zst"
    path.write_bytes(b"".join(zstandard.ZstdCompressor().compress(part) for part in (b">a\nMK\n", b">b\nAC\n")))
    assert pairs(path) == [("a", "MK"), ("b", "AC")]


def test_missing_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"absent\.fasta: No such file"):
        pairs(tmp_path / "absent.fasta")
    (tmp_path / "binary.fasta").write_bytes(b">a\n\xff\xfe")
    with pytest.raises(DataError, match=r"binary\.fasta, line 2: not UTF-8"):
        pairs(tmp_path / "binary.fasta")


def test_rows_have_the_fields_of_the_header(tmp_path: Path) -> None:
    rows = list(open_rows(write(tmp_path / "x.csv", "\ufeffprimary, fold_label\nAC, 3\n")))
    assert rows[0].fields == {"primary": "AC", "fold_label": "3"}
    assert rows[0].where.endswith("x.csv, record 1")
    with pytest.raises(DataError, match="unknown suffix"):
        open_rows(tmp_path / "x.pdb")
    with pytest.raises(DataError, match="records of text have no fields"):
        open_rows(tmp_path / "x.txt")


def test_fields_are_read_from_fasta_headers(tmp_path: Path) -> None:
    path = write(tmp_path / "x.fasta", ">d1abc_ fold_label=3 ss3=HH\nAC\n>fold_label=4\nD\n")
    assert [row.fields for row in open_rows(path)] == [
        {"id": "d1abc_", "fold_label": "3", "ss3": "HH", "primary": "AC\n"},
        {"fold_label": "4", "primary": "D\n"},
    ]


@pytest.mark.parametrize("compression", COMPRESS)
def test_progress_adds_up_to_the_file_size(tmp_path: Path, compression: str) -> None:
    path = write(tmp_path / "x.fasta", "".join(f">{i}\nACD\n" for i in range(500)), compression)
    steps: list[int] = []
    assert sum(1 for _ in open_records(path, progress=steps.append)) == 500
    assert sum(steps) == file_size(path)


def test_suffixes_are_split_case_insensitively() -> None:
    assert split_suffix("a/b.FASTA.GZ") == (".fasta", ".gz")
    assert split_suffix("b.txt") == (".txt", "")
    assert is_sequence_file("corpus.jsonl.zst")
    assert not is_sequence_file("README.md")


def test_the_real_corpus_is_read(shared_data: Path) -> None:
    first = next(open_records(shared_data / "corpus" / "swissprot_train.fasta.xz"))
    assert (first.identifier, first.sequence) == ("P83570", "GW")
    chains = open_records(shared_data / "structures" / "pdb_valid.tsv.xz")
    assert sum(1 for _ in chains) == 224
