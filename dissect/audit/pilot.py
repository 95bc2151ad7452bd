"""What is found out from a few images before a run begins: layers, receptive fields, scales, and what it will cost."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from microtome.datasets.base import ImageDataset
from microtome.dissect.audit.config import AuditConfig
from microtome.dissect.audit.fitting import make_readouts
from microtome.dissect.audit.forward import Forward, ScaleOverflow
from microtome.dissect.audit.images import Fed, Item, read_item
from microtome.dissect.audit.job import Division
from microtome.dissect.models import (
    LayerInfo,
    Model,
    ReceptiveField,
    describe_layers,
    measure_receptive_fields,
)
from microtome.dissect.models.readouts import PlannedLayer, Readout, plan_layers
from microtome.storage.commits import pack_state
from microtome.storage.errors import UsageError
from microtome.storage.schema import EstimateInfo

PILOT_IMAGES = 4
PILOT_TRIES = 32
LARGEST_PILOT_VALUE = 2.0**11  # leaves a factor 32 below float16's maximum for what the pilot did not see
SMALLEST_PILOT_VALUE = 2.0**-6  # below, float16 would lose precision to subnormal numbers
WHOLE_GRID = 64
"""Pixels of a side up to which a generator's images are labelled in full."""
STATE_BYTES = 100
"""Committed states of a unit and stage, about, in a shard of 32 samples: bytes a sample and unit, 32 times as much."""
OTHER_STAGES = 1.25
"""Time of all stages in that of capture, about: measured on a ResNet-18 and the built-in classifier."""


@dataclass(frozen=True)
class Pilot:
    """The layers, their receptive fields and read-outs, and from a few real images their scales, whether channels-last
    works, and what a sample costs; bytes_in_memory: of one sample of all layers and labels, uncompressed."""

    infos: list[LayerInfo]
    fields: dict[str, ReceptiveField]
    scales: dict[str, float]
    channels_last: bool
    estimate: EstimateInfo
    bytes_in_memory: int
    readouts: Mapping[str, Readout]


def run_pilot(
    config: AuditConfig,
    model: Model,
    dataset: ImageDataset,
    samples: int,
    division: Division,
    readouts: Mapping[str, Readout] | None = None,
) -> Pilot:
    """Resolve the layers, and run the first few readable images through the model.

    readouts: those of a run that is there already, None = make them.
    """
    planned = plan_layers(model, config.layers, config.units, rotation_baseline=config.rotation_baseline)
    bases = _bases(model, planned)
    items, seconds_to_decode = _first_items(config, model, dataset, samples)
    fields = measure_receptive_fields(model, list(bases))  # while the model is still on the CPU, in its own layout
    fed = [item.fed for item in items]
    magnitudes = dict.fromkeys(bases, 0.0)
    if fed:
        division, magnitudes = _magnitudes_somehow(config, model, list(bases), division, fed)
    if readouts is None:
        readouts = make_readouts(config, model, dataset, samples, division, planned, bases)
    infos = [
        layer.describe(bases[layer.base], readouts[layer.name].units if layer.name in readouts else None)
        for layer in planned
    ]
    names = [info.name for info in infos]
    fields = {layer.name: fields[layer.base] for layer in planned}
    raw = sum(info.bytes_per_image for info in infos)
    if not fed:
        nothing = EstimateInfo(bytes_per_sample=raw, bytes_per_sample_streamed=0.0, seconds_per_sample=0.0)
        return Pilot(infos, fields, dict.fromkeys(names, 1.0), False, nothing, raw, readouts)
    if readouts:
        magnitudes = _magnitudes(model, names, division, fed, readouts)
    scales = {name: scale_for(magnitudes[name]) for name in names}
    maps, seconds_to_run = _forward(model, names, division, scales, fed, readouts)
    compressed = sum(_compressed(values) for values in maps.values()) / len(items) if maps else raw / 2
    labels = _compressed(np.stack([item.planes for item in items])) / len(items)
    states = STATE_BYTES * sum(info.units for info in infos)
    others = labels + states + _compressed(np.stack([item.thumbnail for item in items])) / len(items)
    estimate = EstimateInfo(
        bytes_per_sample=round(compressed + others, 1),
        bytes_per_sample_streamed=round(others, 1),
        seconds_per_sample=_seconds(seconds_to_decode, seconds_to_run / len(items), division),
    )
    return Pilot(infos, fields, scales, division.channels_last, estimate, raw + items[0].planes.nbytes, readouts)


