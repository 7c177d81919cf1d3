"""Directories of finetuned and evaluated runs, as reports read them, and a parser for the pages of reports."""

from __future__ import annotations

import json
import pickle
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from tape.evaluation.records import EvaluationRecord, write_record
from tape.metrics import Metric


def record_of(task: str, model: str, split: str, data: dict[str, Any], **values: float) -> EvaluationRecord:
    metrics = [
        Metric(name, value, 5, f"what {name} is", (value - 0.05, value + 0.05)) for name, value in values.items()
    ]
    config = {"contact_head": "linear", "head_hidden_size": 512}
    return EvaluationRecord(task, model, split, data, 5, tuple(metrics), "fp32", config=config, model_sha256="ab" * 32)


def add_run(
    root: Path,
    task: str,
    model: str,
    suffix: str,
    split: str,
    simulated: bool,
    data: str = "a <set>",
    **values: float,
) -> Path:
    run = root / f"{task}_{model}_{suffix}"
    directory = run / "1"
    directory.mkdir(parents=True, exist_ok=True)
    (run / "args.json").write_text("{}")
    history = [{"epoch": e, "train": {"loss": 1.0}, "valid": {"loss": 1.0 / (e + 1)}} for e in range(2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(record) + "\n" for record in history))
    record = record_of(task, model, split, {"name": data, "simulated": simulated}, **values)
    write_record(directory / f"eval_{split}.json", record)
    return directory


def add_results(directory: Path, split: str, *entries: dict[str, Any]) -> None:
    with (directory / f"results_{split}.pkl").open("wb") as stream:
        pickle.dump(({}, list(entries)), stream, protocol=4)


class Page(HTMLParser):
    """Checks that elements are closed in order, and collects text and attributes."""

    VOID = frozenset({"meta", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words += data
