"""The trace of what a process is doing."""

from __future__ import annotations

import pytest

from pretrain.trace import SpanTimeout, Trace


def test_spans_are_counted_and_named_by_the_outermost_and_the_innermost() -> None:
    trace = Trace()
    with trace.span("iteration 12", SpanTimeout.BUSY):
        with trace.span("forward pass"), trace.span("all-reduce gradients"):
            position = trace.position
            assert (position.name, position.number) == ("iteration 12: all-reduce gradients", 3)
            assert position.timeout is SpanTimeout.BUSY  # the enclosing span's
        assert (trace.position.name, trace.position.number) == ("iteration 12", 3)
        with trace.span("save checkpoint", SpanTimeout.COLLECTIVE):
            assert (trace.position.number, trace.position.timeout) == (4, SpanTimeout.COLLECTIVE)
    with trace.span("iteration 13"), trace.span("optimizer step"):
        assert trace.position.timeout is SpanTimeout.HANG
    with trace.span("end of the run", SpanTimeout.COLLECTIVE):
        assert (trace.position.name, trace.position.number) == ("end of the run", 7)


def test_marks_are_progress_within_a_span() -> None:
    """Marks may differ between ranks, so they do not count as spans, but they are progress of the rank."""
    trace = Trace()
    with trace.span("pipeline"):
        before = trace.position
        trace.mark("input of micro-batch 1", communicating=True)
        assert trace.position.communicating
        trace.mark("forward pass of micro-batch 1")
        now = trace.position
        assert (now.name, now.number) == ("pipeline: forward pass of micro-batch 1", before.number)
        assert (now.progress, now.communicating) == (before.progress + 2, False)
    with trace.span("optimizer step"):
        assert trace.position.name == "optimizer step"


def test_the_position_remains_that_of_an_error() -> None:
    """The error is reported after the stack has been unwound; the rank then has the timeout of collectives."""
    trace = Trace()

    def step() -> None:
        with trace.span("iteration 3"), trace.span("optimizer step"):
            raise ValueError("oh")

    with pytest.raises(ValueError, match="oh"):
        step()
    before = trace.position
    trace.failed()
    now = trace.position
    assert (now.name, now.number) == ("iteration 3: optimizer step", before.number)
    assert (now.progress, now.timeout) == (before.progress + 1, SpanTimeout.COLLECTIVE)


def test_a_handled_error_does_not_affect_the_position() -> None:
    trace = Trace()
    with trace.span("iteration 1"):
        try:
            with trace.span("evaluation", SpanTimeout.COLLECTIVE):
                raise ValueError
        except ValueError:
            pass
        with trace.span("optimizer step"):
            assert trace.position.name == "iteration 1: optimizer step"
    with trace.span("iteration 2"):
        assert (trace.position.name, trace.position.timeout) == ("iteration 2", SpanTimeout.HANG)


def test_a_span_is_busy_only_until_it_has_warmed_up() -> None:
    trace = Trace()
    with trace.span("evaluation on valid", SpanTimeout.BUSY):
        trace.warmed_up()
        trace.mark("micro-batch 2")
        assert trace.position.timeout is SpanTimeout.HANG
    # the first steps remain slow
    with trace.span("iteration 1", SpanTimeout.BUSY), trace.span("evaluation on valid", SpanTimeout.BUSY):
        trace.warmed_up()
        assert trace.position.timeout is SpanTimeout.BUSY
