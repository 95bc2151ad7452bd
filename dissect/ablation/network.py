"""A classifier that answers without some of the units of one layer.

`open_network` gives the quick form wherever the network can be traced: the rest of the network for many ablations of a
batch of images. Where it cannot, whole forward passes are run; they give the same numbers, slowly.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.dissect.ablation.slices import SliceBuilder
from microtome.dissect.ablation.tail import SetBuilder, head_of
from microtome.dissect.ablation.trace import Trace, UntraceableError, replaced, shape_of, trace_pass
from microtome.dissect.audit.job import Division
from microtome.dissect.audit.precision import autocast
from microtome.dissect.audit.progress import say
from microtome.dissect.models import Model
from microtome.dissect.models.logits import logits_of
from microtome.dissect.models.model import normalise
from microtome.dissect.models.sites import Site, site_of

RELATIVE, ROUGHLY = 1e-4, 0.03
"""By how much, of the largest logit, head and tail may differ from a whole pass: in float32, and in less."""

SHARE_REMOVED = 0.25  # of the units, in that comparison

Rows = NDArray[np.int64]


@dataclass(frozen=True)
class Held:
    """A batch of images, computed up to the layer. logits: (n, K) float32, untouched; silent: (n, C), in which image
    which unit has its fill value at every position, so that removing it changes nothing, where that is known."""

    logits: NDArray[np.float32]
    silent: NDArray[np.bool_]
    values: tuple[Tensor, ...]


class Network(Protocol):
    """One layer of a classifier. units: C; batch: the most images that `hold` takes. Safe to call from threads."""

    units: int
    batch: int

    def hold(self, images: Sequence[NDArray[np.uint8]]) -> Held:
        """Compute a batch of images (H, W, 3) uint8, as the model wants them, up to the layer."""
        ...

    def without_units(self, held: Held, rows: Rows, units: Rows) -> NDArray[np.float32]:
        """Logits (n, K) of image `rows[i]` of the batch without unit `units[i]`, for all i."""
        ...

    def without_sets(self, held: Held, rows: Rows, removed: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Logits (n, K) of image `rows[i]` of the batch without the units that `removed[i]` (n, C) marks."""
        ...


class TracedNetwork(Network, Protocol):
    """One of which only the rest is run again."""

    def hold_normal(self, normal: Tensor, count: int) -> Held:
        """Compute a normalised batch (B, 3, H, W), of which the first `count` images matter, up to the layer."""
        ...


def open_network(
    model: Model, layer: str, division: Division, fill: NDArray[np.float32], batch: int, *, whole: bool = False
) -> Network:
    """The layer's network; `fill` (C,) is what removed units are set to, in true values.

    whole: run whole forward passes in any case. Raises UsageError where the model is no classifier.
    """
    model.module.to(division.device)
    site = site_of(model, layer)
    passes = Passes(site, division, torch.from_numpy(fill).to(model.placeholder()), batch)
    slow = WholeNetwork(passes)
    return slow if whole else quick_or_whole(layer, lambda: QuickNetwork(passes), slow)


def quick_or_whole(layer: str, make: Callable[[], TracedNetwork], slow: WholeNetwork) -> Network:
    """What `make` gives where it can be had and answers as `slow` does; else `slow`, and it is said why."""
    try:
        quick = make()
        refuse_other_answers(quick, slow)
    except UntraceableError as error:
        say(f"{layer}: the rest of the network cannot be run alone ({error}); whole forward passes instead, slowly")
        return slow
    return quick


