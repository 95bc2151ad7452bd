"""What the pages say of maps: the section on a layer's page, the teaser of the index, the page of the map itself."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import pandas as pd

from microtome.reports.maps.build import MapData
from microtome.reports.maps.candidates import shown_candidates, strip_address
from microtome.reports.maps.points import LayerMap
from microtome.reports.maps.quality import is_flat, shown_quality
from microtome.reports.maps.variance import Variance, variance_svg
from microtome.reports.pages import patch_style
from microtome.reports.thumbnails import SIZE

PAGE = "map.html"
CLUSTERS = 12


def map_hash(layer: str, **more: int) -> str:
    """The address on the map's page of a layer, with a unit, a point or a cluster of it."""
    return "#" + "&".join([f"layer={quote(layer, safe='')}", *(f"{name}={value}" for name, value in more.items())])


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of a map: its address, and its size in pixels, so that a page keeps its place while it loads."""

    address: str
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class MapPages:
    """The map of a run as its pages show it. keys: of the candidates, by sample; pictures: of each layer's map;
    variance: what each layer's components explain, None where the run does not say."""

    data: MapData
    keys: pd.Series[str]
    pictures: dict[str, Picture]
    variance: dict[str, Variance | None]

    def page(self) -> dict[str, Any]:
        """What the template of the map's page is given, beyond what every page knows."""
        manifest = self.data.manifest
        shown = {name: manifest[name] for name in ("samples", "total")}
        return {"map": shown}

    def layer(self, number: int) -> dict[str, Any] | None:
        """What the page of layer `number` shows of its map; None where it has none."""
        one = self._of(number)
        if one is None:
            return None
        name = one.entry["name"]
        return {
            **self._summary(one),
            "variance": self._variance(name),
            "clusters": self._clusters(one),
            "more_clusters": max(len(one.clusters) - CLUSTERS, 0),
            "candidates": self._candidates(one),
            "all_candidates": len(one.disagreements),
            "strip": strip_address(one.entry["folder"]),
        }

    def units_address(self, number: int) -> str | None:
        """The address, but for the number of the unit, where a unit of layer `number` is lit up; None where not."""
        one = self._of(number)
        entries = self.data.manifest["layers"]
        if one is None or entries[self.data.maps.index(one)]["units"] is None:
            return None
        return f"{PAGE}{map_hash(one.entry['name'])}&unit="

    def teaser(self, own: Sequence[int]) -> dict[str, Any]:
        """What the index shows: the map of the last layer that has one, of those in `own` where any of them has."""
        mine = [one for one in self.data.maps if one.number in own]
        return self._summary((mine or self.data.maps)[-1])

    def _of(self, number: int) -> LayerMap | None:
        return next((one for one in self.data.maps if one.number == number), None)

    def _summary(self, one: LayerMap) -> dict[str, Any]:
        name, quality = one.entry["name"], shown_quality(one.info)
        return {
            "layer": name,
            "href": PAGE + map_hash(name),
            "picture": self.pictures[name],
            "samples": self.data.manifest["samples"],
            "total": self.data.manifest["total"],
            "flat": is_flat(one.info),
            "neighbors": one.info["neighbors"],
            "aligned_to": "" if is_flat(one.info) else one.info["aligned_to"],
            "quality": {key: _known(value) for key, value in quality.items()},
        }

    def _variance(self, layer: str) -> dict[str, Any] | None:
        found = self.variance[layer]
        if found is None or not len(found.ratio):
            return None
        return {"words": found.words(), "figure": variance_svg(found)}

    def _clusters(self, one: LayerMap) -> list[dict[str, Any]]:
        return [
            {
                "name": str(row["name"]),
                "samples": int(row["samples"]),
                "class": str(row["class"]),
                "purity": _known(row["purity"]),
                "lift": _known(row["lift"]),
                "href": PAGE + map_hash(one.entry["name"], cluster=int(row["cluster"])),
            }
            for row in one.clusters.head(CLUSTERS).to_dict("records")
        ]

    def _candidates(self, one: LayerMap) -> list[dict[str, Any]]:
        samples = shown_candidates(one, self.data.points).tolist()
        if not samples:
            return []
        rows = one.disagreements.drop_duplicates("sample").set_index("sample").loc[samples]
        found = []
        for place, (sample, row) in enumerate(zip(samples, rows.to_dict("records"), strict=True)):
            point = int(self.data.points.place[sample])
            found.append(
                {
                    "key": str(self.keys[sample]),
                    "class": str(row["class"]),
                    "neighbors_class": str(row["neighbors_class"]),
                    "agreement": float(row["agreement"]),
                    "share": float(row["share"]),
                    "href": PAGE + map_hash(one.entry["name"], point=point),
                    "style": patch_style(place, len(samples), SIZE, SIZE, SIZE),
                }
            )
        return found


def _known(value: Any) -> Any:
    """None in place of NaN."""
    return None if isinstance(value, float) and not math.isfinite(value) else value
