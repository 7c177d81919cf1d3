"""Predictions of a finetuned model for unlabeled proteins (``tape_eval.py ... --predict FILE``)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tape.datasets.batching import plan_evaluation
from tape.datasets.embedding import EmbedDataset
from tape.datasets.index import lengths_of
from tape.datasets.labels import model_inputs
from tape.datasets.loading import load_batches, worker_count
from tape.errors import ConfigError
from tape.evaluation.config import InferenceConfig
from tape.evaluation.evaluate import batch_shape, evaluation_mode, memory_remedies
from tape.evaluation.windows import pass_lengths
from tape.runtime.distributed import DistributedContext
from tape.runtime.out_of_memory import explain_out_of_memory
from tape.runtime.precision import autocast
from tape.runtime.progress import progress_bar
from tape.tasks import TaskType

PREDICTED_TASK_TYPES = (
    TaskType.VALUE,
    TaskType.SEQUENCE_CLASS,
    TaskType.MULTILABEL,
    TaskType.RESIDUE_CLASS,
    TaskType.RESIDUE_PAIR,
)


@dataclass(frozen=True)
class Prediction:
    """The prediction for one protein.

    Attributes:
        index: number of the protein in its file, from 0.
        identifier: id of the protein.
        sequence: the residues that the prediction is for, which ``--length crop`` may have cropped.
        values: depends on the task type: the value (1,) or several (T,), or the probabilities of the classes (C,), of
            the classes of each residue (L, C), or of a contact of each pair of residues (L, L).
    """

    index: int
    identifier: str
    sequence: str
    values: np.ndarray


def check_predicted(task: str, task_type: TaskType) -> None:
    """Check that the task predicts labels of single proteins.

    Raises:
        ConfigError: the task is a language model, or its input is an alignment.
    """
    if task_type not in PREDICTED_TASK_TYPES:
        raise ConfigError(
            f"--predict needs a task that predicts values, classes or contacts of single sequences; {task} does not"
        )


def predict(
    model: nn.Module, dataset: EmbedDataset, task_type: TaskType, config: InferenceConfig, context: DistributedContext
) -> Iterator[Prediction]:
    """Yield the predictions for this rank's share of the proteins, longest first.

    Args:
        model: a task model with TAPE's signature of ``forward``.
        dataset: the proteins.
        task_type: type of the task.
        config: batch size, workers and precision.
        context: the process group among which the proteins are divided.
    """
    lengths = pass_lengths(model, lengths_of(dataset))
    plan = plan_evaluation(
        lengths, config.batch_size_for(task_type), context.rank, context.world_size, config.max_tokens
    )
    workers = worker_count(config.num_workers, len(dataset))
    with (
        evaluation_mode(model),
        progress_bar("prediction", len(dataset), "protein", disable=not context.is_main) as bar,
    ):
        for indices, batch in zip(plan, load_batches(dataset, plan, num_workers=workers), strict=True):
            inputs = model_inputs(batch, context.device)
            tokens = (batch["input_mask"] != 0).sum(1)
            if task_type == TaskType.RESIDUE_PAIR:
                inputs["protein_length"] = (tokens - 2).to(context.device)
            with (
                explain_out_of_memory("the forward pass", batch_shape(inputs), memory_remedies(config.precision)),
                autocast(config.precision, context.device),
            ):
                outputs = model(**inputs)[0].float().cpu()
            for row, (index, count) in enumerate(zip(indices.tolist(), tokens.tolist(), strict=True)):
                residues = dataset.tokenizer.convert_ids_to_tokens(batch["input_ids"][row, 1 : count - 1].tolist())
                values = probabilities(task_type, outputs[row], count - 2)
                yield Prediction(index, batch["ids"][row], "".join(residues), values)
            bar.update(len(indices) * context.world_size)


def probabilities(task_type: TaskType, output: Tensor, length: int) -> np.ndarray:
    """``values`` of a :class:`Prediction`, from the output of a model for one protein, with padding."""
    if task_type == TaskType.VALUE:
        values = output
    elif task_type == TaskType.SEQUENCE_CLASS:
        values = output.softmax(-1)
    elif task_type == TaskType.MULTILABEL:
        values = output.sigmoid()
    elif task_type == TaskType.RESIDUE_CLASS:
        values = output[1 : length + 1].softmax(-1)
    else:
        values = output[:length, :length].softmax(-1)[..., 1]
    return np.asarray(values.to(torch.float32).numpy())
