"""An audit of Broden against the published protocol, followed step by step with nothing of ours but the activations.

Bau, Zhou, Khosla, Oliva, Torralba: Network Dissection: Quantifying Interpretability of Deep Visual Representations
(CVPR 2017), section 2. The folder is read with Python's csv and Pillow, everything is counted in dense maps.
"""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from helpers.formats.broden import CATEGORIES, Picture, drawn, pictures, write_broden
from helpers.images import photo
from numpy.typing import NDArray
from PIL import Image

from microtome.dissect import AuditConfig, run_audit
from microtome.storage.arrays import ACTIVATIONS, layer_array
from microtome.storage.run import Run

GRID = 56
TAUS = (0.005, 0.04)
LAYER = "block2"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def primary_categories(root: Path) -> dict[int, str]:
    """{label: the category in which c_CATEGORY.csv gives it the largest coverage; the last such of category.csv}."""
    best: dict[int, tuple[float, str]] = {}
    for category in rows(root / "category.csv"):
        for row in rows(root / f"c_{category['name']}.csv"):
            number, coverage = int(row["number"]), float(row["coverage"])
            if number not in best or coverage >= best[number][0]:
                best[number] = coverage, category["name"]
    return {number: category for number, (_, category) in best.items()}


def segmentation(root: Path, row: dict[str, str]) -> dict[int, NDArray[np.bool_]]:
    """{label: the (h, w) pixels that have it} of one image."""
    found: dict[int, NDArray[np.bool_]] = defaultdict(lambda: np.zeros((GRID, GRID), np.bool_))
    for category in CATEGORIES:
        for entry in filter(None, row[category].split(";")):
            if entry.isdigit():
                found[int(entry)] |= True
                continue
            with Image.open(root / "images" / entry) as image:
                red, green, _ = np.moveaxis(np.asarray(image).astype(int), -1, 0)
            for number in np.unique(red + 256 * green).tolist():
                found[number] |= red + 256 * green == number
    found.pop(0, None)
    return found


def threshold(values: NDArray[np.float16], tau: float) -> float:
    """The least value that at most a share tau of all values exceeds."""
    flat = values.ravel().astype(np.float64)
    least = flat.max()
    for candidate in np.unique(flat)[::-1]:
        if (flat > candidate).mean() > tau:
            break
        least = candidate
    return float(least)


def upsampled(maps: NDArray[np.float16], size: int) -> NDArray[np.float32]:
    """Bilinear, half-pixel centres, borders repeated: (C, h, w) to (C, size, size)."""

    def corners(length: int) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float32]]:
        at = np.clip((np.arange(size) + 0.5) * length / size - 0.5, 0, length - 1)
        low = np.floor(at).astype(int)
        return low, np.minimum(low + 1, length - 1), (at - low).astype(np.float32)

    values = maps.astype(np.float32)
    left, right, along = corners(values.shape[2])
    values = values[:, :, left] + along * (values[:, :, right] - values[:, :, left])
    above, below, down = corners(values.shape[1])
    return values[:, above] + down[:, None] * (values[:, below] - values[:, above])


@dataclass
class Counts:
    """Pixels of (unit, label) pairs: in both; of the unit's masks where the label's category is; of the label."""

    both: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))
    unit: dict[tuple[int, int], int] = field(default_factory=lambda: defaultdict(int))
    label: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def iou(self, unit: int, label: int) -> float:
        shared = self.both[unit, label]
        union = self.unit[unit, label] + self.label[label] - shared
        return shared / union if union else 0.0


def dissect(root: Path, maps: NDArray[np.float16], tau: float, convention: str) -> dict[str, Counts]:
    """{split: counts}, "" for all images, from the (N, C, h, w) maps; thresholds are those of all images."""
    category_of = primary_categories(root)
    levels = np.array([threshold(maps[:, unit], tau) for unit in range(maps.shape[1])], np.float32)
    varies = np.array([len(np.unique(maps[:, unit])) > 1 for unit in range(maps.shape[1])])
    counts: dict[str, Counts] = defaultdict(Counts)
    for sample, row in enumerate(rows(root / "index.csv")):
        labels = segmentation(root, row)
        masks = (upsampled(maps[sample], GRID) > levels[:, None, None]) & varies[:, None, None]
        for split in ("", row["split"]):
            add(counts[split], labels, masks, category_of, convention)
    return counts


