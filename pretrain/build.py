"""Builds the components of a run from its configuration, in the order in which they must be made."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

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
from pretrain.config.arguments import PretrainConfig, with_schedule_of
from pretrain.data.blending import describe
from pretrain.data.samples import EvaluationOrder, MicroBatches, Samples, TrainingOrder
from pretrain.data.splits import Splits, open_splits
from pretrain.optim.optimizer import Optimizer
from pretrain.parallel import (
    ControlGroup,
    GradientBuckets,
    ParallelContext,
    local_parameters,
    make_forward_backward,
    open_control_group,
)
from pretrain.planning.dry_run import DryRunConfig, available_memory, is_for_gpus, make_plan
from pretrain.planning.flops import Meter, flops_per_token, measured_peak, memory_reader
from pretrain.planning.memory_estimate import parameter_count
from pretrain.train.evaluations import EvaluatedSplit, Evaluations
from pretrain.train.initialization import build_model
from pretrain.train.masked_lm import MaskedLMObjective
from pretrain.train.metrics_logger import MetricsLogger, RunInfo
from pretrain.train.resume import check_samples, check_schedule
from pretrain.train.trainer import Trainer
from tape.io.atomic import write_json
from tape.io.run_lock import lock_in, run_lock
from tape.tokenizers import TAPETokenizer

_ARGUMENTS_NAME = "arguments.json"
_EVALUATION_WORKERS = 2


def build_trainer(config: PretrainConfig, context: ParallelContext) -> Trainer:
    """The model, the optimizer and the trainer of this rank.

    Args:
        config: the run's configuration.
        context: the parallel layout.
    """
    if config.parallel.compile:
        config.precision.check_compiled(context.device)
    model = build_model(config.model, config.init, context, config.parallel)
    row_tokens = config.batch.micro_batch * config.samples.seq_length
    objective = MaskedLMObjective(model, context, config.precision, row_tokens)
    # FSDP shards the remaining parameters here; gradient buckets and optimizer need the final shards
    schedule = config.parallel.pipeline_schedule
    forward_backward = make_forward_backward(objective, context, objective.stream_shape(), schedule)
    parameters = local_parameters(model, context)
    optimizer = Optimizer(parameters, GradientBuckets(parameters, context), config.optimizer, config.schedule)
    return Trainer(config.training, objective, forward_backward, optimizer, context, config.precision, config.batch)


def describe_run(config: PretrainConfig, samples: dict[str, Any]) -> RunDescription:
    """The description of the run that its checkpoints contain."""
    tokenizer = TAPETokenizer()
    return RunDescription(
        model_config=config.model.to_dict(),
        arguments=config.given,
        vocabulary=tokenizer.tokens,
        vocabulary_fingerprint=tokenizer.fingerprint,
        samples=samples,
    )


@contextmanager
def save_lock(config: PretrainConfig, context: ParallelContext) -> Iterator[None]:
    """Keep other runs out of ``--save``; the main process holds the lock for all ranks.

    Raises:
        ConfigError: another run writes there. Names it.
    """
    with ExitStack() as stack:
        if context.is_main and config.checkpoint.save is not None:
            save = Path(config.checkpoint.save)
            stack.enter_context(run_lock(lock_in(save), save, "choose another --save"))
        yield


def check_resume(config: PretrainConfig, samples: dict[str, Any]) -> tuple[PretrainConfig, list[str]]:
    """Compare the configuration with the checkpoint in ``--load``, if there is one.

    Returns:
        The configuration, with the checkpoint's learning-rate schedule if requested; and lines for the user.

    Raises:
        CheckpointError: if samples or schedule differ, and no flag allows it.
    """
    options = config.checkpoint
    path = find_checkpoint(options.load) if options.load is not None else None
    if path is None:
        return config, []
    metadata = read_metadata(path)
    notes = check_samples(path, metadata.get("samples", {}), samples, options.allow_other_samples)
    if options.schedule_of == "checkpoint":
        return with_schedule_of(config, metadata["arguments"]), notes
    override = options.schedule_of == "start"
    return config, notes + check_schedule(path, metadata["arguments"], config.given, override)


def load_state(load: str | None, trainer: Trainer, description: RunDescription) -> RunState:
    """Load the checkpoint in ``--load`` into the trainer; without one, return the state of a new run."""
    path = find_checkpoint(load) if load is not None else None
    if path is None:
        return RunState(loss_scale=trainer.loss_scale.state())
    state = load_checkpoint(path, trainer.model, trainer.optimizer.state(), description, trainer.context)
    trainer.loss_scale.restore(state.loss_scale)
    return state


def build_run_info(config: PretrainConfig, samples: Samples, context: ParallelContext) -> RunInfo:
    """Sizes of the run, and the meter of its speed; measures the device's peak unless it is given."""
    stated = config.logging.peak_tflops
    if stated is not None:
        peak = stated * 1e12
    else:  # only the main process logs
        peak = measured_peak(config.precision, context.device) if context.is_main else 1.0
    meter = Meter(
        flops_per_token(config.model, samples.attended_length, config.samples.mask_prob),
        peak * context.dims.world_size,
        "measured" if stated is None else "stated",
        memory_reader(context.device),
    )
    return RunInfo(context.dims.world_size, parameter_count(config.model), meter)


