"""Edits as a file: what the command line, Python and the explorer all apply, and all export.

    {"schema_version": 1,
     "generator": {"spec": "builtin:scenes-gan", "fingerprint": "5f0c..."},
     "edits": [{"layer": "layer4", "units": [3, 17], "values": [0.0, 0.0], "strength": 1.0,
                "region": {"box": [0.1, 0.2, 0.6, 0.8]}}],
     "seeds": [0, 1, 2]}

A region is null (everywhere), a box (top, left, bottom, right in fractions of the image), or a grid of any size over
the image: {"grid": [h, w], "runs": [...]}, lengths of runs of cells row by row, the first one outside the region.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.generators.data import LARGEST_SEED
from microtome.dissect.generators.edits import Edit, Region, TooFarError, applied
from microtome.dissect.generators.generator import Generator, of_seeds
from microtome.storage.errors import RunMismatchError, UsageError
from microtome.storage.files import write_asked

SCHEMA_VERSION = 1
MOST_CELLS = 1 << 24
"""A region's grid has at most so many."""

LAST_UNIT = 2**31 - 1
OR_FORCE = "take that generator, or --force"


@dataclass(frozen=True)
class Recipe:
    """What is done to the images of a generator. generator: its spec; fingerprint: of its weights and architecture."""

    generator: str
    fingerprint: str
    edits: tuple[Edit, ...]
    seeds: tuple[int, ...] = ()

    @classmethod
    def of(cls, generator: Generator, edits: Sequence[Edit], seeds: Sequence[int] = ()) -> Recipe:
        """The recipe of edits of an opened generator."""
        return cls(generator.model.spec, generator.model.fingerprint, tuple(edits), tuple(int(seed) for seed in seeds))

    def to_json(self) -> str:
        """The text of a recipe file."""
        edits = ",\n  ".join(_line(edit_to_json(edit)) for edit in self.edits)
        generator = _line({"spec": self.generator, "fingerprint": self.fingerprint})
        parts = [
            f'"schema_version": {SCHEMA_VERSION}',
            f'"generator": {generator}',
            f'"edits": [\n  {edits}]' if self.edits else '"edits": []',
            f'"seeds": {_line(list(self.seeds))}',
        ]
        return "{" + ",\n ".join(parts) + "}\n"

    @classmethod
    def from_json(cls, text: str | bytes, source: str = "the recipe") -> Recipe:
        """Read what `to_json` wrote, or somebody by hand. source: what errors call it. Raises UsageError."""
        try:
            content = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise UsageError(f"{source} is no JSON ({' '.join(str(error).split())}); export it anew") from error
        return _Reader(source).recipe(content)

    def check(self, generator: Generator, *, force: bool = False, advice: str = OR_FORCE) -> None:
        """Raise RunMismatchError, which ends in `advice`, where the recipe was made for another generator, unless
        `force`."""
        if force or self.fingerprint == generator.model.fingerprint:
            return
        raise RunMismatchError(
            f"the recipe was made for {self.generator} (fingerprint {self.fingerprint[:12]}), not for "
            f"{generator.model.spec} ({generator.model.fingerprint[:12]}), whose units mean something else; "
            f"{advice}"
        )

    def pictures(
        self, generator: Generator, seeds: Sequence[int] | None = None, *, force: bool = False
    ) -> NDArray[np.uint8]:
        """The edited images of `seeds` (default: the recipe's own), (n, H, W, 3) uint8: the same bytes wherever a
        recipe is applied. Raises RunMismatchError as `check` does."""
        self.check(generator, force=force)
        return edited_pictures(generator, self.edits, self.seeds if seeds is None else seeds)


def edited_pictures(generator: Generator, edits: Sequence[Edit], seeds: Sequence[int]) -> NDArray[np.uint8]:
    """The images of `seeds` with `edits`, (n, H, W, 3) uint8: what everything that applies edits shows and writes.

    Raises TooFarError where the edits leave an image that is not finite, NonFiniteImageError where it is so untouched.
    """
    latents = generator.latents(seeds)
    _ = generator.batches  # found out by untouched passes, so that edits have no say in how images are batched
    with of_seeds(seeds):
        try:
            with applied(generator.model, edits):
                return generator.pictures_of(latents)
        except TooFarError:
            generator.pictures_of(latents)  # raises what is wrong with the images themselves
            raise


def read_recipe(path: Path | str) -> Recipe:
    """The recipe in a file. Raises UsageError where it cannot be read or is none."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise UsageError(f"recipe {path} cannot be read ({error.strerror or error})") from error
    return Recipe.from_json(text, f"recipe {path}")


def write_recipe(path: Path | str, recipe: Recipe) -> None:
    """Write a recipe file, whole or not at all. Raises UsageError where it cannot be written."""
    write_asked(Path(path), recipe.to_json().encode(), "give the recipe another file")


def edit_to_json(edit: Edit) -> dict[str, Any]:
    """An edit as it stands in a recipe."""
    return {
        "layer": edit.layer,
        "units": list(edit.units),
        "values": list(edit.values),
        "strength": edit.strength,
        "region": None if edit.region is None else region_to_json(edit.region),
    }


def region_to_json(region: Region) -> dict[str, Any]:
    """A region as it stands in a recipe: the box that it is, or its grid in runs."""
    sides = region.sides
    if sides is not None:
        return {"box": list(sides)}
    flat = region.grid.reshape(-1)
    turns = np.flatnonzero(np.diff(flat)) + 1
    edges = [0, *turns.tolist(), flat.size]
    runs = [stop - start for start, stop in pairwise(edges)]
    return {"grid": list(region.grid.shape), "runs": [0, *runs] if flat[0] else runs}


def edits_from_json(content: object, source: str = "the edits") -> tuple[Edit, ...]:
    """Edits as a recipe's list of them has it. Raises UsageError."""
    return _Reader(source).edits(content)


