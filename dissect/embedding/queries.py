"""What neighbours are asked for: a sample of the run, an image of the user's own, or a patch of one of them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from microtome.dissect.embedding.crops import crop_of, geometry_of, open_image
from microtome.dissect.embedding.vectors import LayerVectors
from microtome.storage.arrays import MEANS, layer_array
from microtome.storage.errors import UnknownNameError, UsageError
from microtome.storage.run import Run

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Query:
    """Something to find neighbours of.

    vector: (C,) float32 true values: means over the positions, or the values at one; sample: of the run, or None;
    name: a key or a file's; crop: as the model sees it, where it is no sample of the run; at: (row, column) of the
    position, or None; size: (height, width) of the upright original in pixels.
    """

    vector: NDArray[np.float32]
    sample: int | None
    name: str
    crop: Image | None
    at: tuple[int, int] | None
    size: tuple[int, int]

    def to_dict(self) -> dict[str, Any]:
        """JSON values: what was asked about."""
        about: dict[str, Any] = {"sample": self.sample, "name": self.name}
        if self.at is not None:
            about |= {"row": self.at[0], "column": self.at[1]}
        return about


def open_query(
    run: Run,
    layer: str,
    *,
    sample: int | None = None,
    key: str | None = None,
    image: Path | str | Image | None = None,
    at: tuple[int, int] | None = None,
    unit: int | None = None,
    rank: int | None = None,
    workers: int = 1,
) -> Query:
    """What is asked about: exactly one of a sample, its key, an image and a unit (whose patch `rank` it is, None = 0).

    at: (row, column) on the layer's grid: that position instead of the mean over all.
    Raises UsageError where it is not one, or cannot be read; UnknownNameError for a key that the run does not have.
    """
    given = [
        name
        for name, value in (("sample", sample), ("key", key), ("image", image), ("unit", unit))
        if value is not None
    ]
    if len(given) != 1:
        what = "nothing was given" if not given else f"{' and '.join(given)} were given"
        raise UsageError(f"{what}; give one of an image file, --sample, --key and --unit to find the neighbours of")
    if rank is not None and unit is None:
        raise UsageError(f"--rank {rank} says which top patch of a unit is meant; name the unit with --unit")
    table = run.table("samples")
    if unit is not None:
        if at is not None:
            raise UsageError("--at and --unit both name a position; give one of them")
        sample, at = _patch(run, layer, unit, rank or 0)
    if at is not None:
        _check_position(run, layer, at)
    if image is not None:
        return _from_image(run, layer, image, at, workers)
    if key is not None:
        sample = _sample_of(table, key)
    return _from_sample(run, layer, table, int(sample or 0), at)


def _from_sample(run: Run, layer: str, table: pd.DataFrame, sample: int, at: tuple[int, int] | None) -> Query:
    if not 0 <= sample < len(table):
        raise UsageError(f"--sample {sample}: the run has samples 0 to {len(table) - 1}")
    row = table.iloc[sample]
    name = str(row["key"])
    if row.get("status", "ok") != "ok":
        raise UsageError(f"sample {sample} ({name}) could not be read when the run was made: {row['error']}")
    if at is None:
        LayerVectors(run, layer)  # says where the run is not far enough
        vector = run.arrays.read(layer_array(run.layer(layer)["folder"], MEANS), sample, sample + 1)[0].astype(
            np.float32
        )
    else:
        vector = run.activations(layer, sample)[:, at[0], at[1]]
    if not np.isfinite(vector).all():
        raise UsageError(f"sample {sample} ({name}) has NaN or infinity at layer {layer} and has no neighbours")
    return Query(vector, sample, name, None, at, (int(row["height"]), int(row["width"])))


def _from_image(run: Run, layer: str, image: Path | str | Image, at: tuple[int, int] | None, workers: int) -> Query:
    from microtome.dissect.embedding.passing import maps_of

    pixels = open_image(image)
    crop = crop_of(run, pixels)
    name = "image" if isinstance(image, np.ndarray) else str(image)
    return query_of_maps(run, layer, maps_of(run, layer, crop, workers), pixels, crop, at=at, name=name)


def query_of_maps(
    run: Run,
    layer: str,
    maps: NDArray[np.float16],
    pixels: Image,
    crop: Image,
    *,
    at: tuple[int, int] | None = None,
    name: str = "image",
) -> Query:
    """An image of the user's own, `pixels`, of which the model sees `crop`, and of which `layer` gives the maps
    (C, h, w) float16, true value / scale."""
    from microtome.dissect.maths.moments import peaks

    values = peaks(maps[None]).mean[0] if at is None else maps[:, at[0], at[1]].astype(np.float32)
    vector = values * np.float32(run.layer(layer)["scale"])
    return Query(vector, None, name, crop, at, (pixels.shape[0], pixels.shape[1]))


def _patch(run: Run, layer: str, unit: int, rank: int) -> tuple[int, tuple[int, int]]:
    units = run.layer(layer)["units"]
    if not 0 <= unit < units:
        raise UsageError(f"--unit {unit}: layer {layer} has units 0 to {units - 1}")
    patches = run.layer_table(layer, "patches")
    mine = patches[patches["unit"] == unit].sort_values("rank")
    if not 0 <= rank < len(mine):
        raise UsageError(f"--rank {rank}: the run keeps {len(mine)} top patches of unit {unit}, counted from 0")
    row = mine.iloc[rank]
    return int(row["sample"]), (int(row["row"]), int(row["column"]))


def _check_position(run: Run, layer: str, at: tuple[int, int]) -> None:
    height, width = run.layer(layer)["grid"]
    if not (0 <= at[0] < height and 0 <= at[1] < width):
        raise UsageError(
            f"--at {at[0]},{at[1]}: the grid of {layer} has rows 0 to {height - 1}, columns 0 to {width - 1}"
        )
    if not run.keeps_activations:
        raise UsageError(
            f"{run.url} was made with --keep-activations no and holds no positions to compare a patch with; ask "
            "without --at or --unit for whole images, or audit with --keep-activations yes into another --out"
        )


def _sample_of(table: pd.DataFrame, key: str) -> int:
    keys = table["key"].astype(str)
    found = np.flatnonzero((keys == key).to_numpy())
    if not len(found):
        raise UnknownNameError("sample of this run", key, keys)
    return int(found[0])


def box_in_image(run: Run, layer: str, at: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(top, left, bottom, right) that a position of `layer` sees, in pixels of an original of `size` (h, w)."""
    return geometry_of(run, *size).to_original(*box_in_crop(run, layer, at))


def box_in_crop(run: Run, layer: str, at: tuple[int, int]) -> tuple[int, int, int, int]:
    """The same in pixels of the crop that the model sees."""
    from microtome.dissect.models import ReceptiveField

    return ReceptiveField.from_dict(run.layer(layer)["receptive_field"]).box(*at)
