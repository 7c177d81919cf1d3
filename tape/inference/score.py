"""Scores of variants, from the configuration to the written table (``tape-score``)."""

from __future__ import annotations

import csv
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from tape.errors import ConfigError, DataError, listed, quoted
from tape.evaluation.load_model import load_finetuned_model, model_directory
from tape.io.records import RecordOptions
from tape.io.writing import atomic_write, check_is_no_input, check_output_file, remove_leftovers
from tape.metrics import spearmanr
from tape.registry import registry
from tape.runtime.distributed import DistributedContext
from tape.runtime.precision_choice import resolve_precision
from tape.tokenizers import TAPETokenizer

from .all_singles import SingleScores, single_scores, substitutions
from .config import ScoreConfig
from .mutation_heat_map import check_heat_map_file, draw_heat_map
from .variant_effects import VariantScorer
from .variants import PROTEIN_COLUMN, PSEUDO_LIKELIHOODS, Variant, read_proteins, read_variants

METHOD_COLUMN, PROBLEM_COLUMN = "method", "not_scored"
_INDEL_METHOD = "pseudo_likelihood_ratio"
_MISSING = frozenset({"", "na", "n/a", "nan", "none", "null", "-"})
_FEWEST_COMPARED = 2  # variants of a correlation

logger = logging.getLogger(__name__)


def score_file(config: ScoreConfig, context: DistributedContext) -> Path:
    """Write the scores of a table's variants, or of all single substitutions; returns the file written.

    Raises:
        ProteinLMError: variants or model can't be used.
    """
    check_output_file(config.out_file, "output file")
    for path in (config.out_file, *([] if config.plot is None else [config.plot])):
        check_is_no_input(path, [config.variants_file, config.wild_type], "output file")
    return _score_singles(config, context) if config.all_singles else _score_variants(config, context)


def _scorer(config: ScoreConfig, context: DistributedContext) -> VariantScorer:
    spec = registry.get_task_spec("masked_language_modeling")
    model = load_finetuned_model(config.model, spec, model_directory(config.model)).to(context.device)
    inference = replace(config.inference, precision=resolve_precision(config.inference.precision, context))
    return VariantScorer(model, TAPETokenizer(config.model.tokenizer), inference, context.device, config.length)


# --- variants of a table --------------------------------------------------------------------------------------------


def _score_variants(config: ScoreConfig, context: DistributedContext) -> Path:
    proteins = read_proteins(config.wild_type, config.wild_type_columns)
    variants = read_variants(
        config.variants_file,
        proteins,
        config.first_residue,
        RecordOptions(config.variants_format),
        config.mutation_column,
        strict=config.strict,
    )
    measured = None if config.compare is None else _numbers(config.compare, variants, config.variants_file)
    scores = score_variants(_scorer(config, context), variants, proteins, config.methods)
    if context.is_main:
        _write_scores(config.out_file, variants, scores)
        if measured is not None:
            _log_correlations(str(config.compare), measured, scores)
        _log_problems(config.out_file, variants)
    return config.out_file


def score_variants(
    scorer: VariantScorer, variants: Sequence[Variant], proteins: Mapping[str, str], methods: Iterable[str]
) -> dict[str, np.ndarray]:
    """Score variants, those with insertions or deletions by pseudo-likelihood.

    Args:
        scorer: the model.
        variants: N variants; those with a problem are not scored.
        proteins: wild types by name.
        methods: names of scores.

    Returns:
        (N,) of each method; ``nan`` where a variant is not scored by it. If none of the methods is defined for
        insertions and deletions, and there are some, the dictionary has ``pseudo_likelihood_ratio`` of these in
        addition.
    """
    methods = list(dict.fromkeys(methods))
    found = [number for number, variant in enumerate(variants) if not variant.problem]
    scores = _scattered(scorer.score([variants[n] for n in found], proteins, methods), found, len(variants))
    indels = [number for number in found if variants[number].positions is None]
    if indels and not set(methods) & set(PSEUDO_LIKELIHOODS):
        own = scorer.score([variants[n] for n in indels], proteins, [_INDEL_METHOD])
        scores |= _scattered(own, indels, len(variants))
    return scores


def _scattered(scores: Mapping[str, np.ndarray], places: Sequence[int], count: int) -> dict[str, np.ndarray]:
    made = {}
    for method, values in scores.items():
        made[method] = np.full(count, np.nan)
        made[method][np.asarray(places, dtype=np.int64)] = values
    return made


