"""Whether capture's decoding, forward passes and writing overlap: its wall time against the slowest of the three alone.

There is no accelerator here, so one is stood in for: a model whose forward pass takes a set time without the CPU (it
sleeps, without Python's lock, in as many pieces as a network has blocks) and gives back activations that a small real
network computed before. Everything else is what an audit runs: JPEGs and masks from a folder, the pipeline of capture,
summaries, compression and commits. Decoding has one thread, compression has one. Then the same with a real network
on the CPU, where nothing can overlap that needs the same cores: there the floor is the CPU time of all three.
"""

from __future__ import annotations

import os
import tempfile
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.timing import best_wall
from microtome.datasets.scenes import ScenesDataset
from microtome.dissect import AuditConfig
from microtome.dissect.audit.cores import available_cores
from microtome.dissect.audit.devices import DirectDevice
from microtome.dissect.audit.forward import Forward
from microtome.dissect.audit.heap import keep_memory
from microtome.dissect.audit.images import read_item
from microtome.dissect.audit.job import Job
from microtome.dissect.audit.prepare import prepare
from microtome.dissect.audit.schedule import ThreadExecutor, run_shards
from microtome.dissect.audit.stages.capture import CaptureShard
from microtome.dissect.audit.stages.index import run_index
from microtome.dissect.audit.stages.passes import Maps, Passage, Records, shards_at_once
from microtome.dissect.audit.turns import Slots, TurnPool
from microtome.storage.arrays import limit_threads

SIZE = 112  # pixels that the model takes
BATCH = 16
SHARD = 32
BLOCKS = 16  # pieces of one forward pass
DISTINCT = 64  # images; the others are links to them
READY = 4  # shards and batches kept ready for what is measured alone
CPU_MODEL = "torchvision:resnet18?weights=none"
CPU_LAYERS = ("layer[1234]",)


@dataclass(frozen=True)
class Setting:
    """What is to be the slowest: the size of the images and the number of units decide what decoding and writing
    take, `forward` is the accelerator's time as a share of the longer of the two."""

    slowest: str
    width: int
    units: int
    forward: float


SETTINGS = (
    Setting("forward passes", 320, 256, 1.25),
    Setting("decoding", 320, 192, 0.7),
    Setting("writing", 96, 320, 0.7),
)


