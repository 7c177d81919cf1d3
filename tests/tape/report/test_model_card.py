"""The model card: its content, and damaged files."""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tape.errors import DataError
from tape.evaluation.records import EvaluationRecord, ResampledGroups, read_record, write_record
from tape.io.checksums import write_sums
from tape.metrics import Metric
from tape.report.model_card import CardSources, model_card, read_pretraining

START = {
    "kind": "start",
    "iteration": 0,
    "processes": 2,
    "parameters": 1000,
    "flops_per_token": 7e3,
    "peak_flops": 3e12,
}


def step(iteration: int) -> dict[str, Any]:
    return {"kind": "train", "iteration": iteration, "consumed_tokens": 50 * iteration, "seconds": 30.0}


def validation(perplexity: float) -> dict[str, Any]:
    return {"kind": "evaluation", "iteration": 2, "split": "valid", "perplexity": perplexity, "seconds": 6.0}


def write_log(folder: Path, *records: dict[str, Any]) -> Path:
    file = folder / "metrics.jsonl"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(record) + "\n" for record in records))
    return file


@pytest.fixture
def sources(tmp_path: Path) -> CardSources:
    """The files of a small model, with one evaluation."""
    model, corpus, run = tmp_path / "model", tmp_path / "data" / "corpus", tmp_path / "results" / "stability_x_frozen"
    for folder in (model, corpus, run):
        folder.mkdir(parents=True)
    config = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "max_position_embeddings": 64}
    (model / "config.json").write_text(json.dumps(config))
    (model / "conversion.json").write_text('{"date": "2026-01-02"}')
    write_sums(model, {"config.json": "cd" * 32})
    write_log(tmp_path / "checkpoints", START, step(1), step(2), validation(15.5), validation(14.25))
    origin = {"name": "Swiss-Prot", "source": "UniProt", "licence": "CC BY 4.0", "simulated": False}
    (corpus / "dataset.json").write_text(json.dumps(origin))
    files = [{"path": "/far/away/proteins.fasta", "sequences": 7, "sha256": "ab" * 32}]
    (corpus / "train_text_document.json").write_text(json.dumps({"documents": 7, "tokens": 99, "sources": files}))
    metric = Metric("spearmanr", 0.5, 9, "rank correlation", (0.4, 0.6))
    data = {"name": "made up", "source": "nowhere", "licence": "MIT", "simulated": True}
    write_record(run / "eval_test.json", EvaluationRecord("stability", "x", "test", data, 9, (metric,), "fp32"))
    (run / "args.json").write_text("{}")
    return CardSources(model, tmp_path / "checkpoints", tmp_path / "data", (tmp_path / "results",), command="make it")


def test_a_model_with_a_name_is_loaded_by_it(sources: CardSources) -> None:
    card = model_card(replace(sources, name="small-1"))
    assert card.startswith("# small-1: a protein language model\n")
    assert 'tape.load("small-1")' in card
    assert "tape.load" not in model_card(sources)


@pytest.mark.parametrize(("kind", "heads"), [("random", ""), ("neighbours", "all"), ("half-neighbours", "half")])
def test_a_card_tells_of_heads_that_attended_to_neighbors_initially(
    sources: CardSources, kind: str, heads: str
) -> None:
    file = sources.model / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "initial_attention": kind}))
    sentences = re.findall(
        r"\nBefore pretraining, (\w+) of its attention heads were initialized to attend", model_card(sources)
    )
    assert sentences == ([heads] if heads else [])


def test_further_limits_are_those_of_the_model(sources: CardSources) -> None:
    before, after = model_card(replace(sources, limits=("It ranks no variants.",))).split("## Limits")
    assert "It ranks no variants." not in before
    assert "\n- It ranks no variants.\n" in after


def test_a_card_has_data_compute_scores_and_checksums(sources: CardSources) -> None:
    card = model_card(sources)
    for expected in (
        "2 blocks, 32 wide, 4 attention heads, 64 positions; 1,000 parameters",
        "Made by `make it`",
        "Swiss-Prot (UniProt; license: CC BY 4.0)",
        f"| proteins.fasta | 7 | `{'ab' * 32}` |",
        "- made up (simulated) (nowhere; license: MIT)",
        "| tokens | 100 |",
        "| 6 x parameters x tokens | 6.00e+05 FLOP |",
        "| model FLOPs (matrix products and attention scores) | 7.00e+05 FLOP |",
        "| time of steps and evaluations | 1.2 minutes |",
        "| machine | 2 process(es), peak 3 TFLOP/s |",
        "| perplexity on validation proteins | 14.25 |",
        "bootstrap intervals over proteins, and",
        "| stability | made up (simulated) | test (9) | Spearman's rho | 0.500 [0.400, 0.600] |",
        "Scores of stability are on simulated data",
        "Converted on 2026-01-02",
        f"| config.json | `{'cd' * 32}` |",
    ):
        assert expected in card
    assert "/far/away" not in card


def test_a_card_names_the_groups_that_intervals_are_over(sources: CardSources) -> None:
    (file,) = sources.results[0].glob("*/eval_test.json")
    write_record(file, replace(read_record(file), groups=ResampledGroups("/far/away/families.tsv", "ab", 17)))
    card = model_card(sources)
    assert "over proteins or groups of them (stability, test: 17 groups of families.tsv), and" in card
    assert "/far/away" not in card


def test_a_template_leaves_the_checksum_to_the_bundled_model(sources: CardSources) -> None:
    card = model_card(dataclasses.replace(sources, is_template=True))
    assert "SHA-256 of the weights: `{sha256}`" in card
    assert "| config.json |" not in card


def test_comparisons_are_part_of_the_card(sources: CardSources, tmp_path: Path) -> None:
    (tmp_path / "stability.md").write_text("first: /here, second: /there\n\n| the comparison |\n")
    card = model_card(dataclasses.replace(sources, comparisons=(tmp_path / "stability.md",)))
    assert "random weights (second), on the same proteins\n\n| the comparison |\n\n## Limits" in card
    assert "/here" not in card


def test_a_card_without_evaluations_has_no_scores(sources: CardSources) -> None:
    card = model_card(dataclasses.replace(sources, results=()))
    assert "## Scores" not in card
    assert "simulated" not in card


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([START], "no records of a pretraining run's start and steps"),
        ([START, {"kind": "train", "iteration": 1}], r"lacks a field, or it is no number \('consumed_tokens'\)"),
        ([{**START, "parameters": "many"}, step(1)], "lacks a field, or it is no number"),
    ],
)
def test_a_damaged_log_is_refused(tmp_path: Path, records: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_pretraining(write_log(tmp_path, *records))


def test_a_run_without_validation_has_no_perplexity(tmp_path: Path) -> None:
    assert read_pretraining(write_log(tmp_path, START, step(1))).perplexity is None
