"""Stores the metrics and models of a run in its directory, and its metrics for TensorBoard and wandb."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import nn

from tape.datasets.sources import dataset_provenance
from tape.errors import ProteinLMError
from tape.evaluation.records import TrainingSize, finite
from tape.evaluation.results import TRAINING
from tape.io.credentials import without_credentials
from tape.io.run_layout import BEST_NAME, LATEST_NAME, STEP_PREFIX
from tape.models.model_directory import directory_provenance
from tape.runtime.distributed import DistributedContext
from tape.runtime.process import log_to_file
from tape.runtime.tensorboard import TensorBoardWriter
from tape.runtime.wandb_log import WandBWriter, import_wandb
from tape.tokenizers import TAPETokenizer
from tape.version import __version__

from .best_epoch import LOSS, metric_of
from .checkpoint import TrainerState, save_epoch
from .config import FinetuneConfig, OutputConfig
from .data import TrainingData
from .resume import TRAIN_SAMPLES
from .run_directory import LOG_NAME, RunDirectory

logger = logging.getLogger(__name__)


class RunLogger:
    """Writes the metrics and models of a :class:`tape.finetuning.trainer.Finetuner`. Exists on rank 0 alone.

    Args:
        run: directory of the run.
        log_dir: TensorBoard files are written to ``log_dir/NAME_OF_THE_RUN``, those of wandb to ``log_dir/wandb``.
        tokenizer: vocabulary that the model is trained with.
        provenance: origin of the weights; each saved epoch adds its number.
        arguments: all options by name, for wandb.
        metric: the validation metric that the best epoch is chosen by.
    """

    def __init__(
        self,
        run: RunDirectory,
        log_dir: Path,
        tokenizer: TAPETokenizer,
        provenance: dict[str, Any],
        arguments: Mapping[str, Any] = MappingProxyType({}),
        metric: str = LOSS,
    ) -> None:
        self._metric = metric
        self._run, self._tokenizer, self._provenance = run, tokenizer, provenance
        self._writer = TensorBoardWriter(log_dir / run.path.name)
        wandb = import_wandb()
        self._wandb = None if wandb is None else WandBWriter(wandb, log_dir, run.path.name, arguments)

    def resume_after(self, source: Path | None, state: TrainerState, changes: Iterable[str], steps: int) -> None:
        """Drop what was saved after the resumed state, and log what changes.

        Args:
            source: the model directory in the run to resume from; None: it is in a run of another program.
            state: progress of the resumed run.
            changes: a line for each option that differs from the interrupted run's.
            steps: optimizer steps of the interrupted run.
        """
        if source is not None:
            self._run.drop_after(source, state.epoch)
            self.write_best(state)
        logger.info("resuming after epoch %d, step %d, in %s", state.epoch, state.global_step, self._run.path)
        if steps != state.global_step:
            logger.warning("its %d optimizer steps count as %d of this batch size and data", steps, state.global_step)
        for change in changes:
            logger.warning(change)

    def log_scalars(self, group: str, values: dict[str, float], step: int) -> None:
        """Write TensorBoard values ``group/name``, and those of wandb."""
        self._writer.add_scalars(group, values, step)
        if self._wandb is not None:
            self._wandb.add_scalars(group, values, step)

    def log_epoch(self, record: dict[str, Any]) -> None:
        """Append an epoch's record to the history; nan and infinity become null."""
        for group in ("train", "valid"):
            if record[group] is not None:
                record = {**record, group: {name: finite(value) for name, value in record[group].items()}}
        self._run.add_history(record)

    def save(self, model: nn.Module, training_state: dict[str, Any], state: TrainerState, loss: float | None) -> None:
        """Save an epoch, then write ``latest.json`` and ``best.json``."""
        save_epoch(
            self._run.epoch_directory(state.epoch),
            model,
            training_state,
            state,
            tokenizer=self._tokenizer,
            provenance={**self._provenance, "epoch": state.epoch, "step": state.global_step},
        )
        self._run.write_pointer(LATEST_NAME, state.epoch, "loss", None if loss is None else finite(loss))
        self.write_best(state)
        self._run.remove_interrupted_states()

    def save_interrupted(self, model: nn.Module, training_state: dict[str, Any], state: TrainerState) -> None:
        """Save the state of an interrupted run in ``step_N``, then write ``latest.json``."""
        directory = self._run.path / f"{STEP_PREFIX}{state.global_step}"
        save_epoch(
            directory,
            model,
            training_state,
            state,
            tokenizer=self._tokenizer,
            provenance={**self._provenance, "epoch": state.epoch, "step": state.global_step},
        )
        self._run.write_pointer(LATEST_NAME, state.epoch, "loss", None, directory.name)
        self._run.remove_interrupted_states(kept=directory)

    def write_best(self, state: TrainerState) -> None:
        """Write ``best.json`` for the best saved epoch, if any was validated."""
        if state.best_saved_loss is not None:
            value = metric_of(state.best_saved_loss, self._metric)
            self._run.write_pointer(BEST_NAME, state.best_saved_epoch, self._metric, value)

    def draw_curves(self) -> None:
        """Draw the training curves in the run's directory; an error is logged, because the model is saved."""
        try:
            picture = self._run.draw_curves()
        except (ProteinLMError, OSError) as error:
            logger.warning("no picture of the training curves: %s", error)
            return
        if picture is not None:
            logger.info("training curves: %s", picture)

    def close(self) -> None:
        """Close the TensorBoard file, and end the run of wandb."""
        self._writer.close()
        if self._wandb is not None:
            self._wandb.close()


