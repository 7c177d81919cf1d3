"""Scores of variants, from the configuration to the written table (``tape-score``)."""

from __future__ import annotations

import csv
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from tape.errors import ConfigError, listed, quoted
from tape.evaluation.load_model import load_finetuned_model, model_directory
from tape.io.records import RecordOptions
from tape.io.writing import atomic_write, check_output_file, remove_leftovers
from tape.metrics import spearmanr
from tape.registry import registry
from tape.runtime.distributed import DistributedContext
from tape.runtime.precision_choice import resolve_precision
from tape.tokenizers import TAPETokenizer

from .config import ScoreConfig
from .variant_effects import VariantScorer
from .variants import Variant, read_proteins, read_variants

logger = logging.getLogger(__name__)


def score_file(config: ScoreConfig, context: DistributedContext) -> Path:
    """Write the scores of a table's variants; returns the file written.

    Raises:
        ProteinLMError: variants or model can't be used.
    """
    check_output_file(config.out_file, "output file")
    proteins = read_proteins(config.wild_type, config.wild_type_columns)
    variants = read_variants(
        config.variants_file,
        proteins,
        config.first_residue,
        RecordOptions(config.variants_format),
        config.mutation_column,
    )
    measured = None if config.compare is None else _numbers(config.compare, variants, config.variants_file)
    spec = registry.get_task_spec("masked_language_modeling")
    model = load_finetuned_model(config.model, spec, model_directory(config.model)).to(context.device)
    inference = replace(config.inference, precision=resolve_precision(config.inference.precision, context))
    scorer = VariantScorer(model, TAPETokenizer(config.model.tokenizer), inference, context.device)
    scores = scorer.score(variants, proteins, list(dict.fromkeys(config.methods)))
    if context.is_main:
        _write_scores(config.out_file, variants, scores)
        if measured is not None:
            for method, values in scores.items():
                logger.info("Spearman's rho of %s and %s: %.3f", method, config.compare, spearmanr(measured, values))
        logger.info("wrote %d variants to %s", len(variants), config.out_file)
    return config.out_file


def _numbers(column: str, variants: Sequence[Variant], path: str) -> list[float]:
    try:
        return [float(variant.fields[column]) for variant in variants]
    except KeyError:
        raise ConfigError(f"{path}: no column {quoted(column)}; it has {listed(variants[0].fields)}") from None
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{path}: column {quoted(column)} does not hold numbers ({error})") from None


def _write_scores(path: Path, variants: Sequence[Variant], scores: dict[str, list[float]]) -> None:
    """Write the variants' rows with a column per score, which replaces a column of the same name."""
    names = [name for name in variants[0].fields if name not in scores]
    remove_leftovers(path.parent, path.name)
    with atomic_write(path, "w") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow([*names, *scores])
        for variant, *row in zip(variants, *scores.values(), strict=True):
            writer.writerow([variant.fields.get(name, "") for name in names] + [f"{value:.6g}" for value in row])
