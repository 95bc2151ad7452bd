"""Stage segment: a segmenter labels what the model will see, shard by shard, once; the capture takes the labels over.

What it gives is stored as array `segments`, id + 1 with 0 for unlabelled, on the label grid (each pixel takes the id
at its centre). run.json says who gave it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from microtome.datasets.base import ImageDataset
from microtome.datasets.geometry import CropGeometry
from microtome.datasets.images import Interpolation, crop_labels, resize_crop
from microtome.datasets.views.labelled import pictures
from microtome.dissect.audit.config import AuditConfig
from microtome.dissect.audit.images import submit_each
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.progress import say
from microtome.dissect.audit.schedule import Advance, ShardTask
from microtome.dissect.audit.stages.merge import ShardedStage, State, run_stage, whole_state
from microtome.dissect.audit.stopping import Stopped
from microtome.dissect.audit.turns import TurnPool
from microtome.dissect.models import Preprocess
from microtome.dissect.models.segmenters import Segmenter, load_segmenter
from microtome.storage.arrays import SEGMENTS
from microtome.storage.errors import SampleError, UsageError
from microtome.storage.schema import SegmenterInfo

STAGE = "segment"
TRIED = 4
"""Images that a segmenter is tried out with before a run is made."""


def try_segmenter(
    config: AuditConfig, preprocess: Preprocess, images: ImageDataset, samples: int, device: torch.device
) -> SegmenterInfo | None:
    """Load the segmenter of `config`, let it label the first readable images, and say what it is.

    Raises UsageError where it cannot be loaded or does not keep its contract.
    """
    if config.segmenter is None:
        return None
    segmenter = load_segmenter(config.segmenter).to(device)
    height, width = seen_size(preprocess, config.segmenter_size)
    found = (_read(images, index, preprocess, (height, width)) for index in range(samples))
    pixels = list(islice((image for image in found if image is not None), TRIED))
    batch = np.stack(pixels) if pixels else np.zeros((1, height, width, 3), np.uint8)
    ids = _segment(segmenter, batch, config.segmenter_confidence, device)
    return SegmenterInfo(
        spec=config.segmenter,
        fingerprint=segmenter.fingerprint,
        labels=list(segmenter.labels),
        categories=list(segmenter.categories),
        planes=ids.shape[1],
        confidence=config.segmenter_confidence,
        size=[height, width],
    )


def run_segment(job: Job) -> None:
    """Label every shard that is not labelled yet, and say how much was."""
    run_stage(job, SEGMENT)
    pixels = whole_state(job, STAGE)["pixels"].astype(np.int64)
    info = job.run.info["segmenter"]
    if pixels.sum():
        common = np.argsort(-pixels[1:], kind="stable")[:5].tolist()
        shares = ", ".join(f"{info['labels'][index]} {pixels[index + 1] / pixels.sum():.1%}" for index in common)
        say(f"{info['spec']}: {pixels[0] / pixels.sum():.1%} of the pixels unlabelled; {shares}")


@contextmanager
def _ready(job: Job, advance: Advance) -> Iterator[ShardTask]:
    """Decode, segment and store, several shards at once."""
    segmenter = job.segmenter.to(job.division.device)
    threads = torch.get_num_threads()
    torch.set_num_threads(job.division.torch_threads)
    try:
        with (
            TurnPool(job.division.workers, "decode") as decoders,
            TurnPool(job.division.passes, STAGE) as passes,
        ):
            yield partial(_segment_shard, job, segmenter, decoders, passes, advance)
    finally:
        torch.set_num_threads(threads)


def _segment_shard(
    job: Job, segmenter: Segmenter, decoders: TurnPool, passes: TurnPool, advance: Advance, shard: int
) -> None:
    info = job.run.info["segmenter"]
    samples = job.run.plan.samples_of(shard)
    stored = np.zeros((len(samples), info["planes"], *job.label_size), np.uint16)
    size = (info["size"][0], info["size"][1])
    readable = np.zeros(len(samples), np.bool_)
    images, preprocess = pictures(job.dataset), job.preprocess
    for start in range(0, len(samples), job.config.batch):
        if job.stop.is_set():
            raise Stopped
        chosen = samples[start : start + job.config.batch]
        reads = submit_each(decoders, shard, images, chosen, lambda index: _read(images, index, preprocess, size))
        batch = [image for future in reads for image in future.result()]
        rows = [row for row, image in enumerate(batch) if image is not None]
        if rows:
            pixels = np.stack([cast("NDArray[np.uint8]", batch[row]) for row in rows])
            work = partial(_segment, segmenter, pixels, info["confidence"], job.division.device)
            ids = passes.submit(shard, work).result()
            if ids.shape[1] != info["planes"]:
                raise UsageError(
                    f"segmenter {info['spec']} gave {ids.shape[1]} maps an image at sample {chosen[0]}, and "
                    f"{info['planes']} before; it has to give the same number for every image"
                )
            readable[[start + row for row in rows]] = True
            for row, found in zip(rows, ids, strict=True):
                stored[start + row] = _on_grid((found + 1).astype(np.uint16), job.label_size)
        advance(len(batch))
    counts = np.bincount(stored[readable].ravel(), minlength=len(info["labels"]) + 1).astype(np.int64)
    files = job.run.arrays.write_shard(SEGMENTS, shard, stored)
    job.commits(STAGE).commit(shard, {"pixels": counts}, files)


def _segment(
    segmenter: Segmenter, pixels: NDArray[np.uint8], confidence: float | None, device: torch.device
) -> NDArray[np.int64]:
    """(B, P, H, W) ids of (B, H, W, 3) uint8."""
    images = torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).to(torch.float32).div_(255.0)
    found: NDArray[np.int64] = segmenter(images.contiguous(), confidence).cpu().numpy()
    return found


def _read(images: ImageDataset, index: int, preprocess: Preprocess, size: tuple[int, int]) -> NDArray[np.uint8] | None:
    """The crop that the model sees of sample `index`, at `size`; None where it cannot be read."""
    try:
        image = images.read(index).image
    except SampleError:
        return None
    height, width = image.shape[:2]
    geometry = CropGeometry.of(height, width, size=preprocess.size, resize=preprocess.resize)
    return resize_crop(image, geometry.scaled(size), cast("Interpolation", preprocess.interpolation))


def seen_size(preprocess: Preprocess, side: int | None) -> tuple[int, int]:
    """(H, W) of the crop as a segmenter sees it: the model's, or with a shorter side of `side` pixels."""
    height, width = preprocess.size
    if side is None:
        return height, width
    short = min(height, width)
    return max(1, round(height * side / short)), max(1, round(width * side / short))


def _on_grid(planes: NDArray[np.uint16], label_size: tuple[int, int]) -> NDArray[np.uint16]:
    size = (planes.shape[1], planes.shape[2])
    return crop_labels(planes, CropGeometry(*size, size, 0, 0, size), label_size)


def _fold(job: Job, states: Iterator[State]) -> State:
    pixels = np.zeros(len(job.run.info["segmenter"]["labels"]) + 1, np.int64)
    for state in states:
        pixels += state["pixels"].astype(np.int64)
    return {"pixels": pixels}


SEGMENT = ShardedStage(STAGE, _ready, _fold, lanes=lambda division: division.lanes, unit="images", needs_model=True)
