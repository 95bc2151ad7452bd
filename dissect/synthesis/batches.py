"""How many images go through a network at once, such that each comes out as if it were alone, to the last bit.

Libraries choose another kernel, which sums in another order, for a batch of another size. The difference is one of
rounding, but ascent is chaotic: after a hundred steps it can be seen. So batches have only those sizes in which the
network gives an image the very bits that it gives it alone; which ones they are is found out by trying.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Event
from typing import TypeVar

import torch
from torch import Tensor

from microtome.dissect.audit.cores import available_cores

T = TypeVar("T")

Gradient = Callable[[int], Tensor]
"""How often the same image stands in a batch -> (B, ...): the gradient of each copy."""


PROBED = (2, 4, 8, 16)
"""Sizes that are tried, until one gives an image the bits of a batch of one or of two: that settles the fill."""


@dataclass(frozen=True)
class Batches:
    """sizes: of batches, in descending order, the last of them 1; fill: an image that goes alone is computed in a batch
    of so many copies; alike: whether all of these give an image the same bits. Where no two sizes do, all are used."""

    sizes: tuple[int, ...]
    fill: int
    alike: bool

    def plan(self, images: int, workers: int = 1) -> list[int]:
        """How many images go at once, one batch after the other; several workers share what one batch could hold."""
        share = max(1, -(-images // workers))
        most = next(size for size in self.sizes if size <= share)
        parts = []
        while images:
            parts.append(next(size for size in self.sizes if size <= min(images, most)))
            images -= parts[-1]
        return parts


def find_batches(gradient: Gradient, most: int, images: int) -> Batches:
    """The sizes up to `most` in which all copies of an image have the gradient that it has alone; where there are none,
    those in which they have that of a batch of two. images: how many there are; larger sizes are not looked for.

    Which of the two it is depends on the network alone, so that `most` and `images` change no image.
    """
    known: dict[int, Tensor] = {}

    def same(size: int, fill: int) -> bool:
        for each in (size, fill):
            if each not in known:
                known[each] = gradient(each)
        return bool((known[size] == known[fill][:1]).all())

    fill = next((fill for size in PROBED for fill in (1, 2) if fill < size and same(size, fill)), None)
    candidates = sorted({most, *(2**power for power in range(1, most.bit_length()))} - {1})
    if fill is None:
        return Batches((*reversed(candidates), 1), 1, False)
    sizes = [size for size in candidates if size <= images and same(size, fill)]
    return Batches((*reversed(sizes), 1), fill, True)


def filled(rows: Tensor, fill: int) -> Tensor:
    """`rows` (B, ...), where there is but one repeated to `fill`."""
    return rows.expand(fill, *rows.shape[1:]) if len(rows) < fill else rows


def workers_for(device: torch.device) -> int:
    """How many batches are computed beside each other: one for each core, one on an accelerator."""
    return available_cores() if device.type == "cpu" else 1


@contextmanager
def one_thread_each() -> Iterator[None]:
    """While open, torch computes on one core: batches beside each other beat many cores on each, and how work is shared
    among cores decides the last bits."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def beside_each_other(work: Callable[[int, Event], T], count: int, workers: int) -> Iterator[T]:
    """`work(0, gone)` to `work(count - 1, gone)`, in order, `workers` of them at a time, and no more results
    waiting than that; `gone` is set once nobody wants results any more."""
    gone = Event()
    waiting: list[Future[T]] = []
    with ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        try:
            for number in range(count):
                waiting.append(pool.submit(work, number, gone))
                if len(waiting) > workers:
                    yield waiting.pop(0).result()
            while waiting:
                yield waiting.pop(0).result()
        finally:
            gone.set()


def starts_of(parts: Sequence[int]) -> list[slice]:
    """The slices that parts of these lengths make up."""
    ends = [sum(parts[: number + 1]) for number in range(len(parts))]
    return [slice(end - part, end) for part, end in zip(parts, ends, strict=True)]
