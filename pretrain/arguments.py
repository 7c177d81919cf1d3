"""The command line of pretraining: Megatron's flag names, parsed once into the configuration of each part.

A flag that is not known is an error. Flags of Megatron that mean nothing here are accepted and named once, with the
reason, so that its launch scripts run unchanged.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tape.configs import ProteinBertConfig
from tape.errors import ConfigError
from tape.tokenizers import TAPETokenizer

from .batch_schedule import BatchConfig, Rampup
from .checkpointing import CheckpointConfig
from .command_line import IGNORED_FLAGS, HelpFormatter, Parser, not_negative, positive, positive_number
from .continuing import schedule_options
from .data.blending import Blend
from .data.indexed_dataset import LAYOUTS
from .data.packing import LONG_DOCUMENT_RULES
from .data.samples import SampleConfig
from .data.splits import DataConfig
from .dry_run import DryRunConfig
from .initialization import InitConfig
from .loop import TrainingConfig
from .optimizer import OPTIMIZERS, OptimizerConfig
from .parallel import BACKENDS, PIPELINE_SCHEDULES, RECOMPUTATIONS, ParallelConfig, ParallelDims
from .precision import PrecisionConfig
from .reporting import ReportingConfig
from .schedule import Schedule
from .schedule_flags import add_schedule_flags, run_length

TOKENIZER_TYPES = ("iupac", "BertWordPieceLowerCase", "BertWordPieceCase")


@dataclass(frozen=True)
class PretrainArguments:
    """Everything that a run is told, one configuration a part.

    Attributes:
        dry_run: what to plan instead of a run; None: run.
        given: all options by name as parsed, for the checkpoint.
        notices: one line for each flag that has no effect, and why.
    """

    model: ProteinBertConfig
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
    checkpoint: CheckpointConfig
    reporting: ReportingConfig
    eval_iters: int
    full_validation: bool
    dry_run: DryRunConfig | None
    given: dict[str, Any]
    notices: tuple[str, ...]

    @property
    def checkpoint_activations(self) -> bool:
        """Whether whole blocks are computed again in the backward pass."""
        return self.parallel.recompute == "full"


def parse_arguments(arguments: Sequence[str], world_size: int = 1) -> PretrainArguments:
    """Parse a command line.

    Args:
        arguments: without the program's name.
        world_size: processes of the run; the layout and the default global batch follow from it.

    Raises:
        ConfigError: an unknown flag, a bad value, or values that don't fit together.
    """
    options, notices = _parse(arguments)
    world_size, dry_run = _dry_run(options, world_size)
    dims = _dims(options, world_size)
    _check(options)
    batch = _batch(options, dims)
    iterations, schedule = run_length(options, batch)
    model = _model(options)
    dims.check_model(model)
    return PretrainArguments(
        model=model,
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
        checkpoint=_checkpoint(options),
        reporting=ReportingConfig(options.log_interval, options.save, options.tensorboard_dir, options.peak_tflops),
        eval_iters=options.eval_iters,
        full_validation=options.full_validation,
        dry_run=dry_run,
        given=vars(options),
        notices=notices,
    )


def _parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, tuple[str, ...]]:
    parser = _parser()
    options = parser.parse_args(list(arguments))
    notices = []
    for flag, (_, reason) in IGNORED_FLAGS.items():
        name = "ignored_" + flag
        if getattr(options, name) is not None:
            notices.append(f"{flag} is ignored: {reason}")
        delattr(options, name)
    del options.local_rank
    return options, tuple(notices)


def _dry_run(options: argparse.Namespace, world_size: int) -> tuple[int, DryRunConfig | None]:
    """The number of processes and the dry run, if it is one; its options are taken out: they are not the run's."""
    wanted, given, memory = (options.__dict__.pop(name) for name in ("dry_run", "world_size", "device_memory_gib"))
    if not wanted and (given or memory):
        raise ConfigError("--world-size and --device-memory-gib belong to --dry-run; a run's size is the launcher's")
    return given or world_size, DryRunConfig(memory) if wanted else None


def _check(options: argparse.Namespace) -> None:
    if options.fp16 and options.bf16:
        raise ConfigError("--fp16 and --bf16 exclude each other")
    if options.max_position_embeddings < options.seq_length:
        raise ConfigError(
            f"--seq-length {options.seq_length} exceeds --max-position-embeddings {options.max_position_embeddings}"
        )
    for name in ("attention_dropout", "hidden_dropout"):
        if not 0.0 <= getattr(options, name) < 1.0:
            raise ConfigError(f"--{name.replace('_', '-')} must lie in [0, 1), not {getattr(options, name)}")
    if not 0.0 < options.mask_prob <= 1.0:
        raise ConfigError(f"--mask-prob must lie in (0, 1], not {options.mask_prob}")


