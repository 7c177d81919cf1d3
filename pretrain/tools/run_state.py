#!/usr/bin/env python
"""Print whether a run has finished, for a launcher that must decide whether to requeue it.

    python pretrain/tools/run_state.py PROCESSES FLAG ...

Given the number of processes and the flags of pretrain_tape.py, prints the state and the iteration of the last
checkpoint in ``--save``:

    unfinished 1200     iterations or evaluations remain
    finished 500000     all iterations and their evaluations are done
    stopped 1000        the run exited at an --exit-interval; the user restarts it

A run without a checkpoint is unfinished at iteration 0. If the pointer file is lost, the newest checkpoint counts, from
which the run would resume.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

if __name__ == "__main__":  # runs from any directory without installation
    sys.path[0] = str(Path(__file__).resolve().parents[2])

from tape.errors import ConfigError, run_cli


def main() -> None:
    """Print the state of the run that the command line describes."""
    if {"-h", "--help"} & set(sys.argv[1:2]):
        print(f"usage: run_state.py PROCESSES FLAG ...\n\n{__doc__}")
        return
    if len(sys.argv) < 3 or not sys.argv[1].isdigit() or int(sys.argv[1]) < 1:
        raise ConfigError("give the number of processes, followed by the flags of pretrain_tape.py")
    state, iteration = state_of(sys.argv[2:], int(sys.argv[1]))
    print(state, iteration)


def state_of(flags: Sequence[str], processes: int) -> tuple[str, int]:
    """``unfinished``, ``finished`` or ``stopped``, and the iteration of the last checkpoint.

    Args:
        flags: command line of pretrain_tape.py.
        processes: number of processes of the run; its batch size and length may depend on it.

    Raises:
        ConfigError: if the flags are invalid, or --save is missing.
        CheckpointError: if the checkpoint is damaged.
    """
    from pretrain.checkpointing import find_readable, read_metadata
    from pretrain.config.arguments import parse_arguments

    arguments = parse_arguments(flags, processes)
    save, training = arguments.checkpoint.save, arguments.training
    if save is None:
        raise ConfigError("a run without --save has no checkpoint to resume from")
    path = find_readable(save)
    metadata = read_metadata(path) if path is not None else {"iteration": 0}
    iteration = int(metadata["iteration"])
    if iteration >= training.train_iters and not metadata.get("evaluation_due", False):
        return "finished", iteration
    if iteration and iteration < training.train_iters and training.exit_reason(iteration) is not None:
        return "stopped", iteration
    return "unfinished", iteration


if __name__ == "__main__":
    sys.exit(run_cli(main))
