"""The registry: TAPE's decorators and plain calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tape import ProteinBertForValuePrediction, ProteinConfig, ProteinModel, ProteinOneHotForValuePrediction
from tape.errors import ConfigError
from tape.registry import Registry, TAPETaskSpec, TaskSpec
from tape.tasks import Task, TaskType


@pytest.fixture
def registry() -> Registry:
    """A separate registry, so that tests do not change the shared one."""
    return Registry()


class SomeDataset:
    pass


class SomeModel:
    pass


def test_a_task_is_registered_by_decorator_and_by_call(registry: Registry) -> None:
    @registry.register_task("by_decorator", num_labels=4)
    class Decorated:
        pass

    assert registry.register_task("by_call", dataset=SomeDataset, models={"m": SomeModel}) is SomeDataset
    assert registry.get_task_spec("by_decorator").dataset_class is Decorated
    assert registry.get_task_spec("by_decorator").num_labels == 4
    assert registry.get_task_spec("by_call").get_model("m") is SomeModel


def test_a_model_is_registered_by_decorator_and_by_call(registry: Registry) -> None:
    @registry.register_task_model("fluorescence", "decorated")
    class Decorated:
        pass

    registry.register_task_model("fluorescence", "called", SomeModel)
    spec = registry.get_task_spec("fluorescence")
    assert spec.get_model("decorated") is Decorated
    assert spec.get_model("called") is SomeModel


def test_a_complete_task_spec_is_registered(registry: Registry) -> None:
    registry.register_task_spec("whole", TaskSpec(Task("whole", num_labels=2), SomeDataset))

    @registry.register_task_spec("made")
    def make() -> TaskSpec:
        return TaskSpec(Task("made", num_labels=5), SomeDataset)

    assert registry.get_task_spec("whole").num_labels == 2
    assert registry.get_task_spec("made").num_labels == 5


def test_a_spec_of_tape_is_registered_and_makes_its_data_set(registry: Registry, small_data: Path) -> None:
    spec = TAPETaskSpec("theirs", dataset=SomeDataset, num_labels=3, models={"m": SomeModel})
    registry.register_task_spec("theirs", spec)
    found = registry.get_task_spec("theirs")
    assert (found.name, found.num_labels, found.dataset, found.get_model("m")) == ("theirs", 3, SomeDataset, SomeModel)
    built_in = registry.get_task_spec("stability").dataset(small_data, "train", "iupac")
    assert type(built_in).__name__ == "StabilityDataset"


def test_a_task_type_may_be_given(registry: Registry) -> None:
    registry.register_task("shaped", dataset=SomeDataset, task_type="residue class")
    assert registry.get_task_spec("shaped").task_type is TaskType.RESIDUE_CLASS


def test_a_name_can_be_registered_again_only_with_the_same_definition(registry: Registry) -> None:
    registry.register_task("mine", dataset=SomeDataset)
    registry.register_task("mine", dataset=SomeDataset)
    with pytest.raises(ConfigError, match="'mine' is registered already"):
        registry.register_task("mine", dataset=SomeModel)
    registry.register_task_model("stability", "mine", SomeModel)
    with pytest.raises(ConfigError, match="has a model named 'mine' already"):
        registry.register_task_model("stability", "mine", SomeDataset)
    registry.register_metric("mine")(len)
    with pytest.raises(ConfigError, match="metric named 'mine'"):
        registry.register_metric("mine")(max)


def test_a_registration_replaces_a_built_in_one_with_a_log_line(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    """TAPE's tutorial registers ``secondary_structure_8``, which is built in here."""
    registry.register_task("secondary_structure_8", num_labels=8)(SomeDataset)
    registry.register_task_model("secondary_structure_8", "transformer", SomeModel)
    registry.register_metric("mse")(max)
    spec = registry.get_task_spec("secondary_structure_8")
    assert (spec.dataset_class, spec.get_model("transformer"), registry.get_metric("mse")) == (
        SomeDataset,
        SomeModel,
        max,
    )
    assert spec.get_model("onehot").__name__ == "ProteinOneHotForSequenceToSequenceClassification"
    assert [record.getMessage() for record in caplog.records] == [
        "the built-in task secondary_structure_8 is replaced by SomeDataset",
        "the built-in model transformer of task secondary_structure_8 is replaced by SomeModel",
        "the built-in metric mse is replaced by max",
    ]


