"""The processes of a run: its ranks with their groups, watched until they end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

from pretrain.config.arguments import PretrainConfig
from pretrain.monitor import watched
from pretrain.parallel import (
    ControlGroup,
    ParallelContext,
    choose_backend,
    open_control_group,
    open_parallel_context,
)
from tape.runtime.cpu import configure_cpu
from tape.runtime.distributed import choose_device
from tape.runtime.launch import Launch
from tape.runtime.launcher_monitor import end_with_launcher


class Ranks(NamedTuple):
    """This rank among all.

    Attributes:
        context: the parallel layout.
        control_group: all ranks, for what they agree on.
        notice: a line on the backend, if another one than usual was chosen.
    """

    context: ParallelContext
    control_group: ControlGroup
    notice: str | None


@contextmanager
def open_ranks(config: PretrainConfig, launch: Launch) -> Iterator[Ranks]:
    """Choose this rank's device and open its groups; the run ends with its launcher, and on all ranks together.

    Args:
        config: the run's configuration.
        launch: this process among all.
    """
    timeout, device = config.parallel.timeout, choose_device(launch.local_rank)
    if device.type == "cpu":
        configure_cpu()
    backend, notice = choose_backend(config.parallel.backend, device)
    with ExitStack() as stack:
        stack.enter_context(end_with_launcher(os.environ))
        context = stack.enter_context(open_parallel_context(config.dims, launch, backend, device, timeout))
        control_group = open_control_group(context, timeout)
        stack.enter_context(watched(context, launch, control_group, config.parallel.hang_timeout))
        yield Ranks(context, control_group, notice)
