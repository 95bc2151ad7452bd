"""Stage explain: for the units of every layer and for classes, pictures of what they look for; only where asked for.

A unit gets an image synthesised for it and, for its first patches, what of them it responds to by guided
backpropagation (Springenberg et al., 2015), at the patch's peak. Where a network has no ReLU that method does not
apply: then it is SmoothGrad, and the pages say so. Units come in blocks, those of highest IoU first; a killed stage
goes on with the block that it was at, and ends with the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from microtome.dissect.audit.explained import STAGE, block_name, vouch_for_explanations
from microtome.dissect.audit.images import read_item
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.progress import Progress, duration, progress, say
from microtome.dissect.audit.stages.portraits import Portraits, explain_classes, plan_portraits
from microtome.dissect.audit.stopping import Stopped
from microtome.dissect.models import ReceptiveField
from microtome.dissect.synthesis.settings import Settings
from microtome.storage.errors import MicrotomeError
from microtome.storage.pictures import PictureBlock, block_key, holds_block, read_block, write_block
from microtome.storage.schema import ExplainedLayer, LayerEntry

if TYPE_CHECKING:
    from microtome.dissect.audit.explaining import Choice, Explainer, PatchPlace, Picture

BLOCK = 16
"""Units in a block: they are synthesised together."""

SYNTHESIS = Settings(batch=BLOCK)
PATCHES = 4
_HELD_CROPS = 64
_TRIED_STEPS = 2
_SILENT = ("dead", "constant")


def run_explain(job: Job) -> None:
    """Make the pictures that are still missing."""
    from microtome.dissect.audit.explaining import explaining

    device = _device(job)
    threads = job.division.torch_threads * (2 if device.type == "cpu" else 1)
    with explaining(job.model, device, threads) as explainer:
        portraits = plan_portraits(job, explainer)
        works = [_LayerWork(job, explainer, _plan(job, layer)) for layer in job.layers]
        _say_how_long(works, portraits)
        total = sum(len(work.plan.units) for work in works) + len(portraits.classes)
        with progress(STAGE, total, "units and classes") as shown:
            for work in works:
                _explain_layer(job, work, shown)
            explain_classes(job, explainer, portraits, shown)


def _device(job: Job) -> torch.device:
    """Where the pictures are made: as the run's model, by this process, which need not be one that has the device."""
    device = job.division.device
    if device.type == "cuda" and not torch.cuda.is_available():
        say(f"explain: {device} is not to be had here; the pictures are made on the CPU")
        return torch.device("cpu")
    return device


def _say_how_long(works: Sequence[_LayerWork], portraits: Portraits) -> None:
    """What the missing pictures are expected to take, from a few steps in every layer."""
    missing = {work: [units for _, _, units, there in work.blocks() if not there] for work in works}
    seconds, units = 0.0, 0
    each = 0.0
    for work, blocks in missing.items():
        if blocks:
            each = work.seconds_a_unit(blocks[0])
            units += sum(map(len, blocks))
            seconds += each * sum(map(len, blocks))
    if units:
        seconds += each * len(portraits.classes)
        what = f"{units:,} units and {len(portraits.classes):,} classes"
        say(f"explain: {what}, about {duration(seconds)}; --explain-units and --explain-classes say how many")


@dataclass(frozen=True)
class _Plan:
    """The units of a layer to explain, first those of highest IoU, and their first patches."""

    layer: LayerEntry
    units: list[int]
    patches: pd.DataFrame

    @property
    def blocks(self) -> list[list[int]]:
        """The units that are explained together, in their order."""
        return [self.units[start : start + BLOCK] for start in range(0, len(self.units), BLOCK)]

    def patches_of(self, unit: int) -> pd.DataFrame:
        """The first patches of a unit, by rank."""
        return self.patches[self.patches["unit"] == unit]


def _plan(job: Job, layer: LayerEntry) -> _Plan:
    run = job.run
    units = run.layer_table(layer["name"], "units")
    iou = units["iou"].fillna(-1.0).to_numpy(np.float64)
    order = np.lexsort((units["unit"].to_numpy(np.int64), -iou))
    responds = ~units["state"].isin(_SILENT).to_numpy()
    chosen = units["unit"].to_numpy(np.int64)[order[responds[order]]].tolist()
    if "readout" in layer:
        chosen = []  # directions are no units of the network: there is nothing to hook
    patches = run.layer_table(layer["name"], "patches")
    patches = patches[patches["rank"] < PATCHES].sort_values(["unit", "rank"], ignore_index=True)
    return _Plan(layer, chosen[: run.info["explanations"]["settings"]["units"]], patches)


def _explain_layer(job: Job, work: _LayerWork, shown: Progress) -> None:
    run, layer = job.run, work.plan.layer
    files, about = [], {"method": "", "why": "", "no_synthesis": ""}
    if "readout" in layer:
        about["why"] = about["no_synthesis"] = f"directions in {layer['readout']['base']} are no units of the network"
    for file, key, units, there in work.blocks():
        if job.stop.is_set():
            raise Stopped
        block = read_block(run.place, file) if there else work.block(key, units)
        if not there:
            write_block(run.place, file, block)
        about = block.about
        files.append(file)
        shown.advance(len(units))
    vouch_for_explanations(run, layer, files)
    run.info["explanations"]["layers"][layer["name"]] = ExplainedLayer(
        units=len(work.plan.units), method=about["method"], why=about["why"], no_synthesis=about["no_synthesis"]
    )
    run.save()


