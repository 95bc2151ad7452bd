"""The images of a run as its model sees them, and what becomes of an image of the user's own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import cast

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import ImageDataset
from microtome.datasets.geometry import CropGeometry
from microtome.datasets.images import Interpolation, decode_image, resize_crop
from microtome.datasets.views.labelled import pictures
from microtome.dissect.embedding.vectors import ArrayVectors, SampleVectors, Vectors
from microtome.storage.arrays import THUMBNAIL_SIDE, THUMBNAILS
from microtome.storage.errors import MicrotomeError, RunMismatchError, SampleError, UsageError
from microtome.storage.run import Run

Image = NDArray[np.uint8]

PIXELS = 3 * THUMBNAIL_SIDE * THUMBNAIL_SIDE


def geometry_of(run: Run, height: int, width: int) -> CropGeometry:
    """Where the run's model looks in an image of height x width pixels."""
    preprocess = run.info["model"]["preprocess"]
    size = (preprocess["size"][0], preprocess["size"][1])
    return CropGeometry.of(height, width, size=size, resize=preprocess["resize"])


def crop_of(run: Run, image: Image) -> Image:
    """What the run's model sees of an upright (height, width, 3) uint8 image: (H, W, 3) uint8."""
    interpolation = cast("Interpolation", run.info["model"]["preprocess"]["interpolation"])
    return resize_crop(image, geometry_of(run, *image.shape[:2]), interpolation)


def open_image(image: Path | str | Image) -> Image:
    """An image of the user's own, (H, W, 3) uint8 RGB, from its file or as it is. Raises UsageError."""
    if isinstance(image, np.ndarray):
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or 0 in image.shape:
            raise UsageError(f"an image is an array (H, W, 3) uint8, not {image.shape} {image.dtype}")
        return image
    path = Path(image).expanduser()
    if not path.is_file():
        raise UsageError(f"{path} is no image file; for a sample of the run give --sample NUMBER or --key KEY")
    try:
        return decode_image(path, str(path))
    except SampleError as error:
        raise UsageError(f"{path} cannot be read as an image ({error.reason}); give a PNG, JPEG or the like") from error


class Crops:
    """The images of a run, cropped as its model sees them.

    Where the data are not to be had any more, or have changed, what the run keeps of them stands in: `note` says so.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._has_small = run.arrays.exists(THUMBNAILS)
        self._dataset: ImageDataset | None = None
        self.note = ""
        try:
            self._dataset = _same_data(run)
        except (MicrotomeError, OSError) as error:
            self.note = f"the images themselves are not to be had ({error})"

    def crop(self, sample: int) -> Image | None:
        """(H, W, 3) uint8 of a sample, or 32x32 where the run has no more of it; None where it has nothing."""
        if self._dataset is not None:
            try:
                return crop_of(self._run, self._dataset.read(sample).image)
            except SampleError:
                pass
        if not self._has_small:
            return None
        return np.asarray(self._run.arrays.read(THUMBNAILS, sample, sample + 1)[0], np.uint8)


def _same_data(run: Run) -> ImageDataset:
    """The run's dataset, in the run's order. Raises RunMismatchError where it has changed."""
    from microtome.dissect.audit.config import config_of_run
    from microtome.dissect.audit.data import open_data

    dataset = open_data(config_of_run(run.info["config"], out=run.url, workers=None), run)
    if dataset.fingerprint() != run.info["data"]["fingerprint"]:
        raise RunMismatchError(f"{run.info['data']['spec']} has changed since the run was made")
    return pictures(dataset)


def small_crop(image: Image) -> Image:
    """A crop at 32x32, as the run keeps those of its samples."""
    from microtome.dissect.audit.images import thumbnail_of

    return thumbnail_of(image)


def pixel_vectors(
    run: Run, samples: NDArray[np.int64], threads: int, told: Callable[[], object] = lambda: None
) -> Vectors:
    """The pixels, 0 ... 255, of the small crops of those `samples` that are the run's readable ones: (rows, 3072).

    Where the run keeps none (earlier versions did not) its images are decoded; told: called after each.
    """
    if run.arrays.exists(THUMBNAILS):
        return SampleVectors(run, THUMBNAILS, PIXELS)
    dataset = _same_data(run)
    found = np.empty((len(samples), PIXELS), np.uint8)

    def read(row: int) -> None:
        found[row] = small_crop(crop_of(run, dataset.read(int(samples[row])).image)).ravel()
        told()

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(read, range(len(samples))))
    return ArrayVectors(found)
