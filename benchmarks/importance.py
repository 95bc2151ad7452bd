"""Importance of every unit of late layers, against whole forward passes with each unit removed by a hook.

Both on one thread, from decoded images, in CPU time. The whole passes are timed for a few units and multiplied by their
number; for these units both have to count the same right answers (but where two logits tie within rounding).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from microtome.datasets.specs import open_dataset
from microtome.dissect.ablation.network import Network, open_network
from microtome.dissect.ablation.subject import ROWS_ON_CPU
from microtome.dissect.audit.images import read_item
from microtome.dissect.audit.job import Division
from microtome.dissect.models import Model, load_model
from microtome.dissect.models.sites import site_of

MODEL = "builtin:scenes-cnn"
LAYERS = ("block5", "block4")
BATCH = 32  # of whole passes: where they are fastest
ONE_THREAD = Division(torch.device("cpu"), 1, 1, 1, 1, channels_last=False)


def run(quick: bool) -> dict[str, Any]:
    """CPU seconds of both, and their ratio."""
    count = int(os.environ.get("IMAGES", "64" if quick else "1000"))
    torch.set_num_threads(1)
    model, dataset = load_model(MODEL), open_dataset(f"scenes:{count}")
    images = [read_item(dataset, index, model.preprocess, (8, 8)).image for index in range(count)]
    truth = np.array([dataset.entry(index).label for index in range(count)], np.int64)
    rows = [_compare(model, layer, images, truth, 2 if quick else 4) for layer in LAYERS]
    return {"load before": os.getloadavg()[0], f"{MODEL} over {count} scenes": rows}


def _compare(
    model: Model, layer: str, images: list[NDArray[np.uint8]], truth: NDArray[np.int64], tried: int
) -> dict[str, object]:
    units = site_of(model, layer).units
    start = time.process_time()
    network = open_network(model, layer, ONE_THREAD, np.zeros(units, np.float32), ROWS_ON_CPU)
    opening = time.process_time() - start
    start = time.process_time()
    right, pairs = _all_units(network, images, truth)
    seconds = time.process_time() - start
    chosen = np.linspace(0, units - 1, tried).astype(np.int64).tolist()
    start = time.process_time()
    expected = {unit: _whole(model, layer, unit, images, truth) for unit in chosen}
    whole = (time.process_time() - start) / tried * units
    return {
        "layer": layer,
        "units": units,
        "trace and check, s": opening,
        "all units, s": seconds,
        "pairs that changed anything": pairs / (units * len(images)),
        "whole passes, s (extrapolated)": whole,
        "times faster": whole / (seconds + opening),
        "right answers that differ": sum(abs(int(right[unit]) - count) for unit, count in expected.items()),
    }


def _all_units(
    network: Network, images: list[NDArray[np.uint8]], truth: NDArray[np.int64]
) -> tuple[NDArray[np.int64], int]:
    """Right answers without each unit, and how many pairs of image and unit had to be computed."""
    right, pairs = np.zeros(network.units, np.int64), 0
    for start in range(0, len(images), network.batch):
        held = network.hold(images[start : start + network.batch])
        mine = truth[start : start + network.batch]
        correct = np.repeat((held.logits.argmax(axis=1) == mine)[:, None], network.units, axis=1)
        rows, units = np.nonzero(~held.silent)
        correct[rows, units] = network.without_units(held, rows, units).argmax(axis=1) == mine[rows]
        right += correct.sum(axis=0)
        pairs += len(rows)
    return right, pairs


def _whole(model: Model, layer: str, unit: int, images: list[NDArray[np.uint8]], truth: NDArray[np.int64]) -> int:
    """Right answers of whole passes in which a hook removes one unit."""

    def remove(module: nn.Module, inputs: object, output: Tensor) -> Tensor:
        output = output.clone()
        output[:, unit] = 0
        return output

    handle = model.module.get_submodule(layer).register_forward_hook(remove)
    try:
        with torch.no_grad():
            answers = [model.module(batch).argmax(dim=1).numpy() for batch in _batches(model, images)]
    finally:
        handle.remove()
    return int((np.concatenate(answers) == truth).sum())


def _batches(model: Model, images: list[NDArray[np.uint8]]) -> Iterator[Tensor]:
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (model.preprocess.mean, model.preprocess.std))
    for start in range(0, len(images), BATCH):
        pixels = torch.from_numpy(np.stack(images[start : start + BATCH])).permute(0, 3, 1, 2).float()
        yield pixels.div_(255.0).sub_(mean).div_(std).contiguous()