def test_a_task_without_a_data_set_may_be_registered_later(registry: Registry) -> None:
    registry.task_name_mapping["reserved"] = TaskSpec(Task("reserved"), "")
    assert not registry.get_task_spec("reserved").is_available
    registry.register_task("reserved", dataset=SomeDataset)
    assert registry.get_task_spec("reserved").is_available


def test_an_unknown_name_lists_the_registered_ones(registry: Registry) -> None:
    with pytest.raises(ConfigError, match="unknown task 'nope'; registered: contact_prediction"):
        registry.get_task_spec("nope")
    with pytest.raises(ConfigError, match="no model 'gru'; registered: huggingface, lstm, onehot, resnet"):
        registry.get_task_spec("stability").get_model("gru")
    with pytest.raises(ConfigError, match="unknown metric 'nope'"):
        registry.get_metric("nope")
    with pytest.raises(ConfigError, match="has no dataset"):
        _ = TaskSpec(Task("empty")).dataset_class


def test_metrics_are_functions_of_target_and_prediction(registry: Registry) -> None:
    @registry.register_metric("first_difference")
    def first_difference(target: list[float], prediction: list[float]) -> float:
        return prediction[0] - target[0]

    assert registry.get_metric("first_difference")([1.0], [3.0]) == 2.0
    assert registry.get_metric("mse")([1.0, 1.0], [2.0, 3.0]) == 2.5
    # bug 14 in docs/compatibility.md: L5 is a number, not the length of the target
    assert 0.0 <= registry.get_metric("L5")([[[1] * 12] * 12], [[[[0.0, 1.0]] * 12] * 12]) <= 1.0


def test_models_are_built_from_a_file_from_a_directory_and_from_defaults(
    registry: Registry, small_config: Path, tmp_path: Path
) -> None:
    model = registry.get_task_model("transformer", "fluorescence", small_config, initializer_range=0.5)
    assert isinstance(model, ProteinBertForValuePrediction)
    assert (model.config.hidden_size, model.config.initializer_range, model.config.num_labels) == (16, 0.5, -1)
    model.save_pretrained(tmp_path)
    loaded = registry.get_task_model("transformer", "remote_homology", load_dir=tmp_path)
    assert loaded.config.num_labels == 1195
    assert isinstance(registry.get_task_model("onehot", "stability"), ProteinOneHotForValuePrediction)


class DemandingConfig(ProteinConfig):
    def __init__(self, width: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.width = width


class DemandingModel(ProteinModel):
    config_class = DemandingConfig


def test_a_configuration_without_defaults_is_read_from_its_file(registry: Registry, tmp_path: Path) -> None:
    registry.register_task_model("stability", "demanding", DemandingModel)
    file = tmp_path / "config.json"
    file.write_text('{"width": 3, "color": "red"}')
    words = ("demanding", "stability")
    model = registry.get_task_model(*words, file, finetuning_task="stability", color="blue")
    assert (model.config.width, model.config.color) == (3, "blue")
    model.save_pretrained(tmp_path)
    assert registry.get_task_model(*words, load_dir=tmp_path, width=4).config.width == 4
    for place in ({"config_file": file}, {"load_dir": tmp_path}):
        with pytest.raises(ConfigError, match="DemandingConfig has no widht; it has color"):
            registry.get_task_model(*words, **place, widht=4)
    with pytest.raises(ConfigError, match="DemandingConfig has no default configuration .*width"):
        registry.get_task_model(*words)


def test_a_misspelled_configuration_key_is_refused(registry: Registry, small_config: Path) -> None:
    with pytest.raises(ConfigError, match="ProteinBertConfig has no hiden_size; it has .*hidden_size"):
        registry.get_task_model("transformer", "fluorescence", small_config, hiden_size=3)
