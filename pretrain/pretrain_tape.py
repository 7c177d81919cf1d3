#!/usr/bin/env python
"""Pretrain a protein language model: reads the command line, makes the parts, and runs them.

    torchrun --nproc-per-node 2 pretrain/pretrain_tape.py --tensor-model-parallel-size 2 \\
        --num-layers 12 --hidden-size 768 --num-attention-heads 12 --seq-length 2176 --max-position-embeddings 2176 \\
        --micro-batch-size 4 --global-batch-size 32 --train-iters 1000 --lr 1e-4 \\
        --data-path corpus/swissprot_text_document --save checkpoints/run --load checkpoints/run

One process needs no torchrun. Runs from any directory.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from pretrain.build import build_trainer
from pretrain.checkpointing import (
    AsyncCheckpointWriter,
    RunDescription,
    RunState,
    checkpoint_bytes,
    early_warning,
    find_checkpoint,
    load_checkpoint,
    named_tensors,
    read_metadata,
)
from pretrain.config.arguments import PretrainConfig, parse_arguments, with_schedule_of
from pretrain.data.blending import describe
from pretrain.data.samples import EvaluationOrder, MicroBatches, Samples, TrainingOrder
from pretrain.data.splits import Splits, open_splits
from pretrain.monitor import LostRankError, watched
from pretrain.parallel import (
    ControlGroup,
    ParallelContext,
    choose_backend,
    open_control_group,
    open_parallel_context,
)
from pretrain.planning.dry_run import DryRunConfig, available_memory, is_for_gpus, make_plan
from pretrain.planning.flops import Meter, flops_per_token, measured_peak, memory_reader
from pretrain.planning.memory_estimate import parameter_count
from pretrain.preemption import StopSignals
from pretrain.trace import Allowance, Operations
from pretrain.train.loop import Evaluation, Evaluations, Loop
from pretrain.train.metrics_logger import MetricsLogger, RunInfo
from pretrain.train.nonfinite import NonFiniteSteps
from pretrain.train.resume import check_samples, check_schedule, describe_samples
from pretrain.train.stop_conditions import StopConditions
from pretrain.train.trainer import Trainer
from tape.errors import ProteinLMError, run_cli
from tape.io.atomic import write_json
from tape.runtime.distributed import choose_device
from tape.runtime.launch import Launch, read_launch
from tape.tokenizers import TAPETokenizer

_ARGUMENTS_NAME = "arguments.json"
# Seconds in which the launcher, seeing rank 0 end, ends the others; a loaded machine takes long to end a process.
_WAIT_FOR_RANK_0 = 60.0
_EVALUATION_WORKERS = 2


def main() -> None:
    """Run one process of a pretraining run."""
    launch = read_launch(os.environ)
    try:
        arguments = parse_arguments(sys.argv[1:], launch.world_size)
        if arguments.dry_run is not None:
            show_plan(arguments, arguments.dry_run, launch)
        else:
            run_pretraining(arguments, launch)
    except LostRankError:
        raise  # the ranks have agreed on who says it
    except (ProteinLMError, OSError) as error:
        if launch.rank == 0:
            raise
        # Most mistakes are seen by all ranks: rank 0 says it and the launcher ends the rest. Otherwise it is ours.
        time.sleep(_WAIT_FOR_RANK_0)
        raise ProteinLMError(f"rank {launch.rank}: {error}") from error


def run_pretraining(arguments: PretrainConfig, launch: Launch) -> None:
    """Make the parts and train, as one process of the run.

    Args:
        arguments: of parse_arguments, with the launch's world size.
        launch: who this process is; ``Launch()`` when it is alone.

    Raises:
        ProteinLMError: what the user can mend.
    """
    began = time.monotonic()
    device = choose_device(launch.local_rank)
    backend, notice = choose_backend(arguments.parallel.backend, device)
    splits = open_splits(arguments.data, arguments.samples)
    samples = describe_samples(splits.train, arguments.given, arguments.batch.global_batch)
    arguments, changes = _compare(arguments, samples)
    parallel, operations = arguments.parallel, Operations()
    with ExitStack() as stack:
        requests = stack.enter_context(StopSignals())
        processes = stack.enter_context(
            open_parallel_context(arguments.dims, launch, backend, device, parallel.timeout)
        )
        ranks = open_control_group(processes, parallel.timeout)
        stack.enter_context(watched(processes, launch, operations, ranks, parallel.patience))
        operations.at("making the model", Allowance.WORKING)
        run = _assemble(arguments, processes, operations, samples)
        notices = [*arguments.notices, *([notice] if notice else []), *changes]
        operations.at("reading the checkpoint", Allowance.ANY)
        start = _continue(run, arguments)
        iterations, due = arguments.training.train_iters, start.evaluation_due
        facts = _facts(run, splits, arguments)
        reporter = MetricsLogger(
            arguments.reporting, iterations, start.iteration, facts, processes.is_main, evaluation_due=due
        )
        writer = _writer(run, arguments, start.iteration)
        stopping = StopConditions(requests, writer, ranks, arguments.training.exit_minutes, began)
        try:
            for line in (*notices, *_introduction(run, splits, facts, arguments), *_room(run, arguments, ranks)):
                reporter.note(line)
            _train(run, splits, arguments, start, reporter, writer, stopping, ranks)
        finally:
            reporter.close()


@dataclass(frozen=True)
class _Run:
    """The parts that hold the run's state."""

    trainer: Trainer
    description: RunDescription
    processes: ParallelContext


