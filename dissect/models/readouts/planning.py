"""Which layers an audit dissects: those that names and globs pick, each in its axes, in other directions, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from microtome.dissect.models.layers import LayerInfo, resolve_layers
from microtome.dissect.models.model import Model
from microtome.dissect.models.readouts.names import AXES, ROTATED, UnitsSpec, parse_all, split_pattern


@dataclass(frozen=True)
class PlannedLayer:
    """A layer to dissect: the layer of the model it is taken from, and how its units are read out of that."""

    base: str
    spec: UnitsSpec = AXES

    @property
    def name(self) -> str:
        """What the run calls it: the base's own name for the axes, else BASE:LABEL."""
        return self.spec.name(self.base)

    def describe(self, base: LayerInfo, units: int | None = None) -> LayerInfo:
        """The layer, given its base; units: how many, None = not known before fitting, those of the base at most."""
        if self.spec.kind == "axes":
            return base
        count = units or min(base.units, self.spec.components or base.units)
        return replace(base, name=self.name, shape=(count, *base.grid))


def plan_layers(
    model: Model, patterns: Sequence[str], units: Sequence[str] = (), *, rotation_baseline: bool = False
) -> list[PlannedLayer]:
    """The layers that `patterns` pick, in the order of the network.

    units: read-outs of every layer whose pattern names none, in place of its axes (`axes` for these as well);
    rotation_baseline: beside every layer of axes, its random rotation.
    Raises UsageError, or UnknownNameError, for what names no layer or no way to read one.
    """
    specs = parse_all(units)
    asked: dict[str, list[UnitsSpec]] = {}
    for pattern in patterns:
        glob, own = split_pattern(pattern, specs)
        for base in resolve_layers(model, [glob]):
            asked.setdefault(base, []).extend([own] if own is not None else specs or [AXES])
    ordered = resolve_layers(model, list(asked)) if asked else resolve_layers(model, patterns)
    return [PlannedLayer(base, spec) for base in ordered for spec in _distinct(asked[base], rotation_baseline)]


def describe_planned(planned: Sequence[PlannedLayer], bases: Mapping[str, LayerInfo]) -> list[LayerInfo]:
    """The layers as they can be described before anything is fitted, given those of the model."""
    return [layer.describe(bases[layer.base]) for layer in planned]


def _distinct(specs: Sequence[UnitsSpec], rotation_baseline: bool) -> list[UnitsSpec]:
    """Each once, the axes first, and with them the baseline where it is asked for."""
    once = list(dict.fromkeys(specs))
    if AXES in once:
        once.remove(AXES)
        once.insert(0, AXES)
        if rotation_baseline and ROTATED not in once:
            once.insert(1, ROTATED)
    return once
