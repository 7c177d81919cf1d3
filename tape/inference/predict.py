"""What a finetuned model says about the proteins of a file (``tape_eval.py ... --predict FILE``); without labels."""

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
from tape.evaluation.evaluate import EvaluationConfig, evaluation_mode
from tape.runtime.distributed import DistributedContext
from tape.runtime.precision import autocast
from tape.runtime.progress import progress_bar
from tape.tasks import TaskType

PREDICTED_TASK_TYPES = (TaskType.VALUE, TaskType.SEQUENCE_CLASS, TaskType.RESIDUE_CLASS, TaskType.RESIDUE_PAIR)


@dataclass(frozen=True)
class Prediction:
    """Of one protein.

    Attributes:
        index: of the protein in its file, from 0.
        identifier: its id.
        sequence: the residues that the prediction is about (fewer than the file's under ``--length crop``).
        values: depends on the task type: the value (1,), or the probabilities of the classes (C,), of the classes of
            each residue (L, C), or of a contact of each pair of residues (L, L).
    """

    index: int
    identifier: str
    sequence: str
    values: np.ndarray


def check_predicted(task: str, task_type: TaskType) -> None:
    """Refuse tasks whose models say nothing about a protein by themselves.

    Raises:
        ConfigError: a language model, or one that reads alignments.
    """
    if task_type not in PREDICTED_TASK_TYPES:
        raise ConfigError(
            f"--predict gives values, classes or contacts of single sequences, which {task} does not predict"
        )


def predict(
    model: nn.Module, dataset: EmbedDataset, task_type: TaskType, config: EvaluationConfig, context: DistributedContext
) -> Iterator[Prediction]:
    """Predictions for this rank's share of the proteins, longest first, as each batch is done.

    Args:
        model: with TAPE's calling convention.
        dataset: the proteins.
        task_type: of the task.
        config: batch size, workers, precision.
        context: the processes among which the proteins are divided.
    """
    lengths = lengths_of(dataset)
    plan = plan_evaluation(lengths, config.batch_size, context.rank, context.world_size, config.max_tokens)
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
            with autocast(config.precision, context.device):
                outputs = model(**inputs)[0].float().cpu()
            for row, (index, count) in enumerate(zip(indices.tolist(), tokens.tolist(), strict=True)):
                residues = dataset.tokenizer.convert_ids_to_tokens(batch["input_ids"][row, 1 : count - 1].tolist())
                values = probabilities(task_type, outputs[row], count - 2)
                yield Prediction(index, batch["ids"][row], "".join(residues), values)
            bar.update(len(indices) * context.world_size)


def probabilities(task_type: TaskType, output: Tensor, length: int) -> np.ndarray:
    """What :class:`Prediction` holds, from one protein's row of a model's output with its padding."""
    if task_type == TaskType.VALUE:
        values = output
    elif task_type == TaskType.SEQUENCE_CLASS:
        values = output.softmax(-1)
    elif task_type == TaskType.RESIDUE_CLASS:
        values = output[1 : length + 1].softmax(-1)
    else:
        values = output[:length, :length].softmax(-1)[..., 1]
    return np.asarray(values.to(torch.float32).numpy())