def _assemble(
    arguments: PretrainConfig, processes: ParallelContext, operations: Operations, samples: dict[str, Any]
) -> _Run:
    trainer = build_trainer(arguments, processes, operations)
    tokenizer = TAPETokenizer()
    description = RunDescription(
        model_config=arguments.model.to_dict(),
        arguments=arguments.given,
        vocabulary=tokenizer.tokens,
        vocabulary_fingerprint=tokenizer.fingerprint,
        samples=samples,
    )
    return _Run(trainer, description, processes)


def _continue(run: _Run, arguments: PretrainConfig) -> RunState:
    """Load the checkpoint of ``--load`` if there is one."""
    trainer = run.trainer
    path = find_checkpoint(arguments.checkpoint.load) if arguments.checkpoint.load is not None else None
    if path is None:
        return RunState(loss_scale=trainer.loss_scale.state())
    state = load_checkpoint(path, trainer.model, trainer.optimizer.state(), run.description, run.processes)
    trainer.loss_scale.restore(state.loss_scale)
    return state


def _compare(arguments: PretrainConfig, samples: dict[str, Any]) -> tuple[PretrainConfig, list[str]]:
    """Make sure that this start continues the run of ``--load``.

    Returns:
        The arguments, with the checkpoint's learning rate when asked for; and lines for the user.
    """
    config = arguments.checkpoint
    path = find_checkpoint(config.load) if config.load is not None else None
    if path is None:
        return arguments, []
    metadata = read_metadata(path)
    notes = check_samples(path, metadata.get("samples", {}), samples, config.allow_other_samples)
    if config.schedule_of == "checkpoint":
        return with_schedule_of(arguments, metadata["arguments"]), notes
    override = config.schedule_of == "start"
    return arguments, notes + check_schedule(path, metadata["arguments"], arguments.given, override)


def _introduction(run: _Run, splits: Splits, facts: RunInfo, arguments: PretrainConfig) -> list[str]:
    processes, meter = run.processes, facts.meter
    peak = meter.peak / processes.dims.world_size / 1e12
    return [
        f"{facts.parameters:,} parameters; {processes.dims}; {processes.device.type}, {arguments.precision.name}",
        f"peak: {peak:.3g} TFLOP/s a process ({meter.peak_source})",
        *describe(splits.train),
    ]


def _room(run: _Run, arguments: PretrainConfig, ranks: ControlGroup) -> list[str]:
    """A warning when the disk will not hold the run's checkpoints."""
    config, trainer = arguments.checkpoint, run.trainer
    if config.save is None:
        return []
    each = checkpoint_bytes(named_tensors(trainer.model, trainer.optimizer.state()), ranks)
    planned = 1 + arguments.training.train_iters // (config.save_interval or arguments.training.train_iters)
    kept = min(planned, config.keep_last + 1) if config.keep_last is not None else planned
    warning = early_warning(Path(config.save), each, kept)
    return [] if warning is None else [warning]


