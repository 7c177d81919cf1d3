"""A run without training (``--skip-train``): the loss of a model on validation and test set."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Any

from pretrain import build, trace
from pretrain.checkpointing import read_metadata
from pretrain.config.arguments import PretrainConfig
from pretrain.data.blending import describe_rows
from pretrain.data.samples import MicroBatch, Samples
from pretrain.data.splits import DEFAULT_SPLIT, EvaluationSplits, open_evaluation_splits
from pretrain.data.verification import CorpusVerification
from pretrain.open_ranks import open_ranks
from pretrain.rank_consistency import check_rank_consistency
from pretrain.resume import evaluation_changes, with_precision
from pretrain.train.evaluation import EvaluatedSplit, Evaluator, open_evaluations
from tape.errors import ConfigError, readable
from tape.runtime.launch import Launch
from tape.runtime.progress import progress_bar


def run_evaluation(config: PretrainConfig, launch: Launch) -> None:
    """Evaluate the pretrained model of a configuration, as one of the processes of a run; the main one prints.

    The rows and masks are those of a training run with the same options, so that losses can be compared with its, and
    with those of other models.

    Args:
        config: the configuration, parsed with the launch's world size.
        launch: this process among all; ``Launch()`` for a single process.

    Raises:
        ConfigError: the model has no language-model head.
        ProteinLMError: for other user errors.
    """
    model = config.pretrained
    assert model is not None, "--skip-train has a model"
    if not model.has_lm_head:
        raise ConfigError(f"{model.path} has no language-model head, whose predictions --skip-train evaluates")
    metadata: Mapping[str, Any] = read_metadata(model.path) if model.is_checkpoint else {}
    arguments = metadata.get("arguments")  # converted weights have none
    with ExitStack() as stack:
        context, control_group, backend_notice = stack.enter_context(open_ranks(config, launch))

        def note(*lines: str) -> None:
            if context.is_main:
                print(*map(readable, lines), sep="\n", flush=True)

        with trace.span("open corpora", trace.SpanTimeout.COLLECTIVE):
            check_rank_consistency(config, control_group)
            splits = open_evaluation_splits(config.data, config.samples)
            config, precision_notices = with_precision(config, arguments, control_group, context.device)
            config, attention_notice = build.choose_attention(config, context)
        changes = evaluation_changes(arguments or {}, config.given)
        notices = [*config.notices, *precision_notices, *filter(None, [backend_notice, attention_notice]), *changes]
        note(*notices, f"evaluating {model.name}", *model.assumptions(), build.layout_line(config, context))
        note(*_data_lines(config, splits))
        with trace.span("build the model", trace.SpanTimeout.BUSY):
            evaluator = Evaluator(*build.build_objective(config, context), context)
        verified = splits.corpora if context.is_main else []
        with trace.span("verify the corpora", trace.SpanTimeout.BUSY):
            verification = stack.enter_context(CorpusVerification(verified, config.data.verify))
        evaluations = open_evaluations(config.evaluation, splits, config.batch, config.data.workers, context)
        iteration = int(metadata.get("iteration", 0))
        records = [
            evaluator.evaluate(_Watched(split, verification, context.is_main), iteration, split.split)
            for split in evaluations.all
        ]
        is_verified = verification.finish()  # before a loss is printed
        note(*(record.describe() for record in records))
        if not is_verified:
            note("the corpora have not been compared with their SHA-256 completely; --verify-data start waits for it")


def _data_lines(config: PretrainConfig, splits: EvaluationSplits) -> Iterator[str]:
    """Lines on what is evaluated."""
    samples = config.samples
    sep = "" if samples.append_sep else ", without <sep>"
    yield f"rows of {samples.seq_length} tokens{sep}; {samples.mask_prob:.3g} of the residues are predicted"
    for name in ("valid", "test"):
        if name in splits.samples:
            yield from (f"{name}: {line}" for line in _split_lines(splits.samples[name], config.evaluation.rows))
        elif config.data.divided:
            yield f"{name}: --split {config.data.split or DEFAULT_SPLIT} leaves no protein"


def _split_lines(samples: Samples, rows: int | None) -> Iterator[str]:
    yield from (f"{part.corpus.prefix}: {describe_rows(part)}" for part in samples.parts)
    if rows is not None and rows < len(samples):
        yield f"{rows:,} of {len(samples):,} rows are evaluated (--eval-iters; all: --full-validation)"


class _Watched:
    """The micro-batches of a split, with a progress bar; raises the error of a corpus as soon as it is found."""

    def __init__(self, evaluation: EvaluatedSplit, verification: CorpusVerification, is_main: bool) -> None:
        self._evaluation, self._verification, self._is_main = evaluation, verification, is_main

    def __len__(self) -> int:
        return len(self._evaluation.micro_batches)

    def __iter__(self) -> Iterator[MicroBatch]:
        with progress_bar(self._evaluation.split, len(self), "micro-batch", disable=not self._is_main) as bar:
            for micro_batch in self._verification.checked(self._evaluation.micro_batches):
                yield micro_batch
                bar.update()
