"""compare.py: two evaluated runs, protein by protein."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tape.errors import ConfigError, DataError
from tape.evaluation.records import EvaluationRecord, write_record
from tape.io.checksums import sha256_of
from tape.metrics import Metric
from tape.report import compare

PROTEINS = 12


def add_run(
    root: Path, name: str, results: list[dict[str, Any]], split: str = "cb513", task: str | None = None
) -> Path:
    task = task or "secondary_structure"
    run = root / f"{task}_transformer_{name}"
    run.mkdir(parents=True, exist_ok=True)
    (run / "args.json").write_text("{}")
    right = [r["prediction"].argmax(-1) == r["target"] for r in results if isinstance(r, dict)]
    metrics = (Metric("accuracy", float(np.mean(right)) if right else 0.5, 5, "a fraction"),)
    data = {"name": "chains", "simulated": False}
    record = EvaluationRecord(task, "transformer", split, data, len(results), metrics, "fp32")
    write_record(run / f"eval_{split}.json", record)
    if results:
        with (run / f"results_{split}.pkl").open("wb") as stream:
            pickle.dump(({}, results), stream, protocol=4)
    return run


def predictions(wrong: int) -> list[dict[str, Any]]:
    """Predictions for proteins of ten residues, ``wrong`` of which are incorrect."""
    target = np.arange(10) % 3
    guessed = np.where(np.arange(10) < wrong, (target + 1) % 3, target)
    scores = np.eye(3, dtype=np.float32)[guessed]
    return [{"id": f"p{index}", "prediction": scores, "target": target} for index in range(PROTEINS)]


def test_difference_and_interval_of_two_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = add_run(tmp_path, "a", predictions(2)), add_run(tmp_path, "b", predictions(5))
    compare.main([str(first), str(second), "--bootstrap", "50"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"first: {first}, second: {second}"
    assert len(lines) == 5
    cells = [cell.strip() for cell in lines[-1].strip("|").split("|")]
    assert cells[:3] == ["secondary_structure", "chains", f"cb513 ({PROTEINS})"]
    assert cells[3:] == ["3-class accuracy", "0.800", "0.500", "+0.300", "[+0.300, +0.300]"]


@pytest.mark.parametrize(
    ("of_first", "of_second", "shown"),
    [
        (8633, 863, ("all 8,633 proteins", "863 of 8,633 proteins")),
        (863, 863, ("863 of 8,633 proteins", "863 of 8,633 proteins")),
        (None, 863, ("a number of proteins that is not recorded", "863 of 8,633 proteins")),
        (None, 8633, ("a number of proteins that is not recorded", "all 8,633 proteins")),
        (8633, 8633, None),
        (None, None, None),
    ],
)
def test_training_proteins_are_named_where_they_differ_or_are_a_part(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    of_first: int | None,
    of_second: int | None,
    shown: tuple[str, str] | None,
) -> None:
    runs = [add_run(tmp_path, "a", predictions(2)), add_run(tmp_path, "b", predictions(5))]
    for run, number in zip(runs, (of_first, of_second), strict=True):
        file = run / "eval_cb513.json"
        training = None if number is None else {"proteins": number, "available": 8633}
        file.write_text(json.dumps({**json.loads(file.read_text()), "training": training}))
    compare.main([*map(str, runs), "--bootstrap", "20"])
    first, second = (f" (trained on {words})" for words in shown) if shown else ("", "")
    assert capsys.readouterr().out.splitlines()[0] == f"first: {runs[0]}{first}, second: {runs[1]}{second}"


def test_training_proteins_are_those_of_all_splits_and_of_other_data(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A run that was trained again between the evaluations of its splits, and one of another training set."""
    sizes = {"a": ((8633, 8633), (8633, 8633)), "b": ((8633, 8633), (863, 8633)), "c": ((5000, 5000),) * 2}
    runs = {}
    for name, of_splits in sizes.items():
        for split, (proteins, available) in zip(("cb513", "valid"), of_splits, strict=True):
            runs[name] = add_run(tmp_path, name, predictions(2), split=split)
            file = runs[name] / f"eval_{split}.json"
            training = {"proteins": proteins, "available": available}
            file.write_text(json.dumps({**json.loads(file.read_text()), "training": training}))
    for other, shown in (("b", "all 8,633 proteins, 863 of 8,633 proteins"), ("c", "all 5,000 proteins")):
        compare.main([str(runs["a"]), str(runs[other]), "--bootstrap", "20"])
        line = capsys.readouterr().out.splitlines()[0]
        expected = f"{runs['a']} (trained on all 8,633 proteins), second: {runs[other]} (trained on {shown})"
        assert line == f"first: {expected}"


