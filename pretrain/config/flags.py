"""The flags of pretraining: names, types, defaults and help texts. arguments.py turns them into configurations."""

from __future__ import annotations

import argparse
from typing import Any

from pretrain.choices import ATTENTION_BACKENDS, BACKENDS, OPTIMIZERS, PIPELINE_SCHEDULES, RECOMPUTATIONS
from pretrain.data.indexed_dataset import LAYOUTS
from pretrain.data.packing import LONG_DOCUMENT_RULES
from pretrain.data.verification import VERIFICATION_TIMES
from tape.cli.types import fraction, non_negative_float, non_negative_int, positive_float, positive_int
from tape.runtime.precision_choice import PRECISION_CHOICES

from .model_flags import add_model_flags
from .parser import IGNORED_FLAGS, MEGATRON_BACKENDS, HelpFormatter, Parser
from .schedule_flags import add_schedule_flags

TOKENIZER_TYPES = ("iupac", "BertWordPieceLowerCase", "BertWordPieceCase")


def make_parser() -> Parser:
    """The parser of pretrain_tape.py, with every flag's type, default and help text."""
    parser = Parser(
        prog="pretrain_tape.py",
        fromfile_prefix_chars="@",
        description="Pretrain a protein language model by masked language modeling. "
        "@FILE inserts the flags written in FILE; in it, # starts a comment.",
        formatter_class=HelpFormatter,
        allow_abbrev=False,
    )
    for add in (
        add_model_flags,
        _add_data,
        _add_batch,
        _add_optimizer,
        _add_precision,
        _add_layout,
        _add_run,
        _add_profile,
    ):
        add(parser)
    add_schedule_flags(parser)
    for flag, (takes_value, _) in IGNORED_FLAGS.items():
        action: dict[str, Any] = {} if takes_value else {"action": "store_const", "const": True}
        parser.add_argument(flag, dest="ignored_" + flag, help=argparse.SUPPRESS, default=None, **action)
    # torch.distributed.launch passes it; LOCAL_RANK in the environment has the same value
    parser.add_argument("--local_rank", "--local-rank", type=int, default=0, help=argparse.SUPPRESS)
    return parser