class Units(nn.Module):
    """The layer that is dissected."""

    def __init__(self, units: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.convolution = nn.Conv2d(3, units, 7, stride=4, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        """(B, units, H / 4, W / 4), rectified."""
        return self.convolution(x).relu()


class Small(nn.Module):
    """A network of one layer, `units`."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.units = Units(units)
        self.preprocess = {"size": SIZE, "mean": [0.5] * 3, "std": [0.25] * 3}

    def forward(self, x: Tensor) -> Tensor:
        """(B, units)."""
        return self.units(x).mean((2, 3))


class Given(nn.Module):
    """Gives what it was given, whatever goes in."""

    def __init__(self, maps: Tensor) -> None:
        super().__init__()
        self.maps = maps

    def forward(self, x: Tensor) -> Tensor:
        """The maps of as many images as went in."""
        return self.maps[: len(x)]


class Elsewhere(nn.Module):
    """A network that is at work for `seconds` on hardware of its own."""

    def __init__(self, maps: Tensor, seconds: float) -> None:
        super().__init__()
        self.units = Given(maps)
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        """The layer `units`, after the time that it takes."""
        due = time.perf_counter()
        for _ in range(BLOCKS):
            due += self.seconds / BLOCKS
            time.sleep(max(0.0, due - time.perf_counter()))
        return self.units(x)


class StandIn(DirectDevice):
    """An accelerator normalises and compares by itself: here both are left out, not charged to the CPU."""

    def __init__(self) -> None:
        super().__init__(torch.device("meta"))

    def largest_magnitude(self, maps: Tensor) -> Tensor:
        """Nothing is too large."""
        return torch.zeros(())


_units = 0


def small() -> Small:
    """The model spec `benchmarks.overlap:small`."""
    return Small(_units).eval()


def run(quick: bool) -> dict[str, Any]:
    """Seconds of each part alone and of the whole, for every setting, with the machine quiet."""
    limit_threads(1)
    keep_memory()  # as an audit does
    cv2.setNumThreads(1)
    images, repeats = (480, 1) if quick else (1600, 3)
    with tempfile.TemporaryDirectory() as folder:
        rows = [_accelerated(setting, images, repeats, Path(folder)) for setting in SETTINGS]
        cores = _on_the_cpu(images // 2, repeats, Path(folder))
    return {
        "images": f"{images}, batches of {BATCH}, shards of {SHARD}, {available_cores()} cores",
        "a stand-in for an accelerator": rows,
        f"everything on the CPU, {images // 2} images": [cores],
    }


def _accelerated(setting: Setting, images: int, repeats: int, folder: Path) -> dict[str, object]:
    global _units
    _units = setting.units
    job = _job("benchmarks.overlap:small", ("units",), setting.width, images, folder)
    alone = replace(job.division, workers=1, passes=1, lanes=4, torch_threads=1)
    job = replace(job, division=alone)
    job.keep_model(job.model)
    bench, there = Bench(job), replace(alone, device=torch.device("meta"))
    maps = _some_maps(job)
    decoding = best_wall(bench.decode, repeats=repeats)
    with Forward(replace(job.model, module=Elsewhere(maps, 0.0)), ["units"], there, {}, StandIn()) as idle:
        ready = bench.ready_shards(idle)
        writing = best_wall(lambda: bench.write(idle, ready), repeats=repeats)
    seconds = setting.forward * max(decoding.seconds, writing.seconds) / len(bench.batches)
    with Forward(replace(job.model, module=Elsewhere(maps, seconds)), ["units"], there, {}, StandIn()) as forward:
        passing = best_wall(lambda: bench.forward(forward), repeats=repeats)
        together = best_wall(lambda: bench.together(forward), repeats=repeats)
    return {
        "slowest": setting.slowest,
        "decode, s": decoding.seconds,
        "forward, s": passing.seconds,
        "write, s": writing.seconds,
        "together, s": together.seconds,
        "ratio to the slowest": together.seconds / max(part.seconds for part in (decoding, passing, writing)),
        "others' share of the cores": max(part.others for part in (decoding, passing, writing, together)),
    }


def _on_the_cpu(images: int, repeats: int, folder: Path) -> dict[str, object]:
    job = _job(CPU_MODEL, CPU_LAYERS, 640, images, folder)
    bench, names = Bench(job), [layer["name"] for layer in job.layers]
    with Forward(job.model, names, job.division, {layer["name"]: layer["scale"] for layer in job.layers}) as forward:
        ready = bench.ready_shards(forward)
        parts = (bench.decode, lambda: bench.forward(forward), lambda: bench.write(forward, ready))
        spent = [best_wall(part, repeats=repeats).cpu for part in parts]
        together = best_wall(lambda: bench.together(forward), repeats=repeats)
    floor = sum(spent) / available_cores()
    return {
        "model": CPU_MODEL,
        "decode, CPU s": spent[0],
        "forward, CPU s": spent[1],
        "write, CPU s": spent[2],
        "sum over cores, s": floor,
        "together, s": together.seconds,
        "ratio to the sum": together.seconds / floor,
        "others' share of the cores": together.others,
    }


class Bench:
    """The parts of one capture, alone and together."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.batches = [range(at, min(at + BATCH, job.samples)) for at in range(0, job.samples, BATCH)]
        self._images = [
            [read_item(job.dataset, index, job.model.preprocess, job.label_size).image for index in batch]
            for batch in self.batches[:READY]
        ]

    def decode(self) -> None:
        """Decode all images with the decoders of the division."""
        job = self.job
        with TurnPool(job.division.workers, "decode") as decoders:
            read = partial(read_item, job.dataset, preprocess=job.model.preprocess, label_size=job.label_size)
            waiting = [decoders.submit(0, partial(read, index=index)) for index in range(job.samples)]
            for future in waiting:
                future.result()

    def forward(self, forward: Forward) -> None:
        """Forward passes over ready batches, as many at once as the division has."""
        waiting = [forward.submit(self._images[number % READY]) for number, _ in enumerate(self.batches)]
        for captured in waiting:
            captured.wait()

    def ready_shards(self, forward: Forward) -> list[tuple[Records, Maps]]:
        """Some shards, computed but not written."""
        plan = self.job.run.plan
        with TurnPool(self.job.division.workers, "decode") as decoders:
            passage = self._task(forward, decoders).passage
            return [passage.compute(plan.samples_of(shard), shard) for shard in range(min(READY, plan.count))]

    def write(self, forward: Forward, ready: list[tuple[Records, Maps]]) -> None:
        """Summarise, compress, write and commit ready shards, one after the other."""
        with TurnPool(1, "decode") as decoders:
            task = self._task(forward, decoders)
            for shard in range(self.job.run.plan.count):
                records, maps = ready[shard % len(ready)]
                task._commit(shard, records, dict(maps))

    def together(self, forward: Forward) -> None:
        """The whole capture."""
        job = self.job
        with TurnPool(job.division.workers, "decode") as decoders:
            task = self._task(forward, decoders)
            run_shards("capture", task, range(job.run.plan.count), workers=job.division.lanes, stop=job.stop)

    def _task(self, forward: Forward, decoders: TurnPool) -> CaptureShard:
        job = self.job
        slots = Slots(shards_at_once(job))
        passage = Passage(job, job.layers, forward, decoders, lambda amount: None, slots)
        return CaptureShard(job, passage, job.commits("capture"), None)


def _job(model: str, layers: tuple[str, ...], width: int, images: int, folder: Path) -> Job:
    photos = folder / f"{width}-{images}"
    if not photos.exists():
        _write_photos(photos, width, images)
    config = AuditConfig(
        model=model,
        dataset=f"folder:{photos}",
        layers=layers,
        out=Path(tempfile.mkdtemp(dir=folder)) / "run",
        batch=BATCH,
        shard_samples=SHARD,
    )
    job = prepare(config, ThreadExecutor())
    run_index(job)
    return job


def _write_photos(folder: Path, width: int, count: int) -> None:
    """Scenes enlarged to WIDTH x 3/4 WIDTH with the noise of a camera, as JPEGs, with their masks."""
    (folder / "images").mkdir(parents=True)
    (folder / "masks").mkdir()
    scenes = ScenesDataset(DISTINCT, size=SIZE)
    random = np.random.default_rng(0)
    shape = (width, 3 * width // 4)
    names = [f"{concept.id},{concept.name},{concept.category}" for concept in scenes.concepts]
    (folder / "classes.csv").write_text("\n".join(["index,name,category", *names]) + "\n", encoding="utf-8")
    for index in range(count):
        image, mask = (folder / kind / f"{index:05d}.{end}" for kind, end in (("images", "jpg"), ("masks", "png")))
        if index >= DISTINCT:
            os.link(folder / "images" / f"{index % DISTINCT:05d}.jpg", image)
            os.link(folder / "masks" / f"{index % DISTINCT:05d}.png", mask)
            continue
        sample = scenes.read(index)
        large = cv2.resize(sample.image, shape, interpolation=cv2.INTER_CUBIC)
        noisy = np.clip(large + random.normal(0, 6, large.shape), 0, 255).astype(np.uint8)
        cv2.imwrite(str(image), noisy[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 90])
        cv2.imwrite(str(mask), cv2.resize(sample.planes[0], shape, interpolation=cv2.INTER_NEAREST))


def _some_maps(job: Job) -> Tensor:
    """What the real network gives for a batch of the images, as float16."""
    images = [read_item(job.dataset, index, job.model.preprocess, job.label_size).image for index in range(BATCH)]
    with Forward(job.model, ["units"], job.division) as forward:
        return torch.from_numpy(forward.submit(images).wait()["units"])
