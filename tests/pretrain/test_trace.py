"""What a process says about where it stands."""

from __future__ import annotations

from pretrain.trace import Allowance, Operations


def test_operations_count() -> None:
    operations = Operations()
    operations.iteration(12, lenient=True)
    operations.at("forward pass")
    first = operations.current
    assert (first.name, first.number, first.allowance) == ("iteration 12: forward pass", 1, Allowance.WORKING)
    operations.iteration(13, lenient=False)
    operations.at("saving", Allowance.ANY)
    assert (operations.current.number, operations.current.allowance) == (2, Allowance.ANY)
    operations.at("update")
    assert operations.current.allowance is Allowance.NONE
    operations.end()
    assert (operations.current.name, operations.current.number) == ("end of the run", 4)


def test_parts_of_an_operation() -> None:
    """Other ranks needn't do them, so they don't count as operations; but who does them gets on."""
    operations = Operations()
    operations.at("pipeline")
    before = operations.current
    operations.within("input of micro-batch 1", exchanging=True)
    operations.within("forward pass of micro-batch 1")
    now = operations.current
    assert (now.name, now.number, now.exchanging) == ("pipeline: forward pass of micro-batch 1", before.number, False)
    assert now.moves == before.moves + 2
    operations.at("update")
    assert operations.current.name == "update"


def test_a_failed_operation_may_linger() -> None:
    operations = Operations()
    operations.at("update")
    before = operations.current
    operations.linger()
    now = operations.current
    assert (now.name, now.number, now.allowance) == ("update", before.number, Allowance.ANY)
    assert now.moves > before.moves
    operations.at("update")
    assert operations.current.allowance is Allowance.NONE


def test_an_operation_settles() -> None:
    operations = Operations()
    operations.at("evaluation on valid", Allowance.WORKING)
    operations.settle()
    operations.within("micro-batch 2")
    assert operations.current.allowance is Allowance.NONE
    operations.iteration(1, lenient=True)  # first steps stay what they are
    operations.at("evaluation on valid")
    operations.settle()
    assert operations.current.allowance is Allowance.WORKING
