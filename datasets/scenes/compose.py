"""From seed and index to a painted scene: choose kind and light, lay the ground, set things up back to front."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from microtome.datasets.scenes import buildings, nature, people, vehicles
from microtome.datasets.scenes.backdrop import (
    paint_ground,
    paint_hills,
    paint_mountains,
    paint_patches,
    paint_road,
    paint_sky,
)
from microtome.datasets.scenes.canvas import Canvas
from microtome.datasets.scenes.concepts import SCENE_KINDS
from microtome.datasets.scenes.dice import Dice, mix
from microtome.datasets.scenes.kinds import BYSTANDERS, KINDS, Kind
from microtome.datasets.scenes.light import Light, choose_light

Draw = Callable[[Canvas, Dice, float, float, float], None]

DRAW: Final[dict[str, tuple[Draw, float, float]]] = {
    "skyscraper": (buildings.draw_skyscraper, 5.0, 8.5),
    "house": (buildings.draw_house, 2.1, 2.9),
    "stall": (buildings.draw_stall, 1.5, 1.8),
    "tent": (buildings.draw_tent, 1.1, 1.6),
    "bench": (buildings.draw_bench, 0.55, 0.7),
    "lamp": (buildings.draw_lamp, 2.2, 2.8),
    "fence": (buildings.draw_fence, 0.5, 0.75),
    "tree": (nature.draw_tree, 1.9, 3.2),
    "bush": (nature.draw_bush, 0.5, 0.9),
    "rock": (nature.draw_rock, 0.3, 0.6),
    "flower": (nature.draw_flower, 0.35, 0.5),
    "cow": (nature.draw_cow, 0.85, 1.05),
    "car": (vehicles.draw_car, 0.85, 1.05),
    "bus": (vehicles.draw_bus, 1.6, 1.9),
    "boat": (vehicles.draw_boat, 1.5, 2.3),
    "balloon": (vehicles.draw_balloon, 1.0, 1.0),
    "person": (people.draw_person, 0.95, 1.1),
    "skier": (people.draw_skier, 0.95, 1.1),
    "parasol": (people.draw_parasol, 1.4, 1.7),
}
"""How each thing is drawn, and its height from ... to ..., a person being 1."""


@dataclass(frozen=True, slots=True)
class Thing:
    """One thing in a scene: its name, where it stands and how tall it is, in relative units (0 ... 1)."""

    name: str
    x: float
    y: float
    height: float


@dataclass(slots=True)
class SceneTruth:
    """What is in a scene, before anything hides anything: the kind, the setting, and the things back to front."""

    kind: str
    light: str
    ground: str
    layout: str
    backdrop: str
    horizon: float
    things: list[Thing] = field(default_factory=list)


@dataclass(slots=True)
class _Stage:
    """The room that a scene has: land, road and water are rows (top, bottom) of the picture, or None."""

    horizon: float
    zoom: float
    land: tuple[float, float] | None
    road: tuple[float, float] | None
    water: tuple[float, float] | None


def kind_of(seed: int, index: int) -> int:
    """The scene's class: uniform over the kinds, from a hash of seed and index."""
    return mix(seed, index, 1) % len(SCENE_KINDS)


def is_validation(seed: int, index: int) -> bool:
    """One scene in five, by a hash of seed and index."""
    return mix(seed, index, 2) % 5 == 0


def compose(canvas: Canvas, seed: int, index: int) -> tuple[SceneTruth, Light, Dice]:
    """Paint scene `index` onto the canvas, by daylight; returns its truth, its light and the dice for the camera."""
    dice = Dice(seed, index, 3)
    light, truth = _setting(dice, seed, index)
    canvas.lit, canvas.dark = light.side, light.dark
    kind = KINDS[truth.kind]
    paint_sky(canvas, dice, light, truth.horizon)
    canvas.air = light.haze
    if truth.backdrop == "mountains":
        paint_mountains(canvas, dice, truth.horizon)
    elif truth.backdrop == "hills":
        canvas.air = light.haze * 0.7
        paint_hills(canvas, dice, truth.horizon)
    canvas.air = light.haze * 0.4
    stage = _lay_ground(canvas, dice, truth, light)
    for thing in sorted(_cast(dice, kind, stage, truth), key=lambda thing: thing.y):
        near = max(thing.y - truth.horizon, 0.0) / (1 - truth.horizon)
        canvas.air = 0.0 if thing.name == "balloon" and thing.height > 0.3 else light.haze * 0.75 * (1 - near) ** 2
        DRAW[thing.name][0](canvas, dice, thing.x, thing.y, thing.height)
        truth.things.append(thing)
    return truth, light, dice


