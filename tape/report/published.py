"""Published numbers (``published.json``, with their sources) beside an evaluation, and why they are not comparable.

The reasons are derived from the data, split and head in the evaluation's record, and from what is known about the code
behind the published numbers.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from tape.evaluation.records import EvaluationRecord

FILE = Path(__file__).with_name("published.json")


@dataclass(frozen=True)
class Published:
    """One published number.

    Attributes:
        model: name of the model.
        value: the number as printed in the paper.
        reasons: why it is not comparable with the evaluation; empty if no reason is known.
    """

    model: str
    value: float
    reasons: tuple[str, ...]


@cache
def load_published() -> dict[str, Any]:
    """The content of ``published.json``."""
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return content


def compared_metric(task: str) -> str | None:
    """The metric with the definition closest to the published one; None for a task without published numbers."""
    entry = load_published()["tasks"].get(task)
    return None if entry is None else str(entry["metric"])


def published_beside(record: EvaluationRecord) -> list[Published]:
    """The published numbers of a record's task, in the order of the file; empty for a task without any."""
    content = load_published()
    task = content["tasks"].get(record.task)
    if task is None:
        return []
    data = _data_reasons(record, task)
    found = []
    for model in content["models"]:
        family = content["families"][model["family"]]
        if record.task in model["values"]:
            reasons = [*data, *_head_reasons(record, task, family), *_notes(record, family, model)]
            found.append(Published(model["name"], model["values"][record.task], tuple(reasons)))
    return found


def on_published_data(record: EvaluationRecord) -> bool:
    """Whether an evaluation is on the data set that the published numbers of its task are on."""
    task = load_published()["tasks"].get(record.task)
    return task is not None and not record.is_simulated and record.data_name in task["data"]


def grouped_reasons(published: Sequence[Published]) -> list[tuple[list[str], list[str]]]:
    """(models, reasons): first the reasons that apply to "all", then the others, with the models that share them."""
    if not published:
        return []
    common = [reason for reason in published[0].reasons if all(reason in other.reasons for other in published)]
    own: dict[tuple[str, ...], list[str]] = {}
    for entry in published:
        own.setdefault(tuple(reason for reason in entry.reasons if reason not in common), []).append(entry.model)
    groups = [(["all"], common)] if common else []
    return groups + [(models, list(reasons)) for reasons, models in own.items() if reasons]


def _data_reasons(record: EvaluationRecord, task: dict[str, Any]) -> list[str]:
    """Reasons in the data: other proteins, another split, another training set."""
    if record.is_simulated:
        return [f"ours is on simulated data ({record.data_name})"]
    if record.data_name not in task["data"]:
        return [f"ours is on other data: {record.data_name}"]
    reasons = []
    if record.split != task["split"]:
        reasons.append(f"ours is on another split: {record.split}, not {task['split']}")
    elif record.proteins != task["proteins"]:
        reasons.append(f"ours is over {record.proteins:,} test proteins, not {task['proteins']:,}")
    if record.data.get("long_proteins"):
        reasons.append(f"ours reads proteins over the position table by --length {record.data['long_proteins']}")
    trained = (record.data.get("splits") or {}).get("train") if record.training is None else record.training.proteins
    if trained is not None and trained != task["train"]:
        reasons.append(f"ours had {trained:,} proteins to train on, not {task['train']:,}")
    return reasons


def _head_reasons(record: EvaluationRecord, task: dict[str, Any], family: dict[str, Any]) -> list[str]:
    """Reasons in the task's head, for tasks whose published models have different heads."""
    name = task.get("head_field")
    if name is None:
        return []
    own, other = record.config.get(name), family["heads"][name]
    if own is None:
        return ["the evaluation does not record which head ours has"]
    if own == other:
        return []
    described = task.get("heads", {})
    if described:
        return [f"other head: ours is {described.get(own, own)}, theirs {described.get(other, other)}"]
    return [f"other head: ours is {own} wide, theirs {other}"]


def _notes(record: EvaluationRecord, family: dict[str, Any], model: dict[str, Any]) -> list[str]:
    """Reasons in the published number itself."""
    notes: list[str] = []
    for place in (family.get("notes", {}), model.get("notes", {})):
        notes += place.get(record.task, ())
    if record.metric(str(compared_metric(record.task))) is None:
        notes.append(f"ours was not measured by the published definition ({compared_metric(record.task)})")
    return notes
