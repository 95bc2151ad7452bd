"""Making the read-outs of a new run: directions are drawn, read from the user's files, or fitted to a few images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from microtome.datasets.base import ImageDataset
from microtome.dissect.audit.config import AuditConfig
from microtome.dissect.audit.forward import Forward
from microtome.dissect.audit.images import Item, read_item
from microtome.dissect.audit.job import Division
from microtome.dissect.audit.progress import progress, say
from microtome.dissect.models import LayerInfo, Model
from microtome.dissect.models.readouts import PlannedLayer, Readout
from microtome.dissect.models.readouts.bases import Components, FeatureMoments, random_rotation
from microtome.dissect.models.readouts.encoders import Encoder, encoder_readout
from microtome.dissect.models.readouts.matrices import as_columns, read_matrix
from microtome.dissect.models.readouts.names import UnitsSpec
from microtome.dissect.models.readouts.readout import directions
from microtome.storage.errors import UsageError
from microtome.storage.readouts import fingerprint_of

FITTING_IMAGES = 256
"""Images that principal components are fitted on, at most; evenly spaced over the dataset."""

Fit = tuple[Components, int]
Matrices = dict[str, NDArray[np.generic]]


def make_readouts(
    config: AuditConfig,
    model: Model,
    dataset: ImageDataset,
    samples: int,
    division: Division,
    planned: Sequence[PlannedLayer],
    bases: Mapping[str, LayerInfo],
) -> dict[str, Readout]:
    """The read-outs of the layers of a new run, by the layers' names; `bases`: the layers of the model.

    Raises UsageError for a file or an encoder that cannot be used with a layer.
    """
    wanted = [layer for layer in planned if layer.spec.kind != "axes"]
    encoders = {
        source: Encoder(source)
        for source in dict.fromkeys(layer.spec.source for layer in wanted if layer.spec.kind == "encoder")
    }
    fitted = [layer.base for layer in wanted if layer.spec.kind == "pca"]
    fits = fit_components(config, model, dataset, samples, division, {base: bases[base].units for base in fitted})
    readouts = {}
    for layer in wanted:
        units, spec = bases[layer.base].units, layer.spec
        if spec.kind == "encoder":
            encoders[spec.source].refuse_unusable(units)
            readouts[layer.name] = encoder_readout(layer.base, units, encoders[spec.source])
            continue
        images = 0
        matrices: Matrices
        if spec.kind == "pca":
            components, images = fits[layer.base]
            if (spec.components or 0) > units:
                say(f"note: layer {layer.base} has {units} units, so that {layer.name} holds {units} components")
            matrices = _of_components(components.first(spec.components))
        elif spec.kind == "rotated":
            matrices = {"weight": random_rotation(units).astype(np.float32)}
        else:
            matrices = _of_file(spec, layer.base, units)
        mark = fingerprint_of(matrices)
        readouts[layer.name] = directions(layer.base, spec.kind, spec.source, mark, matrices, images)
    return readouts


def fit_components(
    config: AuditConfig,
    model: Model,
    dataset: ImageDataset,
    samples: int,
    division: Division,
    units: Mapping[str, int],
) -> dict[str, Fit]:
    """The principal components of the layers that `units` names, and the number of images that they come from.

    Exact over every position of up to FITTING_IMAGES images, evenly spaced over the first `samples` of the dataset;
    in one pass of the model for all layers. Raises UsageError where no image of those can be read.
    """
    if not units:
        return {}
    chosen = np.unique(np.linspace(0, samples - 1, min(samples, FITTING_IMAGES)).round().astype(np.int64)).tolist()
    moments = {base: FeatureMoments(count) for base, count in units.items()}
    read = partial(read_item, dataset, preprocess=model.preprocess, label_size=(1, 1))

    def add(layer: str, maps: Tensor) -> None:
        moments[layer].update(maps)

    images = 0
    with (
        progress("pca", len(chosen), "images") as shown,
        ThreadPoolExecutor(division.workers, thread_name_prefix="decode") as decoders,
        Forward(model, list(units), division) as forward,
    ):
        for first in range(0, len(chosen), config.batch):
            items: list[Item] = list(decoders.map(read, chosen[first : first + config.batch]))
            fed = [item.fed for item in items if item.ok]
            if fed:
                forward.observe(fed, add)
            images += len(fed)
            shown.advance(len(items))
    if not all(seen.count for seen in moments.values()):
        raise UsageError(f"{config.dataset}: no image of {len(chosen)} gave activations to fit principal components to")
    return {base: (seen.components(), images) for base, seen in moments.items()}


def _of_components(components: Components) -> Matrices:
    return {
        "weight": components.weight.astype(np.float32),
        "bias": components.bias.astype(np.float32),
        "variance": components.variance,
    }


def _of_file(spec: UnitsSpec, base: str, inputs: int) -> Matrices:
    matrix, transposed = as_columns(read_matrix(spec), inputs, layer=base, source=spec.source)
    if transposed:
        say(f"note: {spec.source} is (U, C) for layer {base} of {inputs} units; its rows are taken as directions")
    return {"weight": matrix}
