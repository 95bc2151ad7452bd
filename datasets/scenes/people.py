"""People, on foot or on skis, and the parasols they sit under."""

from __future__ import annotations

from microtome.datasets.scenes.buildings import cloth
from microtome.datasets.scenes.canvas import Canvas, surface
from microtome.datasets.scenes.colours import HAIR, PAINT, SKIN, rgb
from microtome.datasets.scenes.dice import Dice
from microtome.datasets.scenes.nature import ground_shadow
from microtome.datasets.scenes.shapes import bar, ellipse, polygon


def draw_person(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    _figure(canvas, dice, x, y, height, lean=0.0)


def draw_skier(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    """A person bent forward on two long skis."""
    side = 1 if dice.chance(0.5) else -1
    tone = dice.pick(PAINT)
    slope = side * height * dice.between(0.0, 0.12)
    for step in (0.0, 0.07):
        canvas.fill(
            bar(
                x - side * height * 0.5,
                y + height * step - slope,
                x + side * height * 0.55,
                y + height * step + slope,
                height * 0.055,
            ),
            surface(tone, "person", "ski", "wood"),
        )
    _figure(canvas, dice, x, y, height, lean=side * dice.between(0.08, 0.2))
    canvas.fill(
        [bar(x + side * height * 0.2, y - height * 0.55, x - side * height * dice.between(0.2, 0.4), y, height * 0.02)],
        surface(rgb("3c3c40"), "person", "pole", "metal"),
    )


def _figure(canvas: Canvas, dice: Dice, x: float, y: float, height: float, lean: float) -> None:
    skin, hair, trousers = dice.pick(SKIN), dice.pick(HAIR), dice.pick(PAINT[2:])
    stride = height * dice.between(0.03, 0.13)
    hip, neck, w = y - height * 0.47, y - height * 0.82, height * dice.between(0.1, 0.135)
    top = x + lean * height
    ground_shadow(canvas, x, y, height * 0.4)
    bare = dice.chance(0.25) and lean == 0.0
    legs = [bar(x + s * w * 0.4, hip, x + s * stride, y, height * 0.095) for s in (-1, 1)]
    canvas.fill(legs, surface(skin if bare else trousers, "person", "leg", "skin" if bare else "fabric"))
    shirt = cloth(dice, "person", "torso", height * dice.between(0.22, 0.32), plain=2.5)
    swing = height * dice.between(0.02, 0.16)
    arms = [
        bar(top + s * w * 0.9, neck + height * 0.05, top + s * (w + swing), hip - height * 0.02, height * 0.065)
        for s in (-1, 1)
    ]
    sleeves = dice.chance(0.5)
    canvas.fill(arms, surface(shirt.colour if sleeves else skin, "person", "torso", "fabric" if sleeves else "skin"))
    canvas.fill(
        polygon(
            (top - w, neck), (top + w, neck), (x + w * 0.85, hip + height * 0.03), (x - w * 0.85, hip + height * 0.03)
        ),
        shirt,
    )
    r = height * 0.085
    canvas.fill(ellipse(top, y - height + r, r * 1.05, r * 1.05, 12), surface(hair, "person", "head"))
    canvas.fill(
        ellipse(top + r * dice.between(-0.25, 0.25), y - height + r * 1.25, r * 0.78, r * 0.8, 10),
        surface(skin, "person", "head", "skin"),
    )


def draw_parasol(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    half = height * dice.between(0.5, 0.68)
    tilt = dice.between(-0.12, 0.12) * height
    ground_shadow(canvas, x, y, half * 1.7)
    canvas.fill(
        bar(x, y, x + tilt, y - height * 0.95, height * 0.035), surface(rgb("d8ccb8"), "parasol", "pole", "wood")
    )
    cover = cloth(dice, "parasol", "canopy", height * dice.between(0.3, 0.5), plain=0.5)
    rim, top = y - height * 0.62, y - height
    cx = x + tilt
    dome = polygon(
        (cx - half, rim), (cx - half * 0.75, rim - height * 0.17), (cx - half * 0.4, top + height * 0.07), (cx, top),
        (cx + half * 0.4, top + height * 0.07), (cx + half * 0.75, rim - height * 0.17), (cx + half, rim),
        (cx + half * 0.5, rim - height * 0.05), (cx, rim), (cx - half * 0.5, rim - height * 0.05),
    )  # fmt: skip
    canvas.fill(dome, cover)
    canvas.shadow(polygon((cx, top), (cx - canvas.lit * half, rim), (cx - canvas.lit * half * 0.3, rim)), 0.22)
