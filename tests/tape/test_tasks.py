"""The built-in tasks."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tape.registry import registry
from tape.tasks import BUILT_IN_TASKS, TASK_TYPE_TRAITS, TASKS, Task, TaskType


def test_published_names_folders_and_sizes() -> None:
    assert {task.name: (task.num_labels, task.folder) for task in BUILT_IN_TASKS} == {
        "embed": (-1, ""),
        "masked_language_modeling": (-1, "pfam"),
        "language_modeling": (-1, "pfam"),
        "fluorescence": (-1, "fluorescence"),
        "stability": (-1, "stability"),
        "remote_homology": (1195, "remote_homology"),
        "contact_prediction": (-1, "proteinnet"),
        "secondary_structure": (3, "secondary_structure"),
        "secondary_structure_8": (8, "secondary_structure"),
        "trrosetta": (-1, "trrosetta"),
    }


def test_the_task_type_selects_the_head() -> None:
    assert TASKS["stability"].model_references == {
        "transformer": "tape.models.modeling_bert:ProteinBertForValuePrediction",
        "lstm": "tape.models.modeling_lstm:ProteinLSTMForValuePrediction",
        "onehot": "tape.models.modeling_onehot:ProteinOneHotForValuePrediction",
        "resnet": "tape.models.modeling_resnet:ProteinResNetForValuePrediction",
        "unirep": "tape.models.modeling_unirep:UniRepForValuePrediction",
        "huggingface": "tape.models.modeling_huggingface:ProteinHuggingFaceForValuePrediction",
    }
    assert Task("a third party's").model_references == {}


def test_every_task_type_has_traits() -> None:
    assert set(TASK_TYPE_TRAITS) == set(TaskType)


@pytest.mark.parametrize("task", [task for task in BUILT_IN_TASKS if task.dataset], ids=lambda task: task.name)
def test_every_reference_resolves(task: Task) -> None:
    spec = registry.get_task_spec(task.name)
    assert spec.dataset_class.task is task
    for name in task.models:
        assert spec.get_model(name).config_class is not None


def test_tasks_registry_and_parsers_do_not_import_torch() -> None:
    code = (
        "import sys, tape.main, tape.cli.train; tape.cli.train.create_train_parser(); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