def _model(options: argparse.Namespace) -> ProteinBertConfig:
    return ProteinBertConfig(
        vocab_size=TAPETokenizer().vocab_size,
        hidden_size=options.hidden_size,
        num_hidden_layers=options.num_layers,
        num_attention_heads=options.num_attention_heads,
        intermediate_size=options.ffn_hidden_size or 4 * options.hidden_size,
        hidden_act="gelu" if options.no_bias_gelu_fusion else "gelu_tanh",
        mlm_hidden_act="gelu",  # the fused form is that of the blocks; Megatron's head computes erf
        hidden_dropout_prob=options.hidden_dropout,
        attention_probs_dropout_prob=options.attention_dropout,
        max_position_embeddings=options.max_position_embeddings,
        type_vocab_size=1,
        initializer_range=options.init_method_std,
        layer_norm_eps=options.layernorm_epsilon,
    )


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
    return DataConfig(corpora, train, valid, test, options.split, options.vocab_file, options.num_workers)


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
    asked = {
        "full": options.checkpoint_activations or options.recompute_granularity == "full",
        "selective": options.recompute_activations or options.recompute_granularity == "selective",
    }
    if all(asked.values()):
        raise ConfigError("--checkpoint-activations recomputes all of a block and --recompute-activations a part: one")
    recompute = next((name for name, wanted in asked.items() if wanted), "none")
    return ParallelConfig(
        backend=options.distributed_backend,
        timeout_minutes=options.distributed_timeout_minutes,
        patience=options.hang_timeout_seconds,
        pipeline_schedule=options.pipeline_schedule,
        recompute=recompute,
        compile=options.compile,
    )


def _batch(options: argparse.Namespace, dims: ParallelDims) -> BatchConfig:
    rampup = None if options.rampup_batch_size is None else Rampup(*options.rampup_batch_size)
    rows = options.global_batch_size or options.micro_batch_size * dims.data
    batch = BatchConfig(options.micro_batch_size, rows, rampup)
    batch.check(dims.data)
    return batch


def _precision(options: argparse.Namespace) -> PrecisionConfig:
    return PrecisionConfig(
        name="fp16" if options.fp16 else "bf16" if options.bf16 else "fp32",
        loss_scale=options.loss_scale,
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
    )


def _checkpoint(options: argparse.Namespace) -> CheckpointConfig:
    return CheckpointConfig(
        save=options.save,
        load=options.load,
        save_interval=options.save_interval,
        keep_last=options.keep_last,
        in_background=options.async_save,
        other_samples=options.allow_other_samples,
        schedule_of=_schedule_of(options),
    )


def _schedule_of(options: argparse.Namespace) -> str | None:
    if options.override_lr_scheduler and options.use_checkpoint_lr_scheduler:
        raise ConfigError("--override-lr-scheduler and --use-checkpoint-lr-scheduler exclude each other")
    if options.override_lr_scheduler:
        return "start"
    return "checkpoint" if options.use_checkpoint_lr_scheduler else None


def with_schedule_of(arguments: PretrainArguments, saved: Mapping[str, Any]) -> PretrainArguments:
    """The same with the learning rate of a checkpoint.

    Args:
        arguments: of this start.
        saved: the checkpoint's options by name.
    """
    given = {**arguments.given, **schedule_options(saved)}
    _, schedule = run_length(argparse.Namespace(**given), arguments.batch)
    return replace(arguments, schedule=schedule, given=given)


def _training(options: argparse.Namespace, iterations: int) -> TrainingConfig:
    return TrainingConfig(
        train_iters=iterations,
        eval_interval=options.eval_interval,
        exit_interval=options.exit_interval,
        exit_minutes=options.exit_duration_in_mins,
        max_skipped_steps=options.max_skipped_steps,
        save_interval=options.save_interval,
        seed=options.seed,
        seq_length=options.seq_length,
    )


