"""The choice that ``--precision auto`` makes."""

from __future__ import annotations

import logging

import pytest

from tape.models import low_precision
from tape.runtime.distributed import distributed_context
from tape.runtime.precision import PRECISIONS
from tape.runtime.precision_choice import AUTO, PRECISION_CHOICES, choose_precision, resolve_precision


def test_the_choices_are_the_precisions_and_auto() -> None:
    assert {AUTO, *PRECISIONS} == set(PRECISION_CHOICES)


@pytest.mark.parametrize(("fast", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_is_bf16_where_that_is_faster_and_names_the_reason(
    fast: bool, precision: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(low_precision, "fast_bf16", lambda device: fast)
    assert choose_precision("cuda")[1].endswith("on this GPU")
    with distributed_context(no_cuda=True) as context, caplog.at_level(logging.INFO):
        assert resolve_precision(AUTO, context) == precision
    (line,) = caplog.messages
    assert line.startswith(f"--precision auto: {precision}, ")
    assert line.endswith("on this CPU")


def test_a_stated_precision_is_used_without_a_measurement(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(low_precision, "fast_bf16", lambda device: pytest.fail("measured"))
    with distributed_context(no_cuda=True) as context, caplog.at_level(logging.INFO):
        assert [resolve_precision(name, context) for name in PRECISIONS] == list(PRECISIONS)
    assert not caplog.messages
