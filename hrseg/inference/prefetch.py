"""Prefetch: bounded work in threads beside the main thread, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import repeat
from typing import TypeVar, cast

T = TypeVar("T")
U = TypeVar("U")


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """Yield items that a thread fetches, at most `depth` of them in advance."""
    end = object()
    for _, future in map_ahead(lambda _: next(items, end), repeat(None), 1, depth):
        item = future.result()
        if item is end:
            return
        yield cast(T, item)


def map_ahead(
    function: Callable[[T], U], items: Iterable[T], workers: int, depth: int
) -> Iterator[tuple[T, Future[U]]]:
    """Yield each item with its result, made by threads, at most `depth` in advance, in order."""
    waiting: deque[tuple[T, Future[U]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            waiting.append((item, pool.submit(function, item)))
            if len(waiting) > depth:
                yield waiting.popleft()
        yield from waiting
