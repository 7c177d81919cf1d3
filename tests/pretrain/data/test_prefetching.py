"""Items computed ahead by a thread."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pretrain.data.prefetching import prefetched


def test_items_keep_their_order() -> None:
    assert list(prefetched(range(100), 4)) == list(range(100))


def test_an_error_is_raised_in_its_place() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("second")

    found = prefetched(items(), 4)
    assert next(found) == 1
    with pytest.raises(ValueError, match="second"):
        next(found)


def test_only_a_few_items_are_computed_ahead() -> None:
    taken: list[int] = []
    found = prefetched((taken.append(number) or number for number in range(100)), 3)  # type: ignore[func-returns-value]
    next(found)
    found.close()
    assert len(taken) <= 4
