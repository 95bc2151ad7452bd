"""Things that are built: houses, skyscrapers, stalls, tents, benches, street lamps, fences."""

from __future__ import annotations

from typing import Final

from microtome.datasets.scenes.canvas import Canvas, Points, Surface, Weave, surface
from microtome.datasets.scenes.colours import PAINT, RGB, ROOFS, WALLS, blend, rgb, shade
from microtome.datasets.scenes.dice import Dice
from microtome.datasets.scenes.nature import ground_shadow
from microtome.datasets.scenes.shapes import bar, ellipse, grid, polygon, rectangle

_GLASS: Final = (rgb("5a7890"), rgb("3c5064"), rgb("88a4b4"), rgb("2c3844"))
_LAMPLIGHT: Final = rgb("ffd890")
_CLOTHS: Final = {"plain": 2.2, "striped": 3.0, "dotted": 1.4, "checkered": 1.6, "zigzagged": 1.4}


def cloth(dice: Dice, thing: str, part: str, width: float, angle: float = 0.0, plain: float = 1.0) -> Surface:
    """Fabric, plain or patterned in two colours; `width` of one repeat, in relative units."""
    first = dice.pick(PAINT)
    pattern = dice.weighted({**_CLOTHS, "plain": _CLOTHS["plain"] * plain})
    second = dice.pick(PAINT[14:17]) if dice.chance(0.6) else dice.pick(PAINT)
    if pattern == "plain":
        return surface(first, thing, part, "fabric")
    if sum(abs(a - b) for a, b in zip(first, second, strict=True)) < 150:
        second = (245.0, 243.0, 238.0) if sum(first) < 380 else (40.0, 40.0, 60.0)
    weave = Weave(pattern, second, width, angle, (dice.roll(), dice.roll()))
    return surface(first, thing, part, "fabric", weave)


def _wall(dice: Dice, thing: str, height: float) -> Surface:
    kind = dice.weighted({"brick": 3.0, "planks": 2.0, "plaster": 3.0})
    offset = (dice.roll(), dice.roll())
    if kind == "brick":
        tone = dice.pick((rgb("a4523c"), rgb("8c4030"), rgb("b87850"), rgb("7c4a40")))
        return surface(tone, thing, "wall", "brick", Weave("brick", rgb("d8ccc0"), height * 0.42, 0.0, offset))
    if kind == "planks":
        tone = dice.pick((rgb("9a7048"), rgb("7c5434"), rgb("983028"), rgb("e4ddd0"), rgb("5c7484")))
        return surface(
            shade(tone, 0.55), thing, "wall", "wood", Weave("planks", shade(tone, 1.15), height * 0.6, 0.0, offset)
        )
    tone = dice.pick(WALLS)
    return surface(shade(tone, 0.93), thing, "wall", "plaster", Weave("plaster", tone, height, 0.0, offset))


def _darker(paint: Surface, gain: float) -> Surface:
    weave = paint.weave._replace(second=shade(paint.weave.second, gain)) if paint.weave else None
    return paint._replace(colour=shade(paint.colour, gain), weave=weave)


