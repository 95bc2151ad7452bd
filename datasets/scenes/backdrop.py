"""Sky, distance and ground: what every kind of scene may share, so that the background alone decides little."""

from __future__ import annotations

from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.datasets.scenes.canvas import Canvas, Points, Weave, colour_ramp, surface
from microtome.datasets.scenes.colours import RGB, blend, rgb, shade
from microtome.datasets.scenes.concepts import concept_id
from microtome.datasets.scenes.dice import Dice
from microtome.datasets.scenes.light import Light
from microtome.datasets.scenes.shapes import blob, ellipse, polygon
from microtome.datasets.scenes.tiles import SIDE, pyramid


class Ground(NamedTuple):
    """object and material of a kind of ground, its tile and the range of its colours (dark, light)."""

    thing: str
    material: str
    tile: str
    tones: tuple[tuple[str, str], ...]


GROUNDS: Final = {
    "grass": Ground("field", "grass", "grass", (
        ("3c6a24", "7cae48"), ("4c7430", "90b454"), ("6a7434", "b0ac5c"), ("2c5824", "5c9440"),
    )),
    "snow": Ground("field", "snow", "snow", (("c4d0e0", "f6f8fc"), ("d4dce4", "fcfcfc"))),
    "earth": Ground("field", "earth", "earth", (("5c4028", "94704c"), ("6e5238", "a88a60"))),
    "sand": Ground("beach", "sand", "sand", (("c4a878", "ecd8ac"), ("b8a080", "dcc8a4"), ("d0b890", "f4e4c0"))),
    "paving": Ground("pavement", "stone", "paving", (
        ("847c74", "b4aca0"), ("70706e", "a4a4a0"), ("9c8470", "c8b09a"),
    )),
    "asphalt": Ground("road", "asphalt", "asphalt", (("44464a", "6c6e72"), ("54524e", "7c7a74"))),
    "water": Ground("sea", "water", "water", (
        ("1e5478", "6ca4bc"), ("285c6c", "80b4b0"), ("2c4868", "7890a8"), ("3c6c5c", "94b09c"),
    )),
}  # fmt: skip


def paint_sky(canvas: Canvas, dice: Dice, light: Light, horizon: float) -> None:
    size = canvas.size
    last = min(int(horizon * size) + 2, size)
    share = np.linspace(0, 1, max(last, 2), dtype=np.float32)[:last, None]
    rows = np.array(light.zenith, np.float32) * (1 - share) + np.array(light.horizon, np.float32) * share
    canvas.image[:last] = rows.astype(np.uint8)[:, None]
    canvas.labels[:last, :, 0] = concept_id("object", "sky")
    canvas.haze = light.horizon
    if light.name not in ("overcast", "fog", "night") and dice.chance(0.4):
        x, y = 0.5 + 0.42 * light.side, horizon * dice.between(0.15, 0.7)
        r = dice.between(0.025, 0.05)
        canvas.blur_onto([ellipse(x, y, r * 2.4, r * 2.4)], surface(rgb("fff0c0"), "sky"), r * 2, 0.5)
        disc = ellipse(x, y, r, r)
        canvas.fill(disc, surface(rgb("fff4cc"), "sun"))
    tone = blend(blend(light.horizon, (255, 255, 255), 0.65), light.zenith, 0.15 if light.name != "overcast" else 0.6)
    for _ in range(0 if light.name == "fog" or dice.chance(0.25) else dice.count(1, 4)):
        _paint_cloud(canvas, dice, tone, horizon)


def _paint_cloud(canvas: Canvas, dice: Dice, tone: RGB, horizon: float) -> None:
    x, y, width = dice.roll(), horizon * dice.between(0.08, 0.75), dice.between(0.06, 0.2)
    puffs = [
        blob(
            dice,
            x + width * dice.between(-0.8, 0.8),
            y - width * dice.between(-0.05, 0.22),
            width * dice.between(0.4, 0.7),
            width * dice.between(0.16, 0.3),
            0.15,
            10,
        )
        for _ in range(4)
    ]
    base = [p + np.array((0.0, width * 0.1), np.float32) for p in puffs]
    canvas.blur_onto(base, surface(shade(tone, 0.82), "cloud"), 0.03, 0.9)
    canvas.blur_onto(puffs, surface(tone, "cloud"), 0.03, dice.between(0.7, 1.0))


