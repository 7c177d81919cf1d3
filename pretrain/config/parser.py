"""The argument parser, and the flags of Megatron-LM that are accepted without effect."""

from __future__ import annotations

import argparse
from typing import NoReturn

from tape.cli.parser import ArgumentParser
from tape.errors import UsageError

_ALWAYS = "this is always the case here"
_BUILT_IN = "PyTorch's own fused kernels are used"
_ONE_REDUCTION = "gradients are always all-reduced in fp32 buckets, overlapped with the backward pass"
_ONE_MODEL = "the model has one implementation, which computes the same as those of Megatron-LM"
_LOGGED = "it is always logged"
# Flag -> (whether it takes a value, why it has no effect).
IGNORED_FLAGS: dict[str, tuple[bool, str]] = {
    "--DDP-impl": (True, _ONE_REDUCTION),
    "--use-contiguous-buffers-in-ddp": (False, _ONE_REDUCTION),
    "--use-contiguous-buffers-in-local-ddp": (False, _ONE_REDUCTION),
    "--no-contiguous-buffers-in-local-ddp": (False, _ONE_REDUCTION),
    "--accumulate-allreduce-grads-in-fp32": (False, _ALWAYS),
    "--fp32-allreduce": (False, _ALWAYS),
    "--fp32-residual-connection": (False, _ALWAYS),
    "--attention-softmax-in-fp32": (False, _ALWAYS),
    "--apply-query-key-layer-scaling": (False, "it does not change any result"),
    "--no-query-key-layer-scaling": (False, "it does not change any result"),
    "--make-vocab-size-divisible-by": (True, "the 30 embedding rows are not split and need no padding"),
    "--merge-file": (True, "proteins are not split into byte pairs"),
    "--short-seq-prob": (True, "proteins are packed into rows, not shortened"),
    "--mmap-warmup": (False, "the corpus is read as it is needed"),
    "--reset-position-ids": (False, "positions always restart at each protein"),
    "--reset-attention-mask": (False, "attention never crosses proteins"),
    "--eod-mask-loss": (False, "the loss is computed on masked residues only"),
    "--no-masked-softmax-fusion": (False, _BUILT_IN),
    "--no-scaled-masked-softmax-fusion": (False, _BUILT_IN),
    "--no-bias-dropout-fusion": (False, _BUILT_IN),
    "--bert-no-binary-head": (False, "there is no binary head"),
    "--lazy-mpu-init": (True, "process groups are created at the start"),
    "--use-cpu-initialization": (False, "initial weights are the same on every device"),
    "--checkpoint-num-layers": (True, "--checkpoint-activations recomputes every layer"),
    "--recompute-num-layers": (True, "--recompute-granularity full recomputes every layer"),
    "--recompute-method": (True, "--recompute-granularity full recomputes every layer"),
    "--distribute-checkpointed-activations": (False, "--checkpoint-activations recomputes every layer"),
    "--exit-signal-handler": (False, "SIGTERM, SIGINT, SIGHUP and SIGUSR1 always end a run with a checkpoint"),
    "--use-pytorch-profiler": (False, "--profile always uses PyTorch's profiler"),
    "--log-params-norm": (False, "the norm of the parameters is not logged"),
    "--use-mcore-models": (False, _ONE_MODEL),
    "--use-legacy-models": (False, _ONE_MODEL),
    "--transformer-impl": (True, _ONE_MODEL),
    "--spec": (True, _ONE_MODEL),
    "--ckpt-format": (
        True,
        "checkpoints are saved with torch.distributed.checkpoint; the converter writes Megatron-LM's",
    ),
    "--dist-ckpt-format": (True, "checkpoints are saved with torch.distributed.checkpoint"),
    "--use-dist-ckpt": (False, _ALWAYS),
    "--use-flash-attn": (False, "--attention-backend auto uses FlashAttention where it computes the same"),
    "--use-distributed-optimizer": (False, "--data-parallel-sharding shards the optimizer state, and more"),
    "--overlap-grad-reduce": (False, _ALWAYS),
    "--overlap-param-gather": (False, "--data-parallel-sharding gathers parameters ahead by itself"),
    "--no-async-tensor-model-parallel-allreduce": (False, "it does not change any result"),
    "--no-gradient-accumulation-fusion": (False, _BUILT_IN),
    "--no-persist-layer-norm": (False, _BUILT_IN),
    "--no-bias-swiglu-fusion": (False, "the model has no SwiGLU"),
    "--no-rope-fusion": (False, "the model has no rotary positions"),
    "--dataloader-type": (True, "the order of the samples is a function of the seed and the epoch"),
    "--data-cache-path": (True, "no index of samples is written"),
    "--no-create-attention-mask-in-dataloader": (False, _ALWAYS),
    "--no-mmap-bin-files": (False, _ALWAYS),
    "--no-load-rng": (False, "checkpoints have no state of random number generators"),
    "--no-save-rng": (False, "checkpoints have no state of random number generators"),
    "--log-throughput": (False, _LOGGED),
    "--log-progress": (False, _LOGGED),
    "--log-memory-to-tensorboard": (False, _LOGGED),
    "--log-timers-to-tensorboard": (False, "time per step is logged, not that of its parts"),
    "--log-validation-ppl-to-tensorboard": (False, _LOGGED),
    "--timing-log-level": (True, "time per step is logged, not that of its parts"),
    "--tensorboard-log-interval": (True, "every iteration is logged"),
    "--tensorboard-queue-size": (True, "it does not change any result"),
}
# values of --attention-backend that select kernels of Megatron-LM
MEGATRON_BACKENDS = ("fused", "unfused", "local")


class HelpFormatter(argparse.ArgumentDefaultsHelpFormatter):
    """Appends the default to the help text unless it is None or False."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default in (None, False) else super()._get_help_string(action)


class Parser(ArgumentParser):
    """Raises errors as UsageError, so that a single rank reports them."""

    def convert_arg_line_to_args(self, arg_line: str) -> list[str]:
        """The flags on one line of an ``@FILE``, without its comment."""
        return arg_line.split("#", 1)[0].split()

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{self.readable(message)} (see --help)")
