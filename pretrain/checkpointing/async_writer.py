"""Asynchronous checkpoints: the state is copied to the CPU, and a thread writes the copy while training continues."""

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

from .format import CheckpointConfig, RunDescription, RunState, named_tensors
from .index_reader import SINGLE_PROCESS_WARNING
from .retention import Retention
from .saving import write_checkpoint


class AsyncCheckpointWriter:
    """Writes the checkpoints of one run, one after the other; called by all ranks in the same order.

    While one is being written, CPU memory holds a copy of this rank's weights and optimizer state.

    Args:
        config: where to save, whether asynchronously, and how many checkpoints to keep; without a directory nothing
            is written.
        model: this rank's shards of the model.
        optimizer_state: returns the optimizer's tensors by name.
        description: description of the run, stored in each checkpoint.
        dims: the layout.
        control_group: all ranks; the thread uses it, so that nothing else may.
        start: iteration at which this run started or resumed; later checkpoints in the directory are of an earlier run.
    """

    def __init__(
        self,
        config: CheckpointConfig,
        model: nn.Module,
        optimizer_state: Callable[[], dict[str, Tensor]],
        description: RunDescription,
        dims: ParallelDims,
        control_group: ControlGroup,
        start: int | None = None,
    ) -> None:
        self._config = config
        self._model = model
        self._optimizer_state = optimizer_state
        self._description = description
        self._dims = dims
        self._control_group = control_group
        self._start = start
        self._saved: frozenset[int] = frozenset()
        self._staging = StagingBuffers()
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None
        self._written: list[Path] = []
        # Warnings can't be filtered for one thread only, so this one is filtered for the process.
        warnings.filterwarnings("ignore", message=SINGLE_PROCESS_WARNING)

    @property
    def failed(self) -> bool:
        """Whether the latest checkpoint could not be written; :meth:`wait` then raises the error."""
        return self._error is not None

    @property
    def busy(self) -> bool:
        """Whether a checkpoint is being written."""
        return self._thread is not None and self._thread.is_alive()

    def save(self, state: RunState) -> None:
        """Start to write the checkpoint of ``state``; the weights may change as soon as this returns.

        Waits until the previous checkpoint is complete, so that at most one is being written.

        Raises:
            CheckpointError: the previous checkpoint, or this one if not asynchronous, could not be written.
        """
        if self._config.save is None:
            return
        self.wait()
        root, tensors = Path(self._config.save), named_tensors(self._model, self._optimizer_state())
        if not self._config.async_save:
            self._write(root, tensors, state)
            self.wait()
            return
        arguments = (root, self._staging.copy(tensors), state)
        self._thread = threading.Thread(target=self._write, args=arguments, name="checkpoint", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until the latest checkpoint is complete.

        Raises:
            CheckpointError: it could not be written.
        """
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def written(self) -> list[Path]:
        """The checkpoints that have been completed since the last call."""
        done, self._written = self._written, []
        return done

    def _write(self, root: Path, tensors: dict[str, Any], state: RunState) -> None:
        keep = self._config.keep_last
        retention = Retention(keep, self._start, self._saved) if keep is not None else None
        try:
            path = write_checkpoint(root, tensors, state, self._description, self._dims, self._control_group, retention)
        except BaseException as error:
            self._error = error
        else:
            self._written = [*self._written, path]
            self._saved |= {state.iteration}


class StagingBuffers:
    """CPU memory for copies of tensors, reused from one checkpoint to the next; pinned if the tensors are on a GPU."""

    def __init__(self) -> None:
        self._memory: dict[str, Tensor] = {}

    @torch.no_grad()
    def copy(self, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        """Copies by the same names, complete on return; the copy of a DTensor is a DTensor of the same layout."""
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
        # DTensor.from_local would move the copy to the device of the mesh.
        return DTensor(memory, value._spec, requires_grad=False)
