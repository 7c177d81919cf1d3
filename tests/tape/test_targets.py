"""The target of a model of a user's own table, as ``config.json`` stores it."""

from __future__ import annotations

from typing import Any

import pytest

from tape.configs import ProteinOneHotConfig
from tape.errors import ConfigError
from tape.targets import Scale, Target, target_of
from tape.tasks import TaskType

VALUE = Target("my_Tm", TaskType.VALUE, ("Tm",), scales=(Scale(57.5, 6.25),))
SEVERAL = Target("my_Tm_kcat", TaskType.VALUE, ("Tm", "kcat"), scales=(Scale(57.5, 6.25), Scale(0.5, 0.125)))
CLASSES = Target("my_place", TaskType.SEQUENCE_CLASS, ("place",), ("nucleus", "membrane"))


@pytest.mark.parametrize("target", [VALUE, CLASSES, SEVERAL])
def test_a_configuration_keeps_the_target(target: Target) -> None:
    config = ProteinOneHotConfig.from_dict({"target": target.to_dict()})
    assert target_of(ProteinOneHotConfig.from_dict(config.to_dict())) == target


def test_other_configurations_have_no_field_for_it() -> None:
    assert "target" not in ProteinOneHotConfig(target=None).to_dict()
    assert target_of(ProteinOneHotConfig()) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"type": "ranking"}, "type .regression, classification, multilabel, residue, contact."),
        ({"task": 3}, "needs the texts task"),
        ({"mean": "57"}, "mean and std must be numbers"),
        ({"mean": 10**400}, "mean and std must be numbers"),
        ({"std": 0.0}, "std must be positive"),
        ({"classes": "ab"}, "classes must be a list"),
        ({"classes": [1, 2]}, "classes must be a list"),
        ({"type": "classification", "classes": ["one"]}, "1 classes; at least 2"),
    ],
)
def test_a_damaged_target_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ProteinOneHotConfig(target={**VALUE.to_dict(), **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"column": []}, "needs the texts task"),
        ({"column": ["Tm", 3]}, "needs the texts task"),
        ({"column": ["Tm", "Tm"]}, "'Tm' is given twice"),
        ({"mean": [57.5]}, "a number for each column"),
        ({"std": [1.0, -1.0]}, "std must be positive"),
        ({"type": "classification", "classes": ["a", "b"]}, "only values can have several"),
    ],
)
def test_a_damaged_target_of_several_columns_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ProteinOneHotConfig(target={**SEVERAL.to_dict(), **change})


def test_one_column_is_stored_as_text_and_number() -> None:
    fields = {"task": "my_Tm", "type": "regression", "column": "Tm", "mean": 57.5, "std": 6.25}
    assert VALUE.to_dict() == fields
    assert Target.from_dict(fields) == VALUE
