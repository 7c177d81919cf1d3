"""Computing the next items of an iterator in a thread, while the consumer works on the present one."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")


def prefetched(items: Iterable[Item], count: int) -> Generator[Item, None, None]:
    """Yield the same items, of which up to ``count`` are computed ahead, in another thread.

    An error of the iterator is raised in its place among the items. Closing waits for the item that is being computed,
    so the iterator must not wait for input without bound.

    Args:
        items: work that releases the interpreter's lock, such as decompression or numpy.
        count: number of items held in memory.
    """
    iterator = iter(items)
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="prefetch") as thread:
        pending = deque(thread.submit(next, iterator, end) for _ in range(count))
        try:
            while (item := pending.popleft().result()) is not end:
                pending.append(thread.submit(next, iterator, end))
                yield item  # type: ignore[misc]  # not the end
        finally:
            thread.shutdown(wait=False, cancel_futures=True)
