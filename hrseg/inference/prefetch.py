"""Prefetch and background writing: bounded work in threads, in order."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
U = TypeVar("U")


def ahead(items: Iterator[T], depth: int) -> Iterator[T]:
    """Yield items that a thread fetches, at most `depth` of them in advance."""
    end = object()
    with ThreadPoolExecutor(1) as pool:
        waiting: deque[Future[T | object]] = deque()
        while True:
            while len(waiting) < depth:
                waiting.append(pool.submit(next, items, end))
            item = waiting.popleft().result()
            if item is end:
                return
            yield item  # type: ignore[misc]


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


class Behind:
    """Calls that threads carry out later, at most `depth` of them at a time.

    An error of a call is raised by a later `submit`, or at the end of the `with` block.
    """

    def __init__(self, workers: int, depth: int) -> None:
        """Start the threads."""
        self.pool = ThreadPoolExecutor(workers)
        self.depth = depth
        self.waiting: deque[Future[object]] = deque()

    def submit(self, function: Callable[..., object], *arguments: object) -> None:
        """Carry out a call; wait if too many are under way."""
        self.waiting.append(self.pool.submit(function, *arguments))
        while len(self.waiting) > self.depth or (self.waiting and self.waiting[0].done()):
            self.waiting.popleft().result()

    def __enter__(self) -> "Behind":
        """Return itself."""
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Wait for what is under way; after an error, only for what has begun."""
        try:
            while self.waiting and kind is None:
                self.waiting.popleft().result()
        finally:
            self.pool.shutdown(cancel_futures=True)