def add(
    counts: Counts,
    labels: dict[int, NDArray[np.bool_]],
    masks: NDArray[np.bool_],
    category_of: dict[int, str],
    convention: str,
) -> None:
    """Count the masks (C, h, w) of one image and its labels."""
    for number, pixels in labels.items():
        counts.label[number] += int(pixels.sum())
    for unit, mask in enumerate(masks):
        met = {number: int(pixels[mask].sum()) for number, pixels in labels.items()}
        here = {
            "image": {category_of[number] for number in labels},
            "mask": {category_of[number] for number, pixels in met.items() if pixels},
            "all": set(CATEGORIES),
        }[convention]
        area = int(mask.sum())
        for number, shared in met.items():
            counts.both[unit, number] += shared
        for number, category in category_of.items():
            counts.unit[unit, number] += area * (category in here)


def expected_rows(run: Run, root: Path, convention: str) -> Iterator[tuple[tuple[float, int, int], tuple[float, ...]]]:
    """((tau, unit, concept), its figures) of every pair with something in common, as iou.parquet has them."""
    of_name = {(row.name, row.category): row.id for row in run.table("concepts").itertuples(name="Row")}
    category_of = primary_categories(root)
    names = {int(row["number"]): row["name"] for row in rows(root / "label.csv")}
    maps = run.arrays.read(layer_array(LAYER, ACTIVATIONS), 0, run.plan.samples)
    assert not np.isnan(maps).any()
    for tau in TAUS:
        counts = dissect(root, maps, tau, convention)
        whole = counts[""]
        for (unit, number), shared in whole.both.items():
            if shared:
                concept = of_name[names[number], category_of[number]]
                ious = (each.iou(unit, number) for each in (whole, counts["train"], counts["val"]))
                yield (tau, unit, concept), (shared, whole.unit[unit, number], whole.label[number], *ious)


@pytest.mark.parametrize("convention", ["image", "mask", "all"])
def test_every_unit_and_concept_scores_as_published(tmp_path: Path, convention: str) -> None:
    path = write_broden(tmp_path / "broden", [*pictures(16), *odd_pictures()])
    found = run_audit(
        AuditConfig(
            model="builtin:scenes-cnn",
            dataset=f"broden:{path}",
            layers=(LAYER,),
            out=tmp_path / "run",
            tau=TAUS,
            iou=convention,
        )
    )
    assert found.unreadable == 0
    assert set(found.run.layer_table(LAYER, "units")["state"]) <= {"ok", "dead", "constant"}
    assert set(found.run.table("concepts")["category"]) == set(CATEGORIES)
    table = found.run.layer_table(LAYER, "iou")
    columns = ["intersection", "unit_pixels", "concept_pixels", "iou", "iou_train", "iou_val"]
    stored = {
        (row.tau, row.unit, row.concept): tuple(getattr(row, column) for column in columns)
        for row in table.itertuples()
    }
    expected = dict(expected_rows(found.run, path, convention))
    assert len(expected) > 500
    assert stored == expected


def odd_pictures() -> list[Picture]:
    """One with nothing but a scene, one with nothing at all, one whose wall is a label of the whole image too."""
    wall = drawn(GRID, 5, (4, 9))
    return [
        Picture("ade20k/scene.jpg", "train", photo(112, 112, 501), {"scene": [778]}),
        Picture("ade20k/bare.jpg", "val", photo(112, 112, 502)),
        Picture("ade20k/wall.jpg", "train", photo(112, 112, 503), {"object": [wall, 4], "part": [wall]}),
        Picture("ade20k/wall2.jpg", "val", photo(112, 112, 504), {"object": [4], "texture": [1196]}),
    ]
