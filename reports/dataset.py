"""The page of a dataset: what was found, what is in it, and examples with their labels over them.

    FOLDER/index.html             opens from disk
    FOLDER/pictures/12.jpg        sample 12; 12-0.jpg: under the labels of its first plane
    FOLDER/static/                style

The same dataset gives the same bytes. An older page stays until the new one is built.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from microtome.datasets.base import ImageDataset, Sample
from microtome.datasets.survey.duplicates import Pair
from microtome.datasets.survey.overview import Survey
from microtome.reports.folders import building_in, claim_folder
from microtome.reports.overlays import choose_colours, jpeg, overlay, picture_of, regions
from microtome.reports.pages import category_classes, environment, package_file
from microtome.storage.errors import SampleError

_OURS = ("pictures", "static", "index.html")
_LEGEND = 24
_STYLE = "report.css"


def page_folder(folder: Path) -> Path:
    """Make sure that a page may be written to `folder`, making it where there is none.

    Raises UsageError where it holds anything but an older page, or cannot be written to.
    """
    return claim_folder(folder, _OURS)


def build_dataset_page(dataset: ImageDataset, survey: Survey, folder: Path) -> Path:
    """Write the page of `survey`, made of `dataset`, to `folder` and return where it is; see `page_folder`.

    The images that it shows are read again; one that cannot be any more is left out.
    """
    with building_in(folder, _OURS) as building:
        (building / "pictures").mkdir()
        (building / "static").mkdir()
        context = dataset_context(dataset, survey, _Pictures(dataset, building / "pictures"))
        page = environment().get_template("dataset.html").render(root="", **context)
        (building / "index.html").write_text(page, encoding="utf-8")
        (building / "static" / _STYLE).write_bytes(package_file("static", _STYLE).read_bytes())
    return folder / "index.html"


class _Pictures:
    """The samples shown on a page, each read once, their pictures written to `folder`."""

    def __init__(self, dataset: ImageDataset, folder: Path) -> None:
        self._dataset, self._folder = dataset, folder
        self._written: dict[int, bool] = {}

    def sample(self, index: int) -> Sample | None:
        """Read a sample and write its picture; None where that cannot be done."""
        try:
            sample = self._dataset.read(index)
        except SampleError:
            self._written[index] = False
            return None
        self.write(f"{index}.jpg", jpeg(picture_of(sample.image)))
        self._written[index] = True
        return sample

    def source(self, index: int) -> str:
        """The address of a sample's picture, relative to the page; "" where there is none."""
        if index not in self._written:
            self.sample(index)
        return f"pictures/{index}.jpg" if self._written[index] else ""

    def write(self, name: str, data: bytes) -> str:
        """Write a file beside the pictures and return its address."""
        (self._folder / name).write_bytes(data)
        return f"pictures/{name}"


def dataset_context(dataset: ImageDataset, survey: Survey, pictures: _Pictures) -> dict[str, Any]:
    """What the template is given."""
    names = [category.name for category in survey.categories]
    styles = dict(zip(names, category_classes(names), strict=True))
    examples = list(_examples(dataset, survey, pictures, styles))
    shown = {concept for example in examples for concept in example.pop("concepts")}
    occurring = sum(1 for count in survey.concepts if count.images)
    findings = [
        {
            "level": finding.level,
            "text": finding.text,
            "examples": () if finding.pairs else finding.examples,
            "pairs": list(_pairs(dataset, finding.pairs, pictures)),
            "count": finding.count,
        }
        for finding in survey.findings
    ]
    return {
        "survey": survey,
        "version": version("microtome"),
        "findings": findings,
        "readable": survey.samples - survey.unreadable,
        "categories": [
            {
                "name": category.name,
                "style": styles[category.name],
                "annotated": category.annotated,
                "rows": _rows(survey, category.name),
            }
            for category in survey.categories
        ],
        "splits": _shares(survey.splits),
        "classes": _shares(sorted(survey.classes, key=lambda item: -item[1])),
        "examples": examples,
        "occurring": occurring,
        "shown": len(shown),
    }


def _rows(survey: Survey, category: str) -> list[dict[str, Any]]:
    """The concepts of a category, those in most images first; bars reach as far as the longest of the category."""
    mine = [count for count in survey.concepts if count.concept.category == category]
    mine.sort(key=lambda count: (-count.images, -count.pixels, count.concept.id))
    images = max(max(count.images for count in mine), 1)
    pixels = max(max(count.pixels for count in mine), 1)
    return [
        {
            "name": count.concept.name,
            "images": count.images,
            "images_width": count.images / images,
            "pixels": count.pixels,
            "pixels_width": count.pixels / pixels,
        }
        for count in mine
    ]


def _shares(counts: Iterable[tuple[str, int]]) -> list[dict[str, Any]]:
    counts = list(counts)
    most = max((count for _, count in counts), default=0) or 1
    return [{"name": name, "count": count, "width": count / most} for name, count in counts]


def _pairs(dataset: ImageDataset, pairs: Sequence[Pair], pictures: _Pictures) -> Iterator[dict[str, Any]]:
    for pair in pairs:
        sides = [
            {"key": dataset.entry(index).key, "source": pictures.source(index)} for index in (pair.first, pair.second)
        ]
        words = "equal pixels" if pair.equal else f"{pair.distance} of 64 bits differ"
        yield {"sides": sides, "words": words}


def _examples(
    dataset: ImageDataset, survey: Survey, pictures: _Pictures, styles: dict[str, str]
) -> Iterator[dict[str, Any]]:
    for index in survey.examples:
        sample = pictures.sample(index)
        if sample is None:
            continue
        entry = dataset.entry(index)
        of_image = [survey.concepts[number - 1].concept for number in sample.image_labels.tolist() if number]
        views = list(_views(dataset, index, sample, pictures))
        yield {
            "key": entry.key,
            "split": entry.split,
            "label": "" if entry.label is None else dataset.class_names[entry.label],
            "size": sample.image.shape[:2],
            "source": pictures.source(index),
            "views": views,
            "whole": [{"name": concept.name, "style": styles[concept.category]} for concept in of_image],
            "concepts": {concept.id for concept in of_image} | set(np.unique(sample.planes).tolist()) - {0},
        }


def _views(dataset: ImageDataset, index: int, sample: Sample, pictures: _Pictures) -> Iterator[dict[str, Any]]:
    """The planes of a sample that have labels, each over the image."""
    picture = picture_of(sample.image)
    concepts = {concept.id: concept for concept in dataset.concepts}
    names = {concept.id: concept.name for concept in dataset.concepts}
    for number, (plane_name, plane) in enumerate(zip(dataset.plane_names, sample.planes, strict=True)):
        if not plane.any():
            continue
        found = regions(picture, plane, names)
        colours = choose_colours(concepts[region.concept] for region in found)
        source = pictures.write(f"{index}-{number}.jpg", jpeg(overlay(picture, plane, colours)))
        legend = [
            {
                "name": names[region.concept],
                "colour": colours[region.concept],
                "share": region.share,
                "place": region.place,
            }
            for region in found
        ]
        yield {"name": plane_name, "source": source, "legend": legend, "more": max(len(legend) - _LEGEND, 0)}