def test_groups_of_proteins_are_resampled_and_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    better, worse = predictions(2)[: PROTEINS // 2], predictions(6)[PROTEINS // 2 :]
    runs = [str(add_run(tmp_path, "a", [*better, *worse])), str(add_run(tmp_path, "b", predictions(5)))]
    groups = tmp_path / "groups.csv"
    groups.write_text("id,group\n" + "".join(f"p{index},{index // 6}\n" for index in range(PROTEINS)))
    compare.main([*runs, "--bootstrap", "200", "--groups", str(groups)])
    lines = capsys.readouterr().out.splitlines()
    overall, within = ([cell.strip() for cell in line.strip("|").split("|")][3:] for line in lines[4:6])
    assert overall == ["3-class accuracy", "0.600", "0.500", "+0.100", "[-0.100, +0.300]"]
    assert within == ["3-class accuracy, mean within groups (2 of 2)", *overall[1:]]
    assert lines[-1] == f"secondary_structure, cb513: intervals over 2 groups of {groups}"
    groups.write_text("id,group\np0,a\n")
    with pytest.raises(DataError, match=r"groups\.csv: no group for 11 of 12 proteins of secondary_structure cb513"):
        compare.main([*runs, "--groups", str(groups)])


def test_groups_of_the_evaluations_are_those_of_their_comparison(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    better, worse = predictions(2)[: PROTEINS // 2], predictions(6)[PROTEINS // 2 :]
    runs = [add_run(tmp_path, "a", [*better, *worse]), add_run(tmp_path, "b", predictions(5))]
    words = [*map(str, runs), "--bootstrap", "200"]
    table = tmp_path / "groups.csv"
    table.write_text("id,group\n" + "".join(f"p{index},{index // 6}\n" for index in range(PROTEINS)))
    compare.main([*words, "--groups", str(table)])
    expected = capsys.readouterr().out

    def record(run: Path, sha256: str | None) -> None:
        file = run / "eval_cb513.json"
        groups = None if sha256 is None else {"path": str(table), "sha256": sha256, "groups": 2}
        file.write_text(json.dumps({**json.loads(file.read_text()), "groups": groups}))

    record(runs[0], sha256_of(table))
    with pytest.raises(ConfigError, match=r"are over proteins in .* and over 2 groups of groups\.csv in .*; name a"):
        compare.main(words)
    record(runs[1], sha256_of(table))
    compare.main(words)
    assert capsys.readouterr().out == expected
    table.write_text(table.read_text() + "other,9\n")
    with pytest.raises(ConfigError, match=r"groups\.csv: the table of groups of .*eval_cb513\.json has changed since"):
        compare.main(words)
    compare.main([*words, "--groups", str(table)])
    table.unlink()
    with pytest.raises(
        ConfigError,
        match=r"the table of groups of .* is gone; evaluate again, or name a table by tape-compare --groups",
    ):
        compare.main(words)


def test_the_table_is_also_written_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = [str(add_run(tmp_path, name, predictions(wrong))) for name, wrong in (("a", 2), ("b", 5))]
    compare.main([*runs, "--bootstrap", "50", "--out", str(tmp_path / "tables" / "ab.md")])
    assert (tmp_path / "tables" / "ab.md").read_text() == capsys.readouterr().out


def test_comparison_can_be_restricted_to_a_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs = []
    for name, wrong in (("a", 2), ("b", 5)):
        add_run(tmp_path, name, predictions(wrong), "casp12")
        runs.append(add_run(tmp_path, name, predictions(wrong)))
    compare.main([*map(str, runs), "--bootstrap", "20"])
    assert capsys.readouterr().out.count("3-class accuracy") == 2
    compare.main([*map(str, runs), "--bootstrap", "20", "--split", "casp12", "--all_metrics"])
    shown = capsys.readouterr().out
    assert "cb513" not in shown
    assert "accuracy_per_protein" in shown


def test_other_proteins_are_refused(tmp_path: Path) -> None:
    first = add_run(tmp_path, "a", predictions(2))
    renamed, relabeled = predictions(2), predictions(2)
    renamed[3] = {**renamed[3], "id": "q"}
    relabeled[3] = {**relabeled[3], "target": (relabeled[3]["target"] + 1) % 3}
    for name, results in (("b", renamed), ("c", relabeled), ("d", predictions(2)[1:]), ("e", predictions(2)[::-1])):
        with pytest.raises(DataError, match=r"results_cb513\.pkl do not contain the same proteins"):
            compare.main([str(first), str(add_run(tmp_path, name, results))])


def test_runs_without_common_evaluations_are_refused(tmp_path: Path) -> None:
    first = add_run(tmp_path, "a", predictions(2))
    with pytest.raises(ConfigError, match="no evaluation casp12 of the same task and data in common"):
        compare.main([str(first), str(add_run(tmp_path, "b", predictions(2))), "--split", "casp12"])
    with pytest.raises(ConfigError, match=r"results_cb513\.pkl: no predictions;"):
        compare.main([str(first), str(add_run(tmp_path, "c", []))])
    models = [add_run(tmp_path, name, predictions(2), task="masked_language_modeling") for name in "de"]
    with pytest.raises(ConfigError, match="no scores are stored for masked_language_modeling"):
        compare.main([*map(str, models)])
    models = [add_run(tmp_path, name, predictions(2), task="folding") for name in "fg"]
    with pytest.raises(ConfigError, match="folding is not a known task"):
        compare.main([*map(str, models)])
    with pytest.raises(ConfigError, match="contains several runs .*name one of them"):
        compare.main([str(tmp_path), str(first)])


def test_runs_of_several_seeds_are_averaged(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    several = tmp_path / "secondary_structure_transformer_a"
    for seed, wrong in ((1, 1), (2, 3)):
        run = add_run(tmp_path / "made", f"a{seed}", predictions(wrong))
        several.mkdir(exist_ok=True)
        run.rename(several / f"seed_{seed}")
    compare.main([str(several), str(add_run(tmp_path, "b", predictions(5))), "--bootstrap", "20"])
    lines = capsys.readouterr().out.splitlines()
    assert "(mean of 2 seeds)" in lines[0]
    assert "| 0.800 | 0.500 | +0.300 |" in lines[-1]


@pytest.mark.parametrize(
    "content", [5, ({}, 5), ({}, [5]), ({}, [{"id": "p0", "target": [0]}]), ([], predictions(1))], ids=str
)
def test_files_without_predictions_are_refused(tmp_path: Path, content: Any) -> None:
    runs = [add_run(tmp_path, name, predictions(2)) for name in "ab"]
    (runs[1] / "results_cb513.pkl").write_bytes(pickle.dumps(content, protocol=4))
    with pytest.raises(DataError, match=r"results_cb513\.pkl: not predictions as tape-eval writes them"):
        compare.main([*map(str, runs)])


def test_predictions_must_be_those_of_the_evaluation(tmp_path: Path) -> None:
    runs = [add_run(tmp_path, name, predictions(2)) for name in "ab"]
    for results, message in (
        (predictions(3), "from different evaluations"),
        (short(), "do not match their labels in shape or range"),
        *(
            ([{**predictions(2)[0], **damage}, *predictions(2)[1:]], "do not match their labels in shape or range")
            for damage in (
                {"target": np.arange(10) + 29541},
                {"target": None},
                {"target": 2**70},
                {"prediction": None},
                {"prediction": "abc"},
                {"prediction": [0.5] * 10},
            )
        ),
    ):
        (runs[1] / "results_cb513.pkl").write_bytes(pickle.dumps(({}, results), protocol=4))
        with pytest.raises(DataError, match=message):
            compare.main([*map(str, runs)])


def short() -> list[dict[str, Any]]:
    return [{**result, "prediction": result["prediction"][:-1]} for result in predictions(2)]


def test_user_errors_are_one_line(tmp_path: Path, run_script: Callable, assert_clean_error: Callable) -> None:
    run = add_run(tmp_path, "a", predictions(2))
    assert_clean_error(run_script("scripts/compare.py", run, tmp_path / "none"), "none", "no such directory")
    assert_clean_error(run_script("scripts/compare.py", run, run, "--bootstrap", 0), "at least 1 resample")
    assert_clean_error(run_script("scripts/compare.py", run, run, "--seed", -1), "seed must not be negative")
    (run / "eval_cb513.json").write_text(json.dumps({"schema": "other"}))
    assert_clean_error(run_script("scripts/compare.py", run, run), "eval_cb513.json", "schema")


def values(*predicted: float, labels: list[float]) -> list[dict[str, Any]]:
    """Predictions of a value for each protein."""
    pairs = enumerate(zip(predicted, labels, strict=True))
    return [
        {"id": f"p{index}", "prediction": np.float32([one]), "target": np.float32([label])}
        for index, (one, label) in pairs
    ]


def add_values(root: Path, name: str, results: list[dict[str, Any]]) -> Path:
    run = root / f"stability_transformer_{name}"
    run.mkdir()
    (run / "args.json").write_text("{}")
    data = {"name": "proteins", "simulated": False}
    metrics = (Metric("unknown_here", 0.5, 5, "a fraction"),)
    write_record(
        run / "eval_test.json",
        EvaluationRecord("stability", "transformer", "test", data, len(results), metrics, "fp32"),
    )
    with (run / "results_test.pkl").open("wb") as stream:
        pickle.dump(({}, results), stream, protocol=4)
    return run


def test_proteins_without_label_or_prediction_are_left_out_of_both_runs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    labels, nan = [1.0, 2.0, 3.0, float("nan"), 5.0], float("nan")
    first = add_values(tmp_path, "a", values(1, 2, nan, 4, 5, labels=labels))
    second = add_values(tmp_path, "b", values(2, 3, 4, 5, 6, labels=labels))
    compare.main([str(first), str(second), "--bootstrap", "20", "--all_metrics"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "stability, test: 2 of 5 proteins left out, without a label or a finite prediction"
    cells = next(line for line in lines if "| mse |" in line).split("|")
    assert [cell.strip() for cell in cells[5:8]] == ["0.000", "1.000", "-1.000"]


def test_runs_without_a_complete_protein_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nan = float("nan")
    runs = [add_values(tmp_path, name, values(nan, 2, labels=[1, nan])) for name in "ab"]
    with pytest.raises(DataError, match="no protein has a label and a finite prediction of both models"):
        compare.main([*map(str, runs)])
