"""Neighbours in a run: what its model takes for similar to an image, and what only looks similar in pixels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.audit.cores import available_cores
from microtome.dissect.audit.progress import progress
from microtome.dissect.embedding.crops import Crops, pixel_vectors, small_crop
from microtome.dissect.embedding.positions import NearPositions, nearest_positions
from microtome.dissect.embedding.queries import Query, box_in_crop, box_in_image, open_query
from microtome.dissect.embedding.search import nearest
from microtome.dissect.embedding.spaces import open_space
from microtome.dissect.embedding.vectors import SampleVectors
from microtome.storage.arrays import LABELS, THUMBNAIL_SIDE, THUMBNAILS
from microtome.storage.errors import UsageError
from microtome.storage.run import Run

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

SHOWN_CATEGORIES = ("object", "scene", "part")
"""Of these the first in which something is labelled says what an image shows."""


@dataclass(frozen=True)
class Found:
    """The neighbours of something.

    frame: one row each, nearest first: rank (from 1), sample, key, split, class (its label, "" where it has none),
        concept (the one that covers most of it, "" where nothing is labelled), distance; of a patch also row, column,
        and its box top, left, bottom, right in pixels of the original.
    pixels: the same for the neighbours by pixels (Euclidean distance of 32x32 crops, values 0 to 1), where asked for.
    info: JSON values: layer, metric, whiten, method ("exact" or "approximate"), recall (share
        of the `recall_at` nearest that the index finds on average, whatever was asked for; both None where exact).
    """

    run: Run
    query: Query
    frame: pd.DataFrame
    pixels: pd.DataFrame | None
    info: dict[str, Any]

    def sheet(self) -> Picture:
        """A contact sheet: the query, its neighbours, and those by pixels beneath."""
        from microtome.reports.contact import Row, Tile, draw_sheet

        asked = self._tile(self.query.sample, self.query.crop, [_short(self.query.name), self._about], self.query.at)
        rows = [Row(self._title, asked, self._tiles(self.frame))]
        if self.pixels is not None:
            rows.append(Row("nearest by pixels", Tile(asked.image, asked.lines), self._tiles(self.pixels)))
        return draw_sheet(rows, note=self.crops.note)

    @cached_property
    def crops(self) -> Crops:
        """The images of the run."""
        return Crops(self.run)

    @property
    def _title(self) -> str:
        info = self.info
        found = "" if info["recall"] is None else f", approximate (recall@{info['recall_at']} {info['recall']:.3f})"
        how = f"nearest by {'whitened ' if info['whiten'] else ''}{info['metric']} distance{found}"
        if self.query.at is None:
            return f"{info['layer']}: {how}"
        row, column = self.query.at
        return f"{info['layer']}: the position of each image {how} to row {row}, column {column}"

    @property
    def _about(self) -> str:
        if self.query.sample is None:
            return "query"
        row = _described(self.run, np.array([self.query.sample])).iloc[0]
        return str(row["class"] or row["concept"] or "query")

    def _tiles(self, frame: pd.DataFrame) -> list[Any]:
        tiles = []
        for row in frame.to_dict("records"):
            at = (int(row["row"]), int(row["column"])) if "row" in row else None
            lines = [f"{row['distance']:.4g}", str(row["class"] or row["concept"]), _short(str(row["key"]))]
            tiles.append(self._tile(int(row["sample"]), None, lines, at))
        return tiles

    def _tile(
        self, sample: int | None, crop: NDArray[np.uint8] | None, lines: list[str], at: tuple[int, int] | None
    ) -> Any:
        from microtome.reports.contact import Tile

        image = crop if sample is None else self.crops.crop(sample)
        if at is None:
            return Tile(image, lines)
        height, width = self.run.info["model"]["preprocess"]["size"]
        rows, columns = self.run.layer(self.info["layer"])["grid"]
        top, left, bottom, right = box_in_crop(self.run, self.info["layer"], at)
        box = (top / height, left / width, bottom / height, right / width)
        return Tile(image, lines, box, ((at[0] + 0.5) / rows, (at[1] + 0.5) / columns))


def neighbors(
    run: Run | Path | str,
    *,
    layer: str | None = None,
    sample: int | None = None,
    key: str | None = None,
    image: Path | str | NDArray[np.uint8] | None = None,
    at: tuple[int, int] | None = None,
    unit: int | None = None,
    rank: int | None = None,
    k: int = 10,
    metric: str = "euclidean",
    whiten: bool = False,
    pixels: bool = False,
    method: str = "auto",
    workers: int | None = None,
) -> Found:
    """The `k` samples of a run nearest to a sample, a key, an image (a file, or an array (H, W, 3) uint8), or a patch.

    layer: whose means are compared, the run's last where None; metric: "euclidean" or "cosine"; whiten: along the first
    principal components (64, or one for every ten images), each of variance 1; pixels: also the nearest by pixels;
    method: "exact", "approximate" (for at most a hundred neighbours) or "auto" (by an index where the run is large).
    at: (row, column) on the layer's grid, or unit and rank (a unit's top patch, the first where None): that patch is
    compared with all positions of all images. A sample is no neighbour of itself.

    Raises UsageError for what cannot be asked, RunMismatchError where the model is not the run's.
    """
    run = run if isinstance(run, Run) else Run.open(run)
    layer = run.layer_names[-1] if layer is None else run.layer(layer)["name"]
    threads = workers or available_cores()
    if k < 1:
        raise UsageError(f"k is {k}; ask for one neighbour or more")
    if at is not None or unit is not None:
        _refuse_beside_a_patch(whiten, pixels, method)
    query = open_query(run, layer, sample=sample, key=key, image=image, at=at, unit=unit, rank=rank, workers=threads)
    return neighbors_of(
        run, layer, query, k=k, metric=metric, whiten=whiten, pixels=pixels, method=method, threads=threads
    )


def neighbors_of(
    run: Run,
    layer: str,
    query: Query,
    *,
    k: int,
    metric: str,
    whiten: bool = False,
    pixels: bool = False,
    method: str,
    threads: int,
) -> Found:
    """The same for a query that is opened."""
    info: dict[str, Any] = {"layer": layer, "metric": metric, "whiten": whiten, "method": "exact"}
    info |= {"recall": None, "recall_at": None}
    if query.at is not None:
        return Found(run, query, _like_patch(run, layer, query, k, metric, threads), None, info)
    space = open_space(run, layer, metric, whiten=whiten, method=method, threads=threads, k=k)
    found = space.nearest(query.vector, k, query.sample)
    if space.index is not None:
        info |= {"method": "approximate", "recall": space.index.info.recall, "recall_at": space.index.info.k}
    frame = _frame(run, found.indices, found.distances)
    return Found(run, query, frame, _by_pixels(run, query, k, threads) if pixels else None, info)


def _refuse_beside_a_patch(whiten: bool, pixels: bool, method: str) -> None:
    beside = [name for name, given in (("--whiten", whiten), ("--pixels", pixels)) if given]
    beside += ["--approximate"] if method == "approximate" else []
    if beside:
        raise UsageError(
            f"{' and '.join(beside)}: patches are compared exactly, in the layer's own values; leave it out"
        )


def _like_patch(run: Run, layer: str, query: Query, k: int, metric: str, threads: int) -> pd.DataFrame:
    if metric == "cosine" and not query.vector.any():
        raise UsageError(
            "every unit gives 0 at this position, which is no direction to compare; take --metric euclidean"
        )
    with progress("positions", run.plan.samples, "images") as shown:
        found: NearPositions = nearest_positions(
            run, layer, query.vector, k, metric, without=query.sample, threads=threads, told=shown.advance
        )
    frame = _frame(run, found.sample, found.distance)
    frame["row"], frame["column"] = found.row, found.column
    sizes = run.table("samples").iloc[found.sample][["height", "width"]].to_numpy(np.int64)
    boxes = [
        box_in_image(run, layer, (row, column), (height, width))
        for row, column, (height, width) in zip(found.row.tolist(), found.column.tolist(), sizes.tolist(), strict=True)
    ]
    frame[["top", "left", "bottom", "right"]] = np.array(boxes, np.int64).reshape(-1, 4)
    return frame


def _by_pixels(run: Run, query: Query, k: int, threads: int) -> pd.DataFrame:
    samples = SampleVectors(run, THUMBNAILS, 3 * THUMBNAIL_SIDE**2).samples
    if run.arrays.exists(THUMBNAILS):
        vectors = pixel_vectors(run, samples, threads)
    else:
        with progress("pixels", len(samples), "images") as shown:
            vectors = pixel_vectors(run, samples, threads, shown.advance)
    without = None
    if query.sample is not None:
        row = int(np.searchsorted(samples, query.sample))
        asked, without = vectors.read(row, row + 1), np.array([row])
    else:
        crop = np.zeros((1, 1, 3), np.uint8) if query.crop is None else query.crop
        asked = small_crop(crop).reshape(1, -1).astype(np.float32)
    found = nearest(vectors, asked, k, without=without, threads=threads)
    kept = found.indices[0] >= 0
    return _frame(run, samples[found.indices[0][kept]], found.distances[0][kept] / 255)


def _frame(run: Run, samples: NDArray[np.int64], distances: NDArray[np.float64]) -> pd.DataFrame:
    frame = _described(run, samples)
    frame.insert(0, "rank", np.arange(1, len(samples) + 1))
    frame["distance"] = distances
    return frame


def _described(run: Run, samples: NDArray[np.int64]) -> pd.DataFrame:
    """sample, key, split, class and concept of some samples."""
    rows = run.table("samples").iloc[samples]
    names = run.info["data"]["class_names"]
    labels = rows["label"].fillna(-1).to_numpy(np.int64) if "label" in rows else np.full(len(rows), -1)
    return pd.DataFrame(
        {
            "sample": samples,
            "key": rows["key"].astype(str).to_numpy(),
            "split": rows["split"].astype(str).to_numpy(),
            "class": [_class_name(names, label) for label in labels.tolist()],
            "concept": _largest_concepts(run, samples),
        }
    )


def _class_name(names: list[str], label: int) -> str:
    """As on the pages: "" where there is no label, "class 7" where the class has no name."""
    if label < 0:
        return ""
    return names[label] if label < len(names) else f"class {label}"


def _largest_concepts(run: Run, samples: NDArray[np.int64]) -> list[str]:
    """The concept that covers most of each sample, among the first of `SHOWN_CATEGORIES` that is labelled there."""
    if not run.arrays.exists(LABELS):
        return [""] * len(samples)
    concepts = run.table("concepts")
    ids = {category: concepts.loc[concepts["category"] == category, "id"].to_numpy() for category in SHOWN_CATEGORIES}
    names = dict(zip(concepts["id"].tolist(), concepts["name"].tolist(), strict=True))
    found = []
    for sample in samples.tolist():
        counts = np.bincount(
            run.arrays.read(LABELS, sample, sample + 1).ravel().astype(np.int64), minlength=len(names) + 1
        )
        largest = [mine[counts[mine].argmax()] for mine in ids.values() if len(mine) and counts[mine].any()]
        found.append(str(names[int(largest[0])]) if largest else "")
    return found


def _short(name: str) -> str:
    """The end of a key or path, which tells samples apart."""
    return name if len(name) <= 24 else f"…{name[-23:]}"
