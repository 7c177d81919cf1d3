"""The report: its table, the published numbers and why they are not comparable, its charts, its page."""

from __future__ import annotations

import csv
import io
import json
import math
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tape.errors import CheckpointError, ConfigError, DataError
from tape.evaluation.records import EvaluationRecord, TrainingSize
from tape.report import command as report
from tape.report import line_charts
from tape.report import page as report_page
from tape.report import rows as report_rows
from tape.report.published import grouped_reasons, load_published, published_beside
from tests.support.evaluated_runs import Page, add_results, add_run, record_of


@pytest.fixture
def results(tmp_path: Path) -> Path:
    root = tmp_path / "results"
    add_run(root, "secondary_structure", "transformer", "pretrained", "test", False, accuracy=0.7)
    add_run(root, "secondary_structure", "transformer", "random", "test", False, accuracy=0.6)
    add_run(root, "secondary_structure", "onehot", "onehot", "test", False, accuracy=0.5)
    add_run(root, "stability", "transformer", "pretrained", "test", True, spearmanr=0.25)
    add_run(root, "stability", "transformer", "mine", "test", True, spearmanr=0.5)
    return root


def rows_of(*directories: Path) -> list[report_rows.Row]:
    return report_rows.make_rows(report_rows.read_evaluations(directories))


# --- the table ------------------------------------------------------------------------------------------------------


def test_the_table_has_a_row_per_evaluation_and_a_column_per_model(results: Path) -> None:
    rows = rows_of(results)
    assert report_rows.columns_of(rows) == ["one-hot", "random weights", "pretrained", "mine"]
    text = report_rows.markdown_table(rows)
    assert "| secondary_structure | a <set> | test (5) | 3-class accuracy | 0.500 | 0.600 | **0.700** | - |" in text
    assert "| stability | a <set> (simulated) | test (5) | Spearman's rho | - | - | 0.250 | **0.500** |" in text


def test_csv_has_full_precision_and_intervals(results: Path) -> None:
    records = list(csv.DictReader(io.StringIO(report_rows.csv_table(rows_of(results)))))
    assert records[0]["pretrained"] == "0.7"
    assert float(records[0]["pretrained low"]) == pytest.approx(0.65)
    assert (records[1]["simulated"], records[1]["mine"], records[1]["one-hot low"]) == ("True", "0.5", "")


def test_a_third_party_task_is_reported_by_its_first_metric(tmp_path: Path) -> None:
    add_run(tmp_path, "my_task", "transformer", "x", "test", False, loss=1.0, my_score=0.5)
    (row,) = rows_of(tmp_path)
    assert (row.metric, row.values["x"].value) == ("my score", 0.5)


def test_the_best_epoch_on_validation_data_is_reported(results: Path, tmp_path: Path) -> None:
    run = results / "secondary_structure_transformer_pretrained"
    shutil.copytree(run / "1", run / "10")
    (run / "10" / "eval_test.json").write_text((run / "1" / "eval_test.json").read_text().replace("0.7", "0.1"))
    with pytest.raises(ConfigError, match="are both secondary_structure test"):
        report_rows.read_evaluations([results])
    (run / "best.json").write_text('{"directory": "10"}')
    assert rows_of(results)[0].values["pretrained"].value == 0.1
    shutil.copytree(results, tmp_path / "again")
    with pytest.raises(ConfigError, match="pass only one of them"):
        report_rows.read_evaluations([results, tmp_path / "again"])


def test_directories_may_overlap(results: Path) -> None:
    run = results / "stability_transformer_mine"
    assert rows_of(results, run) == rows_of(results)


def add_seeds(root: Path, suffix: str, values: Sequence[float], data: str = "a <set>") -> Path:
    """A directory as --seeds writes it, of stability; returns it."""
    directory = root / f"stability_transformer_{suffix}"
    for seed, value in enumerate(values, start=42):
        one = add_run(directory, "stability", "transformer", str(seed), "test", False, data, spearmanr=value)
        one.parent.rename(directory / f"seed_{seed}")
        values = [{"id": "x", "prediction": np.array([p]), "target": np.array([p / 2])} for p in (1.0, 2.0, 4.0)]
        add_results(directory / f"seed_{seed}" / one.name, "test", *values)
    return directory


