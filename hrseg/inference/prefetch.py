"""Prefetch: ordered results of worker threads, with a bounded queue."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import repeat
from typing import TypeVar, cast

T = TypeVar("T")
U = TypeVar("U")


def prefetch(items: Iterator[T], depth: int) -> Iterator[T]:
    """Yield items that a thread fetches, at most `depth` in advance."""
    end = object()
    for _, future in prefetch_map(lambda _: next(items, end), repeat(None), 1, depth):
        item = future.result()
        if item is end:
            return
        yield cast(T, item)


def prefetch_map(
    function: Callable[[T], U], items: Iterable[T], workers: int, depth: int
) -> Iterator[tuple[T, Future[U]]]:
    """Yield each item with the future of `function(item)`, in order.

    `workers` threads compute the results, at most `depth` in advance.
    """
    waiting: deque[tuple[T, Future[U]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > depth:
                yield waiting.popleft()
        yield from waiting
