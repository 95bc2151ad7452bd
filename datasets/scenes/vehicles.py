"""Things that carry: cars, buses, boats, hot-air balloons."""

from __future__ import annotations

import math
from typing import Final

from microtome.datasets.scenes.buildings import cloth
from microtome.datasets.scenes.canvas import Canvas, Points, surface
from microtome.datasets.scenes.colours import PAINT, RGB, blend, rgb, shade
from microtome.datasets.scenes.dice import Dice
from microtome.datasets.scenes.nature import ground_shadow
from microtome.datasets.scenes.shapes import bar, ellipse, grid, outline, place, polygon, rectangle

_GLASS: Final = (rgb("a4c0d0"), rgb("4a606e"), rgb("6c8898"), rgb("2a343c"))
_BEAM: Final = rgb("fff4c8")

_SALOON = outline(
    (-1.1, -0.18),
    (-1.12, -0.5),
    (-0.72, -0.58),
    (-0.45, -0.98),
    (0.35, -1.0),
    (0.68, -0.6),
    (1.12, -0.5),
    (1.14, -0.18),
)
_ESTATE = outline((-1.1, -0.18), (-1.12, -0.6), (-1.02, -1.0), (0.3, -1.0), (0.66, -0.6), (1.12, -0.5), (1.14, -0.18))
_VAN = outline((-1.15, -0.18), (-1.15, -1.15), (0.62, -1.15), (0.95, -0.66), (1.18, -0.58), (1.18, -0.18))


def _wheels(canvas: Canvas, thing: str, centres: list[tuple[float, float]], radius: float) -> None:
    tyres = [ellipse(cx, cy, radius, radius, 16) for cx, cy in centres]
    canvas.fill(tyres, surface(rgb("1e1e20"), thing, "wheel", "rubber"))
    hubs = [ellipse(cx, cy, radius * 0.5, radius * 0.5, 12) for cx, cy in centres]
    canvas.fill(hubs, surface(rgb("b4b8bc"), thing, "wheel", "metal"))