def test_several_seeds_are_reported_by_mean_and_standard_deviation(tmp_path: Path) -> None:
    add_seeds(tmp_path, "random", (0.1, 0.2, 0.6))
    add_seeds(tmp_path, "lone", (0.3,))
    add_seeds(tmp_path, "undefined", (0.4, math.nan))
    add_run(tmp_path, "stability", "transformer", "single", "test", False, spearmanr=0.35)
    rows = rows_of(tmp_path)
    assert report_rows.columns_of(rows) == ["random weights", "lone", "single", "undefined"]
    text = report_rows.markdown_table(rows)
    assert "| 0.300 \u00b1 0.265 (3 seeds) | 0.300 | 0.350 | **0.400** (1 seed) |" in text
    assert "sample standard deviation over the seeds" in text
    (record,) = csv.DictReader(io.StringIO(report_rows.csv_table(rows)))
    assert float(record["random weights"]) == pytest.approx(0.3)
    assert float(record["random weights std"]) == pytest.approx(0.07**0.5)
    assert (record["random weights seeds"], record["undefined std"], record["undefined seeds"]) == ("3", "", "1")
    assert (record["random weights low"], record["lone low"]) == ("", "0.25")
    assert "lone std" not in record


def test_the_page_shows_mean_and_standard_deviation_of_seeds(tmp_path: Path) -> None:
    add_seeds(tmp_path, "mine", (0.25, 0.75), "TAPE stability")
    report.main([str(tmp_path), "--out", str(tmp_path / "report")])
    text = (tmp_path / "report" / "report.html").read_text()
    words = Page(text).words
    assert words.count("\u00b1 0.354 (2 seeds)") == 3  # the table, beside published numbers, all metrics
    assert "mine, seed 43" in words  # with its own value, curve and hash
    assert text.count('class="points') == 1  # one scatter plot
    assert text.count('class="line c5') == 3  # one curve per seed, and the legend
    card = ElementTree.fromstring(next(iter(re.findall(r'<svg class="bar".*?</svg>', text))))
    whisker = next(path for path in card.iter("path") if path.get("class") == "whisker")
    low, high = (float(number) for number in re.findall(r"M([\d.]+) 8H([\d.]+)", str(whisker.get("d")))[0])
    assert (low + high) / 2 == pytest.approx(200 * 0.5 / 0.9, abs=0.1)  # around the mean; published ones end at .79


def test_equal_names_in_two_directories_are_refused(tmp_path: Path) -> None:
    add_seeds(tmp_path / "a", "mine", (0.25, 0.75))
    add_seeds(tmp_path / "b", "mine", (0.25, 0.75))
    with pytest.raises(ConfigError, match="are both stability test of 'mine'; pass only one of them"):
        rows_of(tmp_path)


def test_the_lowest_loss_is_the_best(tmp_path: Path) -> None:
    for name, loss in (("a", 1.0), ("b", 2.0)):
        add_run(tmp_path, "my_task", "transformer", name, "test", False, loss=loss)
    assert report_rows.best_of(rows_of(tmp_path)[0]) == 1.0


def test_missing_and_malformed_evaluations_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no eval_SPLIT\.json"):
        report_rows.read_evaluations([tmp_path])
    with pytest.raises(ConfigError, match="no such directory"):
        report_rows.read_evaluations([tmp_path / "absent"])
    file = tmp_path / "eval_test.json"
    for text in ("{", "{}", '{"schema": "other", "version": 1}'):
        file.write_text(text)
        with pytest.raises(CheckpointError, match=r"eval_test\.json"):
            report_rows.read_evaluations([tmp_path])


# --- published numbers ----------------------------------------------------------------------------------------------


def reasons(record: EvaluationRecord) -> dict[str, tuple[str, ...]]:
    return {entry.model: entry.reasons for entry in published_beside(record)}


def test_published_numbers_have_sources() -> None:
    content = load_published()
    values = {model["name"]: model["values"] for model in content["models"]}
    assert set(values) == {
        "TAPE one-hot", "TAPE LSTM", "TAPE ResNet", "TAPE Transformer", "UniRep", "ProteinLM 200M", "ProteinLM 3B",
    }  # fmt: skip
    assert [values["TAPE one-hot"][task] for task in content["tasks"]] == [0.69, 0.29, 0.09, 0.14, 0.19]
    assert [values["ProteinLM 200M"][task] for task in content["tasks"]] == [0.75, 0.52, 0.26, 0.68, 0.77]
    assert [values["ProteinLM 3B"][task] for task in content["tasks"]] == [0.79, 0.75, 0.30, 0.68, 0.79]
    assert {content["families"][model["family"]]["source"] for model in content["models"]} == set(content["sources"])


