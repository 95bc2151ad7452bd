"""What a map is called, and which of the figures that say how far it is true mean something."""

from __future__ import annotations

from typing import Any

from microtome.storage.schema import MapInfo

FLAT = "principal components"
"""The engine of a map that is no t-SNE: too few images, or images that a layer answers alike, have none."""
_FIGURES = ("trustworthiness", "recall", "purity", "purity_features")


def is_flat(info: MapInfo) -> bool:
    """Whether principal components are drawn where other maps have their t-SNE."""
    return info["engine"] == FLAT


def drawn_name(info: MapInfo) -> str:
    """What the map itself, the first view of a layer, is called."""
    return FLAT if is_flat(info) else "t-SNE"


def shown_quality(info: MapInfo) -> dict[str, Any]:
    """The quality of a map without the figures that mean nothing, which are None.

    They mean nothing where no neighbour was looked at, and where neighbourhoods are not what was drawn: of fewer
    images than a t-SNE takes, or of images that do not differ, any map keeps all neighbours.
    """
    quality: dict[str, Any] = dict(info["quality"])
    if is_flat(info) or quality["k"] < 1 or quality["sample"] < 1:
        quality.update(dict.fromkeys(_FIGURES))
    return quality