def _line(value: object) -> str:
    return json.dumps(value, allow_nan=False)


class _Reader:
    """Reads what somebody may have written by hand; every refusal says where and what was expected."""

    def __init__(self, source: str) -> None:
        self._source = source

    def recipe(self, content: object) -> Recipe:
        """The whole file."""
        known = ("schema_version", "generator", "edits", "seeds")
        given = self._object(content, "it", known, ("schema_version", "generator", "edits"))
        version = given["schema_version"]
        if version != SCHEMA_VERSION or isinstance(version, bool):
            raise self._refused("schema_version", version, f"{SCHEMA_VERSION}, which this version reads")
        generator = self._object(given["generator"], "generator", ("spec", "fingerprint"), ("spec", "fingerprint"))
        spec, mark = (self._text(generator[name], f"generator.{name}") for name in ("spec", "fingerprint"))
        seeds = self._list(given.get("seeds", []), "seeds")
        return Recipe(
            spec,
            mark,
            self.edits(given["edits"]),
            tuple(self._whole(seed, f"seeds[{at}]", LARGEST_SEED) for at, seed in enumerate(seeds)),
        )

    def edits(self, content: object) -> tuple[Edit, ...]:
        """The list of edits."""
        return tuple(self._edit(one, f"edits[{at}]") for at, one in enumerate(self._list(content, "edits")))

    def _edit(self, content: object, at: str) -> Edit:
        known = ("layer", "units", "values", "strength", "region")
        given = self._object(content, at, known, ("layer", "units", "values"))
        units = self._list(given["units"], f"{at}.units")
        values = self._list(given["values"], f"{at}.values")
        try:
            return Edit(
                self._text(given["layer"], f"{at}.layer"),
                tuple(self._whole(unit, f"{at}.units[{n}]", LAST_UNIT) for n, unit in enumerate(units)),
                tuple(self._number(value, f"{at}.values[{n}]") for n, value in enumerate(values)),
                self._region(given.get("region"), f"{at}.region"),
                self._number(given.get("strength", 1.0), f"{at}.strength"),
            )
        except _RefusedError:
            raise
        except UsageError as error:
            raise _RefusedError(f"{self._source}: {at}: {error}") from error

    def _region(self, content: object, at: str) -> Region | None:
        if content is None:
            return None
        if isinstance(content, Mapping) and "box" in content:
            box = self._list(self._object(content, at, ("box",), ("box",))["box"], f"{at}.box")
            if len(box) != 4:
                raise self._refused(f"{at}.box", box, "top, left, bottom, right in fractions of the image")
            return Region.box(*(self._number(side, f"{at}.box[{n}]") for n, side in enumerate(box)))
        given = self._object(content, at, ("grid", "runs"), ("grid", "runs"))
        size = self._list(given["grid"], f"{at}.grid")
        runs = self._list(given["runs"], f"{at}.runs")
        sides = [self._whole(side, f"{at}.grid[{n}]", MOST_CELLS) for n, side in enumerate(size)]
        if len(sides) != 2 or not 0 < math.prod(sides) <= MOST_CELLS:
            raise self._refused(f"{at}.grid", size, f"its height and width, at most {MOST_CELLS:,} cells")
        lengths = [self._whole(run, f"{at}.runs[{n}]", MOST_CELLS) for n, run in enumerate(runs)]
        if sum(lengths) != math.prod(sides):
            raise self._refused(f"{at}.runs", f"{sum(lengths):,} cells", f"{math.prod(sides):,}, those of its grid")
        inside = np.arange(len(lengths)) % 2 == 1
        return Region(np.repeat(inside, lengths).reshape(sides))

    def _object(self, content: object, at: str, known: Sequence[str], needed: Sequence[str]) -> Mapping[str, Any]:
        if not isinstance(content, Mapping):
            raise self._refused(at, content, f"an object with {', '.join(needed)}")
        missing = [name for name in needed if name not in content]
        strange = [name for name in content if name not in known]
        if missing:
            raise _RefusedError(f"{self._source}: {at} has no {missing[0]!r}; a recipe's has {', '.join(needed)}")
        if strange:
            raise _RefusedError(f"{self._source}: {at} has {strange[0]!r}, which is none of {', '.join(known)}")
        return content

    def _list(self, content: object, at: str) -> list[Any]:
        if not isinstance(content, list):
            raise self._refused(at, content, "a list")
        return content

    def _text(self, content: object, at: str) -> str:
        if not isinstance(content, str) or not content:
            raise self._refused(at, content, "text")
        return content

    def _number(self, content: object, at: str) -> float:
        try:
            number = math.nan if isinstance(content, bool | str) else float(content)  # type: ignore[arg-type]
        except (TypeError, ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self._refused(at, content, "a finite number")
        return number

    def _whole(self, content: object, at: str, most: int) -> int:
        if not isinstance(content, int) or isinstance(content, bool) or not 0 <= content <= most:
            raise self._refused(at, content, f"a whole number from 0 to {most}")
        return content

    def _refused(self, at: str, content: object, expected: str) -> UsageError:
        shown = content if isinstance(content, str) else json.dumps(content, default=str)
        return _RefusedError(f"{self._source}: {at} is {shown[:60]}; expected {expected}")


class _RefusedError(UsageError):
    """A recipe that cannot be used; says where already."""