def paint_mountains(canvas: Canvas, dice: Dice, horizon: float) -> None:
    """Two or three ranges, the far ones paler; some snow-capped."""
    for layer in range(dice.count(1, 2)):
        canvas.air = max(0.0, canvas.air - 0.12 * layer)
        tone = dice.pick((rgb("5c6468"), rgb("6e6458"), rgb("4c5a50"), rgb("7c6c64")))
        peak = horizon * dice.between(0.3, 0.75) * (1 - 0.35 * layer)
        xs = np.linspace(-0.05, 1.05, 12)
        heights = np.array([dice.between(0.25, 1.0) for _ in xs]) * peak
        line = [(float(x) + dice.between(-0.03, 0.03), horizon - float(h)) for x, h in zip(xs, heights, strict=True)]
        weave = Weave("stone", shade(tone, 1.3), 0.45, 0.5, (dice.roll(), dice.roll()))
        ridge = polygon((-0.05, horizon + 0.01), *line, (1.05, horizon + 0.01))
        canvas.fill(ridge, surface(shade(tone, 0.8), "mountain", "", "stone", weave))
        if dice.chance(0.5):
            caps = [_cap(line, i) for i in range(1, len(line) - 1) if horizon - line[i][1] > 0.55 * peak]
            canvas.fill([c for c in caps if c is not None], surface(rgb("eef2f8"), "mountain", "", "snow"))


def _cap(line: list[tuple[float, float]], i: int) -> Points | None:
    (lx, ly), (x, y), (rx, ry) = line[i - 1], line[i], line[i + 1]
    if y >= min(ly, ry):
        return None
    t = 0.4
    left, right = (x + (lx - x) * t, y + (ly - y) * t), (x + (rx - x) * t, y + (ry - y) * t)
    middle = ((left[0] + right[0]) / 2, (left[1] + right[1]) / 2 - 0.02)
    return polygon((x, y), right, middle, left)


def paint_hills(canvas: Canvas, dice: Dice, horizon: float) -> None:
    """Wooded hills along the horizon."""
    tone = dice.pick((rgb("3c5a3c"), rgb("4a6440"), rgb("54603c"), rgb("34503c")))
    xs = np.linspace(-0.05, 1.05, 9)
    line = [(float(x), horizon - dice.between(0.03, 0.11)) for x in xs]
    weave = Weave("foliage", shade(tone, 1.25), 0.14, 0.0, (dice.roll(), dice.roll()))
    canvas.fill(
        polygon((-0.05, horizon + 0.01), *line, (1.05, horizon + 0.01)),
        surface(shade(tone, 0.8), "mountain", "", "foliage", weave),
    )


def paint_ground(canvas: Canvas, dice: Dice, name: str, horizon: float, haze: float, bottom: float = 1.0) -> None:
    """Ground from the horizon down, its tile drawn out in perspective and fading into the distance."""
    ground = GROUNDS[name]
    dark, bright = (rgb(code) for code in dice.pick(ground.tones))
    first = max(round(horizon * canvas.size), 0)
    last = min(round(bottom * canvas.size), canvas.size)
    if last <= first:
        return
    tile = _perspective(canvas.size, ground.tile, horizon, (first, last), dice)
    near = np.linspace(0, 1, last - first, dtype=np.float32) if bottom >= 1 else np.full(last - first, 0.4, np.float32)
    contrast = np.clip(0.25 + 1.1 * near, 0, 1)[:, None]
    levels = np.asarray(128 + (tile - np.float32(128)) * contrast, np.uint8)
    picture = cv2.LUT(cv2.merge([levels] * 3), colour_ramp(dark, bright)[:, None, :])
    air = (haze * 256 * np.exp(-6 * (np.arange(first, last) / canvas.size - horizon))).astype(np.uint16)[:, None, None]
    hazy = picture * (256 - air) + np.array(canvas.haze, np.uint16) * air
    canvas.image[first:last] = hazy >> 8
    canvas.labels[first:last] = surface(dark, ground.thing, "", ground.material).labels