def setting_of(seed: int, index: int) -> SceneTruth:
    """Kind, light, ground, layout, backdrop and horizon of scene `index`, without its things: costs microseconds."""
    return _setting(Dice(seed, index, 3), seed, index)[1]


def _setting(dice: Dice, seed: int, index: int) -> tuple[Light, SceneTruth]:
    name = SCENE_KINDS[kind_of(seed, index)]
    kind, light = KINDS[name], choose_light(dice)
    truth = SceneTruth(
        name, light.name, dice.weighted(kind.grounds), dice.weighted(kind.layouts),
        dice.weighted(kind.backdrops), dice.between(0.3, 0.52),
    )  # fmt: skip
    return light, truth


def _lay_ground(canvas: Canvas, dice: Dice, truth: SceneTruth, light: Light) -> _Stage:
    horizon, haze = truth.horizon, light.haze
    depth = 1 - horizon
    stage = _Stage(horizon, dice.between(0.34, 0.5), (horizon, 1.0), None, None)
    if truth.layout == "sea":
        paint_ground(canvas, dice, "water", horizon, haze)
        stage.water, stage.land = (horizon + 0.03, 1.0), None
        return stage
    paint_ground(canvas, dice, truth.ground, horizon, haze)
    if dice.chance(0.6):
        other = dice.weighted(
            {"grass": 0.35, "earth": 0.25, "sand": 0.2, "snow": 0.2 if truth.ground == "snow" else 0.05}
        )
        paint_patches(canvas, dice, other, horizon)
    if truth.layout == "shore":
        bank = horizon + depth * dice.between(0.2, 0.5)
        paint_ground(canvas, dice, "water", horizon, haze, bank)
        stage.water, stage.land = (horizon + 0.02, bank - 0.02), (bank + 0.02, 1.0)
    elif truth.layout.startswith("road"):
        stage.road = paint_road(canvas, dice, horizon, truth.layout == "road across")
    return stage


def _cast(dice: Dice, kind: Kind, stage: _Stage, truth: SceneTruth) -> list[Thing]:
    things: list[Thing] = []
    for prop in kind.props:
        if dice.chance(prop.chance):
            for _ in range(dice.count(prop.low, prop.high)):
                _add(things, dice, stage, prop.thing, prop.near, prop.where)
    for _ in range(dice.count(0, 2)):
        _add(things, dice, stage, dice.weighted(BYSTANDERS), (0.15, 0.75), "land")
    if dice.chance(0.04) and truth.kind != "balloon festival":
        _add(things, dice, stage, "balloon", (0.0, 0.0), "sky")
    if stage.water is not None and dice.chance(0.15):
        _add(things, dice, stage, "boat", (0.1, 0.5), "water")
    return things


def _add(things: list[Thing], dice: Dice, stage: _Stage, name: str, near: tuple[float, float], where: str) -> None:
    """Place one thing where there is room; three tries to keep clear of its kind, then it may overlap."""
    band = {"land": stage.land, "road": stage.road, "water": stage.water}.get(where, (stage.horizon, 1.0))
    if band is None:
        return
    _, low, high = DRAW[name]
    tall = dice.between(low, high)
    for _ in range(3):
        x = dice.between(0.02, 0.98)
        if where == "sky":
            height = dice.between(0.16, 0.5)
            y = min(dice.between(0.12, 0.9) * stage.horizon + height * 0.6, stage.horizon + 0.12)
        else:
            y = _row(dice, stage.horizon, near, band, where)
            share = (y - stage.horizon) / (1 - stage.horizon)
            height = stage.zoom * tall * max(share, 0.12)
        if all(abs(x - other.x) > 0.45 * (height + other.height) * 0.6 or abs(y - other.y) > 0.15 for other in things):
            break
    things.append(Thing(name, x, y, height))


def _row(dice: Dice, horizon: float, near: tuple[float, float], band: tuple[float, float], where: str) -> float:
    """A row of the picture to stand on: at the wanted depth, moved into the band that holds the thing."""
    if where == "back":
        return horizon + 0.01
    if where in ("road", "water"):
        low, high = (0.3, 0.95) if where == "road" else (0.0, 0.85)
        return band[0] + (band[1] - band[0]) * dice.between(low, high)
    y = horizon + (1 - horizon) * dice.between(*near)
    return min(max(y, band[0]), band[1])
