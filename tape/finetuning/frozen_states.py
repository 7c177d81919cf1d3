"""States of a frozen encoder (``--freeze``), which are computed once and kept for all epochs.

A frozen encoder has no dropout, so a protein has the same states in every epoch. They are computed before the first
epoch, in the batches of an evaluation: the batches of an epoch are drawn anew each time, and the last digits of a state
depend on its batch, so that a resumed run would not be the same one.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, TypeGuard

import numpy as np
import torch
from torch import Tensor, nn

from tape.datasets.batching import plan_evaluation
from tape.datasets.index import lengths_of
from tape.datasets.labels import Batch, model_inputs
from tape.datasets.loading import load_batches, worker_count
from tape.evaluation.config import InferenceConfig
from tape.evaluation.evaluate import batch_shape, memory_remedies
from tape.models import unpadding
from tape.models.freezing import frozen_encoder_of
from tape.models.modeling_bert import ProteinBertModel
from tape.models.modeling_huggingface import ProteinHuggingFaceModel
from tape.models.modeling_lstm import ProteinLSTMModel
from tape.models.modeling_resnet import ProteinResNetModel
from tape.models.modeling_unirep import UniRepModel
from tape.runtime.distributed import DistributedContext
from tape.runtime.out_of_memory import explain_out_of_memory
from tape.runtime.precision import autocast
from tape.runtime.progress import progress_bar
from tape.runtime.stop_signals import StopSignals
from tape.tasks import TaskType
from tape.tokenizers import SPECIAL_TOKENS_PER_PROTEIN

from .data import TrainingData

MOST_BYTES = 4 << 30
# Their states of a protein depend on nothing but its tokens; of other encoders, this is not known.
_Encoder = ProteinBertModel | ProteinLSTMModel | ProteinResNetModel | UniRepModel | ProteinHuggingFaceModel

logger = logging.getLogger(__name__)

Outputs = tuple[Any, ...]


@contextmanager
def kept_states(
    model: nn.Module,
    data: TrainingData | None,
    task_type: TaskType,
    inference: InferenceConfig,
    context: DistributedContext,
    signals: StopSignals,
) -> Iterator[None]:
    """Inside the block, a frozen encoder gives the states of the proteins in ``data`` without computing them again.

    No states are kept of an encoder that is trained or a third party's, in runs of several ranks, which see other
    proteins in each epoch, and of inputs that are drawn anew in each epoch; nor if all of them would take more than
    MOST_BYTES, which is logged.

    Args:
        model: the task model, on its device.
        data: training set, and validation set if it is read as whole proteins; None: no epoch is left.
        task_type: type of the task.
        inference: batches and precision of the pass, which should be those of validation.
        context: the ranks.
        signals: at a stop signal, the pass ends.
    """
    encoder = frozen_encoder_of(model)
    if data is None or hasattr(data.train, "set_epoch") or context.is_distributed or not _is_kept(encoder):
        yield
        return
    batch_size = inference.batch_size_for(task_type)
    passes = [_ForwardPass.of(data.train, data.indices, batch_size, inference)]
    if data.valid is not None:
        passes.append(_ForwardPass.of(data.valid, np.arange(len(data.valid)), batch_size, inference))
    size = 4 * encoder.state_size * sum(forward_pass.tokens for forward_pass in passes)  # in fp32
    if size > MOST_BYTES:
        gib = (size / 2**30, MOST_BYTES / 2**30)
        logger.info("the frozen encoder computes its states in each epoch: all would take %.1f GiB, above %.0f", *gib)
        yield
        return
    states = FrozenStates(encoder)
    proteins = sum(forward_pass.proteins for forward_pass in passes)
    remedies = memory_remedies(inference.precision)
    remedies = replace(remedies, several=("more --gradient_accumulation_steps", *remedies.several))
    start = time.monotonic()
    with progress_bar("states of the frozen encoder", proteins, "protein", disable=not context.is_main) as bar:
        for batch in itertools.chain.from_iterable(passes):
            if signals.received:
                break
            with explain_out_of_memory("the forward pass", batch_shape(batch), remedies):
                states.keep(model_inputs(batch, context.device), inference.precision)
            bar.update(len(batch["input_ids"]))
        else:
            seconds = time.monotonic() - start
            text = "the frozen encoder has computed its states of %d proteins for all epochs in %.1f s"
            logger.info(text, proteins, seconds)
    encoder.forward = states  # type: ignore[method-assign]
    try:
        yield
    finally:
        del encoder.forward


@dataclass(frozen=True)
class _ForwardPass:
    """The batches of a forward pass over proteins of a data set."""

    dataset: Any
    plan: list[np.ndarray]
    workers: int
    proteins: int
    tokens: int

    @classmethod
    def of(cls, dataset: Any, indices: np.ndarray, batch_size: int, inference: InferenceConfig) -> _ForwardPass:
        lengths = lengths_of(dataset)[indices]
        plan = [indices[chosen] for chosen in plan_evaluation(lengths, batch_size, max_tokens=inference.max_tokens)]
        workers = worker_count(inference.num_workers, len(indices))
        return cls(dataset, plan, workers, len(indices), int(lengths.sum()) + SPECIAL_TOKENS_PER_PROTEIN * len(indices))

    def __iter__(self) -> Iterator[Batch]:
        return load_batches(self.dataset, self.plan, num_workers=self.workers)


def _is_kept(encoder: nn.Module | None) -> TypeGuard[_Encoder]:
    """Whether states and pooled output, which depend on the tokens alone, are all of the encoder's outputs."""
    if not isinstance(encoder, _Encoder):
        return False
    config = encoder.config
    return not (getattr(config, "output_attentions", False) or getattr(config, "output_hidden_states", False))


