"""The dataset of a run: its samples in the run's order, with all the labels that the run gives them."""

from __future__ import annotations

from microtome.datasets.base import ImageDataset
from microtome.datasets.specs import open_dataset
from microtome.datasets.views.labelled import with_labels
from microtome.datasets.views.ordered import OrderedDataset
from microtome.datasets.views.segmented import Segments
from microtome.dissect.audit.config import AuditConfig
from microtome.storage.errors import RunMismatchError
from microtome.storage.order import read_order
from microtome.storage.run import Run
from microtome.storage.schema import SegmenterInfo


def open_data(config: AuditConfig, run: Run | None, segments: Segments | None = None) -> ImageDataset:
    """Open the dataset of `config`, with its labels, its samples in the order of `run` (None: in its own).

    segments: what the segmenter of a run to be made tells apart. Raises RunMismatchError where the dataset is too small
    to be that of the run.
    """
    if run is not None:
        segments = segments_of(run.info.get("segmenter"))
    return with_labels(open_images(config.dataset, run), config.free, segments, config.concepts)


def open_images(spec: str, run: Run | None) -> ImageDataset:
    """Open the dataset that `spec` names, with no labels but its own, its samples in the order of `run`."""
    dataset = open_dataset(spec)
    digest = run.info["data"].get("order") if run is not None else None
    if run is None or digest is None:
        return dataset
    order = read_order(run.place, digest)
    if len(order) and int(order.max()) >= len(dataset):
        raise RunMismatchError(
            f"{run.url} was made with more images than {spec} has now ({len(dataset):,}); put them back"
        )
    return OrderedDataset(dataset, order)


def segments_of(info: SegmenterInfo | None) -> Segments | None:
    """What a run's segmenter tells apart."""
    return info and Segments(tuple(info["labels"]), tuple(info["categories"]), info["planes"])
