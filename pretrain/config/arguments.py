"""The command line of pretraining, with Megatron-LM's flag names, parsed once into a configuration per component.

An unknown flag is an error. Flags of Megatron-LM that have no effect here are accepted and reported once with the
reason, so that its launch scripts run unchanged.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pretrain.checkpointing import (
    CheckpointConfig,
    find_readable,
    path_of_iteration,
    read_metadata,
    refuse_other_format,
)
from pretrain.data.batch_schedule import BatchConfig, Rampup
from pretrain.data.blending import Blend
from pretrain.data.samples import SampleConfig
from pretrain.data.splits import DataConfig
from pretrain.optim.lr_schedule import Schedule, ScheduleConfig
from pretrain.optim.optimizer import OptimizerConfig
from pretrain.optim.precision import PrecisionConfig
from pretrain.parallel import ParallelConfig, ParallelDims
from pretrain.planning.dry_run import DryRunConfig
from pretrain.train.evaluation import EvaluationConfig
from pretrain.train.initialization import InitConfig
from pretrain.train.metrics_logger import LoggingConfig
from pretrain.train.profiling import MOST_ITERATIONS, ProfileConfig
from pretrain.train.trainer import TrainingConfig
from tape.configs import ProteinBertConfig
from tape.errors import CheckpointError, ConfigError
from tape.runtime.cpu import usable_cores

from .flags import make_parser
from .model_flags import check_model_flags, model_config, with_model_of
from .parser import IGNORED_FLAGS, MEGATRON_BACKENDS
from .schedule_flags import run_length

if TYPE_CHECKING:
    from pretrain.pretrained_model import PretrainedModel

_BACKENDS = "it selects kernels of Megatron-LM, and PyTorch's are used"


@dataclass(frozen=True)
class PretrainConfig:
    """The complete configuration of a run, one field per component.

    Attributes:
        pretrained: the model whose weights the run starts from; None: random weights.
        profile: which iterations are profiled; None: none.
        dry_run: settings of a dry run; None starts the run.
        skip_train: whether the pretrained model is only evaluated.
        given: all options by name as parsed; saved in the checkpoint.
        notices: one line per flag that has no effect, with the reason.
    """

    model: ProteinBertConfig
    pretrained: PretrainedModel | None
    init: InitConfig
    data: DataConfig
    samples: SampleConfig
    batch: BatchConfig
    dims: ParallelDims
    parallel: ParallelConfig
    precision: PrecisionConfig
    optimizer: OptimizerConfig
    schedule: Schedule
    training: TrainingConfig
    evaluation: EvaluationConfig
    checkpoint: CheckpointConfig
    logging: LoggingConfig
    profile: ProfileConfig | None
    dry_run: DryRunConfig | None
    skip_train: bool
    given: dict[str, Any]
    notices: tuple[str, ...]

    @property
    def checkpoint_activations(self) -> bool:
        """Whether entire blocks are recomputed in the backward pass."""
        return self.parallel.recompute == "full"


def parse_arguments(arguments: Sequence[str], world_size: int = 1) -> PretrainConfig:
    """Parse a command line.

    Args:
        arguments: the command line without the program's name.
        world_size: number of processes; determines the parallel layout and the default global batch size.

    Raises:
        ConfigError: for an unknown flag, an invalid value, or values that contradict each other or the model to start
            from.
        CheckpointError: the model to start from can't be read, or ``--load`` is of another format without
            ``--finetune``.
    """
    files = [word[1:] for word in arguments if word.startswith("@")]
    try:
        return _config(arguments, world_size)
    except UnicodeDecodeError as error:
        problem = f"not a text file with flags ({error.reason} at byte {error.start})"
        raise ConfigError(f"{' or '.join(files)}: {problem}") from error
    except ConfigError as error:
        if not files:
            raise
        raise type(error)(f"{error}; flags were also read from {', '.join(files)}") from error


def _config(arguments: Sequence[str], world_size: int) -> PretrainConfig:
    options, notices = _parse(arguments)
    world_size, dry_run = _dry_run(options, world_size)
    dims = _dims(options, world_size)
    load, pretrained = _start(options)
    source = _model_of_run(load) if pretrained is None else pretrained.config
    if source is None and load is not None:
        refuse_other_format(Path(load))
    options = argparse.Namespace(**with_model_of(vars(options), source))
    _check(options)
    batch = _batch(options, dims)
    iterations, schedule = (0, ScheduleConfig()) if options.skip_train else run_length(vars(options), batch)
    model = model_config(vars(options), source)
    dims.check_model(model)
    return PretrainConfig(
        model=model,
        pretrained=None if pretrained is None else pretrained.with_positions(model.max_position_embeddings),
        init=InitConfig(options.seed, options.init_method_std),
        data=_data(options),
        samples=_samples(options),
        batch=batch,
        dims=dims,
        parallel=_parallel(options),
        precision=_precision(options),
        optimizer=_optimizer(options),
        schedule=schedule,
        training=_training(options, iterations),
        evaluation=_evaluation(options, iterations, batch),
        checkpoint=_checkpoint(options, load),
        logging=LoggingConfig(options.log_interval, options.save, options.tensorboard_dir, options.peak_tflops),
        profile=_profile(options, dims),
        dry_run=dry_run,
        skip_train=options.skip_train,
        given=vars(options),
        notices=notices,
    )


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, tuple[str, ...]]:
    parser = make_parser()
    options = parser.parse_args(list(arguments))
    options.precision = options.precision or "fp32"  # not the parser's default, which would not exclude --bf16
    notices = []
    for flag, (_, reason) in IGNORED_FLAGS.items():
        name = "ignored_" + flag
        if getattr(options, name) is not None:
            notices.append(f"{flag} is ignored: {reason}")
        delattr(options, name)
    if options.attention_backend in MEGATRON_BACKENDS:
        notices.append(f"--attention-backend {options.attention_backend} is taken as auto: {_BACKENDS}")
        options.attention_backend = "auto"
    if options.loss_scale is not None and options.precision != "fp16":
        notices.append(
            "--loss-scale is ignored: gradients are scaled for --fp16 only, other precisions do not underflow"
        )
    if options.ckpt_step is not None:
        if options.load is None:
            raise ConfigError("--ckpt-step chooses one of the checkpoints in --load, which is missing")
        options.load = str(path_of_iteration(options.load, options.ckpt_step))
    if options.no_load_optim and not (options.finetune or options.pretrained_checkpoint or options.skip_train):
        raise ConfigError("--no-load-optim requires --finetune: a run is resumed with its optimizer state")
    if not options.profile:
        chosen = ("profile_step_start", "profile_step_end", "profile_ranks")
        unused = [name for name in chosen if getattr(options, name) != parser.get_default(name)]
        notices += [f"--{name.replace('_', '-')} has no effect without --profile" for name in unused]
    if options.skip_train:
        notices += _skip_training(options)
    elif options.save is None:
        unused = [flag for flag in ("save_interval", "keep_last") if getattr(options, flag) is not None]
        notices += [f"WARNING: --{flag.replace('_', '-')} has no effect without --save" for flag in unused]
    del options.local_rank, options.no_load_optim, options.ckpt_step
    return options, tuple(notices)


def _skip_training(options: argparse.Namespace) -> list[str]:
    """Remove the options that have no effect with ``--skip-train``.

    Returns:
        A line on each of them that would have been visible.

    Raises:
        ConfigError: there are no weights, or nothing is evaluated.
    """
    if options.dry_run:
        raise ConfigError("--dry-run plans a training run, which --skip-train leaves out: give one of them")
    if options.load is None and options.pretrained_checkpoint is None:
        advice = "" if options.save is None else f"; give --load {options.save}"
        raise ConfigError(f"--skip-train evaluates the weights in --load, which is missing{advice}")
    if options.eval_iters == 0 and not options.full_validation:
        raise ConfigError("--eval-iters 0 evaluates nothing, and --skip-train does nothing else")
    if options.valid_data_path or options.test_data_path:
        options.data_path = options.train_data_path = None
    unused = [name for name in ("save", "tensorboard_dir", "profile") if getattr(options, name)]
    if options.load and options.pretrained_checkpoint and not options.finetune:
        unused.append("pretrained_checkpoint")  # the model that the run in --load started from
    for name in unused:
        setattr(options, name, None)
    return [f"--{name.replace('_', '-')} has no effect with --skip-train" for name in unused]


def _dry_run(options: argparse.Namespace, world_size: int) -> tuple[int, DryRunConfig | None]:
    """The number of processes and the dry run, if requested; removes its options, which do not describe the run."""
    wanted, given, memory = (options.__dict__.pop(name) for name in ("dry_run", "world_size", "device_memory_gib"))
    if not wanted and (given or memory):
        raise ConfigError(
            "--world-size and --device-memory-gib require --dry-run; the launcher determines the size of a run"
        )
    return given or world_size, DryRunConfig(memory) if wanted else None


def _start(options: argparse.Namespace) -> tuple[str | None, PretrainedModel | None]:
    """The directory to resume from, and the model whose weights a new run starts from.

    Raises:
        ConfigError: the flags contradict each other or the model.
        CheckpointError: the model can't be read.
    """
    load, model = options.load, options.pretrained_checkpoint
    if options.finetune and load is None:
        raise ConfigError("--finetune starts from the weights in --load, which is missing")
    if options.finetune and model is not None:
        raise ConfigError("--finetune starts from --load, --pretrained-checkpoint from its own model: give one of them")
    if options.skip_train:
        load, model = None, load or model
    elif options.finetune or _metadata_of_run(load).get("weights_only"):
        load, model = None, load
    if model is None:
        if options.resize_positions and load is None:
            raise ConfigError("--resize-positions is for a model to start from (--finetune, --pretrained-checkpoint)")
        return load, None
    # imported here, because it imports the converter, which most runs don't need
    from pretrain.pretrained_model import open_pretrained_model

    pretrained = open_pretrained_model(Path(model))
    check_model_flags(vars(options), pretrained.config, pretrained.path)
    return load, pretrained


def _metadata_of_run(load: str | None) -> dict[str, Any]:
    """The metadata of the checkpoint in ``--load``; empty if there is none, which is checked when the run starts."""
    try:
        path = None if load is None else find_readable(load)
        return {} if path is None else read_metadata(path)
    except (CheckpointError, OSError):
        return {}


def _model_of_run(load: str | None) -> ProteinBertConfig | None:
    """The model of the checkpoint in ``--load``, if there is one."""
    metadata = _metadata_of_run(load)
    try:
        return ProteinBertConfig.from_dict(metadata["model_config"]) if metadata else None
    except (ConfigError, TypeError):
        return None  # reported when the checkpoint is loaded


def _check(options: argparse.Namespace) -> None:
    if options.max_position_embeddings < options.seq_length:
        raise ConfigError(
            f"--seq-length {options.seq_length} exceeds --max-position-embeddings {options.max_position_embeddings}"
        )
    if not 0.0 < options.mask_prob <= 1.0:
        raise ConfigError(f"--mask-prob must lie in (0, 1], not {options.mask_prob}")


def _data(options: argparse.Namespace) -> DataConfig:
    corpora, train, valid, test = (
        None if words is None else Blend.parse(words, flag)
        for flag, words in (
            ("--data-path", options.data_path),
            ("--train-data-path", options.train_data_path),
            ("--valid-data-path", options.valid_data_path),
            ("--test-data-path", options.test_data_path),
        )
    )
    workers = min(options.num_workers, usable_cores())  # Megatron-LM's large example requests 96
    return DataConfig(
        corpora, train, valid, test, options.split, options.vocab_file, workers, options.verify_data, options.skip_train
    )


def _samples(options: argparse.Namespace) -> SampleConfig:
    return SampleConfig(options.seq_length, options.mask_prob, not options.no_sep, options.long_documents, options.seed)


def _dims(options: argparse.Namespace, world_size: int) -> ParallelDims:
    return ParallelDims(
        world_size,
        options.tensor_model_parallel_size,
        options.pipeline_model_parallel_size,
        options.sequence_parallel,
        options.data_parallel_sharding,
    )


def _parallel(options: argparse.Namespace) -> ParallelConfig:
    requested = {
        "full": options.checkpoint_activations or options.recompute_granularity == "full",
        "selective": options.recompute_activations or options.recompute_granularity == "selective",
    }
    if all(requested.values()):
        raise ConfigError(
            "--checkpoint-activations (--recompute-granularity full) recomputes entire blocks, --recompute-activations"
            " (--recompute-granularity selective) only the core attention; give one of them"
        )
    recompute = next((name for name, is_requested in requested.items() if is_requested), "none")
    return ParallelConfig(
        backend=options.distributed_backend,
        timeout_minutes=options.distributed_timeout_minutes,
        hang_timeout=options.hang_timeout_seconds,
        pipeline_schedule=options.pipeline_schedule,
        recompute=recompute,
        compile=options.compile,
        attention_backend=options.attention_backend,
    )


def _batch(options: argparse.Namespace, dims: ParallelDims) -> BatchConfig:
    if options.skip_train:  # there are no steps
        return BatchConfig(options.micro_batch_size, options.micro_batch_size * dims.data)
    rampup = None if options.rampup_batch_size is None else Rampup(*options.rampup_batch_size)
    rows = options.global_batch_size or options.micro_batch_size * dims.data
    batch = BatchConfig(options.micro_batch_size, rows, rampup)
    batch.check(dims.data)
    return batch


def _precision(options: argparse.Namespace) -> PrecisionConfig:
    return PrecisionConfig(
        name=options.precision,
        loss_scale=options.loss_scale if options.precision == "fp16" else None,
        initial_loss_scale=options.initial_loss_scale,
        min_loss_scale=options.min_loss_scale,
        window=options.loss_scale_window,
        hysteresis=options.hysteresis,
    )


def _optimizer(options: argparse.Namespace) -> OptimizerConfig:
    return OptimizerConfig(
        name=options.optimizer,
        weight_decay=options.weight_decay,
        beta1=options.adam_beta1,
        beta2=options.adam_beta2,
        eps=options.adam_eps,
        momentum=options.sgd_momentum,
        clip_grad=options.clip_grad,
        muon_momentum=options.muon_momentum,
        muon_nesterov=options.muon_nesterov,
        muon_num_ns_steps=options.muon_num_ns_steps,
        muon_extra_scale_factor=options.muon_extra_scale_factor,
    )


def _checkpoint(options: argparse.Namespace, load: str | None) -> CheckpointConfig:
    return CheckpointConfig(
        save=options.save,
        load=load,
        save_interval=options.save_interval,
        keep_last=options.keep_last,
        async_save=options.async_save,
        allow_other_samples=options.allow_other_samples,
        schedule_of=_schedule_of(options),
    )


def _schedule_of(options: argparse.Namespace) -> str | None:
    if options.override_lr_scheduler and options.use_checkpoint_lr_scheduler:
        raise ConfigError("--override-lr-scheduler and --use-checkpoint-lr-scheduler are mutually exclusive")
    if options.override_lr_scheduler:
        return "start"
    return "checkpoint" if options.use_checkpoint_lr_scheduler else None


def _training(options: argparse.Namespace, iterations: int) -> TrainingConfig:
    return TrainingConfig(
        train_iters=iterations,
        exit_interval=options.exit_interval,
        exit_minutes=options.exit_duration_in_mins,
        max_skipped_steps=options.max_skipped_steps,
        save_interval=options.save_interval,
        seed=options.seed,
        seq_length=options.seq_length,
    )


def _evaluation(options: argparse.Namespace, iterations: int, batch: BatchConfig) -> EvaluationConfig:
    rows = None if options.full_validation else options.eval_iters * (options.global_batch_size or batch.global_batch)
    return EvaluationConfig(options.eval_interval, iterations, rows)


def _profile(options: argparse.Namespace, dims: ParallelDims) -> ProfileConfig | None:
    start, end, ranks = options.profile_step_start, options.profile_step_end, options.profile_ranks
    if not options.profile:
        return None
    if end - start > MOST_ITERATIONS:
        raise ConfigError(
            f"--profile-step-start {start} and --profile-step-end {end} are {end - start} iterations, and a profile has"
            f" at most {MOST_ITERATIONS}: it keeps all operations in memory until it is written"
        )
    if end <= start:
        raise ConfigError(f"--profile-step-end {end} must be after --profile-step-start {start}")
    if unknown := [rank for rank in ranks if rank >= dims.world_size]:
        raise ConfigError(f"--profile-ranks {unknown[0]}: the ranks of this run are 0 to {dims.world_size - 1}")
    directory = options.tensorboard_dir or options.save
    if directory is None:
        raise ConfigError("--profile writes to --tensorboard-dir or --save: give one of them")
    return ProfileConfig(start, end, tuple(sorted(set(ranks))), Path(directory) / "profile")
