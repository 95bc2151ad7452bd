"""The dataset of a run, in the run's order."""

from __future__ import annotations

from microtome.datasets.base import ImageDataset
from microtome.datasets.specs import open_dataset
from microtome.datasets.views.ordered import OrderedDataset
from microtome.storage.errors import RunMismatchError
from microtome.storage.order import read_order
from microtome.storage.run import Run


def open_data(spec: str, run: Run | None) -> ImageDataset:
    """Open the dataset that `spec` names, its samples in the order of `run` (None: in its own).

    Raises RunMismatchError where it is too small to be the dataset of the run.
    """
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