@contextmanager
def open_run_logger(
    config: FinetuneConfig,
    run: RunDirectory,
    data: TrainingData,
    data_sha256: Mapping[str, str | None],
    source: Path | None,
    tokenizer: TAPETokenizer,
    context: DistributedContext,
) -> Iterator[RunLogger | None]:
    """Rank 0's logger, with the log file, inside the block; None on other ranks.

    Args:
        config: configuration of the run.
        run: its directory.
        data: training data, whose provenance is stored with the models.
        data_sha256: digests of the data, by which a resumed run recognizes them.
        source: model directory that the run starts or resumes from; None: new weights.
        tokenizer: vocabulary that the model is trained with.
        context: the ranks that train together.
    """
    if not context.is_main:
        yield None
        return
    with log_to_file(run.path / LOG_NAME):
        provenance = {
            "kind": "finetuned",
            "task": config.task,
            "model_type": config.model.model_type,
            "initialised_from": without_credentials(config.model.from_pretrained or "") or None,
            "data": dataset_provenance(data.train),
            TRAINING: _training(config, data, data_sha256, source),
            "data_sha256": dict(data_sha256),
            "seed": config.loop.seed,
            "code_version": __version__,
        }
        metric = config.loop.metric_for_best_model
        log_dir = _log_dir(config.output, run)
        run_logger = RunLogger(run, log_dir, tokenizer, provenance, config.output.arguments, metric)
        try:
            yield run_logger
        finally:
            run_logger.close()


def _training(
    config: FinetuneConfig, data: TrainingData, data_sha256: Mapping[str, str | None], source: Path | None
) -> dict[str, Any] | None:
    """The number of training proteins for the provenance; None if the weights have also been trained on others.

    These are the proteins of an interrupted run that had others, or did not record which, and those of a model that was
    finetuned on the same task before.
    """
    size = TrainingSize(len(data.indices), len(data.lengths))
    before = {} if source is None else directory_provenance(source)
    if config.resume is not None:
        earlier = before.get("data_sha256")
        has_same = isinstance(earlier, Mapping) and earlier.get(TRAIN_SAMPLES) == data_sha256[TRAIN_SAMPLES]
        return asdict(size) if has_same and before.get(TRAINING) is not None else None
    is_finetuned = before.get("kind") == "finetuned" and before.get("task") == config.task
    return None if is_finetuned and size.proteins < size.available else asdict(size)


def _log_dir(output: OutputConfig, run: RunDirectory) -> Path:
    """The parent of the run's TensorBoard directory: its place in ``log_dir`` is that of the run in ``output_dir``."""
    path, output_dir = run.path.resolve(), Path(output.output_dir).resolve()
    return Path(output.log_dir) / (path.parent.relative_to(output_dir) if path.is_relative_to(output_dir) else "")