def test_on_the_same_data_only_differing_settings_are_named() -> None:
    data = {"name": "TAPE stability", "simulated": False, "splits": {"train": 53614}}
    record = record_of("stability", "transformer", "test", data, spearmanr=0.5)
    found = reasons(EvaluationRecord(**{**vars(record), "proteins": 12851}))
    assert found["TAPE LSTM"] == ()  # same data, same head, same metric
    assert found["ProteinLM 200M"] == ("other head: ours is 512 wide, theirs 1024",)
    assert "ours is over 5 test proteins, not 12,851" in reasons(record)["TAPE LSTM"]
    cut = record_of("stability", "transformer", "test", {**data, "long_proteins": "crop"}, spearmanr=0.5)
    assert "ours reads proteins over the position table by --length crop" in reasons(cut)["TAPE LSTM"]


def test_differing_data_heads_and_metrics_are_named() -> None:
    record = record_of("contact_prediction", "transformer", "test", {"name": "PDB"}, precision_at_l5=0.2)
    found = reasons(record)
    assert found["TAPE LSTM"][0] == "ours is on other data: PDB"
    assert not any("other head" in reason for reason in found["TAPE LSTM"])
    assert any("ours is one linear layer" in reason for reason in found["ProteinLM 200M"])
    assert any("counts each pair twice" in reason for reason in found["ProteinLM 3B"])
    simulated = record_of("stability", "transformer", "test", {"name": "toy", "simulated": True}, spearmanr=0.2)
    assert reasons(simulated)["TAPE LSTM"] == ("ours is on simulated data (toy)",)
    data = {"name": "NetSurfP-2.0 and CB513", "splits": {"train": 8633}}
    structure = reasons(record_of("secondary_structure", "transformer", "casp12", data, accuracy=0.2))["TAPE LSTM"]
    assert "ours is on another split: casp12, not cb513" in structure
    assert "ours had 8,633 proteins to train on, not 8,678" in structure
    assert "ours was not measured by the published definition (accuracy_all_residues)" in structure
    few = record_of("secondary_structure", "transformer", "cb513", {**data, "splits": {"train": 8678}}, accuracy=0.2)
    few = replace(few, training=TrainingSize(863, 8678))
    assert "ours had 863 proteins to train on, not 8,678" in reasons(few)["TAPE LSTM"]
    assert published_beside(record_of("my_task", "transformer", "test", data, x=1.0)) == []


def test_common_reasons_are_listed_once() -> None:
    record = record_of("contact_prediction", "transformer", "test", {"name": "PDB"}, precision_at_l5=0.2)
    groups = grouped_reasons(published_beside(record))
    assert groups[0] == (["all"], ["ours is on other data: PDB"])
    assert "TAPE LSTM" in groups[1][0]
    assert groups[-1][0] == ["ProteinLM 3B"]


# --- the page -------------------------------------------------------------------------------------------------------


