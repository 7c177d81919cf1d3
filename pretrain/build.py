"""Builds the components of a run from its configuration, in the order in which they must be made."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from pretrain.checkpointing import (
    AsyncCheckpointWriter,
    RunDescription,
    RunState,
    checkpoint_bytes,
    early_warning,
    named_tensors,
)
from pretrain.config.arguments import PretrainConfig
from pretrain.data.blending import describe
from pretrain.data.samples import GlobalBatches, MicroBatch, Samples, TrainingOrder
from pretrain.data.splits import length_warnings, open_splits
from pretrain.optim.optimizer import Optimizer
from pretrain.optim.precision import LossScale
from pretrain.parallel import (
    ControlGroup,
    ForwardBackward,
    GradientBuckets,
    ParallelContext,
    choose_attention_backend,
    local_parameters,
    make_forward_backward,
    open_control_group,
)
from pretrain.planning.dry_run import DryRunConfig, available_memory, is_for_gpus, make_plan
from pretrain.planning.flops import Meter, flops_per_token, measured_peak, memory_reader
from pretrain.planning.memory_estimate import parameter_count
from pretrain.train.initialization import build_model
from pretrain.train.masked_lm import MaskedLMObjective
from pretrain.train.metrics_logger import MetricsLogger, RunInfo
from pretrain.train.profiling import IterationProfiler
from pretrain.train.trainer import Trainer
from tape.errors import quoted
from tape.io.writing import check_output_directory, write_json
from tape.runtime.distributed import choose_device
from tape.runtime.launch import Launch
from tape.runtime.out_of_memory import MemoryRemedies
from tape.runtime.precision_choice import AUTO, choose_precision
from tape.runtime.run_lock import lock_in, run_lock

_ARGUMENTS_NAME = "arguments.json"

# Flags that choose where a run starts, which its resumes do not have, and the number of their values.
_STARTS_ANEW = {"--finetune": 0, "--no-load-optim": 0, "--ckpt-step": 1}


@contextmanager
def save_lock(config: PretrainConfig, context: ParallelContext) -> Iterator[None]:
    """Keep other runs out of ``--save``; the main process holds the lock for all ranks.

    Raises:
        ConfigError: another run writes there. Names it.
    """
    with ExitStack() as stack:
        if context.is_main and config.checkpoint.save is not None:
            save = Path(config.checkpoint.save)
            check_output_directory(save, "--save")
            stack.enter_context(run_lock(lock_in(save), save, "choose another --save"))
        yield


def choose_attention(config: PretrainConfig, context: ParallelContext) -> tuple[PretrainConfig, str | None]:
    """The configuration with the attention backend of this device, and a notice if it is not the fast one."""
    dtype, requested = config.precision.product_dtype(context.device), config.parallel.attention_backend
    backend, notice = choose_attention_backend(requested, config.model, dtype, context)
    return replace(config, parallel=replace(config.parallel, attention_backend=backend)), notice


def build_trainer(config: PretrainConfig, context: ParallelContext) -> Trainer:
    """The model, the optimizer and the trainer of this rank.

    Args:
        config: the run's configuration.
        context: the parallel layout.
    """
    loss_scale = LossScale(config.precision)
    # FSDP shards the parameters here; gradient buckets and optimizer need the final shards
    objective, forward_backward = build_objective(config, context)
    parameters = local_parameters(objective.model, context)
    optimizer = Optimizer(parameters, GradientBuckets(parameters, context), config.optimizer, config.schedule)
    return Trainer(config.training, objective, forward_backward, optimizer, context, loss_scale)


def build_objective(
    config: PretrainConfig, context: ParallelContext
) -> tuple[MaskedLMObjective, ForwardBackward[MicroBatch]]:
    """This rank's part of the model with its loss, and what runs micro-batches through it.

    Args:
        config: the run's configuration.
        context: the parallel layout.
    """
    if config.parallel.compile:
        config.precision.check_compiled(context.device)
    pretrained = config.pretrained
    weights = None if pretrained is None else pretrained.state
    model = build_model(config.model, config.init, context, config.parallel, weights)
    if pretrained is not None:
        pretrained.release()
    row_tokens = config.batch.micro_batch * config.samples.seq_length
    objective = MaskedLMObjective(model, context, config.precision, row_tokens)
    schedule = config.parallel.pipeline_schedule
    return objective, make_forward_backward(objective, context, objective.stream_shape(), schedule)


def build_logger(config: PretrainConfig, state: RunState, samples: Samples, context: ParallelContext) -> MetricsLogger:
    """The logger of the run's records, on the main process; measures the device's peak unless it is given."""
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
    info = RunInfo(context.dims.world_size, parameter_count(config.model), meter)
    iterations, due = config.training.train_iters, state.evaluation_due
    return MetricsLogger(config.logging, iterations, state.iteration, info, context.is_main, evaluation_due=due)


def build_batches(config: PretrainConfig, state: RunState, samples: Samples, context: ParallelContext) -> GlobalBatches:
    """The batches of the remaining iterations, with this rank's micro-batches."""
    remaining = max(0, config.training.train_iters - state.iteration)
    order = TrainingOrder(config.batch, state.consumed_samples, remaining, context.data_rank, context.dims.data)
    return GlobalBatches(samples, order, config.data.workers, pin_memory=context.device.type == "cuda")


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