class _LayerWork:
    """Makes the pictures of a layer's units; crops that several units share are read once."""

    def __init__(self, job: Job, explainer: Explainer, plan: _Plan) -> None:
        self.plan = plan
        self._job, self._explainer = job, explainer
        self._field = ReceptiveField.from_dict(plan.layer["receptive_field"])
        self._crop = lru_cache(maxsize=_HELD_CROPS)(self._read)
        self._choice: Choice | None = None

    def blocks(self) -> Iterator[tuple[str, str, list[int], bool]]:
        """Of each block its file, the key of what it depends on, its units, and whether it is there."""
        run, layer = self._job.run, self.plan.layer
        settings = {"patches": PATCHES, "synthesis": SYNTHESIS.to_dict()}
        for number, units in enumerate(self.plan.blocks):
            file, key = block_key(layer["folder"], number), block_name(run, layer, settings, units)
            yield file, key, units, holds_block(run.place, file, key)

    def seconds_a_unit(self, units: Sequence[int]) -> float:
        """What the pictures of one unit are expected to take, measured on `units`."""
        took = []
        for steps in (1, 1 + _TRIED_STEPS):  # the first one is slower, whatever it does
            begun = time.monotonic()
            self._synthesise(units, replace(SYNTHESIS, steps=steps))
            took.append(time.monotonic() - begun)
        choice, begun = self._method(), time.monotonic()
        self._strip(units[0], choice)
        step = max(took[1] - took[0], took[1] / (1 + _TRIED_STEPS) / 2) / _TRIED_STEPS
        return step * SYNTHESIS.steps / len(units) + time.monotonic() - begun

    def block(self, key: str, units: Sequence[int]) -> PictureBlock:
        """The pictures of `units`."""
        from microtome.dissect.audit.explaining import webp

        synthesised, no_synthesis = self._synthesise(units, SYNTHESIS)
        choice = self._method()
        pictures: dict[str, bytes] = {}
        patches: dict[str, int] = {}
        for unit in units:
            if self._job.stop.is_set():
                raise Stopped
            if unit in synthesised:
                pictures[f"{unit}"] = webp(synthesised[unit])
            strip = self._strip(unit, choice)
            if strip is not None:
                pictures[f"{unit}-patches"] = webp(strip)
            patches[f"{unit}"] = 0 if strip is None else strip.shape[1] // strip.shape[0]
        about = {"units": list(units), "patches": patches, "no_synthesis": no_synthesis}
        return PictureBlock(key, {**about, "method": choice.method, "why": choice.why}, pictures)

    def _synthesise(self, units: Sequence[int], settings: Settings) -> tuple[dict[int, Picture], str]:
        """An image for each unit that could be driven, and why there is none for any of them."""
        from microtome.dissect.audit.explaining import SYNTHESIS_SIDE, at_most
        from microtome.dissect.synthesis import synthesise_units

        model, layer, stop = self._explainer.model, self.plan.layer["name"], self._job.stop.is_set
        try:
            made = list(synthesise_units(model, layer, units, settings=settings, stop=stop))
        except MicrotomeError as error:
            if stop():
                raise Stopped from error
            return {}, str(error)
        return {one.subject: at_most(one.image, SYNTHESIS_SIDE) for one in made if one.driven}, ""

    def _method(self) -> Choice:
        """The method for the patches of this layer, tried on its first patch."""
        from microtome.dissect.audit.explaining import Choice

        if self._choice is None:
            found = (
                (unit, patch)
                for unit in self.plan.units
                for patch in map(self._place, self.plan.patches_of(unit).itertuples())
            )
            first = next(((unit, patch) for unit, patch in found if patch is not None), None)
            self._choice = (
                Choice("", "no patch can be read")
                if first is None
                else self._explainer.choose(self.plan.layer["name"], *first)
            )
        return self._choice

    def _strip(self, unit: int, choice: Choice) -> Picture | None:
        """What the unit responds to in its first patches, side by side by rank; None where there is nothing."""
        from microtome.reports.thumbnails import SIZE

        rows = self.plan.patches_of(unit)
        if not choice.method or not len(rows):
            return None
        places = [self._place(row) for row in rows.itertuples()]
        readable = [patch for patch in places if patch is not None]
        found = self._explainer.patches(choice.method, self.plan.layer["name"], unit, readable) if readable else None
        if found is None:
            return None
        pictures = iter(found)
        strip = np.full((SIZE, SIZE * len(places), 3), 128, np.uint8)
        for number, place in enumerate(places):
            if place is not None:
                picture = next(pictures)
                top, left = (SIZE - picture.shape[0]) // 2, number * SIZE + (SIZE - picture.shape[1]) // 2
                strip[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
        return strip

    def _place(self, row: Any) -> PatchPlace | None:
        """Where a patch lies in what the model sees; None where its image cannot be read any more."""
        from microtome.dissect.audit.explaining import PatchPlace

        crop = self._crop(int(row.sample))
        at = (int(row.row), int(row.column))
        top, left, bottom, right = self._field.box(*at)
        if crop is None:
            return None
        if bottom <= top or right <= left:
            top, left, (bottom, right) = 0, 0, crop.shape[:2]
        return PatchPlace(crop, at, (top, left, bottom, right))

    def _read(self, sample: int) -> NDArray[np.uint8] | None:
        item = read_item(self._job.dataset, sample, self._job.preprocess, self._job.label_size)
        return item.image if item.ok else None