def _numbers(column: str, variants: Sequence[Variant], path: str) -> np.ndarray:
    """(N,) the values of a column; ``nan`` where one is missing."""
    if column not in variants[0].fields:
        raise ConfigError(f"{path}: no column {quoted(column)}; it has {listed(variants[0].fields)}")
    try:
        return np.array([_number(variant.fields.get(column)) for variant in variants], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: column {quoted(column)} does not hold numbers ({error})") from None


def _number(value: Any) -> float:
    if value is None or (isinstance(value, str) and value.strip().lower() in _MISSING):
        return math.nan
    return float(value)


def _log_correlations(column: str, measured: np.ndarray, scores: Mapping[str, np.ndarray]) -> None:
    for method, values in scores.items():
        both = np.isfinite(measured) & np.isfinite(values)
        left_out = measured.size - int(both.sum())
        without = f" ({left_out:,} of {measured.size:,} left out: no {column} or no score)" if left_out else ""
        if both.sum() < _FEWEST_COMPARED:
            logger.warning("%s and %s: too few variants for a correlation%s", method, column, without)
        else:
            rho = spearmanr(measured[both], values[both])
            logger.info("Spearman's rho of %s and %s: %.3f%s", method, column, rho, without)


def _log_problems(path: Path, variants: Sequence[Variant]) -> None:
    missing = [variant for variant in variants if variant.problem]
    if missing:
        logger.warning(
            "%d of %d variants are not scored; %s has the reasons in the column %s, and --strict refuses such a table."
            " The first: %s",
            len(missing),
            len(variants),
            path,
            PROBLEM_COLUMN,
            missing[0].problem,
        )
    logger.info("wrote %d variants to %s", len(variants), path)


def _write_scores(path: Path, variants: Sequence[Variant], scores: Mapping[str, np.ndarray]) -> None:
    """Write the variants' rows with the columns of the scores, which replace columns of the same names."""
    own = (*scores, METHOD_COLUMN, PROBLEM_COLUMN)
    names = [name for name in dict.fromkeys(name for variant in variants for name in variant.fields) if name not in own]
    remove_leftovers(path.parent, path.name)
    with atomic_write(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*names, *own])
        for number, variant in enumerate(variants):
            values = {method: float(column[number]) for method, column in scores.items()}
            used = [method for method, value in values.items() if not math.isnan(value)]
            fields = ["" if (value := variant.fields.get(name)) is None else value for name in names]
            shown = [f"{value:.6g}" if method in used else "" for method, value in values.items()]
            writer.writerow([*fields, *shown, " ".join(used), variant.problem])


# --- all single substitutions ---------------------------------------------------------------------------------------


def _score_singles(config: ScoreConfig, context: DistributedContext) -> Path:
    if config.plot is not None:
        check_heat_map_file(config.plot)
        check_output_file(config.plot, "--plot")
    proteins = read_proteins(config.variants_file, replace(config.wild_type_columns, format=config.variants_format))
    for name, sequence in proteins.items():
        if not sequence:
            raise DataError(f"{config.variants_file}: protein {quoted(name)} has no residues")
    scorer, tokenizer = _scorer(config, context), TAPETokenizer(config.model.tokenizer)
    if not context.is_main:
        return config.out_file
    scorer.check_lengths(proteins)
    methods = list(dict.fromkeys(config.methods))
    drawn, count = [], 0
    remove_leftovers(config.out_file.parent, config.out_file.name)
    with atomic_write(config.out_file, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([PROTEIN_COLUMN, "mutation", *methods])
        for name, sequence in proteins.items():
            found = [single_scores(scorer, tokenizer, name, sequence, method) for method in methods]
            drawn.append(found[0])
            for mutation, position, column in substitutions(sequence, config.first_residue):
                writer.writerow([name, mutation, *(f"{one.values[position, column]:.6g}" for one in found)])
                count += 1
    logger.info("proteins: %d; wrote their %d single substitutions to %s", len(proteins), count, config.out_file)
    if config.plot is not None:
        _draw(config.plot, drawn, config.first_residue)
    return config.out_file


def _draw(path: Path, drawn: Sequence[SingleScores], first_residue: int) -> None:
    """Draw the scores of each protein; with several, into files with their numbers and names."""
    for number, scores in enumerate(drawn):
        own = path
        if len(drawn) > 1:
            name = re.sub(r"[^A-Za-z0-9._-]+", "_", scores.protein)[:80]
            own = path.with_name(f"{path.stem}_{number:06d}_{name}{path.suffix}")
        draw_heat_map(own, scores, first_residue)
        logger.info("wrote %s", own)
