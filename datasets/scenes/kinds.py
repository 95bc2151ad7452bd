"""The kinds of scene: what stands in each, on which grounds, before which backdrops.

Kinds are told apart by what is in them. Grounds, backdrops, light and bystanders are shared, so that a green field
or a snowy one says little, and a single car makes no street.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple


class Prop(NamedTuple):
    """A thing and how many of it, at depths `near` (0 at the horizon, 1 at the lower edge); `where` it may stand."""

    thing: str
    low: int
    high: int
    near: tuple[float, float] = (0.25, 0.95)
    where: str = "land"
    chance: float = 1.0


class Kind(NamedTuple):
    """layouts: "plain", "shore" (water before or behind the land), "sea", "road across", "road away"."""

    grounds: Mapping[str, float]
    layouts: Mapping[str, float]
    backdrops: Mapping[str, float]
    props: tuple[Prop, ...]


_COUNTRY: Final = {"grass": 0.5, "snow": 0.16, "earth": 0.17, "sand": 0.17}
_TOWN: Final = {"paving": 0.6, "grass": 0.15, "snow": 0.15, "earth": 0.1}
_WILD: Final = {"none": 0.3, "hills": 0.35, "mountains": 0.35}
_PLAIN: Final = {"plain": 0.8, "shore": 0.2}
_ROAD: Final = {"road across": 0.65, "road away": 0.35}

KINDS: Final[dict[str, Kind]] = {
    "street": Kind(_TOWN, _ROAD, {"none": 0.7, "hills": 0.3}, (
        Prop("skyscraper", 3, 6, (0.1, 0.28)),
        Prop("car", 1, 4, where="road"),
        Prop("lamp", 1, 2, (0.3, 0.6), chance=0.6),
        Prop("tree", 1, 2, (0.25, 0.5), chance=0.4),
        Prop("person", 1, 3, (0.3, 0.9), chance=0.6),
    )),
    "highway": Kind({"grass": 0.4, "snow": 0.15, "earth": 0.2, "sand": 0.25}, _ROAD, _WILD, (
        Prop("bus", 1, 2, where="road"),
        Prop("car", 1, 3, where="road"),
        Prop("tree", 1, 3, (0.15, 0.4), chance=0.5),
        Prop("bush", 1, 3, (0.15, 0.9), chance=0.4),
    )),
    "village": Kind(_COUNTRY, {"plain": 0.6, "shore": 0.15, "road across": 0.25}, _WILD, (
        Prop("house", 2, 4, (0.2, 0.55)),
        Prop("tree", 1, 3, (0.15, 0.7), chance=0.7),
        Prop("fence", 1, 2, (0.4, 0.8), chance=0.3),
        Prop("car", 1, 1, (0.45, 0.8), chance=0.25),
        Prop("person", 1, 2, (0.4, 0.9), chance=0.35),
    )),
    "farm": Kind(_COUNTRY, _PLAIN, _WILD, (
        Prop("cow", 2, 5, (0.35, 0.95)),
        Prop("house", 1, 1, (0.15, 0.35), chance=0.5),
        Prop("fence", 1, 3, (0.3, 0.9), chance=0.75),
        Prop("tree", 1, 3, (0.15, 0.6), chance=0.5),
    )),
    "harbour": Kind({"paving": 0.5, "sand": 0.25, "grass": 0.25}, {"sea": 0.6, "shore": 0.4}, _WILD, (
        Prop("boat", 2, 5, (0.1, 0.9), "water"),
        Prop("house", 1, 3, (0.0, 0.02), "back", 0.4),
        Prop("skyscraper", 2, 4, (0.0, 0.02), "back", 0.25),
        Prop("person", 1, 2, chance=0.25),
    )),
    "beach": Kind({"sand": 0.75, "grass": 0.15, "paving": 0.1}, {"shore": 0.75, "plain": 0.25}, _WILD, (
        Prop("parasol", 2, 4, (0.35, 0.95)),
        Prop("person", 1, 4, (0.35, 0.95), chance=0.85),
        Prop("boat", 1, 1, (0.1, 0.4), "water", 0.3),
        Prop("rock", 1, 3, chance=0.3),
    )),
    "forest": Kind(_COUNTRY, _PLAIN, _WILD, (
        Prop("tree", 6, 10, (0.2, 1.0)),
        Prop("bush", 1, 4, (0.2, 1.0), chance=0.8),
        Prop("rock", 1, 3, chance=0.5),
        Prop("person", 1, 1, (0.4, 0.9), chance=0.2),
    )),
    "camp": Kind(_COUNTRY, _PLAIN, _WILD, (
        Prop("tent", 1, 4, (0.35, 0.95)),
        Prop("tree", 1, 5, (0.15, 0.7), chance=0.85),
        Prop("person", 1, 2, (0.4, 0.9), chance=0.5),
        Prop("rock", 1, 2, chance=0.3),
    )),
    "market": Kind(_TOWN, {"plain": 0.9, "road across": 0.1}, {"none": 0.5, "hills": 0.5}, (
        Prop("stall", 2, 4, (0.3, 0.85)),
        Prop("person", 2, 5, (0.35, 1.0)),
        Prop("house", 1, 3, (0.12, 0.25), chance=0.4),
        Prop("skyscraper", 2, 4, (0.1, 0.22), chance=0.25),
    )),
    "park": Kind({"grass": 0.55, "snow": 0.15, "paving": 0.3}, _PLAIN, {"none": 0.5, "hills": 0.5}, (
        Prop("bench", 1, 3, (0.4, 0.95)),
        Prop("flower", 2, 5, (0.3, 1.0)),
        Prop("tree", 1, 4, (0.2, 0.7), chance=0.9),
        Prop("lamp", 1, 2, (0.3, 0.7), chance=0.5),
        Prop("person", 1, 3, (0.4, 0.95), chance=0.6),
        Prop("skyscraper", 2, 4, (0.08, 0.2), chance=0.2),
    )),
    "balloon festival": Kind(_COUNTRY, _PLAIN, _WILD, (
        Prop("balloon", 2, 5, where="sky"),
        Prop("person", 1, 4, (0.4, 0.95), chance=0.5),
        Prop("tree", 1, 3, (0.15, 0.6), chance=0.5),
        Prop("house", 1, 1, (0.15, 0.4), chance=0.2),
    )),
    "ski slope": Kind({"snow": 1.0}, {"plain": 1.0}, {"mountains": 0.6, "hills": 0.2, "none": 0.2}, (
        Prop("skier", 2, 5, (0.3, 0.95)),
        Prop("tree", 1, 4, (0.15, 0.8), chance=0.7),
        Prop("house", 1, 1, (0.15, 0.35), chance=0.25),
        Prop("rock", 1, 2, chance=0.3),
    )),
}  # fmt: skip

BYSTANDERS: Final = {
    "person": 0.2, "tree": 0.2, "bush": 0.2, "rock": 0.15, "fence": 0.07, "lamp": 0.06, "car": 0.05,
    "house": 0.05, "bench": 0.04, "cow": 0.03, "tent": 0.03, "parasol": 0.03, "flower": 0.05,
}  # fmt: skip
"""What may stand about in any kind of scene, by frequency."""
