#!/usr/bin/env python
"""Pretrain a protein language model.

    torchrun --nproc-per-node 2 pretrain/pretrain_tape.py --tensor-model-parallel-size 2 \\
        --num-layers 12 --hidden-size 768 --num-attention-heads 12 --seq-length 2176 --max-position-embeddings 2176 \\
        --micro-batch-size 4 --global-batch-size 32 --train-iters 1000 --lr 1e-4 \\
        --data-path corpus/swissprot_text_document --save checkpoints/run --load checkpoints/run

A single process needs no torchrun. The script can be called from any directory.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack, closing
from pathlib import Path

if __name__ == "__main__":  # importable from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

    from tape.interrupts import exit_on_stop_signals

    exit_on_stop_signals()
    if {"-h", "--help"} & set(sys.argv[1:]):  # before the imports below, which take seconds
        from pretrain.config.flags import make_parser

        make_parser().print_help()
        sys.exit()

from pretrain import build, trace
from pretrain.config.arguments import PretrainConfig, parse_arguments
from pretrain.data.splits import length_warnings, open_splits
from pretrain.data.verification import CorpusVerification
from pretrain.monitor import LostRankError
from pretrain.open_ranks import open_ranks
from pretrain.rank_consistency import check_rank_consistency
from pretrain.resume import plan_start
from pretrain.skip_train import run_evaluation
from pretrain.train.evaluation import open_evaluations
from pretrain.train.nonfinite import NonFiniteSteps
from pretrain.train.stop_conditions import StopConditions
from pretrain.train.trainer import RunServices
from tape.errors import ProteinLMError, run_cli
from tape.runtime.launch import Launch, read_launch
from tape.runtime.out_of_memory import OutOfMemoryError, explain_out_of_memory
from tape.runtime.rendezvous import RendezvousError
from tape.runtime.stop_signals import StopSignals
from tape.runtime.worker_exit import WorkerExitError, explain_worker_exit

# seconds in which the launcher ends the other ranks after rank 0 has exited; a busy machine takes long for that
_WAIT_FOR_RANK_0 = 60.0


def main() -> None:
    """Run one process of a pretraining run."""
    launch = read_launch(os.environ)
    try:
        config = parse_arguments(sys.argv[1:], launch.world_size)
        if config.dry_run is None:
            run, work = (run_evaluation, "evaluation") if config.skip_train else (run_pretraining, "pretraining")
            with explain_worker_exit(), explain_out_of_memory(work, None, build.memory_remedies(config)):
                run(config, launch)
        elif launch.rank == 0:
            build.print_plan(config, config.dry_run)
    except (LostRankError, OutOfMemoryError, RendezvousError, WorkerExitError):
        raise  # the ranks have agreed on who reports it, or can't, or it is one rank's alone
    except (ProteinLMError, OSError) as error:
        if launch.rank == 0:
            raise
        # Most user errors occur on all ranks: rank 0 reports them, and the launcher ends the others meanwhile.
        time.sleep(_WAIT_FOR_RANK_0)
        raise ProteinLMError(f"rank {launch.rank}: {error}") from error


def run_pretraining(config: PretrainConfig, launch: Launch) -> None:
    """Build the components of a run and train, as one of its processes.

    Args:
        config: the configuration, parsed with the launch's world size.
        launch: this process among all; ``Launch()`` for a single process.

    Raises:
        ProteinLMError: for user errors.
    """
    began, iterations = time.monotonic(), config.training.train_iters
    with ExitStack() as stack:
        context, control_group, backend_notice = stack.enter_context(open_ranks(config, launch))
        with trace.span("open corpora and checkpoint", trace.SpanTimeout.COLLECTIVE):
            stack.enter_context(build.save_lock(config, context))
            check_rank_consistency(config, control_group)
            splits = open_splits(config.data, config.samples)
            start = plan_start(config, splits.train, control_group, context.device)
            config, attention_notice = build.choose_attention(start.config, context)
        signals = stack.enter_context(StopSignals())
        with trace.span("build the model", trace.SpanTimeout.BUSY):
            trainer = build.build_trainer(config, context)
        with trace.span("load the checkpoint", trace.SpanTimeout.COLLECTIVE):
            state = trainer.load_checkpoint(start.checkpoint, start.description)
            logger = stack.enter_context(closing(build.build_logger(config, state, splits.train, context)))
            writer = build.build_writer(config, trainer, start.description, state.iteration)
            warnings = [*build.disk_warning(config, trainer, control_group), *build.profile_notices(config, state)]
            resuming = build.start_notice(config, state)
            introduction = build.introduction(config, logger.run_info, splits.train, context)
            notices = [*config.notices, *filter(None, [backend_notice, attention_notice])]
            of_splits = length_warnings(splits) if context.is_main else []
            for line in (*notices, *start.changes, *introduction, *of_splits, *warnings, *resuming):
                logger.note(line)
            if state.iteration >= iterations and not state.evaluation_due:
                logger.note(f"nothing to do: {iterations} iterations are complete")
                return

        build.write_arguments(config, context)
        evaluations = open_evaluations(config.evaluation, splits, config.batch, config.data.workers, context)
        batches = build.build_batches(config, state, splits.train, context)
        stop = StopConditions(signals, writer, control_group, config.training.exit_minutes, began)
        nonfinite = NonFiniteSteps(config.training.max_skipped_steps, batches.order, splits.train, control_group)
        verified = splits.corpora if context.is_main else []
        with trace.span("verify the corpora", trace.SpanTimeout.BUSY):
            verification = stack.enter_context(CorpusVerification(verified, config.data.verify))
        profiler = build.build_profiler(config, state, context, logger)
        services = RunServices(evaluations, logger, writer, stop, nonfinite, profiler)
        state = trainer.fit(state, verification.checked(batches), services)
        verification.finish()
        logger.draw_curves()
        for line in build.resume_notice(config, state, launch, sys.argv):
            logger.note(line)


if __name__ == "__main__":
    sys.exit(run_cli(main))
