"""The dataset of a run: its samples in the run's order, with all the labels that the run gives them."""

from __future__ import annotations

import torch

from microtome.datasets.base import ImageDataset
from microtome.datasets.specs import open_dataset
from microtome.datasets.views.labelled import with_labels
from microtome.datasets.views.ordered import OrderedDataset
from microtome.datasets.views.segmented import Segments
from microtome.dissect.audit.config import AuditConfig
from microtome.dissect.audit.job import choose_device, load_configured
from microtome.dissect.generators.data import EXAMPLE, GeneratedDataset, is_generated, parse_generated
from microtome.dissect.generators.generator import Generator
from microtome.dissect.models import Model
from microtome.storage.errors import DoesNotApplyError, RunMismatchError, UsageError
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
    return with_labels(open_images(config, run), config.free, segments, config.concepts)


def open_images(config: AuditConfig, run: Run | None) -> ImageDataset:
    """Open the dataset of `config`, with no labels but its own, its samples in the order of `run`."""
    dataset = open_plain(config)
    digest = run.info["data"].get("order") if run is not None else None
    if run is None or digest is None:
        return dataset
    order = read_order(run.place, digest)
    if len(order) and int(order.max()) >= len(dataset):
        raise RunMismatchError(
            f"{run.url} was made with more images than {config.dataset} has now ({len(dataset):,}); put them back"
        )
    return OrderedDataset(dataset, order)


def open_plain(config: AuditConfig) -> ImageDataset:
    """Open the dataset of `config` as it is; a generator's own images are made by a module that nobody else uses."""
    if is_generated(config.dataset):
        return GeneratedDataset(config.dataset, lambda inputs: _generator(config, inputs))
    return open_dataset(config.dataset)


def _generator(config: AuditConfig, inputs: ImageDataset | None) -> Generator:
    try:
        device = choose_device(config.device)
    except UsageError:
        device = torch.device("cpu")  # pages are also drawn where there is no accelerator
    return Generator(load_configured(config), inputs).to(device)


def refuse_unlabelled(config: AuditConfig) -> None:
    """Raise UsageError where a generator's own images are to be audited and nobody labels them."""
    if is_generated(config.dataset) and config.segmenter is None:
        raise UsageError(
            f"{config.dataset}: nobody has labelled the images of a generator; name a model that does with "
            "--segmenter, such as path/file.py:factory or torchvision:deeplabv3_resnet50"
        )


def refuse_unmatched(config: AuditConfig, model: Model) -> None:
    """Raise UsageError where a generator is not to be audited over its own images, or another network over such."""
    own = is_generated(config.dataset)
    if model.generator is None:
        if own:
            raise UsageError(
                f"{config.dataset} are the images that a generator makes, and {config.model} is none: it has no "
                "latent_shape and no output_range; give it a dataset such as folder:PATH"
            )
        return
    if not own:
        raise UsageError(
            f"{config.model} is a generator, which is dissected over the images that it makes: give {EXAMPLE} in place "
            f"of {config.dataset}, and a --segmenter"
        )
    folder = parse_generated(config.dataset).folder
    if model.generator.latent_shape is None and not folder:
        raise UsageError(
            f"{config.model} makes images from images: say from which, as generated:FOLDER in place of {config.dataset}"
        )
    if model.generator.latent_shape is not None and folder:
        raise UsageError(
            f"{config.model} makes images from latents, and takes none of {folder}: say how many, as in {EXAMPLE}"
        )
    if config.explain:
        raise UsageError(
            f"--explain shows what in an image excites a unit; {config.model} is a generator, whose units make images: "
            "leave it out, and see what they do with microtome ablate RUN"
        )


def refuse_generator(run: Run, method: str, advice: str) -> None:
    """Raise DoesNotApplyError where `run` is of a generator, and `method` is for networks that answer about images."""
    if "generator" in run.info["model"]:
        raise DoesNotApplyError(
            method, f"{run.url} is a run of the generator {run.info['model']['spec']}, which makes images", advice
        )


def segments_of(info: SegmenterInfo | None) -> Segments | None:
    """What a run's segmenter tells apart."""
    return info and Segments(tuple(info["labels"]), tuple(info["categories"]), info["planes"])
