#!/usr/bin/env python
"""Zero-shot effects of variants: Spearman's rho of masked marginals with the labels of fluorescence and stability.

    python benchmarks/zero_shot.py DATA_DIR [MODEL] [--tasks fluorescence stability] [--json RESULT.json]

Nothing is trained. The score of a variant is the sum over its substitutions of log p(variant's residue) - log p(wild
type's residue), where p is the model's distribution at this position of the wild type with only this position masked
(Meier et al. 2021; additive, since all other positions are the wild type's). This takes one forward pass per residue of
a wild type, for any number of variants.

The wild types are found from the set itself: the variants of a protein agree at all positions but few. Variants with
deletions or insertions, and proteins with fewer than 10 variants, are counted and left out. rho over all variants is
what TAPE's table has; scores of different proteins are not comparable, so the mean of rho over the proteins is shown,
too. The rho of minus the number of substitutions is what the scores have to exceed.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()

import numpy as np

from benchmarks.peers.comparison import machine, option_values
from benchmarks.variant_sets import open_split, read_split
from tape.cli.parser import ArgumentParser
from tape.datasets.sources import dataset_provenance
from tape.errors import ConfigError, run_cli
from tape.evaluation.config import InferenceConfig, ModelSource
from tape.evaluation.load_model import load_finetuned_model, model_directory
from tape.evaluation.records import finite
from tape.evaluation.results import data_hash, model_hash
from tape.hub.bundled import DEFAULT_MODEL, default_model
from tape.inference.variant_effects import VariantScorer
from tape.io.writing import check_output_file, write_json
from tape.metrics.bootstrap import Bootstrap, bootstrap_intervals
from tape.metrics.metric import Interval
from tape.metrics.values import average_ranks, weighted_correlation
from tape.registry import registry
from tape.runtime.process import ProcessConfig, process_context
from tape.similarity.variant_families import Families, Family, find_families
from tape.tokenizers import TAPETokenizer

TASKS = ("fluorescence", "stability")


@dataclass(frozen=True)
class Correlation:
    """Spearman's rho, ``nan`` where it is undefined, and its bootstrap interval over variants."""

    value: float
    interval: Interval = None

    def to_dict(self) -> dict[str, Any]:
        return {"value": finite(self.value), "interval": self.interval and list(self.interval)}

    def __str__(self) -> str:
        shown = "" if self.interval is None else f" [{self.interval[0]:.3f}, {self.interval[1]:.3f}]"
        return f"{self.value:.3f}{shown}"


@dataclass(frozen=True)
class VariantSet:
    """Variants of a split and what is known of them, in the same order.

    Attributes:
        families: index of the family of each variant.
        labels: measured values.
        scores: masked marginals; the wild type's own score is 0.
        substitutions: number of substitutions of each.
    """

    families: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    substitutions: np.ndarray

    def sample(self, number: int | None, seed: int) -> VariantSet:
        """``number`` variants drawn without replacement, or all."""
        if number is None or number >= len(self.labels):
            return self
        chosen = np.sort(np.random.default_rng(seed).permutation(len(self.labels))[:number])
        return VariantSet(*(values[chosen] for values in vars(self).values()))


def additive_scores(table: np.ndarray, wild_type: np.ndarray, variants: np.ndarray) -> np.ndarray:
    """(N,) sums of log p(variant) - log p(wild type) over the positions.

    Args:
        table: (L, V) log p at each position of the wild type with only this position masked.
        wild_type: (L,) token ids.
        variants: (N, L) token ids.
    """
    positions = np.arange(len(wild_type))
    return np.asarray((table[positions, variants] - table[positions, wild_type]).sum(axis=1))


