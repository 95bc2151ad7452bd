"""Pictures of the candidates for wrong labels: one JPEG a layer, the images that the model sees side by side."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import unquote

import cv2
import numpy as np
from numpy.typing import NDArray

from microtome.reports.maps.files import layer_address
from microtome.reports.maps.points import LayerMap, Points
from microtome.reports.source import ReadImage
from microtome.reports.strips import encode_jpeg
from microtome.reports.thumbnails import SIZE, Camera
from microtome.storage.errors import SampleError
from microtome.storage.schema import PreprocessInfo

SHOWN = 24
_UNREADABLE = 128


def shown_candidates(one: LayerMap, points: Points) -> NDArray[np.int64]:
    """The samples of a layer's first candidates that are on the map, most suspicious first."""
    if one.disagreements.empty:
        return np.zeros(0, np.int64)
    samples: NDArray[np.int64] = one.disagreements["sample"].to_numpy(np.int64)
    samples = samples[(samples >= 0) & (samples < len(points.place))]
    return samples[points.place[samples] >= 0][:SHOWN]


def strip_address(folder: str) -> str:
    """Where the pictures of a layer's candidates lie."""
    return layer_address(folder, "candidates.jpg")


def write_candidates(
    maps: list[LayerMap], points: Points, read_image: ReadImage, seen: PreprocessInfo, root: Path, workers: int
) -> None:
    """Write a strip for each layer that has candidates; every image is read once. Unreadable ones are plain grey."""
    chosen = {one.entry["folder"]: shown_candidates(one, points).tolist() for one in maps}
    samples = sorted({sample for listed in chosen.values() for sample in listed})
    with ThreadPoolExecutor(workers) as pool:
        pictures = dict(zip(samples, pool.map(lambda sample: _picture(read_image, sample, seen), samples), strict=True))
    for folder, listed in chosen.items():
        if listed:
            path = root / unquote(strip_address(folder))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode_jpeg(np.concatenate([pictures[sample] for sample in listed], axis=1)))


def _picture(read_image: ReadImage, sample: int, seen: PreprocessInfo) -> NDArray[np.uint8]:
    """The crop of an image that the model sees, in a square: (SIZE, SIZE, 3) uint8 BGR."""
    square = np.zeros((SIZE, SIZE, 3), np.uint8)
    try:
        image = np.ascontiguousarray(read_image(sample))
    except SampleError:
        square[:] = _UNREADABLE
        return square
    height, width = seen["size"]
    camera = Camera.of(image, (height, width), seen["resize"])
    view = cv2.cvtColor(camera.look(camera.geometry.to_original(0, 0, height, width)).picture, cv2.COLOR_RGB2BGR)
    top, left = (SIZE - view.shape[0]) // 2, (SIZE - view.shape[1]) // 2
    square[top : top + view.shape[0], left : left + view.shape[1]] = view
    return square
