"""The model card of a pretrained model: Markdown made from the files that pretraining, conversion and evaluation write.

It has the model's configuration and checksums (``config.json``, ``SHA256SUMS``, ``conversion.json``), the origin of its
data (``dataset.json`` and the corpus's sidecar file), tokens, compute, time and perplexity (``metrics.jsonl``), and the
scores with their intervals (``eval_SPLIT.json``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tape.errors import DataError
from tape.io.checksums import read_sums
from tape.io.json_files import read_json_lines, read_json_object
from tape.io.text_files import explain_errors
from tape.metrics import Metric
from tape.report.cells import markdown_row, shown_interval
from tape.report.leakage import related_notes
from tape.report.rows import (
    Evaluated,
    columns_of,
    groups_of,
    make_rows,
    read_evaluations,
    resampled,
    shown_data,
    shown_spread,
    shown_value,
)

PLACEHOLDER = "{sha256}"  # replaced by scripts/bundle_model.py


@dataclass(frozen=True)
class CardSources:
    """What a card is made from.

    Attributes:
        model: model directory, as converted from the checkpoint.
        pretraining: ``--save`` directory of pretraining.
        data: directory of the prepared data, with ``corpus/`` and a folder per task.
        results: directories of finetuning runs; may be empty.
        comparisons: files of ``tape-compare --out``.
        command: the command that makes the model.
        licence: license of the weights.
        machine: description of the machine; empty: not stated.
        is_template: leave the checksum of the weights open, for ``scripts/bundle_model.py``.
        name: name of the model; empty: that of its directory.
        limits: what else the model can't do.
    """

    model: Path
    pretraining: Path
    data: Path
    results: tuple[Path, ...] = ()
    comparisons: tuple[Path, ...] = ()
    command: str = ""
    licence: str = "Apache-2.0"
    machine: str = ""
    is_template: bool = False
    name: str = ""
    limits: tuple[str, ...] = ()


@dataclass(frozen=True)
class PretrainingRun:
    """Totals of a pretraining run.

    Attributes:
        parameters: number of parameters of the model.
        iterations: optimizer steps.
        tokens: tokens of all steps.
        flops_per_token: model FLOPs of a token, see pretrain.planning.flops.
        seconds: time of all steps and evaluations.
        processes: number of processes.
        peak_flops: peak FLOP/s of all processes together.
        perplexity: of the last evaluation on validation data; None without one.
    """

    parameters: int
    iterations: int
    tokens: int
    flops_per_token: float
    seconds: float
    processes: int
    peak_flops: float
    perplexity: float | None


def read_pretraining(file: Path) -> PretrainingRun:
    """The totals of a ``metrics.jsonl`` of pretraining.

    Raises:
        DataError: it has no record of a start or a step, or one lacks a field.
    """
    records = read_json_lines(file, integers=["iteration"])
    kinds: dict[str, list[Mapping[str, Any]]] = {"start": [], "train": [], "evaluation": []}
    for record in records:
        kinds.setdefault(str(record.get("kind")), []).append(record)
    if not kinds["start"] or not kinds["train"]:
        raise DataError(f"{file}: has no records of a pretraining run's start and steps")
    start, last = kinds["start"][-1], kinds["train"][-1]
    valid = [record for record in kinds["evaluation"] if record.get("split") == "valid"]
    try:
        return PretrainingRun(
            parameters=int(start["parameters"]),
            iterations=int(last["iteration"]),
            tokens=int(last["consumed_tokens"]),
            flops_per_token=float(start["flops_per_token"]),
            seconds=sum(float(record["seconds"]) for record in (*kinds["train"], *kinds["evaluation"])),
            processes=int(start["processes"]),
            peak_flops=float(start["peak_flops"]),
            perplexity=float(valid[-1]["perplexity"]) if valid else None,
        )
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: a record of pretraining lacks a field, or it is no number ({error})") from error


def model_card(sources: CardSources) -> str:
    """The card as Markdown.

    Raises:
        ProteinLMError: a file is missing or damaged. Names it.
    """
    evaluations = read_evaluations(sources.results) if sources.results else []
    run = read_pretraining(sources.pretraining / "metrics.jsonl")
    parts = [
        f"# {sources.name or sources.model.resolve().name}: a protein language model",
        _model(sources, run),
        _use(sources.name),
        _data(sources, evaluations),
        _compute(sources, run),
        _scores(evaluations),
        _comparisons(sources.comparisons),
        _limits(evaluations, sources.limits),
        _files(sources),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _use(name: str) -> str:
    """How a model with a name is loaded."""
    if not name:
        return ""
    return f'```python\nimport tape\n\nmodel = tape.load("{name}")\nmodel.embed(["MKTAYIAKQR"])\n```'


def _comparisons(files: Sequence[Path]) -> str:
    """The tables of the comparisons under one heading, without the directories of the runs."""
    tables = []
    for file in files:
        with explain_errors(file):
            lines = file.read_text(encoding="utf-8").splitlines()
        tables += ["", *(line for line in lines if line.startswith("|"))]
    heading = "### Pretrained (first) minus random weights (second), on the same proteins"
    return "\n".join([heading, *tables]) if tables else ""


def _model(sources: CardSources, run: PretrainingRun) -> str:
    config = read_json_object(sources.model / "config.json")
    shape = ", ".join(
        f"{config.get(name, 'unknown')} {title}"
        for name, title in (
            ("num_hidden_layers", "blocks"),
            ("hidden_size", "wide"),
            ("num_attention_heads", "attention heads"),
            ("max_position_embeddings", "positions"),
        )
    )
    lines = [
        f"A BERT with layer normalization before each part (pre-LN): {shape}; {run.parameters:,} parameters.",
        "It was pretrained by masked language modeling of amino acids.",
    ]
    heads = {"neighbours": "all", "half-neighbours": "half"}.get(str(config.get("initial_attention")))
    if heads:
        lines.append(
            f"Before pretraining, {heads} of its attention heads were initialized to attend to neighboring residues."
        )
    if sources.command:
        lines.append(f"Made by `{sources.command}`.")
    return "\n".join(lines)


def _data(sources: CardSources, evaluations: Sequence[Evaluated]) -> str:
    corpus = sources.data / "corpus"
    described = read_json_object(corpus / "dataset.json", DataError)
    sidecar = read_json_object(corpus / "train_text_document.json", DataError)
    lines = [
        "## Data",
        "",
        f"Pretraining: {_origin(described)}.",
        f"{sidecar.get('documents', 0):,} proteins, {sidecar.get('tokens', 0):,} tokens.",
        "",
        "| file | sequences | SHA-256 |",
        "|:--|--:|:--|",
    ]
    for source in sidecar.get("sources", []):
        lines.append(f"| {Path(source['path']).name} | {source['sequences']:,} | `{source['sha256']}` |")
    names = {e.record.data_name: e.record.data for e in evaluations}
    if names:
        lines += ["", "Finetuning and evaluation:", ""]
        lines += [f"- {_origin(data)}" for data in names.values()]
    return "\n".join(lines)


def _origin(dataset: Mapping[str, Any]) -> str:
    name = shown_data(str(dataset.get("name")), bool(dataset.get("simulated")))
    return f"{name} ({dataset.get('source', 'source not stated')}; license: {dataset.get('licence', 'not stated')})"


def _compute(sources: CardSources, run: PretrainingRun) -> str:
    machine = f"; {sources.machine}" if sources.machine else ""
    rows = {
        "iterations": f"{run.iterations:,}",
        "tokens": f"{run.tokens:,}",
        "6 x parameters x tokens": f"{6.0 * run.parameters * run.tokens:.2e} FLOP",
        "model FLOPs (matrix products and attention scores)": f"{run.flops_per_token * run.tokens:.2e} FLOP",
        "time of steps and evaluations": f"{run.seconds / 60:.1f} minutes",
        "machine": f"{run.processes} process(es), peak {run.peak_flops / 1e12:.3g} TFLOP/s{machine}",
        "perplexity on validation proteins": "not measured" if run.perplexity is None else f"{run.perplexity:.2f}",
    }
    return "\n".join(
        ["## Pretraining", "", "| | |", "|:--|:--|", *(f"| {name} | {text} |" for name, text in rows.items())]
    )


def _scores(evaluations: Sequence[Evaluated]) -> str:
    if not evaluations:
        return ""
    rows = make_rows(evaluations)
    columns = columns_of(rows)
    lines = [
        "## Scores",
        "",
        f"On test proteins after finetuning. Brackets are 95 % bootstrap intervals over {resampled(evaluations)}, and"
        " \N{PLUS-MINUS SIGN} is the standard deviation over seeds.",
        "",
        markdown_row(("task", "data", "split (proteins)", "metric", *columns)),
        "|:--|:--|:--|:--|" + "--:|" * len(columns),
    ]
    for row in rows:
        cells = [_score(row.values.get(column)) for column in columns]
        place = (row.task, row.data_label, f"{row.split} ({row.proteins:,})", row.metric)
        lines.append(markdown_row((*place, *cells)))
    notes = related_notes(evaluations)
    return "\n".join([*lines, *(["", *(f"- {note}" for note in notes)] if notes else [])])


def _score(metric: Metric | None) -> str:
    if metric is None:
        return "-"
    if metric.interval is None:
        return f"{shown_value(metric)} {shown_spread(metric)}".rstrip()
    return f"{shown_value(metric)} {shown_interval(metric.interval, metric=metric.name)}"


def _limits(evaluations: Sequence[Evaluated], others: Sequence[str]) -> str:
    lines = [
        "## Limits",
        "",
        "- Predictions are statistical and have not been tested in a laboratory.",
        "- Nothing is known about proteins unlike those of the pretraining data, such as designed ones.",
        "- Brackets cover the choice of test proteins, and not the randomness of training.",
        *(f"- {text}" for text in others),
    ]
    simulated = sorted({g[0].record.task for g in groups_of(evaluations) if g[0].record.is_simulated})
    if simulated:
        lines.append(f"- Scores of {', '.join(simulated)} are on simulated data, and no evidence about proteins.")
    return "\n".join(lines)


def _files(sources: CardSources) -> str:
    sums = read_sums(sources.model)
    lines = ["## Files", "", f"License of the weights: {sources.licence}.", ""]
    if sources.is_template:
        return "\n".join([*lines, f"SHA-256 of the weights: `{PLACEHOLDER}`"])
    conversion = sources.model / "conversion.json"
    if conversion.is_file():
        date = read_json_object(conversion).get("date", "unknown")
        lines += [f"Converted on {date}; `conversion.json` compares it with the checkpoint.", ""]
    lines += ["| file | SHA-256 |", "|:--|:--|", *(f"| {name} | `{value}` |" for name, value in sorted(sums.items()))]
    return "\n".join(lines)