class FrozenStates:
    """Stands in for ``forward`` of an encoder.

    Batches in which a protein has no states that were kept are computed as a whole.

    Args:
        encoder: in evaluation mode whenever it is called.
    """

    def __init__(self, encoder: nn.Module) -> None:
        self._encoder, self._compute = encoder, encoder.forward
        self._kept: dict[bytes, tuple[Tensor, Tensor]] = {}  # by tokens: states (L, H), pooled (P,)

    @torch.no_grad()
    def keep(self, inputs: Batch, precision: str) -> None:
        """Compute and keep the states of a batch of padded proteins."""
        input_ids, input_mask = inputs["input_ids"], inputs.get("input_mask")
        self._encoder.eval()
        with autocast(precision, input_ids.device):
            states, pooled = self._compute(input_ids, input_mask)
        keys = _keys(input_ids, input_mask)
        if keys is None:
            return
        real = torch.ones_like(input_ids, dtype=torch.bool) if input_mask is None else input_mask != 0
        by_protein = states[real].cpu().split(real.sum(1).tolist())
        self._kept.update(zip(keys, zip(by_protein, pooled.cpu(), strict=True), strict=True))

    def __call__(self, input_ids: Tensor, input_mask: Tensor | None = None, **others: Any) -> Outputs:
        """As the encoder's ``forward``: (states (B, S, H), 0 at padding; pooled (B, P))."""
        found = None if others else self._found(input_ids, input_mask)
        if found is None:
            outputs: Outputs = self._compute(input_ids, input_mask, **others)
            return outputs
        by_protein, pooled = zip(*found, strict=True)
        states = by_protein[0].new_zeros(*input_ids.shape, by_protein[0].shape[-1])
        for row, of_protein in zip(states, by_protein, strict=True):
            row[: len(of_protein)] = of_protein
        return states.to(input_ids.device), torch.stack(pooled).to(input_ids.device)

    def _found(self, input_ids: Tensor, input_mask: Tensor | None) -> list[tuple[Tensor, Tensor]] | None:
        keys = _keys(input_ids, input_mask)
        if not keys or not all(key in self._kept for key in keys):
            return None
        return [self._kept[key] for key in keys]


def _keys(input_ids: Tensor, input_mask: Tensor | None) -> list[bytes] | None:
    """The tokens of each protein; None if padding is not at the end of each."""
    lengths: Iterable[int] = [input_ids.shape[1]] * len(input_ids)
    if input_mask is not None:
        counted = unpadding.lengths_of(input_mask != 0)
        if counted is None:
            return None
        lengths = counted.tolist()
    rows = input_ids.to("cpu", torch.int32)
    return [row[:length].numpy().tobytes() for row, length in zip(rows, lengths, strict=True)]