def draw_car(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    """A car from the side, or from the front where it is small or the dice say so."""
    if dice.chance(0.3):
        _car_front(canvas, dice, x, y, height)
    else:
        _car_side(canvas, dice, x, y, height)


def _car_side(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    tone, glass = dice.pick(PAINT), dice.pick(_GLASS)
    mirror = dice.chance(0.5)
    side = -1 if mirror else 1
    body = dice.pick((_SALOON, _SALOON, _ESTATE, _VAN))
    ground_shadow(canvas, x, y, height * 2.3, 0.5)
    canvas.fill(place(body, x, y, height, mirror), surface(tone, "car", "bodywork", "metal"))
    sill = outline((-1.1, -0.34), (1.14, -0.34), (1.14, -0.16), (-1.1, -0.16))
    canvas.fill(place(sill, x, y, height, mirror), surface(shade(tone, 0.65), "car", "bodywork", "metal"))
    if body is _VAN:
        panes = [outline((0.28, -1.03), (0.58, -1.03), (0.86, -0.66), (0.28, -0.66))]
        panes += [outline((-0.35, -1.03), (0.16, -1.03), (0.16, -0.66), (-0.35, -0.66))] if dice.chance(0.6) else []
    else:
        back = -0.62 if body is _SALOON else -0.95
        panes = [
            outline((back, -0.62), (back * 0.66, -0.92), (-0.08, -0.92), (-0.08, -0.62)),
            outline((0.02, -0.62), (0.02, -0.92), (0.3, -0.92), (0.54, -0.62)),
        ]
    canvas.fill([place(p, x, y, height, mirror) for p in panes], surface(glass, "car", "window", "glass"))
    radius = height * dice.between(0.2, 0.25)
    _wheels(canvas, "car", [(x + side * height * t, y - radius * 0.95) for t in (-0.66, 0.68)], radius)
    front = ellipse(x + side * height * 1.08, y - height * 0.43, height * 0.07, height * 0.06, 8)
    rear = ellipse(x - side * height * 1.06, y - height * 0.43, height * 0.05, height * 0.07, 8)
    canvas.fill(front, surface(rgb("f4f0d8"), "car", "light", "glass"))
    canvas.fill(rear, surface(rgb("c02018"), "car", "light", "glass"))
    canvas.shine([front], _BEAM, "light")


def _car_front(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    tone, glass = dice.pick(PAINT), dice.pick(_GLASS)
    w = height * 0.72
    ground_shadow(canvas, x, y, w * 2.1, 0.5)
    tyres = [rectangle(x + s * w * 0.75 - w * 0.16, y - height * 0.3, x + s * w * 0.75 + w * 0.16, y) for s in (-1, 1)]
    canvas.fill(tyres, surface(rgb("1e1e20"), "car", "wheel", "rubber"))
    canvas.fill(
        polygon(
            (x - w, y - height * 0.14),
            (x - w, y - height * 0.55),
            (x - w * 0.72, y - height),
            (x + w * 0.72, y - height),
            (x + w, y - height * 0.55),
            (x + w, y - height * 0.14),
        ),
        surface(tone, "car", "bodywork", "metal"),
    )
    canvas.fill(
        polygon(
            (x - w * 0.82, y - height * 0.6),
            (x - w * 0.64, y - height * 0.92),
            (x + w * 0.64, y - height * 0.92),
            (x + w * 0.82, y - height * 0.6),
        ),
        surface(glass, "car", "window", "glass"),
    )
    canvas.fill(
        rectangle(x - w, y - height * 0.26, x + w, y - height * 0.13),
        surface(shade(tone, 0.55), "car", "bodywork", "metal"),
    )
    tail = dice.chance(0.4)
    lights = [ellipse(x + s * w * 0.76, y - height * 0.42, w * 0.17, height * 0.075, 9) for s in (-1, 1)]
    canvas.fill(lights, surface(rgb("c02018") if tail else rgb("f4f0d8"), "car", "light", "glass"))
    canvas.shine(lights, rgb("ff3020") if tail else _BEAM, "light")


def draw_bus(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    tone, glass = dice.pick(PAINT), dice.pick(_GLASS)
    half = height * dice.between(1.0, 1.35)
    side = 1 if dice.chance(0.5) else -1
    ground_shadow(canvas, x, y, half * 2.1, 0.5)
    canvas.fill(rectangle(x - half, y - height, x + half, y - height * 0.14), surface(tone, "bus", "bodywork", "metal"))
    band = dice.pick(PAINT) if dice.chance(0.6) else shade(tone, 0.7)
    canvas.fill(
        rectangle(x - half, y - height * 0.42, x + half, y - height * 0.28), surface(band, "bus", "bodywork", "metal")
    )
    canvas.fill(
        rectangle(x - half * 0.96, y - height * 1.04, x + half * 0.96, y - height * 0.97),
        surface(shade(tone, 0.8), "bus", "roof", "metal"),
    )
    panes = grid(x - half * 0.97, y - height * 0.9, x + half * 0.97, y - height * 0.5, 1, dice.count(4, 6), 0.14)
    canvas.fill(panes, surface(glass, "bus", "window", "glass"))
    canvas.shine(panes, rgb("f8e8b8"), "window")
    door = x + side * half * 0.72
    canvas.fill(
        rectangle(door - height * 0.12, y - height * 0.8, door + height * 0.12, y - height * 0.15),
        surface(blend(glass, (40, 44, 48), 0.4), "bus", "door", "glass"),
    )
    radius = height * 0.15
    _wheels(canvas, "bus", [(x + half * t, y - radius * 0.95) for t in (-0.6, 0.5)], radius)
    lamp = ellipse(x + side * half * 0.97, y - height * 0.25, height * 0.05, height * 0.05, 8)
    canvas.fill(lamp, surface(rgb("f4f0d8"), "bus", "light", "glass"))
    canvas.shine([lamp], _BEAM, "light")


def draw_boat(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    """A sailing boat or, less often, a motor boat with a cabin."""
    sailing = dice.chance(0.7)
    height *= 1.0 if sailing else 0.6
    mirror = dice.chance(0.5)
    length = height * (dice.between(0.36, 0.5) if sailing else dice.between(0.7, 0.9))
    deck = height * (0.17 if sailing else 0.32)
    tone: RGB = dice.pick(PAINT)
    canvas.shadow(ellipse(x, y, length * 1.0, height * 0.05, 14), 0.3)
    hull = outline((-1.0, -1.0), (1.12, -1.15), (0.72, 0.0), (-0.8, 0.0))
    scale: Points = outline((length, deck))
    shape = (hull * outline((-1.0, 1.0)) if mirror else hull) * scale + outline((x, y))
    if sailing:
        _rig(canvas, dice, x, y, height, length, mirror)
    else:
        cabin = rectangle(x - length * 0.45, y - height * 0.85, x + length * 0.3, y - deck * 0.8)
        canvas.fill(cabin, surface(rgb("ece8e0"), "boat", "wall", "wood"))
        panes = grid(x - length * 0.42, y - height * 0.78, x + length * 0.27, y - height * 0.52, 1, 3, 0.25)
        canvas.fill(panes, surface(dice.pick(_GLASS), "boat", "window", "glass"))
        canvas.shine(panes, rgb("ffd890"), "window")
    material = "wood" if dice.chance(0.5) else "metal"
    canvas.fill(shape, surface(tone, "boat", "hull", material))
    stripe = (shape - shape.mean(0)) * outline((0.92, 0.25)) + shape.mean(0) - outline((0.0, deck * 0.3))
    canvas.fill(stripe, surface(blend(tone, (250, 250, 250), 0.7), "boat", "hull", material))


def _rig(canvas: Canvas, dice: Dice, x: float, y: float, height: float, length: float, mirror: bool) -> None:
    side = -1 if mirror else 1
    foot, top = y - height * 0.2, y - height
    canvas.fill(bar(x, y - height * 0.1, x, top, height * 0.025), surface(rgb("8c7458"), "boat", "pole", "wood"))
    plain = surface(dice.pick((rgb("f4f2ec"), rgb("e8e0cc"), rgb("d8604c"), rgb("3c6ca8"))), "boat", "sail", "fabric")
    main = (
        plain
        if dice.chance(0.55)
        else cloth(dice, "boat", "sail", height * 0.3, dice.pick((0.0, math.pi / 2)), plain=0.0)
    )
    canvas.fill(
        polygon(
            (x - side * height * 0.02, top + height * 0.03),
            (x - side * length * 0.95, foot),
            (x - side * height * 0.02, foot),
        ),
        main,
    )
    jib = polygon(
        (x + side * height * 0.03, top + height * 0.1),
        (x + side * length * 0.95, foot + height * 0.03),
        (x + side * height * 0.03, foot),
    )
    canvas.fill(jib, plain._replace(colour=shade(plain.colour, 0.88)))


def draw_balloon(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    """A hot-air balloon; (x, y) is the bottom of its basket."""
    r = height * 0.36
    cy = y - height * 0.64
    cover = cloth(
        dice, "balloon", "canopy", height * dice.between(0.22, 0.4), dice.pick((0.0, 0.0, math.pi / 2)), plain=0.5
    )
    ropes = [bar(x + s * r * 0.32, cy + r * 1.05, x + s * r * 0.16, y - height * 0.09, height * 0.012) for s in (-1, 1)]
    canvas.fill(ropes, surface(rgb("4a4038"), "balloon"))
    taper = polygon(
        (x - r * 0.86, cy + r * 0.5),
        (x - r * 0.3, cy + r * 1.2),
        (x + r * 0.3, cy + r * 1.2),
        (x + r * 0.86, cy + r * 0.5),
    )
    canvas.fill(taper, cover)
    canvas.fill(ellipse(x, cy, r, r, 24), cover)
    canvas.shadow(ellipse(x - canvas.lit * r * 0.35, cy + r * 0.15, r * 0.6, r * 0.8, 16), 0.22)
    basket = rectangle(x - r * 0.2, y - height * 0.1, x + r * 0.2, y)
    canvas.fill(basket, surface(dice.pick((rgb("7c5430"), rgb("9a6c3c"))), "balloon", "basket", "wood"))