def _parser() -> Parser:
    parser = Parser(
        prog="pretrain_tape.py",
        fromfile_prefix_chars="@",
        description="Pretrain a protein language model by masked language modelling. "
        "@FILE stands for the flags in FILE, several lines, # begins a comment.",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    for add in (_add_model, _add_data, _add_batch, _add_optimizer, _add_precision, _add_layout, _add_run):
        add(parser)
    add_schedule_flags(parser)
    for flag, (takes_value, _) in IGNORED_FLAGS.items():
        action: dict[str, Any] = {} if takes_value else {"action": "store_const", "const": True}
        parser.add_argument(flag, dest="ignored_" + flag, help=argparse.SUPPRESS, default=None, **action)
    # torch.distributed.launch passes it; the environment says the same
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def _add_model(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("model")
    group.add_argument("--num-layers", type=positive, required=True, help="transformer blocks")
    group.add_argument("--hidden-size", type=positive, required=True, help="width of the residual stream")
    group.add_argument(
        "--num-attention-heads",
        type=positive,
        required=True,
        help="must divide the hidden size; the tensor-parallel size must divide it",
    )
    group.add_argument("--ffn-hidden-size", type=positive, help="4 x hidden size when not given")
    group.add_argument(
        "--max-position-embeddings",
        type=positive,
        required=True,
        help="rows of the position table, at least --seq-length",
    )
    group.add_argument("--attention-dropout", type=float, default=0.1, help="of attention probabilities")
    group.add_argument("--hidden-dropout", type=float, default=0.1, help="after embeddings, attention and MLP")
    group.add_argument("--layernorm-epsilon", type=float, default=1e-5, help="of every layer norm")
    group.add_argument(
        "--init-method-std",
        type=float,
        default=0.02,
        help="of initial weights; output projections get it / sqrt(2 layers)",
    )
    group.add_argument("--no-bias-gelu-fusion", action="store_true", help="GELU by erf instead of its tanh form")


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data-path",
        nargs="+",
        metavar="[WEIGHT] PREFIX",
        help="corpus (path without .bin), or several with their weights; without weights in proportion to their rows. "
        "Each corpus keeps epochs of its own: all its proteins are seen once before any is seen again",
    )
    for purpose in ("train", "valid", "test"):
        words = (
            "the same as --data-path, all of it" if purpose == "train" else "corpora of their own, instead of --split"
        )
        group.add_argument(f"--{purpose}-data-path", nargs="+", metavar="[WEIGHT] PREFIX", help=words)
    group.add_argument("--split", help="training, validation, test documents of each --data-path (969,30,1)")
    group.add_argument("--vocab-file", help="declares the ids of a corpus that has no sidecar (written by Megatron)")
    group.add_argument("--tokenizer-type", choices=TOKENIZER_TYPES, default="iupac", help="all of them are one here")
    group.add_argument("--data-impl", choices=(*LAYOUTS, "infer"), default="infer", help="recognised from the file")
    group.add_argument("--seq-length", type=positive, required=True, help="tokens of a row")
    group.add_argument("--mask-prob", type=float, default=0.15, help="fraction of residues to predict")
    group.add_argument("--no-sep", action="store_true", help="<cls> residues, without <sep>, as the original")
    group.add_argument(
        "--long-documents",
        choices=LONG_DOCUMENT_RULES,
        default="split",
        help="proteins longer than a row: split at an offset drawn anew each epoch, or truncate",
    )
    group.add_argument("--num-workers", type=not_negative, default=2, help="processes that prepare batches")


def _add_batch(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("batch")
    group.add_argument("--micro-batch-size", type=positive, required=True, help="rows of one forward pass on one rank")
    group.add_argument("--global-batch-size", type=positive, help="rows of a step; micro batch x ranks when not given")
    group.add_argument(
        "--rampup-batch-size",
        type=positive,
        nargs=3,
        metavar=("START", "INCREMENT", "SAMPLES"),
        help="begin with START rows a step; more by INCREMENT, up to --global-batch-size after SAMPLES samples",
    )
    group.add_argument(
        "--recompute-granularity",
        choices=RECOMPUTATIONS,
        help="what the backward pass computes again to save memory: full, whole blocks; selective, attention cores",
    )
    group.add_argument("--checkpoint-activations", action="store_true", help="--recompute-granularity full")
    group.add_argument("--recompute-activations", action="store_true", help="--recompute-granularity selective")


def _add_optimizer(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("optimizer")
    group.add_argument("--optimizer", choices=OPTIMIZERS, default="adam", help="adam is AdamW")
    group.add_argument("--weight-decay", type=float, default=0.01, help="of matrices only")
    group.add_argument("--clip-grad", type=float, default=1.0, help="largest gradient norm")
    group.add_argument("--adam-beta1", type=float, default=0.9, help="decay of the first moment")
    group.add_argument("--adam-beta2", type=float, default=0.999, help="decay of the second moment")
    group.add_argument("--adam-eps", type=float, default=1e-8, help="in Adam's denominator")
    group.add_argument("--sgd-momentum", type=float, default=0.9, help="of --optimizer sgd")


def _add_precision(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("precision")
    group.add_argument("--bf16", action="store_true", help="forward and backward in bfloat16, weights in fp32")
    group.add_argument("--fp16", action="store_true", help="the same in float16, with loss scaling")
    group.add_argument("--loss-scale", type=float, help="fixed loss scale of --fp16; dynamic when not given")
    group.add_argument("--initial-loss-scale", type=float, default=2.0**32, help="where the dynamic loss scale starts")
    group.add_argument("--min-loss-scale", type=float, default=1.0, help="what it never falls below")
    group.add_argument(
        "--loss-scale-window", type=positive, default=1000, help="steps without overflow before it doubles"
    )
    group.add_argument("--hysteresis", type=positive, default=2, help="overflows forgiven before it halves")


def _add_layout(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("layout")
    group.add_argument("--tensor-model-parallel-size", type=positive, default=1, help="ranks that share one model")
    group.add_argument("--pipeline-model-parallel-size", type=positive, default=1, help="stages that share the layers")
    group.add_argument(
        "--pipeline-schedule", choices=PIPELINE_SCHEDULES, default="1f1b", help="order of forward and backward passes"
    )
    group.add_argument(
        "--sequence-parallel", action="store_true", help="tensor ranks share the tokens between the split regions"
    )
    group.add_argument(
        "--data-parallel-sharding",
        action="store_true",
        help="copies of the model share weights, gradients and optimizer state out among themselves (FSDP)",
    )
    group.add_argument("--compile", action="store_true", help="blocks by torch.compile; needs a C++ compiler on CPUs")
    group.add_argument("--distributed-backend", choices=BACKENDS, help="by device when not given")
    group.add_argument(
        "--distributed-timeout-minutes", type=positive_number, default=30.0, help="of one exchange between ranks"
    )
    group.add_argument(
        "--hang-timeout-seconds",
        type=not_negative,
        default=45,
        help="a rank that is silent or hangs for so long ends the run on all ranks; 0: never",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument("--seed", type=not_negative, default=1234, help="of weights, samples, masks and dropout")
    group.add_argument("--save", help="directory of checkpoints and metrics.jsonl")
    group.add_argument("--load", help="directory to continue from, if it holds a checkpoint")
    group.add_argument("--save-interval", type=positive, help="also saved at the end")
    group.add_argument("--keep-last", type=positive, help="checkpoints to keep, the newest ones; all when not given")
    group.add_argument(
        "--async-save",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write checkpoints beside the training, from a copy in CPU memory",
    )
    group.add_argument(
        "--allow-other-samples", action="store_true", help="continue with another corpus, seed, batch or masking"
    )
    group.add_argument(
        "--override-lr-scheduler", action="store_true", help="continue with this start's learning rate, not the run's"
    )
    group.add_argument(
        "--use-checkpoint-lr-scheduler", action="store_true", help="continue with the run's learning rate"
    )
    group.add_argument(
        "--max-skipped-steps",
        type=not_negative,
        default=20,
        help="in a row, without those of the search for a loss scale; the run then stops; 0: never",
    )
    group.add_argument("--eval-interval", type=positive, default=1000, help="iterations between evaluations")
    group.add_argument("--eval-iters", type=not_negative, default=100, help="global batches of an evaluation; 0: none")
    group.add_argument("--full-validation", action="store_true", help="evaluate on the whole validation set")
    group.add_argument("--log-interval", type=positive, default=100, help="iterations between console lines")
    group.add_argument("--tensorboard-dir", help="for TensorBoard's files")
    group.add_argument("--peak-tflops", type=float, help="of one process, for the utilisation; measured when not given")
    group.add_argument("--dry-run", action="store_true", help="say what the run would be and whether it fits; no start")
    group.add_argument("--world-size", type=positive, help="processes of a --dry-run; the launcher's when not given")
    group.add_argument("--device-memory-gib", type=float, help="of one rank's device, for --dry-run; else detected")
    group.add_argument("--exit-interval", type=positive, help="leave when the iteration is a multiple of this")
    group.add_argument(
        "--exit-duration-in-mins", type=positive_number, help="leave, with a checkpoint, when so old; exit code 0"
    )