def build_logger(config: PretrainConfig, state: RunState, info: RunInfo, context: ParallelContext) -> MetricsLogger:
    """The logger of the run's records, on the main process."""
    iterations, due = config.training.train_iters, state.evaluation_due
    return MetricsLogger(config.logging, iterations, state.iteration, info, context.is_main, evaluation_due=due)


def introduction(config: PretrainConfig, info: RunInfo, samples: Samples, context: ParallelContext) -> list[str]:
    """Lines that describe the model, the parallel layout, the device's peak and the data."""
    peak = info.meter.peak / context.dims.world_size / 1e12
    return [
        f"{info.parameters:,} parameters; {context.dims}; {context.device.type}, {config.precision.name}",
        f"peak: {peak:.3g} TFLOP/s per process ({info.meter.peak_source})",
        *describe(samples),
    ]


def start_notice(config: PretrainConfig, state: RunState) -> list[str]:
    """A line on where the run starts, or that there is nothing to do."""
    load, iterations = config.checkpoint.load, config.training.train_iters
    lines = []
    if state.iteration:
        lines.append(f"resuming from iteration {state.iteration} of {load}")
    elif load is not None:
        lines.append(f"no checkpoint in {load} yet: starting from the beginning")
    if is_finished(config, state):
        lines.append(f"nothing to do: {iterations} iterations are complete")
    return lines


def is_finished(config: PretrainConfig, state: RunState) -> bool:
    """Whether neither iterations nor evaluations are left."""
    return state.iteration >= config.training.train_iters and not state.evaluation_due


def write_arguments(config: PretrainConfig, context: ParallelContext) -> None:
    """Save the run's options beside its checkpoints."""
    if context.is_main and config.checkpoint.save is not None:
        write_json(Path(config.checkpoint.save) / _ARGUMENTS_NAME, config.given)


def build_writer(
    config: PretrainConfig, trainer: Trainer, description: RunDescription, start: int
) -> AsyncCheckpointWriter:
    """The checkpoint writer, with a control group for its thread."""
    context, optimizer_state = trainer.context, trainer.optimizer.state
    control_group = open_control_group(context, config.parallel.timeout)
    return AsyncCheckpointWriter(
        config.checkpoint, trainer.model, optimizer_state, description, context.dims, control_group, start
    )


def disk_warning(config: PretrainConfig, trainer: Trainer, control_group: ControlGroup) -> list[str]:
    """A warning if the disk has no space for the run's checkpoints."""
    options, iterations = config.checkpoint, config.training.train_iters
    if options.save is None:
        return []
    size = checkpoint_bytes(named_tensors(trainer.model, trainer.optimizer.state()), control_group)
    planned = 1 + iterations // (options.save_interval or iterations)
    kept = min(planned, options.keep_last + 1) if options.keep_last is not None else planned
    warning = early_warning(Path(options.save), size, kept)
    return [] if warning is None else [warning]


def build_training_order(config: PretrainConfig, state: RunState, context: ParallelContext) -> TrainingOrder:
    """The samples of this rank's micro-batches from ``state`` to the end of the run."""
    remaining = max(0, config.training.train_iters - state.iteration)
    return TrainingOrder(config.batch, state.consumed_samples, remaining, context.data_rank, context.dims.data)


def build_micro_batches(
    config: PretrainConfig, samples: Samples, order: TrainingOrder, context: ParallelContext
) -> MicroBatches:
    """The data loader of this rank's training micro-batches."""
    return MicroBatches(samples, order, config.data.workers, context.device.type == "cuda")


def build_evaluations(config: PretrainConfig, splits: Splits, context: ParallelContext) -> Evaluations:
    """The evaluations of the run."""
    return Evaluations(
        config.training.eval_interval,
        config.training.train_iters,
        _evaluation("valid", splits.valid, config, context),
        _evaluation("test", splits.test, config, context),
    )


def _evaluation(
    split: str, samples: Samples | None, config: PretrainConfig, context: ParallelContext
) -> EvaluatedSplit | None:
    if samples is None or not (config.eval_iters or config.full_validation):
        return None
    requested = len(samples) if config.full_validation else config.eval_iters * config.batch.global_batch
    rows = min(requested, len(samples))
    order = EvaluationOrder(rows, config.batch.micro_batch, context.data_rank, context.dims.data)
    workers = min(config.data.workers, _EVALUATION_WORKERS)
    return EvaluatedSplit(split, MicroBatches(samples, order, workers, context.device.type == "cuda"))


def print_plan(config: PretrainConfig, dry_run: DryRunConfig) -> None:
    """Print the dry-run plan.

    Raises:
        ConfigError: if the run doesn't fit into memory.
    """
    plan = make_plan(
        config.model,
        config.dims,
        config.batch,
        config.training.train_iters,
        open_splits(config.data, config.samples).train,
        config.precision.name,
        config.optimizer,
        config.checkpoint_activations,
        is_for_gpus(dry_run),
    )
    available, source = available_memory(dry_run, config.dims.world_size)
    for line in (*config.notices, *plan.lines(available, source)):
        print(line)
    plan.check(available)
    print("it fits")
