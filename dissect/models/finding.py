"""Find the attention of modules while a forward pass is traced, and how its heads and features lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from torch import Tensor, nn

from microtome.dissect.models.attention import Fused, Run, Watch
from microtome.dissect.models.following import Follow
from microtome.dissect.models.layouts import Layout, UnresolvedError, find_layout
from microtome.dissect.models.places import (
    HEADS,
    KEYS,
    MEAN_HEADS,
    QUERIES,
    ROLLOUT,
    VALUES,
    Inside,
    Place,
)
from microtome.dissect.models.positions import joined


@dataclass
class Frame:
    """A module that is being called: its name, which call it is, the products and fused attentions made so far (its
    parts' included), and the attentions that are its own."""

    module: nn.Module
    name: str
    ordinal: int
    products: int = 0
    fusions: int = 0
    open_products: list[_Product] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)


@dataclass
class _Product:
    number: int
    one: Tensor
    other: Tensor
    out: Tensor
    equation: str


@dataclass
class Found:
    """An attention of a module's call: places by kind, and why the others are not to be had."""

    scores: int
    fused: bool
    tokens: int
    places: dict[str, Place] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    weights: Tensor | None = None
    mix: int = 0


class Finder(Watch):
    """Assigns every attention of a forward pass to the innermost module that it is part of."""

    def __init__(self, follow: Follow) -> None:
        super().__init__()
        self._follow = follow
        self.frames: list[Frame] = []

    def on_product(self, number: int, one: Tensor, other: Tensor, run: Run, equation: str) -> Tensor:
        """A product may be that of queries and keys, or that of the weights and the values."""
        out = run(one, other)
        for frame in self.frames:
            frame.products += 1
        owner = self._owner()
        if owner is None or min(one.ndim, other.ndim) < 3:
            return out
        for found in owner.found:
            if not found.fused and not found.mix and found.weights is not None and one.shape == found.weights.shape:
                self._complete(found, owner, other, out, equation)
                return out
        owner.open_products.append(_Product(owner.products, one, other, out, equation))
        del owner.open_products[:-4]
        return out

    def on_softmax(self, scores: Tensor, weights: Tensor) -> None:
        """The softmax of a product of queries and keys makes it an attention."""
        owner = self._owner()
        if owner is None:
            return
        for product in reversed(owner.open_products):
            if product.out.shape[-2:] == scores.shape[-2:] and product.out.numel() == scores.numel():
                found = Found(product.number, False, weights.shape[-2], weights=weights)
                owner.open_products.clear()
                owner.found.append(found)
                queries, keys = self._side(product, -2), self._side(product, -1)
                self._places(found, owner, (product.one, product.other), (queries, keys), weights.shape)
                return

    def on_fused(self, number: int, fused: Fused, run: Callable[[Fused], Tensor]) -> Tensor:
        """A fused attention speaks for itself."""
        out = run(fused)
        for frame in self.frames:
            frame.fusions += 1
        owner = self._owner()
        if owner is not None:
            found = Found(owner.fusions, True, fused.query.shape[-2])
            owner.found.append(found)
            keys = self._joined(fused.key, -1)
            if keys is not None and fused.key.shape[:-2] != fused.query.shape[:-2] and fused.key.ndim > 3:
                keys = keys.repeat_interleave(fused.query.shape[-3] // fused.key.shape[-3], -2)
            shape = (*fused.query.shape[:-1], fused.key.shape[-2])
            queries = self._joined(fused.query, -1)
            self._places(found, owner, (fused.query, fused.key), (queries, keys), shape)
            self._complete(found, owner, fused.value, out, "")
        return out

    def _owner(self) -> Frame | None:
        """The innermost module that has parts of its own, or none but its parameters: a Softmax is nobody's owner."""
        for frame in reversed(self.frames):
            if not isinstance(frame.module, nn.Softmax | nn.Dropout | nn.Identity):
                return frame
        return None

    def _joined(self, tensor: Tensor, axis: int) -> Tensor | None:
        ids = self._follow.ids_of(tensor)
        return None if ids is None else joined(ids, [axis], self._follow.grids)

    def _side(self, product: _Product, axis: int) -> Tensor | None:
        """The ids of queries (axis -2 of the scores) or of keys (-1), in the shape of scores without the other axis."""
        tensor = product.one if axis == -2 else product.other
        if not product.equation:
            side = self._joined(tensor, -1 if axis == -2 else -2)
            shape = (*product.out.shape[:-2], product.out.shape[axis])
            return None if side is None else side.expand(shape)
        given, _, out = product.equation.replace(" ", "").partition("->")
        letters = given.split(",")[0 if axis == -2 else 1]
        ids = self._follow.ids_of(tensor)
        if ids is None or not out or "." in given:
            return None
        mixed = [at for at, letter in enumerate(letters) if letter not in out]
        rest = [letter for letter in letters if letter in out]
        wanted = out[:-2] + out[axis]
        if sorted(rest) != sorted(wanted) or not mixed:
            return None
        return joined(ids, mixed, self._follow.grids).permute([rest.index(letter) for letter in wanted])

    def _places(
        self,
        found: Found,
        owner: Frame,
        given: tuple[Tensor, Tensor],
        sides: tuple[Tensor | None, Tensor | None],
        shape: Sequence[int],
    ) -> None:
        """What is known once queries and keys are. sides: their ids; shape: of the weights (..., Lq, Lk)."""
        queries, keys = sides
        for kind, tensor in zip((QUERIES, KEYS), given, strict=True):
            self._features(found, owner, kind, tensor)
        row_shape = (*shape[:-2], shape[-1])
        try:
            layout = find_layout(keys, row_shape, self._follow.grids)
        except UnresolvedError as error:
            found.notes |= dict.fromkeys((HEADS, MEAN_HEADS, ROLLOUT), f"has attention over keys that {error}")
            return
        if layout.grid == (1, 1):
            found.notes |= dict.fromkeys((HEADS, MEAN_HEADS, ROLLOUT), "has attention over what is no image position")
            return
        row = -1 if layout.rows > 1 else _class_row(queries, shape[-2])
        inside = Inside(found.fused, found.scores, 0, row, None)
        found.places[MEAN_HEADS] = Place(owner.name, owner.ordinal, layout, MEAN_HEADS, inside=inside)
        if row < 0:
            reason = "has no class token among its queries; take heads-mean, the mean over all queries"
            found.notes |= dict.fromkeys((HEADS, ROLLOUT), reason)
            return
        found.places[HEADS] = Place(owner.name, owner.ordinal, layout, HEADS, inside=inside)
        axes = (layout.fold > 1, len(shape), layout.features)
        if shape[-1] == shape[-2] and axes in (
            (False, 4, (1,)),
            (True, 3, (0,)),
        ):  # (B, heads, L, L) or (B * heads, L, L)
            single = Layout(1, (shape[-1],), (), layout.grid, layout.order, layout.words)
            found.places[ROLLOUT] = Place(owner.name, owner.ordinal, single, ROLLOUT, inside=inside)
        else:
            found.notes[ROLLOUT] = "has no attention of every token to every token, which a rollout consists of"

    def _features(self, found: Found, owner: Frame, kind: str, tensor: Tensor) -> None:
        inside = Inside(found.fused, found.scores, 0, -1, _NOWHERE)
        try:
            layout = find_layout(self._follow.ids_of(tensor), tensor.shape, self._follow.grids)
        except UnresolvedError as error:
            found.notes[kind] = str(error)
            return
        found.places[kind] = Place(owner.name, owner.ordinal, layout, kind, inside=inside)

    def _complete(self, found: Found, owner: Frame, value: Tensor, out: Tensor, equation: str) -> None:
        """What is known once the values are. equation: of the einsum that mixes them, else empty."""
        found.mix = 0 if found.fused else owner.products
        found.weights = None
        self._features(found, owner, VALUES, value)
        fold = out.shape[0] // self._follow.grids.batch
        for kind, place in found.places.items():
            output: Layout | None = _NOWHERE
            if kind in (HEADS, MEAN_HEADS):
                features = _axes_after(place.layout.features, equation)
                fits = features is not None and place.layout.fold == fold
                output = Layout(fold, tuple(out.shape[1:]), features or (), (1, 1), (0,)) if fits else None
                if output is not None and output.units != place.layout.units:
                    output = None
            found.places[kind] = replace(place, inside=replace(_inside(place), mix=found.mix, output=output))


def _axes_after(axes: tuple[int, ...], equation: str) -> tuple[int, ...] | None:
    """Where axes of the attention's weights (0 and 1 both are of the first: fold and rest begin there) are in its
    output; None where an einsum leaves that open."""
    if not equation:
        return axes
    given, _, out = equation.replace(" ", "").partition("->")
    letters = given.split(",")[0]
    if not out or "." in given or letters[0] != out[0]:
        return None
    found = tuple(out.find(letters[axis]) for axis in axes)
    return found if all(axis > 0 for axis in found) or axes == (0,) else None


def _class_row(queries: Tensor | None, count: int) -> int:
    """The first query without a position, if the others have one or there are no others; -1 where there is none."""
    if queries is None:
        return 0 if count == 1 else -1
    row = queries.reshape(-1, count)[0]
    unplaced = (row < 0).nonzero().flatten().tolist()
    return int(unplaced[0]) if unplaced and (len(unplaced) < len(row) or len(row) == 1) else -1


def _inside(place: Place) -> Inside:
    if place.inside is None:
        raise ValueError(f"{place.module}:{place.kind} is inside no attention")
    return place.inside


_NOWHERE = Layout(1, (1,), (), (1, 1), (0,))
