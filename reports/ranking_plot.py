"""A plot of rankings side by side, as SVG: the removed share of a concept against the number of units ablated."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from math import log2
from typing import Any

WIDTH, HEIGHT = 640, 400
LEFT, RIGHT, TOP, BOTTOM = 64, 150, 44, 52
COLOURS = {"iou": "#b45309", "ace": "#1d4ed8", "alpha": "#047857", "random": "#6b7280"}
LOWEST, HIGHEST = -0.25, 1.0
TICKS = (-0.25, 0.0, 0.25, 0.5, 0.75, 1.0)


def draw_rankings(result: dict[str, Any]) -> str:
    """SVG of a comparison. result: concept, layer, samples, doses, and curves {name: [{units, removed, interval}]}."""
    title = f"{result['concept']} removed by the best units of {result['layer']}"
    below = f"{result['samples']} fresh latents ({result['data']}); bands: 95 % bootstrap intervals"
    doses = result["doses"]
    parts = [_text(LEFT, 24, title, 15), *_axes(doses)]
    for number, (name, points) in enumerate(result["curves"].items()):
        parts += _curve(name, points, doses, number)
    parts.append(_text(LEFT, HEIGHT - 8, below, 11))
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif">'
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>{"".join(parts)}</svg>\n'
    )


def _axes(doses: Sequence[int]) -> list[str]:
    parts = []
    for share in TICKS:
        y = _y(share)
        colour, dash = ("#9ca3af", ' stroke-dasharray="4 3"') if share == 0.5 else ("#e5e7eb", "")
        line = f'<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}" stroke="{colour}"{dash}/>'
        parts += [line, _text(LEFT - 8, y + 4, f"{100 * share:.0f} %", 11, "end")]
    parts += [_text(_x(dose, doses), HEIGHT - BOTTOM + 16, str(dose), 11, "middle") for dose in doses]
    return [*parts, _text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - BOTTOM + 31, "units ablated", 11, "middle")]


def _curve(name: str, points: Sequence[dict[str, Any]], doses: Sequence[int], number: int) -> list[str]:
    known = [point for point in points if point["removed"] is not None]
    colour = COLOURS.get(name, "#111")
    at = [_x(point["units"], doses) for point in known]
    band = [f"{x:.1f},{_y(point['interval'][1]):.1f}" for x, point in zip(at, known, strict=True)]
    band += [f"{x:.1f},{_y(point['interval'][0]):.1f}" for x, point in reversed(list(zip(at, known, strict=True)))]
    line = " ".join(f"{x:.1f},{_y(point['removed']):.1f}" for x, point in zip(at, known, strict=True))
    y = TOP + 16 + 20 * number
    x = WIDTH - RIGHT + 14
    return [
        f'<polygon points="{" ".join(band)}" fill="{colour}" fill-opacity="0.12"/>',
        f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>',
        f'<line x1="{x}" x2="{x + 20}" y1="{y}" y2="{y}" stroke="{colour}" stroke-width="2"/>',
        _text(x + 26, y + 4, name, 12),
    ]


def _x(dose: int, doses: Sequence[int]) -> float:
    span = max(log2(doses[-1]) - log2(doses[0]), 1e-9)
    return LEFT + (WIDTH - LEFT - RIGHT) * (log2(dose) - log2(doses[0])) / span


def _y(share: float) -> float:
    inside = min(max(share, LOWEST), HIGHEST)
    return TOP + (HEIGHT - TOP - BOTTOM) * (HIGHEST - inside) / (HIGHEST - LOWEST)


def _text(x: float, y: float, text: str, size: int, anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="#111">{escape(text)}</text>'
