"""The same records in every format, read by every command: what is written is what each of them reads."""

from __future__ import annotations

import csv
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pretrain.data.preprocessing import preprocess
from proteinlm.data.labeled_records import make_record
from tape.datasets.sources import dataset_factory, split_source
from tape.inference.variants import read_proteins
from tape.io.lmdb_store import write_lmdb
from tape.io.records import open_records

Pairs = list[tuple[str, str]]  # id, sequence
RESIDUES = "ACDEFGHIKLMNPQRSTVWYBXZUO"
# No white space and no quote, which TSV or the headers of FASTA do not have, and no name=value.
NAMES = st.text(
    st.characters(blacklist_categories=("Cc", "Cs", "Z", "Cn"), blacklist_characters='"='), min_size=1, max_size=20
).filter(lambda name: name.isprintable() and not name.startswith(("[", ">")))
RECORDS = st.lists(
    st.tuples(NAMES, st.text(RESIDUES, min_size=1, max_size=60)), min_size=1, max_size=8, unique_by=lambda pair: pair[0]
)


def as_fasta(pairs: Pairs) -> str:
    return "".join(f">{name} score=1.5 ; some = words\n{text[:7]}\n{text[7:]}\n" for name, text in pairs)


def as_csv(pairs: Pairs) -> str:
    stream = io.StringIO()
    csv.writer(stream).writerows([("id", "primary", "score"), *((*pair, 1.5) for pair in pairs)])
    return stream.getvalue()


def as_tsv(pairs: Pairs) -> str:
    return "id\tsequence\tscore\n" + "".join(f"{name}\t{text}\t1.5\n" for name, text in pairs)


def as_objects(pairs: Pairs) -> list[dict[str, object]]:
    return [{"id": name, "primary": text, "score": 1.5} for name, text in pairs]


WRITERS: dict[str, Callable[[Pairs], str]] = {
    ".fasta": as_fasta,
    ".csv": as_csv,
    ".tsv": as_tsv,
    ".jsonl": lambda pairs: "".join(json.dumps(value) + "\n" for value in as_objects(pairs)),
    ".json": lambda pairs: json.dumps(as_objects(pairs)),
}


def embedding(path: Path) -> Pairs:
    """As tape-embed and tape-eval --predict."""
    source = dataset_factory(path)
    return [(source[index]["id"], source[index]["primary"]) for index in range(len(source))]


def training(path: Path) -> Pairs:
    """As tape-train, tape-eval and tape-contacts, which also read labels."""
    source = split_source(path.parent, path.name.partition(".")[0])
    assert source is not None
    assert {float(source[index]["score"]) for index in range(len(source))} == {1.5}
    return [(source[index]["id"], source[index]["primary"]) for index in range(len(source))]


def preparation(path: Path) -> Pairs:
    """As prepare_data.py."""
    made = []
    for record in open_records(path, with_fields=True):
        fields = {**record.fields, "stability_score": record.fields["score"]}
        row = make_record(
            "stability", type(record)(record.identifier, record.sequence, record.where, fields=fields), Counter()
        )
        assert row["stability_score"] == [1.5]
        made.append((row["id"], row["primary"]))
    return made


def scoring(path: Path) -> Pairs:
    """As tape-score reads the wild types."""
    return list(read_proteins(str(path)).items())


READERS = {"embed": embedding, "train": training, "prepare": preparation, "score": scoring}


@pytest.mark.parametrize("command", READERS)
@pytest.mark.parametrize("suffix", [*WRITERS, ".lmdb"])
@settings(max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pairs=RECORDS)
def test_every_command_reads_what_was_written(tmp_path: Path, command: str, suffix: str, pairs: Pairs) -> None:
    path = tmp_path / f"x{suffix}"
    if suffix == ".lmdb":
        shutil.rmtree(path, ignore_errors=True)
        write_lmdb(path, as_objects(pairs))
    else:
        path.write_text(WRITERS[suffix](pairs), encoding="utf-8")
    assert READERS[command](path) == pairs


@pytest.mark.parametrize("suffix", WRITERS)
def test_preprocessing_reads_what_was_written(tmp_path: Path, suffix: str) -> None:
    pairs = [("a", "MKVLAGICD"), ("b", "GG"), ("c", "W" * 90)]
    (tmp_path / f"x{suffix}").write_text(WRITERS[suffix](pairs))
    summary = preprocess([tmp_path / f"x{suffix}"], tmp_path / "out")
    assert (summary.documents, summary.tokens) == (3, sum(len(text) for _, text in pairs))
