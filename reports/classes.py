"""The pages of classes: which units a class needs, what they detect, and which concepts drive the class.

report/classes.html        every class: accuracy, most important units, driving concepts; concepts by classes
report/classes/CLASS.html  one class
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np

from microtome.reports.importance import LEAST_DRIVE, LEAST_SHARE, ClassEntry, Drive, Importance
from microtome.reports.pages import LayerFiles, category_classes
from microtome.reports.summaries import Concepts, LayerSummary
from microtome.reports.thumbnails import SIZE, LayerPatches, thumb_shape

UNITS = 10
HINDERING = 5
CONCEPTS = 10
PATCHES = 6
UNITS_OF_CONCEPT = 8
IN_SENTENCE = 3
IN_INDEX = 20
SHARED_ROWS = 60
_SCALES = (0.05, 0.1, 0.2, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class ClassPages:
    """What all class pages are made of. Layers are known by their position in the run; `main` is the one that the
    list of classes shows; see `_standing`."""

    concepts: Concepts
    layers: Sequence[LayerSummary]
    plans: Sequence[LayerPatches]
    measured: Sequence[Importance]
    classes: Sequence[ClassEntry]
    main: Importance
    strips: Mapping[int, dict[int, list[str]]]
    driven: Mapping[int, dict[int, list[int]]]
    addresses: Mapping[int, dict[int, str]]
    styles: Sequence[str]

    @classmethod
    def of(
        cls,
        concepts: Concepts,
        layers: Sequence[LayerSummary],
        plans: Sequence[LayerPatches],
        measured: Sequence[Importance],
        classes: Sequence[ClassEntry],
    ) -> ClassPages:
        """For layers and plans of the run, and the importance of at least one of the layers."""
        return cls(
            concepts,
            layers,
            plans,
            measured,
            classes,
            max(measured, key=lambda one: _standing(one, layers[one.layer])),
            {one.layer: _strips(plans[one.layer]) for one in measured},
            {one.layer: _driven(one) for one in measured},
            {one.layer: {e.at[one.layer]: class_page(e) for e in classes if one.layer in e.at} for one in measured},
            category_classes(concepts.categories),
        )

    def page(self, number: int) -> dict[str, Any]:
        """What the page of class `number` shows."""
        entry = self.classes[number]
        sections = [self._section(one, entry.at[one.layer]) for one in self.measured if one.layer in entry.at]
        held = [one for one in self.measured if one.layer in entry.at]
        most = max(held, key=lambda one: _standing(one, self.layers[one.layer])).layer
        first = next(section for section in sections if section["layer"] == most)
        return {"class_name": entry.name, "sections": sections, "first": first, "folder": "../"}

    def listing(self) -> dict[str, Any]:
        """What classes.html shows."""
        at = self.main.layer
        rows = [self._row(entry) for entry in self.classes if at in entry.at]
        return {"rows": rows, "shared": self._shared()[:SHARED_ROWS], **self._about(self.main), "folder": ""}

    def teaser(self) -> dict[str, Any]:
        """What the index shows of the classes: all, or those that lose most without a single unit."""
        at = self.main.layer
        entries = [entry for entry in self.classes if at in entry.at]
        if len(entries) > IN_INDEX:
            most = [-float(np.nan_to_num(self.main.fall[:, e.at[at]]).max(initial=0.0)) for e in entries]
            entries = [entries[place] for place in np.argsort(most, kind="stable")[:IN_INDEX].tolist()]
        rows = [self._row(entry) for entry in entries]
        return {"rows": rows, "count": len(self.classes), **self._about(self.main), "folder": ""}

    def _row(self, entry: ClassEntry) -> dict[str, Any]:
        one, number = self.main, entry.at[self.main.layer]
        needed = one.needed(number, IN_SENTENCE)
        return {
            "name": entry.name,
            "href": class_page(entry),
            "images": int(one.class_images[number]),
            "accuracy": float(one.class_accuracy[number]),
            "units": [self._fallen(one, unit, number) for unit in needed],
            "said": self._said(one, number),
        }

    def _section(self, one: Importance, number: int) -> dict[str, Any]:
        needed = [self._needed(one, unit, number) for unit in one.needed(number, UNITS)]
        hindering = [self._fallen(one, unit, number) for unit in one.hindering(number, HINDERING)]
        images = int(one.class_images[number])
        top = max((max(unit["fall"], unit["probability"]) for unit in needed), default=0.0)
        rest = one.without_concept(number)
        drives = _strongest_first([*one.drives(number, CONCEPTS), *([rest] if rest else [])])
        return {
            **self._about(one),
            "images_of_class": images,
            "accuracy_of_class": float(one.class_accuracy[number]),
            "one_image": 1 / images if images else 0.0,
            "scale": next((scale for scale in _SCALES if scale >= top), 1.0),
            "needed": needed,
            "hindering": hindering,
            "drives": [self._drive(one, drive, number) for drive in drives],
            "widest": max((drive.total for drive in drives), default=0.0),
            "said": self._said(one, number),
        }

    def _about(self, one: Importance) -> dict[str, Any]:
        entry = self.layers[one.layer].entry
        return {
            "layer": one.layer,
            "files": LayerFiles.of(entry["folder"]),
            "anchor": quote(entry["folder"]),
            "truth": one.truth,
            "value": one.value,
            "images": one.images,
            "accuracy": one.accuracy,
            "measured": one.measured,
            "units": entry["units"],
            "least": LEAST_DRIVE,
            "share": LEAST_SHARE,
        }

    def _needed(self, one: Importance, unit: int, number: int) -> dict[str, Any]:
        mean, worst = one.others(unit, number)
        return {
            **self._fallen(one, unit, number),
            "others": mean,
            "worst": one.classes[worst] if worst >= 0 and one.fall[unit, worst] > 0 else "",
            "worst_fall": float(one.fall[unit, worst]) if worst >= 0 else 0.0,
            "strip": f"{LayerFiles.of(self.layers[one.layer].entry['folder']).strips}{unit}.jpg",
            "patches": self.strips[one.layer].get(unit, [])[:PATCHES],
            "drawn": len(self.strips[one.layer].get(unit, [])),
        }

    def _fallen(self, one: Importance, unit: int, number: int) -> dict[str, Any]:
        """A unit, and what class `number` loses without it."""
        fall, probability = float(one.fall[unit, number]), float(one.probability_fall[unit, number])
        return {**self._unit(one, unit), "fall": fall, "probability": probability}

    def _unit(self, one: Importance, unit: int) -> dict[str, Any]:
        """A unit by name: where its card is, and what it detects."""
        layer = self.layers[one.layer]
        return {
            "unit": unit,
            "href": f"{LayerFiles.of(layer.entry['folder']).page}#unit-{unit}",
            "iou": float(one.iou[unit]),
            **self._concept(int(one.label[unit])),
        }

    def _concept(self, concept: int) -> dict[str, str]:
        """A concept by name; empty for id 0."""
        category = int(self.concepts.category[concept])
        known = concept > 0 and category >= 0
        return {
            "concept": self.concepts.names[concept] if concept > 0 else "",
            "category": self.concepts.categories[category] if known else "",
            "style": self.styles[category] if known else "",
            "about": f"concept.html#concept={concept}" if concept > 0 else "",
        }

    def _drive(self, one: Importance, drive: Drive, number: int) -> dict[str, Any]:
        driven = self.driven[one.layer].get(drive.concept, []) if drive.concept > 0 else []
        also = [other for other in driven if other != number]
        pages = self.addresses[one.layer]
        return {
            **self._concept(drive.concept),
            "total": drive.total,
            **self._units_of(one, drive, number, UNITS_OF_CONCEPT),
            "also": [{"name": one.classes[other], "href": pages[other]} for other in also[:IN_SENTENCE]],
            "also_more": max(len(also) - IN_SENTENCE, 0),
            "strong": self._strong(one, drive, number),
            "only": driven == [number],
        }

    def _said(self, one: Importance, number: int) -> dict[str, Any]:
        """What is said to drive a class: `drives` (concepts) and `rest` (the units without one, None where they do
        not), `chips` (both, strongest first), `whole` (what it loses without single units), and whether `mostly` rest.
        """
        drives = [drive for drive in one.drives(number, IN_SENTENCE) if self._strong(one, drive, number)]
        rest, whole = one.without_concept(number), float(one.drive[:, number].sum())
        if rest is not None and not self._strong(one, rest, number):
            rest = None
        named = {drive.concept: self._named(one, drive, number) for drive in (*drives, *([rest] if rest else []))}
        return {
            "drives": [named[drive.concept] for drive in drives],
            "rest": named.get(0),
            "chips": sorted(named.values(), key=lambda item: -item["total"]),
            "whole": whole,
            "mostly": rest is not None and rest.total > whole / 2,
        }

    def _strong(self, one: Importance, drive: Drive, number: int) -> bool:
        return number in self.driven[one.layer].get(drive.concept, [])

    def _named(self, one: Importance, drive: Drive, number: int) -> dict[str, Any]:
        return {
            **self._concept(drive.concept),
            "total": drive.total,
            **self._units_of(one, drive, number, IN_SENTENCE),
        }

    def _units_of(self, one: Importance, drive: Drive, number: int, count: int) -> dict[str, Any]:
        """The first units of a contributor, and how many more it has."""
        units = [self._fallen(one, unit, number) for unit in drive.units[:count]]
        return {"units": units, "more": max(len(drive.units) - count, 0)}

    def _shared(self) -> list[dict[str, Any]]:
        """Concepts by the classes that they drive in the main layer, the most shared first."""
        one = self.main
        pages = self.addresses[one.layer]
        driven = sorted(self.driven[one.layer].items(), key=lambda item: (-len(item[1]), item[0]))
        return [
            {
                **self._concept(concept),
                "count": len(numbers),
                "classes": [
                    {"name": one.classes[number], "href": pages[number], "total": float(one.drive[concept, number])}
                    for number in numbers[:UNITS_OF_CONCEPT]
                ],
                "more": max(len(numbers) - UNITS_OF_CONCEPT, 0),
            }
            for concept, numbers in driven
            if concept > 0
        ]


def class_page(entry: ClassEntry) -> str:
    """The address of a class page, relative to the report folder."""
    return f"classes/{quote(entry.file)}.html"


def write_class_pages(
    pages: ClassPages,
    template: Any,
    folder: Path,
    shared: Mapping[str, Any],
    pictures: Mapping[int, Mapping[str, Any]] = {},
    numbers: Mapping[tuple[int, int], int] = {},
) -> None:
    """Write `folder/CLASS.html` for every class.

    pictures: what explains classes, by their number among the model's; numbers: those numbers, by layer and number in
    its importance.
    """
    folder.mkdir()
    for number, entry in enumerate(pages.classes):
        known = [numbers[place] for place in entry.at.items() if place in numbers]
        about = {"explained": pictures.get(known[0]) if known else None, "model_class": known[0] if known else None}
        text = template.render(root="../", **shared, **pages.page(number), **about)
        (folder / f"{entry.file}.html").write_text(text, encoding="utf-8")


def _standing(one: Importance, layer: LayerSummary) -> tuple[bool, bool, int]:
    """The layer for a headline has the greatest: own axes before any read-out, then one whose units were all measured,
    then the last of the network."""
    return "readout" not in layer.entry, one.measured >= layer.entry["units"], one.layer


def _strongest_first(drives: Sequence[Drive]) -> list[Drive]:
    return sorted(drives, key=lambda drive: -drive.total)


def _driven(one: Importance) -> dict[int, list[int]]:
    """For each contributor (0: units without a concept) that drives any class those classes, strongest first."""
    drivers = one.drivers()
    found = {}
    for concept in np.flatnonzero(drivers.any(axis=1)).tolist():
        classes = np.flatnonzero(drivers[concept])
        found[concept] = classes[np.argsort(-one.drive[concept, classes], kind="stable")].tolist()
    return found


def _strips(plan: LayerPatches) -> dict[int, list[str]]:
    """For each unit with patches, how each of them lies in its cell of the strip, as short styles by rank."""
    found: dict[int, list[str]] = {}
    order = np.lexsort((plan.rank, plan.unit))
    sizes = (plan.box[:, 2:] - plan.box[:, :2])[order].tolist()
    for unit, (height, width) in zip(plan.unit[order].tolist(), sizes, strict=True):
        rows, columns = thumb_shape(height, width)
        place = found.setdefault(unit, [])
        sides = [f"--{side}:{length / SIZE:.3g}" for side, length in (("w", columns), ("h", rows)) if length != SIZE]
        place.append(";".join([f"--k:{len(place)}", *sides]))
    return found
