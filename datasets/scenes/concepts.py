"""The concepts that scenes are labelled with: ids 1 ... K, by category.

Four planes (object, part, material, texture) are painted together with the picture; the color plane is read off
the lit picture (see `colours`); the scene kind is a label of the whole image. Every concept belongs to one category
and every category to one plane, so no two planes can give the same concept at a pixel.
"""

from __future__ import annotations

from typing import Final

from microtome.datasets.base import Concept
from microtome.datasets.scenes.colours import COLOUR_TERMS

SCENE_KINDS: Final = (
    "street",
    "highway",
    "village",
    "farm",
    "harbour",
    "beach",
    "forest",
    "camp",
    "market",
    "park",
    "balloon festival",
    "ski slope",
)

NAMES: Final[dict[str, tuple[str, ...]]] = {
    "object": (
        "sky", "cloud", "sun", "mountain", "field", "beach", "sea", "road", "pavement",
        "house", "skyscraper", "tree", "bush", "rock", "flower", "car", "bus", "boat", "balloon",
        "person", "cow", "parasol", "tent", "stall", "bench", "lamp", "fence",
    ),
    "part": (
        "wall", "roof", "chimney", "door", "window", "wheel", "light", "bodywork", "trunk", "crown",
        "head", "torso", "leg", "ski", "hull", "sail", "canopy", "basket", "awning", "pole",
    ),
    "material": (
        "grass", "snow", "sand", "earth", "water", "stone", "asphalt", "brick", "wood", "plaster",
        "concrete", "metal", "glass", "foliage", "fabric", "skin", "rubber", "fur",
    ),
    "texture": ("striped", "dotted", "checkered", "zigzagged"),
    "color": COLOUR_TERMS,
    "scene": SCENE_KINDS,
}  # fmt: skip

PLANES: Final = ("object", "part", "material", "texture", "color")

CONCEPTS: Final[tuple[Concept, ...]] = tuple(
    Concept(number, name, category)
    for number, (category, name) in enumerate(
        ((category, name) for category, names in NAMES.items() for name in names), start=1
    )
)

_IDS: Final = {(concept.category, concept.name): concept.id for concept in CONCEPTS}


def concept_id(category: str, name: str) -> int:
    """The id of a concept; 0 for the empty name. Raises KeyError for a name that is not in `NAMES`."""
    return _IDS[category, name] if name else 0
