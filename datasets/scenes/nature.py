"""Things that grow and lie about: trees, bushes, rocks, flowers, cows.

Every drawing function has one form: `draw(canvas, dice, x, y, height)`, where (x, y) is the point it stands on and
`height` its height, in relative units.
"""

from __future__ import annotations

import math

import numpy as np

from microtome.datasets.scenes.canvas import Canvas, Weave, surface
from microtome.datasets.scenes.colours import LEAVES, PAINT, RGB, blend, rgb, shade
from microtome.datasets.scenes.dice import Dice
from microtome.datasets.scenes.shapes import bar, blob, ellipse, polygon, rectangle

_BARK = (rgb("5c4430"), rgb("6e5844"), rgb("4a3a2c"), rgb("8c8074"))
_FUR = (rgb("f0ece4"), rgb("7a4a2a"), rgb("2c2624"), rgb("a8744a"))


def ground_shadow(canvas: Canvas, x: float, y: float, width: float, strength: float = 0.38) -> None:
    """The soft dark patch on the ground beneath a thing, drawn out away from the sun."""
    lean = -canvas.lit * width * 0.35
    canvas.shadow(ellipse(x + lean, y, width * 0.62, width * 0.11, 14), strength)


def draw_tree(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    if dice.chance(0.3):
        _draw_fir(canvas, dice, x, y, height)
    else:
        _draw_broadleaf(canvas, dice, x, y, height)


def _draw_broadleaf(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    bark, leaf = dice.pick(_BARK), dice.pick(LEAVES[:6] if dice.chance(0.75) else LEAVES)
    width = height * dice.between(0.22, 0.36)
    top = y - height
    split = y - height * dice.between(0.28, 0.45)
    ground_shadow(canvas, x, y, width * 1.6)
    trunk = height * dice.between(0.045, 0.08)
    canvas.fill(
        polygon(
            (x - trunk, y),
            (x - trunk * 0.6, split - height * 0.1),
            (x + trunk * 0.6, split - height * 0.1),
            (x + trunk, y),
        ),
        surface(bark, "tree", "trunk", "wood"),
    )
    middle, half = (top + split) / 2, (split - top) / 2 + height * 0.04
    weave = leaf_weave(dice, leaf, height)
    paint = surface(shade(leaf, 0.55), "tree", "crown", "foliage", weave)
    crown = [blob(dice, x, middle, width, half, 0.16, 16)]
    if dice.chance(0.6):
        side = 1 if dice.chance(0.5) else -1
        crown.append(blob(dice, x + side * width * 0.55, middle + half * 0.3, width * 0.6, half * 0.6, 0.16, 12))
    for lobe in crown:
        canvas.fill(lobe, paint)
    canvas.shadow(
        blob(dice, x - canvas.lit * width * 0.5, middle + half * 0.35, width * 0.65, half * 0.55, 0.2, 10), 0.3
    )


def _draw_fir(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    leaf = dice.pick((rgb("2a5438"), rgb("24482e"), rgb("3a6448")))
    white = dice.chance(0.25)
    half = height * dice.between(0.17, 0.26)
    ground_shadow(canvas, x, y, half * 1.6)
    canvas.fill(
        rectangle(x - height * 0.025, y - height * 0.2, x + height * 0.025, y),
        surface(dice.pick(_BARK), "tree", "trunk", "wood"),
    )
    light = blend(leaf, (235, 240, 245), 0.75) if white else shade(leaf, 1.5)
    weave = Weave("needles", light, height * 0.4, 0.0, (dice.roll(), dice.roll()))
    paint = surface(shade(leaf, 0.7), "tree", "crown", "foliage", weave)
    tiers = dice.count(3, 4)
    for tier in range(tiers):
        low = y - height * (0.12 + 0.8 * tier / tiers)
        high = max(low - height * 0.42, y - height)
        reach = half * (1 - 0.75 * tier / tiers)
        canvas.fill(polygon((x - reach, low), (x, high), (x + reach, low), (x, low + height * 0.03)), paint)
    canvas.shadow(polygon((x, y - height), (x - canvas.lit * half, y - height * 0.12), (x, y - height * 0.1)), 0.25)


def leaf_weave(dice: Dice, leaf: RGB, height: float) -> Weave:
    return Weave("foliage", shade(leaf, 1.4), height * dice.between(0.5, 0.8), 0.0, (dice.roll(), dice.roll()))


def draw_bush(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    leaf = dice.pick(LEAVES[:6])
    width = height * dice.between(0.6, 1.0)
    ground_shadow(canvas, x, y, width * 1.5)
    paint = surface(shade(leaf, 0.6), "bush", "", "foliage", leaf_weave(dice, leaf, height * 1.4))
    canvas.fill(blob(dice, x, y - height * 0.45, width, height * 0.55, 0.18, 14), paint)


def draw_rock(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    tone = dice.pick((rgb("8c8880"), rgb("6e6a68"), rgb("9a8c7c"), rgb("a8a8a4")))
    width = height * dice.between(0.8, 1.2)
    ground_shadow(canvas, x, y, width * 1.4)
    weave = Weave("stone", shade(tone, 1.2), height * 1.5, dice.between(0, 3), (dice.roll(), dice.roll()))
    canvas.fill(
        blob(dice, x, y - height * 0.42, width, height * 0.55, 0.22, 9),
        surface(shade(tone, 0.7), "rock", "", "stone", weave),
    )
    canvas.shadow(blob(dice, x - canvas.lit * width * 0.4, y - height * 0.2, width * 0.5, height * 0.3, 0.2, 8), 0.3)


def draw_flower(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    """A bed of flowers: blossoms of one colour over low leaves."""
    leaf, petal = dice.pick(LEAVES[:6]), dice.pick((*PAINT[:2], *PAINT[6:15]))
    width = height * dice.between(1.2, 2.2)
    canvas.fill(
        blob(dice, x, y - height * 0.3, width, height * 0.4, 0.15, 12),
        surface(shade(leaf, 0.8), "flower", "", "foliage"),
    )
    heads = []
    for _ in range(dice.count(7, 12)):
        turn, reach = dice.between(0, 2 * math.pi), math.sqrt(dice.roll())
        r = height * dice.between(0.12, 0.2)
        heads.append(
            ellipse(
                x + math.cos(turn) * reach * width * 0.9, y - height * (0.45 + 0.4 * math.sin(turn) * reach), r, r, 9
            )
        )
    canvas.fill(heads, surface(petal, "flower"))
    canvas.fill([h.mean(0) + (h - h.mean(0)) * np.float32(0.4) for h in heads], surface(rgb("f0d860"), "flower"))


def draw_cow(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    coat = dice.pick(_FUR)
    mirror = dice.chance(0.5)
    side = -1 if mirror else 1
    ground_shadow(canvas, x, y, height * 1.3)
    legs = [
        bar(
            x + side * height * dx,
            y - height * 0.5,
            x + side * height * (dx + dice.between(-0.05, 0.05)),
            y,
            height * 0.11,
        )
        for dx in (-0.48, -0.32, 0.3, 0.45)
    ]
    canvas.fill(legs, surface(shade(coat, 0.75), "cow", "leg", "fur"))
    canvas.fill(
        blob(dice, x, y - height * 0.64, height * 0.66, height * 0.28, 0.07, 18), surface(coat, "cow", "torso", "fur")
    )
    if dice.chance(0.7):
        patch = dice.pick((rgb("2c2624"), rgb("6a3e22"))) if coat[0] > 200 else rgb("ece6da")
        spots = [
            blob(
                dice,
                x + side * height * dice.between(-0.45, 0.4),
                y - height * dice.between(0.55, 0.75),
                height * dice.between(0.08, 0.18),
                height * dice.between(0.07, 0.13),
                0.3,
                9,
            )
            for _ in range(3)
        ]
        canvas.fill(spots, surface(patch, "cow", "torso", "fur"))
    low = 0.15 if dice.chance(0.3) else 0.82
    hx, hy = x + side * height * 0.8, y - height * low
    canvas.fill(
        bar(x + side * height * 0.5, y - height * 0.7, hx, hy, height * 0.24), surface(coat, "cow", "torso", "fur")
    )
    canvas.fill(
        ellipse(hx + side * height * 0.03, hy, height * 0.2, height * 0.14, 12),
        surface(shade(coat, 0.9), "cow", "head", "fur"),
    )
    canvas.fill(
        ellipse(hx + side * height * 0.18, hy + height * 0.03, height * 0.07, height * 0.08, 9),
        surface(rgb("d8a89c"), "cow", "head", "skin"),
    )
    canvas.fill(
        bar(hx - side * height * 0.05, hy - height * 0.1, hx - side * height * 0.12, hy - height * 0.22, height * 0.05),
        surface(rgb("e8e0cc"), "cow", "head", "fur"),
    )
