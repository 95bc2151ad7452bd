"""The hour and the weather: colours of the sky, strength and tint of the light, haze, and what the camera adds."""

from __future__ import annotations

from functools import cache
from typing import Final, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.datasets.scenes.canvas import Canvas
from microtome.datasets.scenes.colours import RGB, blend, rgb
from microtome.datasets.scenes.dice import Dice, mix, uniforms


class Light(NamedTuple):
    """zenith, horizon: sky; tint: gain of red, green, blue; gamma above 1 darkens; haze: share at the horizon.

    side: where the sun stands, -1 left ... 1 right; dark: lamps and windows shine.
    """

    name: str
    zenith: RGB
    horizon: RGB
    tint: RGB
    gamma: float
    haze: float
    side: float
    dark: bool


_HOURS: Final[dict[str, tuple[str, str, RGB, float, float]]] = {
    "noon": ("4a8cd8", "b4d4ee", (1.05, 1.03, 0.98), 0.95, 0.25),
    "overcast": ("a4acb4", "ccd0d2", (0.92, 0.94, 0.97), 1.05, 0.35),
    "fog": ("c4c8ca", "d4d6d6", (0.97, 0.98, 1.0), 0.95, 0.75),
    "dusk": ("5a5a94", "f0a468", (1.08, 0.86, 0.72), 1.15, 0.35),
    "dawn": ("8ca4cc", "f0c4b8", (1.02, 0.93, 0.92), 1.02, 0.45),
    "night": ("101830", "2c3c60", (0.46, 0.54, 0.78), 1.2, 0.3),
}
_SHARES: Final = {"noon": 0.42, "overcast": 0.2, "fog": 0.07, "dusk": 0.12, "dawn": 0.1, "night": 0.09}


def choose_light(dice: Dice) -> Light:
    name = dice.weighted(_SHARES)
    zenith, horizon, tint, gamma, haze = _HOURS[name]
    gain = dice.between(0.88, 1.1)
    warm = dice.between(-0.04, 0.04)
    return Light(
        name,
        blend(rgb(zenith), rgb(horizon), dice.between(0.0, 0.45)),
        rgb(horizon),
        (tint[0] * (gain + warm), tint[1] * gain, tint[2] * (gain - warm)),
        gamma * dice.between(0.92, 1.08),
        haze * dice.between(0.6, 1.3),
        dice.pick((-1.0, 1.0)) * dice.between(0.4, 1.0),
        name in ("night", "dusk"),
    )


def grade(image: NDArray[np.uint8], light: Light) -> NDArray[np.uint8]:
    """The picture under the light's tint and gamma: (H, W, 3) uint8 to the same."""
    level = (np.arange(256, dtype=np.float64) / 255.0)[:, None] ** light.gamma
    table = np.clip(level * np.array(light.tint) * 255.0, 0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table[:, None, :]), np.uint8)


def light_up(canvas: Canvas, image: NDArray[np.uint8]) -> None:
    """Paint the lamps and lit windows that are still in sight into the graded picture, in place."""
    for polygons, colour, part in canvas.glow:
        mask = np.zeros(image.shape[:2], np.uint8)
        cv2.fillPoly(mask, polygons, 255, cv2.LINE_8, 6)
        mask[canvas.labels[..., 1] != part] = 0
        image[mask > 0] = np.array(colour, np.uint8)


@cache
def _grain(side: int = 512) -> NDArray[np.int16]:
    """(side, side, 3) int16: normal noise of standard deviation 64, a sum of uniforms."""
    total = np.zeros(side * side * 3)
    for part in range(6):
        total += uniforms(mix(41, part), total.size) - 0.5
    return np.asarray(np.rint(total * (64.0 / np.sqrt(0.5))), np.int16).reshape(side, side, 3)


def expose(image: NDArray[np.uint8], dice: Dice) -> NDArray[np.uint8]:
    """What the camera does: a lens that is never quite sharp, and a sensor that is never quite silent."""
    size = image.shape[0]
    blurred = dice.chance(0.15)
    sigma = (dice.between(0.9, 1.4) if blurred else dice.between(0.0, 0.8)) * size / 160
    strength = dice.between(0.02, 0.16)
    top, left = dice.count(0, 511), dice.count(0, 511)
    seen = cv2.GaussianBlur(image, (0, 0), sigma) if sigma > 0.3 else image
    rows, columns = np.arange(top, top + size) % 512, np.arange(left, left + size) % 512
    grain = (
        _grain()[rows[:, None], columns]
        if max(top, left) + size > 512
        else _grain()[top : top + size, left : left + size]
    )
    noisy = seen.astype(np.int16) + (grain * np.int16(strength * 256) >> 8)
    return np.asarray(np.clip(noisy, 0, 255), np.uint8)
