"""How much of a layer's variance its principal components explain: a figure, and how many make 50, 90 and 99%."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pandas as pd
from markupsafe import Markup
from numpy.typing import NDArray

from microtome.storage.errors import RunDamagedError

SHARES = (0.5, 0.9, 0.99)
_WIDTH, _HEIGHT = 620, 250
_LEFT, _RIGHT, _TOP, _BOTTOM = 44, 16, 12, 40
_LOG_FROM = 24
"""With more components than this the axis of components is logarithmic: the first few hold most of the variance."""
_ROUND = 1e-9


@dataclass(frozen=True)
class Variance:
    """ratio: (K,) float64, the share of the variance that each component explains, descending; they may be the first
    of more, and then do not add up to 1."""

    ratio: NDArray[np.float64]

    @classmethod
    def of(cls, components: pd.DataFrame) -> Variance:
        """Of components.parquet. Raises RunDamagedError for shares that are none."""
        ratio = components.sort_values("component")["ratio"].to_numpy(np.float64)
        if not np.isfinite(ratio).all() or (ratio < -_ROUND).any() or ratio.sum() > 1 + 1e-6:
            raise RunDamagedError("components.parquet holds shares of variance that are no shares; make the map again")
        return cls(ratio)

    @property
    def cumulative(self) -> NDArray[np.float64]:
        """(K,) the share that each component and those before it explain together."""
        return np.cumsum(self.ratio)

    def needed(self, share: float) -> int | None:
        """How many components explain `share` of the variance; None where all that are kept explain less."""
        reached = np.flatnonzero(self.cumulative >= share - _ROUND)
        return int(reached[0]) + 1 if len(reached) else None

    def words(self) -> str:
        """In a sentence: "50% of the variance lies in 3 components, 90% in 17, 99% in more than 256"."""
        parts: list[str] = []
        for share in SHARES:
            count = self.needed(share)
            number = f"{count:,}" if count is not None else f"more than {len(self.ratio):,}"
            unit = (" component" if count == 1 else " components") if not parts else ""
            between = " of the variance lies" if not parts else ""
            parts.append(f"{share:.0%}{between} in {number}{unit}")
        return ", ".join(parts)


def variance_svg(variance: Variance) -> Markup:
    """The figure: bars of each component's share, a line of what they add up to, and dots at 50, 90 and 99%.

    Its colours are those of the page it stands in, or the light ones where it stands alone. Empty without components.
    """
    count = len(variance.ratio)
    if not count:
        return Markup("")
    axis = _Axis(count)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="variance" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'width="{_WIDTH}" height="{_HEIGHT}" font-family="sans-serif" font-size="12">',
        f"<title>Explained variance: {variance.words()}</title>",
        *_grid(axis),
        *_bars(variance, axis),
        _line(variance, axis),
        *_marks(variance, axis),
        "</svg>",
    ]
    return Markup("".join(parts))  # numbers and fixed words alone


@dataclass(frozen=True)
class _Axis:
    """Where components (1 ... count) and shares (0 ... 1) lie in the figure."""

    count: int

    @property
    def is_log(self) -> bool:
        return self.count > _LOG_FROM

    def x(self, component: float) -> float:
        """component: 1 to count, or a half below or above."""
        low, high = 0.5, self.count + 0.5
        share = math.log(component / low) / math.log(high / low) if self.is_log else (component - low) / (high - low)
        return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)

    def y(self, share: float) -> float:
        return _TOP + (1 - share) * (_HEIGHT - _TOP - _BOTTOM)

    def ticks(self) -> list[int]:
        """Components that are named."""
        if self.is_log:
            steps = [factor * 10**power for power in range(7) for factor in (1, 2, 5)]
            return [step for step in steps if step <= self.count]
        step = max(1, round(self.count / 8))
        return list(range(1, self.count + 1, step))


def _grid(axis: _Axis) -> list[str]:
    parts = []
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y = axis.y(share)
        line = f'x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}"'
        parts.append(f'<line {line} style="stroke:var(--line,#e2e3de)"/>')
        parts.append(_soft(_LEFT - 6, y + 4, f"{share:.0%}", "end"))
    below = _HEIGHT - _BOTTOM + 16
    parts += [_soft(axis.x(component), below, str(component)) for component in axis.ticks()]
    name = "principal component (logarithmic)" if axis.is_log else "principal component"
    return [*parts, _soft((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 6, name)]


def _soft(x: float, y: float, words: str, anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" style="fill:var(--soft,#5d6774)">{words}</text>'


def _bars(variance: Variance, axis: _Axis) -> list[str]:
    parts = []
    for number, ratio in enumerate(variance.ratio.tolist(), 1):
        left, right, top = axis.x(number - 0.5 if number > 1 else 0.5), axis.x(number + 0.5), axis.y(max(0.0, ratio))
        gap = min(1.0, (right - left) / 5)
        parts.append(f"M{left + gap:.1f} {axis.y(0):.1f}V{top:.1f}H{right - gap:.1f}V{axis.y(0):.1f}Z")
    return [f'<path d="{"".join(parts)}" style="fill:var(--part,#4aa8de)"/>']


def _line(variance: Variance, axis: _Axis) -> str:
    points = " ".join(f"{axis.x(n):.1f},{axis.y(share):.1f}" for n, share in enumerate(variance.cumulative.tolist(), 1))
    return f'<polyline points="{points}" fill="none" stroke-width="2" style="stroke:var(--accent,#1f5f8b)"/>'


def _marks(variance: Variance, axis: _Axis) -> list[str]:
    """A dot where each share is reached, and beside it how many components that takes."""
    reached: dict[int, list[str]] = {}
    for share in SHARES:
        if (count := variance.needed(share)) is not None:
            reached.setdefault(count, []).append(f"{share:.0%}")
    parts = []
    for count, shares in reached.items():
        x, y = axis.x(count), axis.y(float(variance.cumulative[count - 1]))
        aside, anchor = (x - 8, "end") if x > _WIDTH - 110 else (x + 8, "start")
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" style="fill:var(--accent,#1f5f8b)"/>'
            f'<text x="{aside:.1f}" y="{y + 15:.1f}" text-anchor="{anchor}" style="fill:var(--ink,#1c232c);'
            f'paint-order:stroke;stroke:var(--paper,#fff);stroke-width:3px">{", ".join(shares)}: {count}</text>'
        )
    return parts