@pytest.fixture
def page(results: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    """The directory of a report with every kind of chart."""
    add_run(results, "fluorescence", "transformer", "pretrained", "test", False, "TAPE fluorescence", spearmanr=0.6)
    rng = np.random.default_rng(0)
    directory = add_run(results, "contact_prediction", "transformer", "pretrained", "test", False, precision_at_l5=0.2)
    target = np.full((30, 30), -1)
    target[np.triu_indices(30, 6)] = rng.integers(0, 2, len(np.triu_indices(30, 6)[0]))
    target = np.maximum(target, target.T)
    entry = {"id": "1abc", "prediction": rng.normal(size=(30, 30, 2)).astype(np.float32), "target": target}
    add_results(directory, "test", *[entry] * 3)
    structure = {"id": "x", "prediction": np.eye(3)[[0, 1, 1, 2]], "target": np.array([-1, 1, 0, 2])}
    add_results(results / "secondary_structure_transformer_pretrained" / "1", "test", structure)
    values = [{"id": "x", "prediction": np.array([p]), "target": np.array([p / 2])} for p in (1.0, 2.0, 4.0)]
    add_results(results / "stability_transformer_mine" / "1", "test", *values)
    pretraining = tmp_path / "checkpoints"
    pretraining.mkdir()
    records: list[dict[str, float]] = [{"iteration": i, "lm_loss": 3.0 - i / 100} for i in range(1, 60)]
    records.append({"iteration": 59, "validation_loss": 2.6})
    (pretraining / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    report.main([str(results), "--pretraining", str(pretraining), "--out", str(tmp_path / "report")])
    assert "**0.700**" in capsys.readouterr().out
    return tmp_path / "report"


def test_the_page_is_well_formed_and_self_contained(page: Path) -> None:
    assert {path.name for path in page.iterdir()} == {"report.html", "table.md", "table.csv"}
    text = (page / "report.html").read_text()
    parsed = Page(text)
    assert parsed.open == []
    loaded = [a for tag, a in parsed.attributes for key in ("src", "data", "srcset") if key in a]
    assert loaded == []
    assert "@import" not in text
    assert "url(" not in text
    addresses = {a["href"] for tag, a in parsed.attributes if tag == "a"}
    assert {a for a in addresses if a and not a.startswith("#")} == {
        s["url"] for s in load_published()["sources"].values()
    }
    anchors = {a.get("id") for _, a in parsed.attributes}
    assert {str(a)[1:] for a in addresses if str(a).startswith("#")} <= anchors
    assert "@media print" in text
    assert "prefers-color-scheme: dark" in text
    assert any(a.get("name") == "viewport" for tag, a in parsed.attributes if tag == "meta")


def test_a_directory_with_other_content_is_not_replaced(results: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="contains secondary_structure_onehot_onehot, .* does not write and would"):
        report.main([str(results), "--out", str(results)])
    assert len(rows_of(results)) == 2  # nothing is lost
    for _ in range(2):
        report.main([str(results), "--out", str(tmp_path / "report")])
    with pytest.raises(ConfigError, match="is a file"):
        report.main([str(results), "--out", str(tmp_path / "report" / "table.md")])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"metrics\.jsonl: No such file"),
        ('{"iteration": 1}\n{"itera', r"metrics\.jsonl, line 2: not valid JSON"),
        ("3\n", r"metrics\.jsonl, line 1: holds a int, not a JSON object"),
        ('{"lm_loss": 3}', r"metrics\.jsonl, line 1: iteration must be an integer, not None"),
        ('{"iteration": [[1]], "lm_loss": 3}', r"metrics\.jsonl, line 1: iteration must be an integer, not \[\[1\]\]"),
    ],
)
def test_a_damaged_pretraining_history_is_refused(
    results: Path, tmp_path: Path, content: str | None, message: str
) -> None:
    if content is not None:
        (tmp_path / "metrics.jsonl").write_text(content)
    with pytest.raises(CheckpointError, match=message):
        report.main([str(results), "--pretraining", str(tmp_path), "--out", str(tmp_path / "report")])
    assert not (tmp_path / "report").exists()


@pytest.mark.parametrize("loss", ['"low"', "[1]", "1e300", "NaN"])
def test_a_loss_that_is_no_number_is_refused(results: Path, tmp_path: Path, loss: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"iteration": 7, "lm_loss": {loss}}}')
    with pytest.raises(DataError, match=r"metrics\.jsonl: the lm_loss of iteration 7 must be a number, not "):
        report.main([str(results), "--pretraining", str(tmp_path), "--out", str(tmp_path / "report")])


@pytest.mark.parametrize(
    ("prediction", "target"),
    [
        (np.eye(3), np.array([0, 1, 29541])),
        (np.eye(3), np.array([0, 1])),
        (np.zeros((3, 0)), np.array([0, 1, 2])),
        (np.eye(3), None),
    ],
)
def test_predictions_that_do_not_match_their_labels_are_named(
    results: Path, tmp_path: Path, prediction: np.ndarray, target: Any
) -> None:
    directory = results / "secondary_structure_transformer_pretrained" / "1"
    add_results(directory, "test", {"id": "x", "prediction": prediction, "target": target})
    with pytest.raises(DataError, match=r"results_test\.pkl: predictions or labels don't have the shapes of the task"):
        report.main([str(results), "--out", str(tmp_path / "report")])