def start_notice(config: PretrainConfig, state: RunState) -> list[str]:
    """Lines on where the run starts, if a checkpoint was requested."""
    load = config.checkpoint.load
    if state.iteration:
        return [f"resuming from iteration {state.iteration} of {load}"]
    if config.pretrained is not None:
        return config.pretrained.notices()
    return [f"no checkpoint in {load} yet: starting from the beginning"] if load is not None else []


def profile_notices(config: PretrainConfig, state: RunState) -> list[str]:
    """What is profiled; a warning if the run has none of these iterations."""
    profile = config.profile
    if profile is None:
        return []
    reason = profile.missed_by(state.iteration, config.training.train_iters)
    chosen = f"iterations {profile.start + 1} to {profile.end}"
    if reason is not None:
        return [f"WARNING: --profile has no effect: {chosen} are chosen, and {reason}"]
    ranks = ", ".join(map(str, profile.ranks))
    return [f"profiling {chosen} on rank {ranks}: {profile.directory}"]


def build_profiler(
    config: PretrainConfig, state: RunState, context: ParallelContext, logger: MetricsLogger
) -> IterationProfiler:
    """The profiler, without iterations if the run has none of those that are chosen."""
    profile = config.profile
    if profile is not None and profile.missed_by(state.iteration, config.training.train_iters) is not None:
        profile = None
    return IterationProfiler(profile, context.rank, context.device, logger.note)


def resume_notice(config: PretrainConfig, state: RunState, launch: Launch, words: Sequence[str]) -> list[str]:
    """The line with the command that resumes an unfinished run; none if the run is complete or saves nothing.

    Args:
        config: configuration of the run.
        state: where it has ended.
        launch: this process among all.
        words: the words of its command line, from the program on.
    """
    save = config.checkpoint.save
    if save is None or (state.iteration >= config.training.train_iters and not state.evaluation_due):
        return []
    options = list(words[1:])
    in_files = ""
    if not config.checkpoint.resumes_itself:  # of options that are given twice, the last counts
        files = ", ".join(quoted(word[1:]) for word in options if word.startswith("@"))
        in_files = f" ({', '.join(_STARTS_ANEW)} must not be in {files} any more)" if files else ""
        options = [*_without_start(options), "--load", str(save)]
    if launch.world_size > 1:
        return [f"resume with the same launcher and {words[0]} {shlex.join(options)}{in_files}"]
    program = words[0] if words[0].startswith("proteinlm ") else f"python {shlex.quote(words[0])}"
    return [f"resume with: {program} {shlex.join(options)}{in_files}"]


def _without_start(options: Sequence[str]) -> Iterator[str]:
    """The words of a command line without _STARTS_ANEW and their values."""
    values = 0
    for word in options:
        name, is_joined, _ = word.partition("=")
        if values:
            values -= 1
        elif name in _STARTS_ANEW:
            values = 0 if is_joined else _STARTS_ANEW[name]
        else:
            yield word


def introduction(config: PretrainConfig, info: RunInfo, samples: Samples, context: ParallelContext) -> list[str]:
    """Lines that describe the model, the parallel layout, the device's peak and the data."""
    peak = info.meter.peak / context.dims.world_size / 1e12
    return [
        layout_line(config, context),
        f"peak: {peak:.3g} TFLOP/s per process ({info.meter.peak_source})",
        *describe(samples),
    ]


def layout_line(config: PretrainConfig, context: ParallelContext) -> str:
    """The line on size, parallel layout, device and precision of the model."""
    size = f"{parameter_count(config.model):,} parameters"
    return f"{size}; {context.dims}; {context.device.type}, {config.precision.name}"


def write_arguments(config: PretrainConfig, context: ParallelContext) -> None:
    """Save the run's options beside its checkpoints."""
    if context.is_main and config.checkpoint.save is not None:
        write_json(Path(config.checkpoint.save) / _ARGUMENTS_NAME, config.given)


def memory_remedies(config: PretrainConfig) -> MemoryRemedies:
    """What lowers the memory of a rank; only options that the run does not use yet."""
    advice = ["a smaller --micro-batch-size"] if config.batch.micro_batch > 1 else []
    advice += [] if config.checkpoint_activations or config.skip_train else ["--checkpoint-activations"]
    advice += ["--bf16"] if config.precision.name == "fp32" else []
    return MemoryRemedies(always=(*advice, "a larger --tensor-model-parallel-size"))


def print_plan(config: PretrainConfig, dry_run: DryRunConfig) -> None:
    """Print the dry-run plan.

    Raises:
        ConfigError: if the run doesn't fit into memory.
    """
    notices, precision = [*config.notices], config.precision.name
    if precision == AUTO:
        precision, line = choose_precision(choose_device(0).type)
        notices.append(line)
    splits = open_splits(config.data, config.samples)
    plan = make_plan(
        config.model,
        config.dims,
        config.batch,
        config.training.train_iters,
        splits.train,
        precision,
        config.optimizer,
        config.checkpoint_activations,
        is_for_gpus(dry_run),
    )
    available, source = available_memory(dry_run, config.dims.world_size)
    for line in (*notices, *length_warnings(splits), *plan.lines(available, source)):
        print(line)
    plan.check(available)
    print("it fits")
