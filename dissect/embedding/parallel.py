"""Work shared by a few threads: blocks that are read, with results in order, and loops over points."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from types import TracebackType
from typing import Self, TypeVar

from threadpoolctl import threadpool_limits

T = TypeVar("T")
R = TypeVar("R")

BLOCK = 16_384
"""Points that a thread takes at once; sums are added up block by block, so that no result depends on the threads."""


def ordered(function: Callable[[T], R], items: Iterable[T], threads: int) -> Iterator[R]:
    """`function` of every item, in the order of the items, by `threads` threads; at most as many results wait."""
    if threads < 2:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(threads, thread_name_prefix="embedding") as pool:
        waiting: deque[Future[R]] = deque()
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


@contextmanager
def one_blas_thread() -> Iterator[None]:
    """Have BLAS use one thread: several of ours call it, and its sums come in one order whatever the machine."""
    with threadpool_limits(1, user_api="blas"):
        yield


@contextmanager
def faiss_threads(count: int) -> Iterator[None]:
    """Have faiss use `count` threads, and as many as before afterwards."""
    import faiss

    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(count)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)


class Pool:
    """`threads` threads (at least 1) that share loops; a context, whose end waits for them."""

    def __init__(self, threads: int) -> None:
        self.threads = max(1, threads)
        self._pool = ThreadPoolExecutor(self.threads, thread_name_prefix="embedding") if self.threads > 1 else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pool is not None:
            self._pool.shutdown()

    def each(self, function: Callable[[int], T], count: int) -> list[T]:
        """`function(number)` for 0 ... count - 1, in order of number."""
        if self._pool is None or count < 2:
            return [function(number) for number in range(count)]
        return list(self._pool.map(function, range(count)))

    def blocks(self, function: Callable[[int, int], T], count: int) -> list[T]:
        """`function(start, stop)` for blocks of 0 ... count - 1, of a size that does not depend on the threads."""
        return self.each(lambda n: function(n * BLOCK, min((n + 1) * BLOCK, count)), -(-count // BLOCK))

    def parts(self, function: Callable[[int, int, int], T], count: int, parts: int) -> list[T]:
        """`function(number, start, stop)` for `parts` ranges of nearly equal length."""
        return self.each(lambda n: function(n, n * count // parts, (n + 1) * count // parts), parts)
