"""Which layers an audit dissects: those that names and globs pick, each in its axes, in other directions, or both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from microtome.dissect.models.layers import LayerInfo, resolve_layers
from microtome.dissect.models.model import Model
from microtome.dissect.models.readouts.names import (
    AXES,
    FILE_LABEL,
    ROTATED,
    UnitsSpec,
    parse_all,
    split_pattern,
)
from microtome.storage.errors import UsageError


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
    split = [split_pattern(pattern, specs) for pattern in patterns]
    _refuse_idle(split, specs, rotation_baseline=rotation_baseline)
    asked: dict[str, list[UnitsSpec]] = {}
    for glob, own in split:
        for base in resolve_layers(model, [glob]):
            asked.setdefault(base, []).extend([own] if own is not None else specs or [AXES])
    ordered = resolve_layers(model, list(asked) or patterns)
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


def _refuse_idle(
    split: Sequence[tuple[str, UnitsSpec | None]], specs: Sequence[UnitsSpec], *, rotation_baseline: bool
) -> None:
    """Raise UsageError where something is asked for that no layer gets, or a layer for a file that is not given."""
    for glob, own in split:
        if own is None and (found := FILE_LABEL.fullmatch(glob)):
            raise UsageError(
                f"--layers {glob}: {found['label']} is not among the --units; give the file with --units, "
                "and every layer of --layers is read out by it"
            )
    plain = any(own is None for _, own in split)
    used = {own for _, own in split}
    idle = [spec.source for spec in specs if not plain and spec not in used]
    if idle:
        raise UsageError(f"--units {', '.join(idle)}: every name in --layers says already how its units are read out")
    if rotation_baseline and (not plain or (specs and AXES not in specs)):
        raise UsageError("--rotation-baseline goes with layers in their own axes; add axes to --units")