def draw_house(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    """A front with door and windows, a gable or a pitched roof, and often a side wall in the shade."""
    half = height * dice.between(0.4, 0.62)
    eaves = y - height * dice.between(0.55, 0.66)
    top, over = y - height, height * 0.06
    wall = _wall(dice, "house", height)
    roof_tone = dice.pick(ROOFS)
    tiles = Weave("shingles", shade(roof_tone, 1.15), height * 0.4, 0.0, (dice.roll(), dice.roll()))
    roof = surface(shade(roof_tone, 0.65), "house", "roof", "", tiles)
    side = 1 if dice.chance(0.5) else -1
    deep = height * dice.between(0.25, 0.5) if dice.chance(0.55) else 0.0
    ground_shadow(canvas, x + side * deep / 2, y, (half + deep / 2) * 1.9)
    if dice.chance(0.55):
        cx = x + dice.between(-0.5, 0.5) * half
        canvas.fill(
            rectangle(cx, top - height * 0.07, cx + height * 0.1, eaves),
            surface(rgb("84483a"), "house", "chimney", "brick"),
        )
    edge = x + side * half
    if deep:
        rise = deep * 0.12
        canvas.fill(
            polygon((edge, y), (edge + side * deep, y - rise), (edge + side * deep, eaves - rise * 0.3), (edge, eaves)),
            _darker(wall, 0.7 if canvas.lit * side <= 0 else 1.05),
        )
        canvas.fill(
            polygon(
                (x, top),
                (edge + side * over, eaves + over * 0.4),
                (edge + side * (deep + over), eaves - rise * 0.3),
                (x + side * deep, top),
            ),
            _darker(roof, 0.8 if canvas.lit * side <= 0 else 1.15),
        )
    canvas.fill(rectangle(x - half, eaves, x + half, y), wall)
    if deep or dice.chance(0.4):
        canvas.fill(polygon((x - half, eaves), (x, top), (x + half, eaves)), wall)
        slope = [bar(x, top - over * 0.3, x + s * (half + over), eaves + over * 0.6, height * 0.07) for s in (-1, 1)]
        canvas.fill(slope, roof)
    else:
        inset = half * dice.between(0.1, 0.5)
        canvas.fill(
            polygon(
                (x - half - over, eaves + over * 0.3),
                (x - half + inset, top),
                (x + half - inset, top),
                (x + half + over, eaves + over * 0.3),
            ),
            roof,
        )
    _openings(canvas, dice, x, y, half, eaves, height)


def _openings(canvas: Canvas, dice: Dice, x: float, y: float, half: float, eaves: float, height: float) -> None:
    wood = dice.pick((rgb("5c3a24"), rgb("2c4c3a"), rgb("7c2420"), rgb("284868"), rgb("d8d4cc")))
    width = height * dice.between(0.07, 0.11)
    dx = x + dice.pick((-0.55, 0.0, 0.0, 0.55)) * half
    canvas.fill(rectangle(dx - width, y - height * 0.3, dx + width, y), surface(wood, "house", "door", "wood"))
    rows = 2 if y - eaves > height * 0.6 and dice.chance(0.5) else 1
    panes: list[Points] = []
    size = height * dice.between(0.075, 0.11)
    for spot in (-0.62, 0.0, 0.62):
        wx, clear = x + spot * half, abs(x + spot * half - dx) > width + size
        if clear:
            cy = y - (y - eaves) * (0.55 if rows == 1 else 0.38)
            panes.append(rectangle(wx - size, cy - size, wx + size, cy + size))
        if rows == 2:
            cy = y - (y - eaves) * 0.8
            panes.append(rectangle(wx - size, cy - size * 0.8, wx + size, cy + size * 0.8))
    frame = rgb("f0ece4") if dice.chance(0.7) else rgb("4a3426")
    _windows(canvas, dice, "house", panes, frame, 0.6)


def _windows(canvas: Canvas, dice: Dice, thing: str, panes: list[Points], frame: RGB | None, lit_share: float) -> None:
    """Panes of glass, a frame about each; some are lit once it is dark."""
    glass = dice.pick(_GLASS)
    if frame is not None:
        grown = [p + (p - p.mean(0)) * 0.22 for p in panes]
        canvas.fill(grown, surface(frame, thing, "window", "wood"))
    canvas.fill(panes, surface(glass, thing, "window", "glass"))
    canvas.shine([p for p in panes if dice.chance(lit_share)], _LAMPLIGHT, "window")


def draw_skyscraper(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    half = height * dice.between(0.14, 0.26)
    tone = dice.pick((rgb("9c9890"), rgb("7c8088"), rgb("b8a890"), rgb("a89484"), rgb("60707c"), rgb("c4c0b8")))
    side = 1 if dice.chance(0.5) else -1
    deep = half * dice.between(0.2, 0.6)
    edge, top = x + side * half, y - height
    offset = (dice.roll(), dice.roll())
    wall = surface(
        shade(tone, 0.9), "skyscraper", "wall", "concrete", Weave("plaster", tone, height * 0.5, 0.0, offset)
    )
    rise = deep * 0.25
    canvas.fill(
        polygon((edge, y), (edge + side * deep, y), (edge + side * deep, top + rise), (edge, top)),
        _darker(wall, 0.72 if canvas.lit * side <= 0 else 1.1),
    )
    canvas.fill(rectangle(x - half, top, x + half, y), wall)
    if dice.chance(0.3):
        canvas.fill(rectangle(x - half * 0.5, top - height * 0.06, x + half * 0.5, top), _darker(wall, 0.85))
    rows, columns = dice.count(5, 9), dice.count(3, 5)
    gap = dice.between(0.3, 0.55)
    panes = grid(x - half * 0.92, top + height * 0.04, x + half * 0.92, y - height * 0.08, rows, columns, gap)
    _windows(canvas, dice, "skyscraper", panes, None, 0.5)


def draw_stall(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    """A market stall: a counter with goods, two poles, and an awning, mostly striped."""
    half = height * dice.between(0.55, 0.85)
    ground_shadow(canvas, x, y, half * 2)
    back = blend(dice.pick(WALLS), (30, 26, 24), 0.6)
    canvas.fill(rectangle(x - half * 0.92, y - height * 0.7, x + half * 0.92, y - height * 0.3), surface(back, "stall"))
    counter = dice.pick((rgb("8c6440"), rgb("6e4c30"), rgb("a88058")))
    weave = Weave("planks", shade(counter, 1.15), height * 0.7, 0.0, (dice.roll(), dice.roll()))
    canvas.fill(
        rectangle(x - half, y - height * 0.4, x + half, y), surface(shade(counter, 0.6), "stall", "", "wood", weave)
    )
    for _ in range(dice.count(2, 3)):
        gx = x + half * dice.between(-0.8, 0.8)
        goods = [
            ellipse(
                gx + height * dice.between(-0.12, 0.12),
                y - height * dice.between(0.4, 0.5),
                height * 0.06,
                height * 0.06,
                8,
            )
            for _ in range(4)
        ]
        canvas.fill(goods, surface(dice.pick(PAINT[:14]), "stall"))
    poles = [bar(x + s * half * 0.94, y, x + s * half * 0.94, y - height * 0.8, height * 0.05) for s in (-1, 1)]
    canvas.fill(poles, surface(rgb("d8d4cc"), "stall", "pole", "metal"))
    awning = cloth(dice, "stall", "awning", height * dice.between(0.3, 0.5), plain=0.4)
    canvas.fill(
        polygon(
            (x - half * 0.95, y - height),
            (x + half * 0.95, y - height),
            (x + half * 1.15, y - height * 0.68),
            (x - half * 1.15, y - height * 0.68),
        ),
        awning,
    )
    canvas.shadow(rectangle(x - half * 1.15, y - height * 0.74, x + half * 1.15, y - height * 0.68), 0.25)


def draw_tent(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    half = height * dice.between(0.75, 1.1)
    side = 1 if dice.chance(0.5) else -1
    deep = side * height * dice.between(0.3, 0.8)
    ground_shadow(canvas, x + deep / 2, y, half * 1.9)
    front = cloth(dice, "tent", "canopy", height * dice.between(0.35, 0.6), plain=2.0)
    canvas.fill(
        polygon(
            (x, y - height), (x + side * half, y), (x + side * half + deep, y - height * 0.06), (x + deep, y - height)
        ),
        _darker(front, 0.72 if canvas.lit * side <= 0 else 1.1),
    )
    canvas.fill(polygon((x - half, y), (x, y - height), (x + half, y)), front)
    gap = half * dice.between(0.15, 0.35)
    canvas.fill(
        polygon((x - gap, y), (x, y - height * 0.78), (x + gap, y)),
        surface(blend(front.colour, (20, 18, 22), 0.75), "tent", "door", "fabric"),
    )


def draw_bench(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    half = height * dice.between(0.9, 1.3)
    wood = dice.pick((rgb("8c5c34"), rgb("6e4426"), rgb("3c6446"), rgb("a47c50")))
    ground_shadow(canvas, x, y, half * 1.8)
    legs = [bar(x + s * half * 0.8, y - height * 0.9, x + s * half * 0.8, y, height * 0.12) for s in (-1, 1)]
    canvas.fill(legs, surface(rgb("3a3a3e"), "bench", "leg", "metal"))
    slats = [rectangle(x - half, y - height * t, x + half, y - height * (t - 0.15)) for t in (1.0, 0.78)]
    canvas.fill(slats, surface(wood, "bench", "", "wood"))
    canvas.fill(
        polygon(
            (x - half, y - height * 0.5),
            (x + half, y - height * 0.5),
            (x + half * 1.08, y - height * 0.32),
            (x - half * 1.08, y - height * 0.32),
        ),
        surface(shade(wood, 1.15), "bench", "", "wood"),
    )


def draw_lamp(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    side = 1 if dice.chance(0.5) else -1
    reach = side * height * dice.between(0.1, 0.22)
    steel = surface(dice.pick((rgb("4a4e54"), rgb("2e3236"), rgb("7c8086"))), "lamp", "pole", "metal")
    canvas.fill(
        [
            bar(x, y, x, y - height * 0.97, height * 0.03),
            bar(x, y - height * 0.96, x + reach, y - height * 0.98, height * 0.025),
        ],
        steel,
    )
    head = ellipse(x + reach, y - height * 0.955, height * 0.06, height * 0.032, 10)
    canvas.fill(head, surface(rgb("f0ead0"), "lamp", "light", "glass"))
    canvas.shine([head], _LAMPLIGHT, "light")


def draw_fence(canvas: Canvas, dice: Dice, x: float, y: float, height: float) -> None:
    """Posts and rails, several lengths across."""
    wood = dice.pick((rgb("8c7050"), rgb("e8e4dc"), rgb("6a5440"), rgb("a8906c")))
    paint = surface(wood, "fence", "", "wood")
    posts, step = dice.count(4, 9), height * dice.between(0.55, 0.9)
    left = x - posts * step / 2
    marks = [left + step * i for i in range(posts + 1)]
    canvas.fill([rectangle(left, y - height * t, marks[-1], y - height * (t - 0.13)) for t in (0.85, 0.5)], paint)
    canvas.fill(
        [rectangle(m - height * 0.06, y - height, m + height * 0.06, y) for m in marks],
        surface(shade(wood, 0.9), "fence", "pole", "wood"),
    )
