"""Which units to remove: those named, those of a concept, or those that a class needs most."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.ablation.subject import chosen_units
from microtome.dissect.query.dissection import Dissection
from microtome.dissect.query.importance import class_number, needed_units, read_importance
from microtome.storage.errors import UsageError
from microtome.storage.run import Run
from microtome.storage.schema import LayerEntry

_LONGEST_NAME = 60


@dataclass(frozen=True)
class Choice:
    """Units, ascending; a short name and words that say how they were chosen; the class that they were chosen for, and
    its number among the model's classes."""

    units: NDArray[np.int64]
    name: str
    words: str
    class_name: str | None = None
    class_index: int | None = None

    def marks(self, count: int) -> NDArray[np.bool_]:
        """(C,) which units are chosen."""
        return np.isin(np.arange(count), self.units)


def choose(
    run: Run,
    layer: LayerEntry,
    *,
    units: Sequence[str] = (),
    concept: str | None = None,
    class_name: str | None = None,
    top: int = 20,
) -> Choice:
    """The units that are asked for in one of three ways. Raises UsageError where it is none or several of them."""
    if sum([bool(units), concept is not None, class_name is not None]) != 1:
        raise UsageError("say which units to remove in one way: --units 3,17, --concept car or --class beach")
    if units:
        found = chosen_units(units, layer)
        return Choice(found, name_of(found), f"units {ranges(found)}")
    if concept is not None:
        return of_concept(run, layer, concept, top)
    return of_class(run, layer, str(class_name), top)


def of_concept(run: Run, layer: LayerEntry, concept: str, top: int) -> Choice:
    """The `top` units of highest IoU for a concept; fewer where fewer meet it at all. Raises UnknownNameError."""
    frame = Dissection(run).query(f"layer={_quoted(layer['name'])} concept={_quoted(concept)}")
    _refuse_top(top, layer)
    frame = frame[frame["iou"] > 0].head(top)
    if frame.empty:
        raise UsageError(f"no unit of layer {layer['name']} meets {concept} anywhere")
    detectors = int(frame["is_detector"].sum())
    words = f"the {len(frame)} units of highest IoU for {concept}, {detectors} of them detectors"
    return Choice(np.sort(frame["unit"].to_numpy(np.int64)), f"concept-{concept}-{top}", words)


def of_class(run: Run, layer: LayerEntry, name: str, top: int) -> Choice:
    """The `top` units that a class needs most by the run's importance. Raises UsageError where it has none."""
    table, info = read_importance(run, layer["name"])
    number = class_number(info, name)
    _refuse_top(top, layer)
    frame = needed_units(table, number).head(top)
    known, index = info["classes"][number], info["class_indices"][number]
    words = f"the {len(frame)} units that {known} needs most, by importance over {info['images']:,} images"
    return Choice(np.sort(frame["unit"].to_numpy(np.int64)), f"class-{known}-{top}", words, known, index)


def _refuse_top(top: int, layer: LayerEntry) -> None:
    if not 0 < top <= layer["units"]:
        raise UsageError(f"--top {top}: layer {layer['name']} has {layer['units']} units")


def ranges(units: NDArray[np.int64]) -> str:
    """Ascending units as text: 3, 17, 40-44."""
    parts: list[list[int]] = []
    for unit in units.tolist():
        if parts and unit == parts[-1][-1] + 1:
            parts[-1] = [parts[-1][0], unit]
        else:
            parts.append([unit])
    return ", ".join("-".join(map(str, part)) for part in parts)


def name_of(units: NDArray[np.int64]) -> str:
    """A short name of ascending units, for files."""
    name = f"units-{ranges(units).replace(', ', '+')}"
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{len(units)}-units-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _quoted(name: str) -> str:
    return f"'{name}'" if '"' in name else f'"{name}"'
