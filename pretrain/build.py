"""From a run's arguments to its trainer: the parts in the order in which they must be made."""

from __future__ import annotations

from pretrain.config.arguments import PretrainConfig
from pretrain.optim.optimizer import Optimizer
from pretrain.train.initialization import build_model
from pretrain.train.masked_lm import MaskedLMObjective
from pretrain.train.trainer import Trainer

from .parallel import GradientBuckets, ParallelContext, local_parameters, make_forward_backward
from .trace import Operations


def build_trainer(
    arguments: PretrainConfig, processes: ParallelContext, operations: Operations | None = None
) -> Trainer:
    """Model, execution and optimizer of this rank.

    Args:
        arguments: of parse_arguments, with the run's world size.
        processes: the layout.
        operations: is told what is being done.
    """
    if arguments.parallel.compile:
        arguments.precision.check_compiled(processes.device)
    model = build_model(arguments.model, arguments.init, processes, arguments.parallel)
    row_tokens = arguments.batch.micro_batch * arguments.samples.seq_length
    objective = MaskedLMObjective(model, processes, arguments.precision, row_tokens)
    schedule = arguments.parallel.pipeline_schedule
    # FSDP shards the remaining parameters here; gradient buckets and optimizer need their final shards.
    execution = make_forward_backward(objective, processes, objective.stream_shape(), schedule, operations)
    parameters = local_parameters(model, processes)
    gradients = GradientBuckets(parameters, processes, operations)
    optimizer = Optimizer(parameters, gradients, arguments.optimizer, arguments.schedule)
    seed = arguments.training.seed
    return Trainer(objective, execution, optimizer, processes, arguments.precision, arguments.batch, seed, operations)