@pytest.mark.parametrize("span", [(0, 5e-324), (1e308, 1.1e308), (0, 1e308), (-1e15, 1e15), (1e16, 1e16 + 2)])
def test_ticks_of_any_range_are_few(span: tuple[float, float]) -> None:
    assert 1 <= len(line_charts.nice_ticks(*span)) < 20


def test_a_model_without_the_primary_metric_is_shown(results: Path, tmp_path: Path) -> None:
    add_run(results, "stability", "transformer", "bare", "test", True, loss=1.0)
    report.main([str(results), "--out", str(tmp_path / "report")])
    assert "bare" in Page((tmp_path / "report" / "report.html").read_text()).words


def test_charts_and_tables_have_accessible_labels(page: Path) -> None:
    parsed = Page((page / "report.html").read_text())
    charts = [a for tag, a in parsed.attributes if tag == "svg"]
    assert len(charts) > 10
    assert all(a.get("aria-label") or a.get("aria-hidden") == "true" for a in charts)
    headers = [a for tag, a in parsed.attributes if tag == "th"]
    assert headers
    assert all(a.get("scope") in ("col", "row", "rowgroup") for a in headers)


def test_the_page_shows_the_content_of_the_files(page: Path) -> None:
    words = Page((page / "report.html").read_text()).words
    for expected in (
        "a <set>",  # escaped, or it would be a tag
        "[0.650, 0.750]",
        "what spearmanr is",
        "ProteinLM 3B",
        "Not comparable because",
        "ours is on simulated data (a <set>)",
        "P@L",
        "of 1abc (30 residues)",
        "percent predicted as",
        "3 proteins; dashed",
        "Pretraining.",
        "stability: a <set> (simulated)",
    ):
        assert expected in words, expected
    markdown = (page / "table.md").read_text()
    assert "| contact_prediction | P@L/5, test | 0.29 | 0.39 | 0.29 | 0.36 | 0.34 | 0.52 | 0.75 |" in markdown
    assert "- stability, test, all: ours is on simulated data (a <set>)" in markdown


def test_only_evaluations_on_the_published_data_are_beside_published_numbers(results: Path, tmp_path: Path) -> None:
    def shown(*directories: Path) -> tuple[int, str]:
        report.main([*map(str, directories), "--out", str(tmp_path / "report")])
        text = (tmp_path / "report" / "report.html").read_text()
        return text.count('<article class="card">'), Page(text).words

    cards, words = shown(results)
    assert cards == 0
    assert "Published numbers of these tasks are on other data" in words
    assert "TAPE LSTM" in words
    add_run(tmp_path / "own", "my_task", "transformer", "x", "test", False, accuracy=0.5)
    cards, words = shown(tmp_path / "own")
    assert (cards, "TAPE LSTM" in words, "Published numbers" in words) == (0, False, False)
    add_run(tmp_path / "tape", "stability", "transformer", "x", "test", False, "TAPE stability", spearmanr=0.5)
    assert shown(tmp_path / "tape")[0] == 1


def test_every_chart_is_well_formed(page: Path) -> None:
    drawings = re.findall(r"<svg.*?</svg>", (page / "report.html").read_text(), re.DOTALL)
    kinds = [ElementTree.fromstring(drawing).get("class") for drawing in drawings]
    assert {"bar", "chart", "key", "map"} <= set(kinds)
    assert not any("nan" in drawing or "inf" in drawing.replace("information", "") for drawing in drawings)


def test_other_columns_have_none_of_the_colors_of_the_known_ones() -> None:
    known = list(report_rows.COLUMNS.values())
    colors = report_page._colors([*known, "mine", "yours", "theirs"])
    assert len(set(colors.values())) == len(known) + 3
    defined = set(map(int, re.findall(r"\.c(\d) ", report_page.STYLE.read_text(encoding="utf-8"))))
    assert set(colors.values()) <= defined == set(range(line_charts.COLORS))


def test_many_columns_have_styles_of_their_own() -> None:
    names = [f"run {number}" for number in range(20)]
    colors = report_page._colors(["pretrained", *names])
    used = [colors[name] for name in ("pretrained", *names)]
    assert len(set(used)) == 21
    # no dashes before all colors are used
    assert sorted(used)[: line_charts.COLORS] == list(range(line_charts.COLORS))
