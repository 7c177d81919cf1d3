"""A run without training (``--skip-train``): the loss of a model on validation and test set."""

from __future__ import annotations

from contextlib import ExitStack

from pretrain import build, trace
from pretrain.config.arguments import PretrainConfig
from pretrain.data.blending import describe
from pretrain.data.splits import open_evaluation_splits
from pretrain.data.verification import CorpusVerification
from pretrain.open_ranks import open_ranks
from pretrain.rank_consistency import check_rank_consistency
from pretrain.resume import with_precision
from pretrain.train.evaluation import Evaluator, open_evaluations
from tape.errors import ConfigError, readable
from tape.runtime.launch import Launch


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
    with ExitStack() as stack:
        context, control_group, backend_notice = stack.enter_context(open_ranks(config, launch))

        def note(*lines: str) -> None:
            for line in lines if context.is_main else ():
                print(readable(line), flush=True)

        with trace.span("open corpora", trace.SpanTimeout.COLLECTIVE):
            check_rank_consistency(config, control_group)
            splits = open_evaluation_splits(config.data, config.samples)
            config, precision_notices = with_precision(config, None, control_group, context.device)
            config, attention_notice = build.choose_attention(config, context)
            note(*config.notices, *precision_notices, *filter(None, [backend_notice, attention_notice]))
            note(f"evaluating {model.name}", *model.assumptions())
            for split, samples in splits.samples.items():
                note(*(f"{split}: {line}" for line in describe(samples)))
        with trace.span("build the model", trace.SpanTimeout.BUSY):
            evaluator = Evaluator(*build.build_objective(config, context), context)
        verified = splits.corpora if context.is_main else []
        with trace.span("verify the corpora", trace.SpanTimeout.BUSY):
            verification = stack.enter_context(CorpusVerification(verified, config.data.verify))
        evaluations = open_evaluations(config.evaluation, splits, config.batch, config.data.workers, context)
        for evaluation in evaluations.due(config.evaluation.last):
            record = evaluator.evaluate(evaluation.micro_batches, 0, evaluation.split)
            with trace.span("write records", trace.SpanTimeout.COLLECTIVE):
                note(f"{evaluation.split}: {record.describe()}")
        verification.finish()
