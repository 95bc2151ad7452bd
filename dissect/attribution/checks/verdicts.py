"""What the checks say of a method, in words, and the rules behind it. docs/performance.md has the figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from microtome.dissect.attribution.checks.intervals import Mean

if TYPE_CHECKING:
    from microtome.dissect.attribution.checks.check import Check

INSENSITIVE_FROM = 0.77
"""Maps whose order of pixels correlates more than this (the whole interval does) with that of the trained model, while
the upper part of the network is random, do not show what the network has learned. Between what guided backpropagation
has and what methods that follow the parameters have, on the networks that were tried (docs/performance.md)."""

BLIND_FROM = 0.99
"""Maps of different images that correlate more than this for the same class do not show the image, as those of a
deconvnet without max-pooling would be equal."""

FAITHFUL, INSENSITIVE, BLIND, UNSUPPORTED = (
    "faithful",
    "insensitive to the parameters",
    "the same for every image",
    "no better than displaced",
)
"""Verdicts. FAITHFUL: none of the others is the case."""


@dataclass(frozen=True)
class Verdict:
    """One of the verdicts, and a sentence with the figures behind it."""

    name: str
    because: str


def verdict(check: Check) -> Verdict:
    """What a method is worth for a model: the first of BLIND, INSENSITIVE, UNSUPPORTED that holds, else FAITHFUL."""
    if check.elsewhere.mean > BLIND_FROM:
        return Verdict(BLIND, f"its maps of different images for one class correlate by {_shown(check.elsewhere)}")
    if check.upper.low > INSENSITIVE_FROM:
        return Verdict(
            INSENSITIVE, f"with the upper part of the network random its maps still correlate by {_shown(check.upper)}"
        )
    gains = {"deletion": check.deletion_gain, "insertion": check.insertion_gain}
    better = [name for name, gain in gains.items() if gain.above_zero]
    if not better:
        return Verdict(UNSUPPORTED, "the class depends no more on its pixels than on those of the same map displaced")
    return Verdict(FAITHFUL, f"its maps follow parameters and image, and its pixels matter ({' and '.join(better)})")


def _shown(mean: Mean) -> str:
    return f"{mean.mean:.2f}"
