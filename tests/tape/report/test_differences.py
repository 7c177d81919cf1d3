"""The report's differences to random weights: the same as those of tape-compare, and why some are missing."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import pytest

from tape.io.checksums import sha256_of
from tape.metrics import Bootstrap
from tape.report import command as report
from tape.report import compare
from tape.report.differences import Differences
from tape.report.rows import read_evaluations
from tests.support import evaluated_runs as runs
from tests.support.evaluated_runs import Page
from tests.tape.report.test_compare import PROTEINS, add_run, predictions


def differences_in(directory: Path, resamples: int = 50) -> Differences:
    return Differences.of(read_evaluations([directory]), Bootstrap(resamples))


def add_seeds(root: Path, name: str, *wrong: int) -> Path:
    several = root / f"secondary_structure_transformer_{name}"
    for seed, number in enumerate(wrong):
        several.mkdir(parents=True, exist_ok=True)
        add_run(root / "made", f"{name}{seed}", predictions(number)).rename(several / f"seed_{seed}")
    return several


def test_differences_are_those_of_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "results"
    random = add_seeds(root, "random", 5, 6)
    pretrained, mine = add_seeds(root, "pretrained", 1, 2, 3), add_run(root, "mine", predictions(7))
    found = differences_in(root)
    assert found.columns == ["pretrained", "mine"]
    (row,) = found.rows
    for column, run in (("pretrained", pretrained), ("mine", mine)):
        compare.main([str(run), str(random), "--bootstrap", "50"])
        cells = [cell.strip() for cell in capsys.readouterr().out.splitlines()[-1].strip("|").split("|")]
        one = row.values[column]
        assert one.interval is not None
        shown = (
            f"{one.first:.3f}",
            f"{one.second:.3f}",
            f"{one.value:+.3f}",
            "[{:+.3f}, {:+.3f}]".format(*one.interval),
        )
        assert tuple(cells[-4:]) == shown
    line = f"| secondary_structure | chains | cb513 ({PROTEINS}) | 3-class accuracy | +0.350 [+0.350, +0.350] | -0.150 "
    assert line in found.markdown()
    first, second = csv.DictReader(io.StringIO(found.csv()))
    assert (first["model"], float(first["value"])) == ("pretrained", pytest.approx(0.8))
    assert float(first["random weights"]) == pytest.approx(0.45)
    assert float(second["high"]) == row.values["mine"].interval[1]  # type: ignore[index]


def test_the_report_has_them_everywhere(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = tmp_path / "results", tmp_path / "report"
    add_run(root, "random", predictions(5))
    add_run(root, "pretrained", predictions(2))
    report.main([str(root), "--out", str(out)])
    assert "| +0.300 [+0.300, +0.300] |" in capsys.readouterr().out
    assert "| +0.300 [+0.300, +0.300] |" in (out / "table.md").read_text()
    page = (out / "report.html").read_text()
    assert "Minus random weights" in Page(page).words
    assert "<strong>+0.300</strong><br><small>[+0.300, +0.300]</small>" in page
    assert (out / "differences.csv").is_file()
    add_run(root, "pretrained", predictions(5))
    report.main([str(root), "--out", str(out)])
    page = (out / "report.html").read_text()
    assert ">+0.000<br><small>[+0.000, +0.000]</small>" in page


def test_without_random_weights_there_are_none(tmp_path: Path) -> None:
    add_run(tmp_path / "results", "pretrained", predictions(2))
    add_run(tmp_path / "results", "mine", predictions(3))
    found = differences_in(tmp_path / "results")
    assert (found.rows, found.notes, found.markdown(), found.html(), found.csv()) == ((), (), "", "", "")
    report.main([str(tmp_path / "results"), "--out", str(tmp_path / "report")])
    assert not (tmp_path / "report" / "differences.csv").exists()
    assert "Minus random" not in (tmp_path / "report" / "report.html").read_text()


def test_what_cannot_be_compared_is_named(tmp_path: Path) -> None:
    root = tmp_path / "results"
    add_run(root, "random", predictions(5))
    pretrained, other = add_run(root, "pretrained", predictions(2)), add_run(root, "other", predictions(2)[1:])
    (pretrained / "results_cb513.pkl").unlink()
    found = differences_in(root)
    assert found.rows == ()
    first, second = found.notes
    assert first.startswith("secondary structure, chains, cb513: pretrained can't be compared: ")
    assert first.endswith("results_cb513.pkl: no predictions; evaluate the run again with tape-eval")
    assert "other can't be compared" in second
    assert "do not contain the same proteins" in second
    assert str(other / "results_cb513.pkl") in found.markdown()
    assert "be compared" in found.html()
    (root / "secondary_structure_transformer_random" / "results_cb513.pkl").unlink()
    (other / "results_cb513.pkl").unlink()
    report.main([str(root), "--out", str(tmp_path / "report")])
    text = (tmp_path / "report" / "table.md").read_text()
    assert "| 3-class accuracy |" in text
    assert "Each model minus" not in text


def test_tasks_without_stored_scores_are_named(tmp_path: Path) -> None:
    for name in ("random", "pretrained"):
        runs.add_run(tmp_path, "masked_language_modeling", "transformer", name, "valid", False, perplexity=13.0)
    found = differences_in(tmp_path)
    assert found.notes == (
        "masked language modeling, a <set>, valid: the predictions are not compared, since their scores are not stored",
    )
    assert "a &lt;set&gt;" in found.html()


def test_data_sets_are_told_apart(tmp_path: Path) -> None:
    for data, simulated in (("proteins", False), ("toys", True)):
        for name, wrong in (("random", 5), ("pretrained", 2 if simulated else 3)):
            run = add_run(tmp_path / data, name, predictions(wrong))
            file = run / "eval_cb513.json"
            content = json.loads(file.read_text())
            file.write_text(json.dumps({**content, "data": {"name": data, "simulated": simulated}}))
    lines = Differences.of(read_evaluations([tmp_path / "proteins", tmp_path / "toys"]), Bootstrap(20)).markdown()
    assert "| proteins | cb513 (12) | 3-class accuracy | +0.200 " in lines
    assert "| toys (simulated) | cb513 (12) | 3-class accuracy | +0.300 " in lines


def test_the_proteins_are_those_of_the_compared_runs(tmp_path: Path) -> None:
    for name, wrong in (("random", 5), ("pretrained", 2)):
        add_run(tmp_path, name, predictions(wrong))
    onehot = add_run(tmp_path, "onehot", predictions(6)[:7])
    onehot.rename(tmp_path / "secondary_structure_onehot_onehot")
    found = differences_in(tmp_path)
    assert (found.rows[0].proteins, found.columns) == (PROTEINS, ["pretrained"])


@pytest.mark.parametrize(
    ("of_random", "words"),
    [(8633, "all 8,633 proteins"), (863, None), (None, "a number of proteins that is not recorded")],
)
def test_different_numbers_of_training_proteins_are_named(
    tmp_path: Path, of_random: int | None, words: str | None
) -> None:
    for name, wrong, number in (("random", 5, of_random), ("pretrained", 2, 863)):
        file = add_run(tmp_path, name, predictions(wrong)) / "eval_cb513.json"
        training = None if number is None else {"proteins": number, "available": 8633}
        file.write_text(json.dumps({**json.loads(file.read_text()), "training": training}))
    notes = differences_in(tmp_path).notes
    said = f": pretrained was trained on 863 of 8,633 proteins, random weights on {words}"
    assert [note[-len(said) :] for note in notes] == ([said] if words else [])


def test_groups_of_the_evaluations_are_resampled(tmp_path: Path) -> None:
    root, table = tmp_path / "results", tmp_path / "groups.csv"
    table.write_text("id,group\n" + "".join(f"p{index},{index // 6}\n" for index in range(PROTEINS)))
    half = PROTEINS // 2
    both = [
        add_run(root, "random", predictions(5)),
        add_run(root, "pretrained", [*predictions(2)[:half], *predictions(6)[half:]]),
    ]
    assert differences_in(root, 200).rows[0].values["pretrained"].interval != pytest.approx((-0.1, 0.3))
    for run in both:
        file = run / "eval_cb513.json"
        groups = {"path": str(table), "sha256": sha256_of(table), "groups": 2}
        file.write_text(json.dumps({**json.loads(file.read_text()), "groups": groups}))
    found = differences_in(root, 200)
    assert found.rows[0].values["pretrained"].interval == pytest.approx((-0.1, 0.3))
    assert [row.metric for row in found.rows] == ["3-class accuracy", "3-class accuracy, mean within groups"]
    assert found.rows[1].values["pretrained"].groups == 2
    assert found.rows[1].values["pretrained"].value == pytest.approx(0.1)
    assert found.notes == ("secondary structure, chains, cb513: intervals over 2 groups of proteins",)