def _add_data(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("data")
    group.add_argument(
        "--data-path",
        nargs="+",
        metavar="[WEIGHT] PREFIX",
        help="a corpus (path without .bin), or several with their weights; without weights, in proportion to their"
        " rows. Each corpus has its own epochs: all its proteins are seen once before any is seen again",
    )
    for purpose in ("train", "valid", "test"):
        words = (
            "as --data-path, but used for training only and entirely"
            if purpose == "train"
            else f"corpora for {purpose}, instead of a share of --data-path"
        )
        group.add_argument(f"--{purpose}-data-path", nargs="+", metavar="[WEIGHT] PREFIX", help=words)
    group.add_argument(
        "--split",
        help="proportions, or counts, of training, validation and test documents of each --data-path (969,30,1)",
    )
    group.add_argument(
        "--vocab-file", help="vocabulary of a corpus without a .json sidecar, such as one written by Megatron-LM"
    )
    group.add_argument(
        "--verify-data",
        choices=VERIFICATION_TIMES,
        nargs="?",
        const="start",
        default="background",
        help="when the corpora are compared with the SHA-256 in their sidecars: in the background of the run, or at its"
        " start (also without a value), or never",
    )
    group.add_argument(
        "--tokenizer-type",
        choices=TOKENIZER_TYPES,
        default="iupac",
        help="accepted for Megatron's scripts; all are the same here",
    )
    group.add_argument(
        "--data-impl",
        choices=(*LAYOUTS, "infer"),
        default="infer",
        help="layout of the index file; infer recognizes it",
    )
    group.add_argument("--seq-length", type=positive_int, required=True, help="tokens per row")
    group.add_argument(
        "--mask-prob", type=float, default=0.15, help="fraction of residues that are masked and predicted"
    )
    group.add_argument(
        "--no-sep",
        action="store_true",
        help="encode a protein as <cls> and its residues, without <sep>, as the original ProteinLM does",
    )
    group.add_argument(
        "--long-documents",
        choices=LONG_DOCUMENT_RULES,
        default="split",
        help="proteins longer than a row: split them at an offset drawn anew in every epoch, or truncate them",
    )
    group.add_argument(
        "--num-workers", type=non_negative_int, default=2, help="data loader processes per rank, at most one per core"
    )


def _add_batch(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("batch")
    group.add_argument("--micro-batch-size", type=positive_int, required=True, help="rows per forward pass on one rank")
    group.add_argument(
        "--global-batch-size",
        type=positive_int,
        help="rows per optimizer step (default: --micro-batch-size x data-parallel size)",
    )
    group.add_argument(
        "--rampup-batch-size",
        type=positive_int,
        nargs=3,
        metavar=("START", "INCREMENT", "SAMPLES"),
        help="start with a global batch of START rows and increase it by INCREMENT, up to --global-batch-size after"
        " SAMPLES samples",
    )
    group.add_argument(
        "--recompute-granularity",
        choices=RECOMPUTATIONS,
        help="activation checkpointing: full recomputes entire blocks in the backward pass, selective core attention",
    )
    group.add_argument("--checkpoint-activations", action="store_true", help="same as --recompute-granularity full")
    group.add_argument("--recompute-activations", action="store_true", help="same as --recompute-granularity selective")


def _add_optimizer(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("optimizer")
    group.add_argument(
        "--optimizer",
        choices=OPTIMIZERS,
        default="adam",
        help="adam is AdamW; muon is Muon for the matrices of the transformer blocks, and AdamW for the others",
    )
    group.add_argument(
        "--weight-decay",
        type=non_negative_float,
        default=0.01,
        help="decoupled weight decay, applied to matrices only",
    )
    group.add_argument(
        "--clip-grad", type=non_negative_float, default=1.0, help="maximum global gradient norm; 0: no clipping"
    )
    group.add_argument("--adam-beta1", type=fraction, default=0.9, help="decay rate of the first moment")
    group.add_argument("--adam-beta2", type=fraction, default=0.999, help="decay rate of the second moment")
    group.add_argument(
        "--adam-eps", type=positive_float, default=1e-8, help="epsilon in the denominator of Adam's update"
    )
    group.add_argument("--sgd-momentum", type=fraction, default=0.9, help="momentum of --optimizer sgd")
    group.add_argument("--muon-momentum", type=fraction, default=0.95, help="momentum of --optimizer muon")
    group.add_argument("--muon-nesterov", action="store_true", help="Nesterov momentum in --optimizer muon")
    group.add_argument(
        "--muon-num-ns-steps", type=positive_int, default=5, help="Newton-Schulz iterations of --optimizer muon"
    )
    group.add_argument(
        "--muon-extra-scale-factor",
        type=positive_float,
        default=1.0,
        help="factor on the update of --optimizer muon; with 0.2, it has the size of AdamW's at the same --lr",
    )


def _add_precision(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("precision")
    precision = group.add_mutually_exclusive_group()
    precision.add_argument(
        "--precision",
        choices=PRECISION_CHOICES,
        help="precision of the forward and backward pass; master weights are fp32. auto: bf16 where a measurement finds"
        " it faster than fp32 (default: fp32)",
    )
    for name, meaning in (("bf16", "bfloat16"), ("fp16", "float16 with loss scaling")):
        precision.add_argument(
            f"--{name}",
            dest="precision",
            action="store_const",
            const=name,
            help=f"same as --precision {name}: {meaning}",
        )
    group.add_argument("--loss-scale", type=positive_float, help="static loss scale of --fp16 (default: dynamic)")
    group.add_argument("--initial-loss-scale", type=positive_float, default=2.0**32, help="initial dynamic loss scale")
    group.add_argument("--min-loss-scale", type=positive_float, default=1.0, help="minimum dynamic loss scale")
    group.add_argument(
        "--loss-scale-window",
        type=positive_int,
        default=1000,
        help="steps without overflow after which the dynamic loss scale doubles",
    )
    group.add_argument(
        "--hysteresis", type=positive_int, default=2, help="overflows tolerated before the dynamic loss scale halves"
    )


def _add_layout(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("layout")
    group.add_argument(
        "--tensor-model-parallel-size", type=positive_int, default=1, help="tensor-parallel ranks that share each block"
    )
    group.add_argument(
        "--pipeline-model-parallel-size",
        type=positive_int,
        default=1,
        help="pipeline stages that the blocks are divided into",
    )
    group.add_argument(
        "--pipeline-schedule",
        choices=PIPELINE_SCHEDULES,
        default="1f1b",
        help="schedule of the micro-batches' forward and backward passes",
    )
    group.add_argument(
        "--sequence-parallel",
        action="store_true",
        help="shard the tokens over the tensor-parallel ranks outside the tensor-parallel regions",
    )
    group.add_argument(
        "--data-parallel-sharding",
        action="store_true",
        help="shard weights, gradients and optimizer state over the data-parallel replicas (FSDP2)",
    )
    group.add_argument(
        "--compile",
        action="store_true",
        help="torch.compile every block except its core attention; needs a C++ compiler on CPUs",
    )
    group.add_argument(
        "--attention-backend",
        choices=(*ATTENTION_BACKENDS, *MEGATRON_BACKENDS),
        default="auto",
        help="attention of packed rows: FlashAttention on GPUs in half precision, or proteins padded in groups of"
        " similar length; auto: flash where a check at the start finds that it computes the same; Megatron-LM's"
        " fused, unfused and local are taken as auto",
    )
    group.add_argument("--distributed-backend", choices=BACKENDS, help="default: nccl on GPUs, gloo on CPUs")
    group.add_argument(
        "--distributed-timeout-minutes", type=positive_float, default=30.0, help="timeout of a collective"
    )
    group.add_argument(
        "--hang-timeout-seconds",
        type=non_negative_int,
        default=45,
        help="end the run on all ranks if a rank sends no heartbeat, or keeps others waiting, for this long; 0: never",
    )


def _add_run(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("run")
    group.add_argument(
        "--seed", type=non_negative_int, default=1234, help="seed of weights, sample order, masks and dropout"
    )
    _add_checkpoints(group)
    group.add_argument(
        "--max-skipped-steps",
        type=non_negative_int,
        default=20,
        help="stop after this many consecutive non-finite steps outside the search for a loss scale; 0: never",
    )
    group.add_argument("--eval-interval", type=positive_int, default=1000, help="iterations between evaluations")
    group.add_argument(
        "--eval-iters", type=non_negative_int, default=100, help="global batches per evaluation; 0: none"
    )
    group.add_argument("--full-validation", action="store_true", help="evaluate on the entire validation and test set")
    group.add_argument(
        "--skip-train",
        action="store_true",
        help="evaluate the weights in --load, from a run or from a model in any format, on validation and test set, and"
        " exit; no training set or --train-iters is needed, and nothing is written",
    )
    group.add_argument("--log-interval", type=positive_int, default=100, help="iterations between console lines")
    group.add_argument("--tensorboard-dir", help="directory for TensorBoard event files")
    group.add_argument(
        "--peak-tflops",
        type=float,
        help="peak TFLOP/s per process, for the model FLOPs utilization (default: measured)",
    )
    group.add_argument(
        "--dry-run", action="store_true", help="print the plan of the run and whether it fits into memory, and exit"
    )
    group.add_argument(
        "--world-size", type=positive_int, help="number of processes of a --dry-run (default: the launcher's)"
    )
    group.add_argument("--device-memory-gib", type=float, help="memory per rank for --dry-run (default: detected)")
    group.add_argument(
        "--exit-interval",
        type=positive_int,
        help="save a checkpoint and exit at iterations that are a multiple of this",
    )
    group.add_argument(
        "--exit-duration-in-mins",
        type=positive_float,
        help="save a checkpoint and exit with code 0 after this many minutes",
    )


def _add_checkpoints(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--save", help="directory for checkpoints and metrics.jsonl")
    group.add_argument("--load", help="directory of checkpoints to resume from; only that of --save may be without one")
    group.add_argument(
        "--ckpt-step", type=non_negative_int, metavar="N", help="take iter_N in --load, not the newest checkpoint"
    )
    group.add_argument(
        "--finetune",
        action="store_true",
        help="start at iteration 0 with the weights in --load, from a run or from a model in any format that the"
        " converter reads; optimizer and learning-rate schedule are new",
    )
    group.add_argument(
        "--no-load-optim",
        action="store_true",
        help="of Megatron-LM: accepted with --finetune, which never loads the optimizer state",
    )
    group.add_argument(
        "--pretrained-checkpoint",
        metavar="MODEL",
        help="the same with the weights of this model, as long as --load has no checkpoint",
    )
    group.add_argument(
        "--save-interval", type=positive_int, help="iterations between checkpoints; one is also saved at the end"
    )
    group.add_argument("--keep-last", type=positive_int, help="number of newest checkpoints to keep (default: all)")
    group.add_argument(
        "--async-save",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="write checkpoints in the background, from a copy in CPU memory",
    )
    group.add_argument(
        "--allow-other-samples",
        action="store_true",
        help="allow resuming with another corpus, seed, batch size or masking",
    )
    group.add_argument(
        "--override-lr-scheduler",
        action="store_true",
        help="when resuming, use the learning-rate schedule given now instead of the checkpoint's",
    )
    group.add_argument(
        "--use-checkpoint-lr-scheduler",
        action="store_true",
        help="when resuming, use the checkpoint's learning-rate schedule",
    )


def _add_profile(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("profile")
    group.add_argument(
        "--profile",
        action="store_true",
        help="profile some iterations with torch.profiler; traces and tables are written to profile/ in"
        " --tensorboard-dir, or else in --save",
    )
    group.add_argument(
        "--profile-step-start", type=non_negative_int, default=10, help="the iteration after which a profile starts"
    )
    group.add_argument(
        "--profile-step-end",
        type=positive_int,
        default=12,
        help="the last iteration of a profile, at most 20 after its start",
    )
    group.add_argument("--profile-ranks", type=non_negative_int, nargs="+", default=[0], help="ranks with a profile")