def _perspective(size: int, tile: str, horizon: float, rows: tuple[int, int], dice: Dice) -> NDArray[np.float32]:
    """(rows, size) float32: the tile on the plane below the horizon, as seen from above it."""
    source = pyramid(tile)[0]
    y = (np.arange(*rows, dtype=np.float32) + 0.5) / size - horizon + 0.06
    depth = (0.45 / y).astype(np.float32)
    x = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    u = (x[None, :] * depth[:, None] * 0.9 + dice.roll()) * SIDE
    v = np.broadcast_to((depth[:, None] * 1.3 + dice.roll()) * SIDE, u.shape)
    spread = cv2.remap(
        source,
        np.asarray(u % SIDE, np.float32),
        np.ascontiguousarray(v % SIDE, np.float32),
        cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_WRAP,
    )
    return np.asarray(spread, np.float32)


def paint_patches(canvas: Canvas, dice: Dice, name: str, horizon: float) -> None:
    """A few patches of another ground (worn grass, drifts of snow, a path), so that none is pure."""
    ground = GROUNDS[name]
    dark, bright = (rgb(code) for code in dice.pick(ground.tones))
    for _ in range(dice.count(1, 4)):
        y = horizon + (1 - horizon) * dice.between(0.15, 1.0)
        near = (y - horizon) / (1 - horizon)
        weave = Weave(ground.tile, bright, 0.2 + 0.5 * near, 0.0, (dice.roll(), dice.roll()))
        shape = blob(dice, dice.roll(), y, near * dice.between(0.1, 0.35), near * dice.between(0.02, 0.08), 0.3, 12)
        canvas.fill(shape, surface(dark, ground.thing, "", ground.material, weave))


def paint_road(canvas: Canvas, dice: Dice, horizon: float, across: bool) -> tuple[float, float]:
    """A road across the picture or away from the eye, with markings; returns its rows (top, bottom)."""
    dark, bright = (rgb(code) for code in dice.pick(GROUNDS["asphalt"].tones))
    weave = Weave("asphalt", bright, 0.5, 0.0, (dice.roll(), dice.roll()))
    tar = surface(dark, "road", "", "asphalt", weave)
    white = surface(rgb("e4e2d8"), "road", "", "asphalt")
    depth = 1 - horizon
    if across:
        top = horizon + depth * dice.between(0.3, 0.5)
        bottom = top + depth * dice.between(0.28, 0.45)
        tilt = dice.between(-0.03, 0.03)
        canvas.fill(
            polygon((-0.05, top + tilt), (1.05, top - tilt), (1.05, bottom - tilt), (-0.05, bottom + tilt)), tar
        )
        middle, shift = (top + bottom) / 2 - 0.01, dice.roll() * 0.2
        canvas.fill(
            [
                polygon(
                    (x, middle + tilt * (1 - 2 * x)),
                    (x + 0.1, middle + tilt * (0.8 - 2 * x)),
                    (x + 0.1, middle + 0.014 + tilt * (0.8 - 2 * x)),
                    (x, middle + 0.014 + tilt * (1 - 2 * x)),
                )
                for x in (shift - 0.2 + 0.2 * i for i in range(6))
            ],
            white,
        )
        return top, bottom
    vanish, centre, half = dice.between(0.3, 0.7), dice.between(0.3, 0.7), dice.between(0.3, 0.5)
    canvas.fill(
        polygon((vanish - 0.015, horizon), (vanish + 0.015, horizon), (centre + half, 1.01), (centre - half, 1.01)), tar
    )
    dashes = []
    for a in (0.06, 0.14, 0.26, 0.44, 0.7):
        b = a * 1.35
        ya, yb = horizon + depth * a, horizon + depth * b
        xa, xb = vanish + (centre - vanish) * a, vanish + (centre - vanish) * b
        dashes.append(polygon((xa - 0.012 * a, ya), (xa + 0.012 * a, ya), (xb + 0.012 * b, yb), (xb - 0.012 * b, yb)))
    canvas.fill(dashes, white)
    return horizon + depth * 0.3, 1.0
