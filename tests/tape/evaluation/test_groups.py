"""Groups of proteins: the table, in which every evaluated protein has one, and evaluations with intervals over them."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tape.cli.groups import run_groups
from tape.errors import ConfigError, DataError
from tape.evaluation.group_resampling import with_groups
from tape.evaluation.groups import read_groups
from tape.evaluation.records import read_record
from tape.io.checksums import sha256_of
from tape.main import run_eval, run_train
from tape.metrics import Bootstrap
from tape.registry import registry
from tests.support.leakage_tables import write_leakage


def write(tmp_path: Path, text: str, name: str = "groups.tsv") -> Path:
    file = tmp_path / name
    file.write_text(text)
    return file


def test_groups_are_numbered_in_the_order_of_the_proteins(tmp_path: Path) -> None:
    table = "id,group,note\np1,b,x\np2,a,\np3,b,x\n"
    groups = read_groups(write(tmp_path, table, "groups.csv"))
    assert groups.numbers(["p2", "p3", "p1"], "test").tolist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id\tgroup\n", r"groups\.tsv: contains no row"),
        ("id\tfamily\np1\ta\n", r"groups\.tsv, .*: no column group; it has id, family"),
        ("id\tgroup\np1\t\n", r"groups\.tsv, .*: no group; give each protein one"),
        ("group\na\n", r"groups\.tsv, .*: no id; the table needs the columns id and group"),
        ("id\tgroup\np1\ta\np1\tb\n", r"groups\.tsv, .*: the id 'p1' is in the table twice, with different groups"),
    ],
)
def test_other_tables_are_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_groups(write(tmp_path, text))


def test_proteins_without_a_group_and_a_single_group_are_refused(tmp_path: Path) -> None:
    groups = read_groups(write(tmp_path, "id\tgroup\np1\ta\np2\ta\np3\tb\n"))
    with pytest.raises(
        DataError, match=r"no group for 2 of 3 proteins of test \(x, y\); it has ids such as p1, p2, p3"
    ):
        groups.numbers(["p1", "x", "y"], "test")
    with pytest.raises(DataError, match=r"all proteins of test are in the group 'a'; two are needed"):
        groups.numbers(["p1", "p2"], "test")


@pytest.fixture
def data(small_data: Path, tmp_path: Path) -> Path:
    """A data directory of one task, to which a table can be added."""
    shutil.copytree(small_data / "stability", tmp_path / "data" / "stability")
    return tmp_path / "data"


def load(data: Path, split: str = "test") -> Any:
    return registry.get_task_spec("stability").dataset_class(data, split)


def test_numbers_of_records_are_those_of_one_split(tmp_path: Path) -> None:
    groups = read_groups(write(tmp_path, "id\tgroup\n" + "".join(f"{n}\t{n % 2}\n" for n in range(5))))
    assert groups.numbers(list("01234"), "test").tolist() == [0, 1, 0, 1, 0]
    assert groups.numbers(list("4321"), "test").tolist() == [0, 1, 0, 1]  # ids, not numbers of records
    with pytest.raises(DataError, match=r"has 5 proteins, and valid 4, whose ids are only the numbers of records"):
        groups.numbers(list("0123"), "valid")


@pytest.mark.parametrize("value", ["NaN", "1.5", "true", "[1]", "null", '" "'])
def test_groups_are_text_or_whole_numbers(tmp_path: Path, value: str) -> None:
    file = write(tmp_path, f'{{"id": "a", "group": {value}}}\n', "groups.jsonl")
    with pytest.raises(DataError, match=r"must be text or a whole number|no group; give each protein one"):
        read_groups(file)


def test_blanks_around_groups_do_not_count(tmp_path: Path) -> None:
    groups = read_groups(write(tmp_path, '{"id": "a", "group": "7 "}\n{"id": "b", "group": 7}\n', "groups.jsonl"))
    assert groups.of == {"a": "7", "b": "7"}


def test_a_table_of_other_sequences_is_refused(data: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = run_groups(["--task", "stability", "--data_dir", str(data)])
    assert file is not None
    assert with_groups(Bootstrap(), load(data), "test", file)[1] is not None
    lines = file.read_text().splitlines()
    lines[2] = lines[2].rpartition("\t")[0] + "\t0123456789abcdef"
    file.write_text("\n".join(lines) + "\n")
    with pytest.raises(DataError, match=r"another sequence than that of .*stability_test\.lmdb, record 1.*: the table"):
        with_groups(Bootstrap(), load(data), "test", file)
    assert with_groups(Bootstrap(), load(data), "test", None)[1] is None
    assert "another sequence than that of" in caplog.text
    some = [json.dumps({"id": f"p{n}", "group": n, **({"sequence_sha256": "ab"} if n else {})}) for n in range(5)]
    names = load(data).build_index().identifiers
    some = [line.replace(f'"p{n}"', json.dumps(name)) for n, (line, name) in enumerate(zip(some, names, strict=True))]
    with pytest.raises(DataError, match="another sequence than that of"):  # one without a digest is no other
        with_groups(Bootstrap(), load(data), "test", write(data, "\n".join(some), "some.jsonl"))


def write_table(dataset: Any, file: Path, groups: str) -> Path:
    names = dataset.build_index().identifiers
    rows = "".join(f"{name}\t{group}\n" for name, group in zip(names, groups, strict=True))
    file.write_text(f"id\tgroup\n{rows}")
    return file


def test_the_table_beside_a_split_is_found(data: Path) -> None:
    assert with_groups(Bootstrap(), load(data), "test", None) == (Bootstrap(), None)
    file = write_table(load(data), data / "stability" / "groups_test.tsv", "abbac")
    bootstrap, used = with_groups(Bootstrap(7, seed=3), load(data), "test", None)
    assert bootstrap == Bootstrap(7, seed=3)
    assert bootstrap.groups is not None
    assert bootstrap.groups.tolist() == [0, 1, 1, 0, 2]
    assert used is not None
    assert (used.path, used.sha256, str(used)) == (str(file), sha256_of(file), "3 groups of groups_test.tsv")
    assert with_groups(Bootstrap(), load(data, "valid"), "valid", None)[1] is None
    assert with_groups(None, load(data), "test", None) == (None, None)


def test_a_table_that_was_given_must_be_of_use_and_one_that_was_found_is_announced(
    data: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = data / "stability" / "groups_test.tsv"
    file.write_text("id\tgroup\nother\ta\n")
    with pytest.raises(DataError, match=r"no group for 5 of 5 proteins of split test"):
        with_groups(Bootstrap(), load(data), "test", file)
    with pytest.raises(ConfigError, match=r"groups_test\.tsv: groups are resampled for intervals, of which --boot"):
        with_groups(None, load(data), "test", file)
    with pytest.raises(ConfigError, match="SimpleNamespace does not describe the proteins"):
        with_groups(Bootstrap(), SimpleNamespace(), "test", file)
    assert caplog.text == ""
    assert with_groups(Bootstrap(), load(data), "test", None) == (Bootstrap(), None)
    assert "intervals are over proteins, not over groups" in caplog.text
    assert "no group for 5 of 5" in caplog.text


def test_an_evaluation_has_intervals_over_groups_also_in_bins(
    data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    words = ["onehot", "stability", "--data_dir", str(data), "--no_cuda"]
    model = run_train([*words, "--output_dir", str(tmp_path), "--force_save", str(tmp_path / "model")])
    leakage = write_leakage(data / "stability" / "stability_test.lmdb", tmp_path / "leakage.tsv", (60.0,) * 5)
    evaluate = ["onehot", "stability", str(model), *words[2:], "--leakage", str(leakage)]
    run_eval(evaluate)
    of_proteins = read_record(model / "eval_test.json")
    assert of_proteins.groups is None
    assert "intervals over the proteins" in caplog.text
    table = write_table(load(data), tmp_path / "families.tsv", "aaabb")
    run_eval([*evaluate, "--groups", str(table)])
    record = read_record(model / "eval_test.json")
    assert record.groups is not None
    assert (record.groups.path, record.groups.groups) == (str(table), 2)
    assert record.bootstrap == of_proteins.bootstrap == {"resamples": 1000, "seed": 42, "level": 0.95}
    assert "95 % intervals over 2 groups of families.tsv:" in caplog.text
    one, other = of_proteins.metric("mse"), record.metric("mse")
    assert one is not None
    assert other is not None
    assert one.value == other.value
    errors = squared_errors(model / "results_test.pkl")
    means = sorted([errors[:3].mean(), errors[3:].mean()])  # of a resample with one of the two groups
    assert other.interval == pytest.approx(means)
    assert one.interval != other.interval
    assert record.leakage is not None
    (scores,) = record.leakage.references
    in_bin = scores.bins[3].metric("mse")  # all proteins are in the last bin
    assert in_bin is not None
    assert in_bin.interval == other.interval


def squared_errors(file: Path) -> np.ndarray:
    with file.open("rb") as stream:
        _, results = pickle.load(stream)
    return np.array([float(result["prediction"][0] - result["target"][0]) ** 2 for result in results])
