"""Checkpoints beside the training: the state is copied to the CPU, then a thread writes it while training goes on."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from pretrain.parallel import ControlGroup, ParallelDims

from .format import CheckpointConfig, RunDescription, RunState
from .index_reader import SINGLE_PROCESS_WARNING, named_tensors
from .retention import Retention
from .saving import write_checkpoint


class AsyncCheckpointWriter:
    """Writes the checkpoints of one run, one after another; used by all ranks in the same order.

    While one is being written, the CPU memory holds a second copy of this rank's weights and optimizer.

    Args:
        config: where to, whether in the background, how many to keep; without a directory nothing is ever written.
        model: whose weights to save.
        optimizer_state: gives the optimizer's tensors by name.
        description: what each checkpoint says about the run.
        dims: the layout.
        ranks: a group that nobody else uses: a thread talks through it.
        start: iteration at which this start began; later checkpoints in the directory are of an earlier run.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        model: nn.Module,
        optimizer_state: Callable[[], dict[str, Tensor]],
        description: RunDescription,
        dims: ParallelDims,
        ranks: ControlGroup,
        start: int | None = None,
    ) -> None:
        self._config = config
        self._model = model
        self._optimizer_state = optimizer_state
        self._description = description
        self._dims = dims
        self._ranks = ranks
        self._start = start
        self._saved: frozenset[int] = frozenset()
        self._copies = TensorCopies()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._written: list[Path] = []
        # A thread can't filter warnings for itself alone, so this one is switched off here.
        warnings.filterwarnings("ignore", message=SINGLE_PROCESS_WARNING)

    @property
    def failed(self) -> bool:
        """Whether the checkpoint begun last couldn't be written; :meth:`wait` then says why."""
        return self._error is not None

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def save(self, state: RunState) -> None:
        """Begin the checkpoint of ``state``; the weights may change as soon as this returns.

        Waits until the one before is complete, so that at most one is in flight.

        Raises:
            CheckpointError: this one (when not in the background) or the one before couldn't be written.
        """
        if self._config.save is None:
            return
        self.wait()
        root, tensors = Path(self._config.save), named_tensors(self._model, self._optimizer_state())
        if not self._config.in_background:
            self._write(root, tensors, state)
            self.wait()
            return
        arguments = (root, self._copies.of(tensors), state)
        self._thread = threading.Thread(target=self._write, args=arguments, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Until the checkpoint begun last is complete.

        Raises:
            CheckpointError: it couldn't be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def written(self) -> list[Path]:
        """Checkpoints completed since this was asked last."""
        done, self._written = self._written, []
        return done

    def _write(self, root: Path, tensors: dict[str, Any], state: RunState) -> None:
        keep = self._config.keep_last
        retention = Retention(keep, self._start, self._saved) if keep is not None else None
        try:
            path = write_checkpoint(root, tensors, state, self._description, self._dims, self._ranks, retention)
        except BaseException as error:
            self._error = error
        else:
            self._written = [*self._written, path]
            self._saved |= {state.iteration}


class TensorCopies:
    """Copies of tensors on the CPU; their memory is used again for the next copies."""

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    @torch.no_grad()
    def of(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same names with copies, complete on return. A part of a split tensor stays a part."""
        return {name: self._copy(name, value) for name, value in tensors.items()}

    def _copy(self, name: str, value: Tensor) -> Tensor:
        local = value.to_local() if isinstance(value, DTensor) else value
        memory = self._memory.get(name)
        if memory is None or memory.shape != local.shape or memory.dtype != local.dtype:
            memory = torch.empty(local.shape, dtype=local.dtype, pin_memory=local.device.type == "cuda")
            self._memory[name] = memory
        memory.copy_(local)
        if not isinstance(value, DTensor):
            return memory
        # from_local would carry the copy back to the mesh's device
        return DTensor(memory, value._spec, requires_grad=False)
