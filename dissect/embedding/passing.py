"""One image through the model of a run, exactly as the audit did it: the activation maps of a layer."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from microtome.dissect.audit.config import config_of_run
from microtome.dissect.audit.data import refuse_generator
from microtome.dissect.audit.forward import Forward, ScaleOverflow
from microtome.dissect.audit.job import Division, choose_device, load_configured
from microtome.dissect.audit.prepare import divide
from microtome.dissect.audit.readouts import open_readouts
from microtome.dissect.models import Model
from microtome.storage.errors import RunMismatchError, UsageError
from microtome.storage.run import Run


def maps_of(run: Run, layer: str, crop: NDArray[np.uint8], workers: int) -> NDArray[np.float16]:
    """The maps of `layer` for a crop (H, W, 3) uint8 as the model sees it: (C, h, w) float16, true value / scale.

    Raises RunMismatchError where the model is not the run's, UsageError where the maps are not finite.
    """
    refuse_generator(run, "comparing an image of your own", "give --sample N, one of the images that it has made")
    config = config_of_run(run.info["config"], out=run.url, workers=workers)
    choose_device(config.device)
    model = load_configured(config)
    if model.fingerprint != run.info["model"]["fingerprint"]:
        raise RunMismatchError(
            f"{config.model} is another model, or has other weights, than {run.url} was made with; its vectors "
            "cannot be compared with those of the run"
        )
    return maps_by(model, run, layer, crop, divide(config, workers))


def maps_by(model: Model, run: Run, layer: str, crop: NDArray[np.uint8], division: Division) -> NDArray[np.float16]:
    """The same by `model`, which is known to be the run's. Raises UsageError where the maps are not finite."""
    entry = run.layer(layer)
    readouts = open_readouts(run)
    try:
        with Forward(model, [layer], division, {layer: entry["scale"]}, readouts=readouts) as forward:
            maps: NDArray[np.float16] = forward.submit([crop]).wait()[layer][0]
    except ScaleOverflow as error:
        raise UsageError(f"the image cannot be compared: {error}, beyond what the run stores at its scale") from error
    if not np.isfinite(maps).all():
        raise UsageError(f"the model gives NaN or infinity at layer {layer} for this image, which has no neighbours")
    return maps