def _bases(model: Model, planned: Sequence[PlannedLayer]) -> dict[str, LayerInfo]:
    """The layers of the model that the planned ones are taken from."""
    infos = describe_layers(model, list(dict.fromkeys(layer.base for layer in planned)))
    for info in infos:
        if not info.usable:
            raise UsageError(f"layer {info.name} cannot be dissected: {info.note}")
    return {info.name: info for info in infos}


def _first_items(config: AuditConfig, model: Model, dataset: ImageDataset, samples: int) -> tuple[list[Item], float]:
    """The first readable samples, and the seconds that one took to decode."""
    label_size = label_size_of(config, model)
    items: list[Item] = []
    seconds = []  # the least counts: the first one loads and compiles what the others find ready
    for index in range(min(samples, PILOT_TRIES)):
        started = time.perf_counter()
        item = read_item(dataset, index, model.preprocess, label_size)
        if item.ok:
            items.append(item)
            seconds.append(time.perf_counter() - started)
        if len(items) == PILOT_IMAGES:
            break
    return items, min(seconds, default=0.0)


def label_size_of(config: AuditConfig, model: Model) -> tuple[int, int]:
    """(H, W) of the label grid: what was asked for, else half the images that the model sees, or all of the small ones
    that a generator makes, whose labels have no finer truth behind them."""
    height, width = model.preprocess.size
    if config.label_size is not None:
        return config.label_size
    if model.generator is not None and max(height, width) <= WHOLE_GRID:
        return height, width
    return math.ceil(height / 2), math.ceil(width / 2)


def _magnitudes_somehow(
    config: AuditConfig, model: Model, names: list[str], division: Division, fed: Sequence[Fed]
) -> tuple[Division, dict[str, float]]:
    """The largest magnitudes of layers of the model, and the division with the memory layout in which it runs."""
    try:
        return division, _magnitudes(model, names, division, fed)
    except RuntimeError:
        if not division.channels_last or config.channels_last == "yes":
            raise
        division = replace(division, channels_last=False)  # a model that asks for `view` of contiguous tensors
        return division, _magnitudes(model, names, division, fed)


def _magnitudes(
    model: Model,
    names: list[str],
    division: Division,
    fed: Sequence[Fed],
    readouts: Mapping[str, Readout] = {},
) -> dict[str, float]:
    with Forward(model, names, division, readouts=readouts) as forward:
        return forward.largest_magnitudes(fed)


def _forward(
    model: Model,
    names: list[str],
    division: Division,
    scales: Mapping[str, float],
    fed: Sequence[Fed],
    readouts: Mapping[str, Readout],
) -> tuple[dict[str, NDArray[np.float16]], float]:
    """What would be stored, and the seconds that it took; nothing where a scale is too small after all."""
    with Forward(model, names, division, scales, readouts=readouts) as forward:
        seconds = []
        maps: dict[str, NDArray[np.float16]] = {}
        for _ in range(2):
            started = time.perf_counter()
            with contextlib.suppress(ScaleOverflow):
                maps = forward.submit(fed).wait()
            seconds.append(time.perf_counter() - started)
        return maps, min(seconds)


def _compressed(values: NDArray[np.generic]) -> int:
    """Bytes of `values` as the run stores them."""
    return len(pack_state({"values": values}))


def _seconds(decode: float, forward: float, division: Division) -> float:
    """Seconds of a whole audit for one sample, given those of one core decoding and of one forward pass."""
    decode /= division.workers
    if division.device.type == "cpu":  # both want the same cores
        return round((decode + forward / division.passes) * OTHER_STAGES, 6)
    return round(max(decode, forward) * OTHER_STAGES, 6)


def scale_for(magnitude: float) -> float:
    """The power of two by which to divide activations of up to `magnitude` before they become float16."""
    if magnitude > LARGEST_PILOT_VALUE:
        return 2.0 ** math.ceil(math.log2(magnitude / LARGEST_PILOT_VALUE))
    if 0 < magnitude < SMALLEST_PILOT_VALUE:
        return 2.0 ** math.floor(math.log2(magnitude))
    return 1.0