def _facts(run: _Run, splits: Splits, arguments: PretrainConfig) -> RunInfo:
    processes, stated = run.processes, arguments.reporting.peak_tflops
    if stated is not None:
        peak = stated * 1e12
    else:  # only the main process reports
        peak = measured_peak(arguments.precision, processes.device) if processes.is_main else 1.0
    meter = Meter(
        flops_per_token(arguments.model, splits.train.attended_length, arguments.samples.mask_prob),
        peak * processes.dims.world_size,
        "measured" if stated is None else "stated",
        memory_reader(processes.device),
    )
    return RunInfo(processes.dims.world_size, parameter_count(arguments.model), meter)


def show_plan(arguments: PretrainConfig, config: DryRunConfig, launch: Launch) -> None:
    """Say on one rank what the run would be.

    Raises:
        ConfigError: it doesn't fit.
    """
    if launch.rank:
        return
    plan = make_plan(
        arguments.model,
        arguments.dims,
        arguments.batch,
        arguments.training.train_iters,
        open_splits(arguments.data, arguments.samples).train,
        arguments.precision.name,
        arguments.optimizer,
        arguments.checkpoint_activations,
        is_for_gpus(config),
    )
    available, source = available_memory(config, arguments.dims.world_size)
    for line in (*arguments.notices, *plan.lines(available, source)):
        print(line)
    plan.check(available)
    print("it fits")


def _writer(run: _Run, arguments: PretrainConfig, start: int) -> AsyncCheckpointWriter:
    trainer, processes = run.trainer, run.processes
    ranks = open_control_group(processes, arguments.parallel.timeout)
    return AsyncCheckpointWriter(
        arguments.checkpoint, trainer.model, trainer.optimizer.state, run.description, processes.dims, ranks, start
    )


def _train(
    run: _Run,
    splits: Splits,
    arguments: PretrainConfig,
    start: RunState,
    reporter: MetricsLogger,
    writer: AsyncCheckpointWriter,
    stopping: StopConditions,
    ranks: ControlGroup,
) -> None:
    remaining = max(0, arguments.training.train_iters - start.iteration)
    if start.iteration:
        reporter.note(f"continuing from iteration {start.iteration} of {arguments.checkpoint.load}")
    elif arguments.checkpoint.load is not None:
        reporter.note(f"no checkpoint in {arguments.checkpoint.load} yet: starting from the beginning")
    if not remaining and not start.evaluation_due:
        reporter.note(f"nothing to do: {arguments.training.train_iters} iterations are done")
        return
    processes = run.processes
    order = TrainingOrder(arguments.batch, start.consumed_samples, remaining, processes.data_rank, processes.dims.data)
    pinned = processes.device.type == "cuda"
    batches = MicroBatches(splits.train, order, arguments.data.workers, pinned)
    if processes.is_main and arguments.checkpoint.save is not None:
        write_json(Path(arguments.checkpoint.save) / _ARGUMENTS_NAME, arguments.given)
    evaluations = Evaluations(
        _evaluation("valid", splits.valid, arguments, processes), _evaluation("test", splits.test, arguments, processes)
    )
    skipped = NonFiniteSteps(arguments.training.max_skipped_steps, order, splits.train, ranks)
    loop = Loop(run.trainer, evaluations, arguments.training, reporter, writer, stopping, skipped)
    loop.run(start, iter(batches))


def _evaluation(
    name: str, samples: Samples | None, arguments: PretrainConfig, processes: ParallelContext
) -> Evaluation | None:
    if samples is None or not (arguments.eval_iters or arguments.full_validation):
        return None
    asked = len(samples) if arguments.full_validation else arguments.eval_iters * arguments.batch.global_batch
    rows = min(asked, len(samples))
    order = EvaluationOrder(rows, arguments.batch.micro_batch, processes.data_rank, processes.dims.data)
    workers = min(arguments.data.workers, _EVALUATION_WORKERS)
    return Evaluation(name, MicroBatches(samples, order, workers, processes.device.type == "cuda"))


if __name__ == "__main__":
    sys.exit(run_cli(main))