@dataclass(frozen=True)
class Passes:
    """What both forms share: the site, the arithmetic, and what removed units become. fill: (C,)."""

    site: Site
    division: Division
    fill: Tensor
    batch: int

    @property
    def units(self) -> int:
        """How many units can be removed, C."""
        return self.site.units

    @property
    def precise(self) -> bool:
        """Whether the network computes in float32 (or more), so that the order of sums hardly matters."""
        return self.division.precision == "float32" and self.fill.dtype in (torch.float32, torch.float64)

    def without(self, raw: Tensor, removed: Tensor) -> Tensor:
        """What the layer gives for a batch, `raw`, without the units that `removed` (B, C) marks."""
        return replaced(self.site, raw, removed, self.fills())

    def normalised(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """(B, 3, H, W) as the model takes it; a short batch is filled up with its first image."""
        preprocess, like = self.site.model.preprocess, self.fill
        stacked = np.stack([*images, *[images[0]] * (self.batch - len(images))])
        pixels = torch.from_numpy(stacked).to(like.device)
        mean, std = (
            torch.tensor(values, device=like.device).view(1, 3, 1, 1) for values in (preprocess.mean, preprocess.std)
        )
        return normalise(pixels, mean, std, torch.contiguous_format).to(like.dtype)

    def fills(self) -> Tensor:
        """`fill` for every row: (B, C)."""
        return self.fill.expand(self.batch, -1)

    def chunks(self, count: int) -> Iterator[tuple[slice, NDArray[np.int64]]]:
        """Numbers of `count` rows in pieces of `batch`, with the last one filled up by its first row."""
        for start in range(0, count, self.batch):
            piece = slice(start, min(start + self.batch, count))
            numbers = np.arange(start, start + self.batch)
            yield piece, np.where(numbers < count, numbers, start)

    def tensor(self, values: NDArray[np.generic]) -> Tensor:
        """An array on the device."""
        return torch.from_numpy(np.ascontiguousarray(values)).to(self.fill.device)


class WholeNetwork:
    """Whole forward passes with the units replaced on the way; one at a time, since hooks belong to the module."""

    def __init__(self, passes: Passes) -> None:
        self.passes = passes
        self.units, self.batch = passes.units, passes.batch
        self._turn = threading.Lock()

    def hold(self, images: Sequence[NDArray[np.uint8]]) -> Held:
        """Normalise a batch of images and run it untouched."""
        normal = self.passes.normalised(images)
        logits = self.answer(normal)[: len(images)]
        return Held(as_array(logits), np.zeros((len(images), self.units), np.bool_), (normal,))

    def without_units(self, held: Held, rows: Rows, units: Rows) -> NDArray[np.float32]:
        """One pass a batch of pairs."""
        return self.without_sets(held, rows, np.arange(self.units) == units[:, None])

    def without_sets(self, held: Held, rows: Rows, removed: NDArray[np.bool_]) -> NDArray[np.float32]:
        """One pass a batch of sets."""
        found = np.empty((len(rows), held.logits.shape[1]), np.float32)
        (normal,) = held.values
        for piece, numbers in self.passes.chunks(len(rows)):
            chosen = self.passes.tensor(removed[numbers].astype(np.float32)).to(normal)
            logits = self.answer(normal[self.passes.tensor(rows[numbers])], chosen)
            found[piece] = as_array(logits)[: piece.stop - piece.start]
        return found

    def answer(self, normal: Tensor, removed: Tensor | None = None) -> Tensor:
        """Logits (B, K) of normalised images, without the units that `removed` (B, C) marks."""
        passes, model = self.passes, self.passes.site.model
        division = passes.division
        with self._turn, torch.no_grad(), autocast(division.precision, division.device):
            if removed is None:
                return logits_of(model.module(normal), model.class_names)
            with passes.site.replacing(lambda raw: passes.without(raw, removed)):
                return logits_of(model.module(normal), model.class_names)


class QuickNetwork:
    """Head and tail of the traced network. Raises UntraceableError where there is no such thing."""

    def __init__(self, passes: Passes) -> None:
        self.passes = passes
        self.units, self.batch = passes.units, passes.batch
        self._trace = traced(passes)
        self._unit_of = self._units_in_place()
        sets, axis = SetBuilder(self._trace), self._axis()
        singles = None if axis is None else SliceBuilder(self._trace, axis)
        self._sets = sets.build()
        self._singles = None if singles is None else singles.build()
        self._of_sets = len(sets.values)
        self._head = head_of(self._trace, [*sets.values, *([] if singles is None else singles.values)])

    def hold(self, images: Sequence[NDArray[np.uint8]]) -> Held:
        """Run the head."""
        return self.hold_normal(self.passes.normalised(images), len(images))

    def hold_normal(self, normal: Tensor, count: int) -> Held:
        """The same of a normalised batch (B, 3, H, W), of which the first `count` images matter."""
        *values, raw, logits = self._head(normal)
        return Held(as_array(logits[:count]), as_array(self._silent(raw)[:count]), tuple(values))

    def without_units(self, held: Held, rows: Rows, units: Rows) -> NDArray[np.float32]:
        """Rows of pairs through the tail: by slices of single units where they are to be had."""
        if self._singles is None:
            return self.without_sets(held, rows, np.arange(self.units) == units[:, None])
        found = np.empty((len(rows), held.logits.shape[1]), np.float32)
        for piece, numbers in self.passes.chunks(len(rows)):
            images, chosen = self.passes.tensor(rows[numbers]), self.passes.tensor(units[numbers])
            logits = self._singles(images, chosen, self.passes.fill, *held.values[self._of_sets :])
            found[piece] = as_array(logits)[: piece.stop - piece.start]
        return found

    def without_sets(self, held: Held, rows: Rows, removed: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Rows of sets through the tail."""
        found = np.empty((len(rows), held.logits.shape[1]), np.float32)
        for piece, numbers in self.passes.chunks(len(rows)):
            chosen = self.passes.tensor(removed[numbers].astype(np.float32)).to(self.passes.fill.dtype)
            images = self.passes.tensor(rows[numbers])
            logits = self._sets(images, chosen, self.passes.fills(), *held.values[: self._of_sets])
            found[piece] = as_array(logits)[: piece.stop - piece.start]
        return found

    def _silent(self, raw: Tensor) -> Tensor:
        """(B, C) bool: which unit has its fill value at every position of which image."""
        found = torch.zeros(self.batch, self.units, dtype=torch.uint8, device=raw.device)
        if self._unit_of is None:
            return found > 0
        lively = raw != self.passes.site.spread(self.passes.fills()).to(raw.dtype)
        found.scatter_reduce_(1, self._unit_of, lively.reshape(self.batch, -1).to(torch.uint8), "amax")
        return found == 0

    def _axis(self) -> int | None:
        """The axis of the layer's output along which its units lie, one after the other; None where they do not."""
        shape = shape_of(self._trace.raw)
        numbers = torch.arange(self.units, dtype=torch.float32, device=self.passes.fill.device)
        spread = self.passes.site.spread(numbers.expand(self.batch, -1))
        along = [axis for axis, size in enumerate(spread.shape) if axis and size > 1] or [1]
        fits = len(along) == 1 and spread.dim() == len(shape) and shape[0] == self.batch
        if not fits or shape[along[0]] != self.units or not torch.equal(spread[0].flatten(), numbers):
            return None
        return along[0]

    def _units_in_place(self) -> Tensor | None:
        """(B, n) int64: the unit of each number that the layer gives for an image; None where that is not clear."""
        numbers = torch.arange(self.units, dtype=torch.float32, device=self.passes.fill.device)
        spread = self.passes.site.spread(numbers.expand(self.batch, -1))
        shape = shape_of(self._trace.raw)
        if not _broadcasts(tuple(spread.shape), shape) or shape[0] % self.batch:
            return None
        places = spread.expand(shape).reshape(self.batch, -1).long()
        return places if set(places[0].tolist()) == set(range(self.units)) else None


def _broadcasts(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return len(shape) <= len(target) and all(
        size in (1, wanted) for size, wanted in zip(shape[::-1], target[::-1], strict=False)
    )


def refuse_other_answers(quick: TracedNetwork, slow: WholeNetwork) -> None:
    """Raise UntraceableError where head and tail do not answer as the network does, untouched or ablated."""
    passes, batch, count = slow.passes, slow.batch, slow.units
    normal = passes.site.model.noise(batch, seed=1).to(passes.fill)
    dice = np.random.default_rng(0)
    rows, units = dice.permutation(batch), dice.integers(0, count, batch)
    removed = dice.random((batch, count)) < SHARE_REMOVED
    try:
        held = quick.hold_normal(normal, batch)
        mine = (held.logits, quick.without_units(held, rows, units), quick.without_sets(held, rows, removed))
    except RuntimeError as error:  # an operation that does not take what is made of its input here
        raise UntraceableError(str(error).partition("\n")[0]) from error
    whole = Held(held.logits, held.silent, (normal,))
    theirs = (
        as_array(slow.answer(normal)),
        slow.without_units(whole, rows, units),
        slow.without_sets(whole, rows, removed),
    )
    for what, found, expected in zip(("", " without a unit", " without some units"), mine, theirs, strict=True):
        if not agree(found, expected, RELATIVE if passes.precise else ROUGHLY):
            raise UntraceableError(f"its answers{what} are not those of the whole")


def agree(one: NDArray[np.float32], other: NDArray[np.float32], share: float) -> bool:
    """Whether two answers are the same within a share of the largest logit."""
    largest = float(np.nanmax(np.abs(other), initial=0.0))
    return bool(np.allclose(one, other, rtol=share, atol=share * largest, equal_nan=True))


def as_array(logits: Tensor) -> NDArray[Any]:
    """A tensor on the host; logits of any precision as float32."""
    return (logits.float() if logits.is_floating_point() else logits).cpu().numpy()


def traced(passes: Passes) -> Trace:
    """The network as a graph, cut at the layer."""
    division = passes.division
    images = passes.site.model.noise(passes.batch).to(passes.fill)
    with torch.no_grad(), autocast(division.precision, division.device):
        return trace_pass(passes.site, images)