def score_families(
    scorer: VariantScorer,
    tokenizer: TAPETokenizer,
    proteins: Sequence[np.ndarray],
    labels: np.ndarray,
    found: Families,
) -> VariantSet:
    """Score all variants of the families."""
    parts = []
    for number, family in enumerate(found.families):
        table = scorer.position_log_probabilities(shown_residues(family, tokenizer), masked=True)
        scores = additive_scores(table, family.wild_type, np.stack([proteins[index] for index in family.members]))
        parts.append((np.full(len(scores), number), labels[family.members], scores, family.substitutions))
    return VariantSet(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


def shown_residues(family: Family, tokenizer: TAPETokenizer) -> str:
    """Residues of a family's wild type."""
    return "".join(tokenizer.convert_ids_to_tokens(family.wild_type.tolist()))


def correlate(true: np.ndarray, predicted: np.ndarray, groups: np.ndarray, bootstrap: Bootstrap | None) -> Correlation:
    """Mean over the groups of Spearman's rho inside each, with an interval over variants.

    Groups in which rho is undefined do not count.
    """
    members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
    functions = [_spearman(true[index], predicted[index]) for index in members]

    def statistic(counts: np.ndarray) -> np.ndarray:
        columns = [function(counts[:, index]) for function, index in zip(functions, members, strict=True)]
        values = np.column_stack(columns)
        defined = np.isfinite(values).sum(axis=1)
        sums = np.nansum(values, axis=1)
        return np.divide(sums, defined, out=np.full(sums.shape, np.nan), where=defined > 0)[:, None]

    value = float(statistic(np.ones((1, true.size)))[0, 0])
    intervals = [] if bootstrap is None else bootstrap_intervals(statistic, true.size, bootstrap)
    return Correlation(value, intervals[0] if intervals else None)


def _spearman(true: np.ndarray, predicted: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    rank_true, rank_predicted = average_ranks(true), average_ranks(predicted)

    def correlation(counts: np.ndarray) -> np.ndarray:
        drawn = counts.sum(axis=1) > 0
        result = np.full(len(counts), np.nan)
        kept = counts[drawn]
        if kept.size:
            result[drawn] = weighted_correlation(rank_true(kept), rank_predicted(kept), kept)
        return result

    return correlation


def measure(options: argparse.Namespace, task: str, scorer: VariantScorer, tokenizer: TAPETokenizer) -> dict[str, Any]:
    """Score one task's split and print its line.

    Raises:
        ConfigError: the task is no regression of proteins.
        DataError: the proteins are no variants.
    """
    dataset = open_split(options.data_dir, task, options.split, f"--tasks {task}:")
    proteins, labels = read_split(dataset)
    found = find_families(proteins, f"{task} {options.split}")
    variants = score_families(scorer, tokenizer, proteins, labels, found).sample(options.variants, options.seed)
    bootstrap = Bootstrap(options.bootstrap, options.seed) if options.bootstrap else None
    together = np.zeros_like(variants.families)
    rhos = {
        "spearmanr": correlate(variants.labels, variants.scores, together, bootstrap),
        "mean_over_proteins": correlate(variants.labels, variants.scores, variants.families, bootstrap),
        "fewer_substitutions": correlate(variants.labels, -variants.substitutions, together, bootstrap),
    }
    counts = [len(variants.labels), len(found.families), found.shifted + found.single]
    print(f"| {task} {options.split} | {' | '.join(map(str, [*counts, *rhos.values()]))} |", flush=True)
    families = [
        {
            "wild_type": shown_residues(family, tokenizer),
            "variants": len(family.members),
            "most_substitutions": int(family.substitutions.max()),
            "has_wild_type": bool((family.substitutions == 0).any()),
        }
        for family in found.families
    ]
    return {
        "task": task,
        "split": options.split,
        "data": dataset_provenance(dataset),
        "data_sha256": data_hash(dataset),
        "variants": counts[0],
        "excluded": {"deletions_or_insertions": found.shifted, "small_families": found.single},
        "metrics": {name: rho.to_dict() for name, rho in rhos.items()},
        "families": families,
    }


def parse(words: Sequence[str] | None = None) -> argparse.Namespace:
    """Parse the command line."""
    parser = ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data_dir", help="directory with TAPE's folders, as scripts/prepare_data.py writes them")
    parser.add_argument("model", nargs="?", help=f"directory or name of the model (default: {DEFAULT_MODEL})")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), metavar="TASK", help="default: both")
    parser.add_argument("--split", default="test", help="split to score (default: %(default)s)")
    parser.add_argument("--variants", type=int, metavar="N", help="draw N variants of each task (default: all)")
    parser.add_argument("--seed", type=int, default=42, help="of the draws and the bootstrap (default: %(default)s)")
    parser.add_argument("--bootstrap", type=int, default=1000, metavar="N", help="resamples; 0: none (default: 1000)")
    parser.add_argument("--batch-size", type=int, default=32, help="proteins per forward pass (default: %(default)s)")
    parser.add_argument("--no-cuda", action="store_true", help="compute on the CPU")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args(words)
    if options.variants is not None and options.variants < 2:
        raise ConfigError(f"--variants: a correlation needs at least 2 variants, not {options.variants}")
    options.model = options.model or default_model("transformer")
    return options


def main(words: Sequence[str] | None = None) -> None:
    """Print a table with one line per task."""
    options = parse(words)
    if options.json is not None:
        check_output_file(options.json, "--json")
    source, tokenizer = ModelSource("transformer", options.model), TAPETokenizer()
    with process_context(ProcessConfig(options.no_cuda)) as context:
        directory = model_directory(source)
        spec = registry.get_task_spec("masked_language_modeling")
        model = load_finetuned_model(source, spec, directory).to(context.device)
        scorer = VariantScorer(model, tokenizer, InferenceConfig(options.batch_size), context.device)
        print("| set | variants | proteins | left out | rho | mean rho of a protein | minus the substitutions |")
        print("|:--|--:|--:|--:|--:|--:|--:|", flush=True)
        results = [measure(options, task, scorer, tokenizer) for task in options.tasks]
    if options.json is not None:
        record = {"machine": machine(), "device": str(context.device), "options": option_values(options)}
        write_json(options.json, {**record, "model_sha256": model_hash(directory), "results": results})


if __name__ == "__main__":
    sys.exit(run_cli(main))
