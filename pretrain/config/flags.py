"""The flags of pretraining: names, types, defaults and help. What they become is in arguments.py."""

from __future__ import annotations

import argparse
from typing import Any

from pretrain.data.indexed_dataset import LAYOUTS
from pretrain.data.packing import LONG_DOCUMENT_RULES
from pretrain.optim.optimizer import OPTIMIZERS
from pretrain.parallel import BACKENDS, PIPELINE_SCHEDULES, RECOMPUTATIONS
from tape.configs import INITIAL_ATTENTION

from .parser import (
    IGNORED_FLAGS,
    HelpFormatter,
    Parser,
    fraction,
    not_negative,
    not_negative_number,
    positive,
    positive_number,
)
from .schedule_flags import add_schedule_flags

TOKENIZER_TYPES = ("iupac", "BertWordPieceLowerCase", "BertWordPieceCase")


def make_parser() -> Parser:
    """All flags of pretrain_tape.py with their types, defaults and help."""
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
    group.add_argument("--attention-dropout", type=fraction, default=0.1, help="of attention probabilities")
    group.add_argument("--hidden-dropout", type=fraction, default=0.1, help="after embeddings, attention and MLP")
    group.add_argument("--layernorm-epsilon", type=positive_number, default=1e-5, help="of every layer norm")
    group.add_argument(
        "--init-method-std",
        type=positive_number,
        default=0.02,
        help="of initial weights; output projections get it / sqrt(2 layers)",
    )
    group.add_argument(
        "--initial-attention",
        choices=INITIAL_ATTENTION,
        default="random",
        help="neighbours: heads begin by looking at near residues, which small models don't find in millions of tokens;"
        " see tape/models/neighbour_attention.py",
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
    group.add_argument(
        "--num-workers", type=not_negative, default=2, help="processes that prepare batches, no more than cores"
    )


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
    group.add_argument("--weight-decay", type=not_negative_number, default=0.01, help="of matrices only")
    group.add_argument("--clip-grad", type=not_negative_number, default=1.0, help="largest gradient norm; 0: any")
    group.add_argument("--adam-beta1", type=fraction, default=0.9, help="decay of the first moment")
    group.add_argument("--adam-beta2", type=fraction, default=0.999, help="decay of the second moment")
    group.add_argument("--adam-eps", type=positive_number, default=1e-8, help="in Adam's denominator")
    group.add_argument("--sgd-momentum", type=fraction, default=0.9, help="of --optimizer sgd")


def _add_precision(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("precision")
    group.add_argument("--bf16", action="store_true", help="forward and backward in bfloat16, weights in fp32")
    group.add_argument("--fp16", action="store_true", help="the same in float16, with loss scaling")
    group.add_argument("--loss-scale", type=positive_number, help="fixed loss scale of --fp16; dynamic when not given")
    group.add_argument(
        "--initial-loss-scale", type=positive_number, default=2.0**32, help="where the dynamic loss scale starts"
    )
    group.add_argument("--min-loss-scale", type=positive_number, default=1.0, help="what it never falls below")
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
    group.add_argument(
        "--compile",
        action="store_true",
        help="blocks by torch.compile, attention cores excepted; needs a C++ compiler on CPUs",
    )
    group.add_argument("--distributed-backend", choices=BACKENDS, help="by device when not given")
    group.add_argument(
        "--distributed-timeout-minutes", type=positive_number, default=30.0, help="of one exchange between ranks"
    )
    group.add_argument(
        "--hang-timeout-seconds",
        type=not_negative,
        default=45,
        help="a rank that is silent, or that others wait for, for so long ends the run on all ranks; 0: never",
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
