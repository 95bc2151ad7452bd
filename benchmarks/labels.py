"""Labels from a Broden folder into a run by two threads, and how long an index of a million images takes to open.

Maps of 112x112 in four categories and two labels of the whole image: decoded, remapped, laid on the label grid of a
model that sees 224x224, and stored as an audit stores them. `IMAGES=5000 make bench BENCH=labels` takes more.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.timing import best_wall
from microtome.datasets.formats.broden.reader import BrodenDataset
from microtome.datasets.geometry import CropGeometry
from microtome.datasets.images import crop_labels
from microtome.storage.arrays import IMAGE_LABELS, LABELS, RunArrays, limit_threads
from microtome.storage.places import LocalPlace
from microtome.storage.shards import ShardPlan

SIDE, GRID = 224, 112
THREADS = 2
SHARD = 64
MAPS = {"color": (1, 11), "object": (12, 400), "part": (401, 800), "material": (801, 900)}
SCALARS = {"scene": (901, 1100), "texture": (1101, 1197)}
HEADER = ",".join(["image", "split", "ih", "iw", "sh", "sw", *MAPS, *SCALARS])

OPEN = """
import json, re, sys, time
from pathlib import Path
from microtome.datasets.formats.broden.reader import BrodenDataset

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e3

before, start, cpu = peak(), time.perf_counter(), time.process_time()
dataset = BrodenDataset(sys.argv[1])
found = {"s": time.perf_counter() - start, "cpu": time.process_time() - cpu, "peak": peak(), "grown": peak() - before}
start, step = time.perf_counter(), max(1, len(dataset) // 10_000)
for index in range(0, len(dataset), step):
    dataset.entry(index)
print(json.dumps(found | {"us": (time.perf_counter() - start) * step / len(dataset) * 1e6}))
"""


def run(quick: bool) -> dict[str, Any]:
    """Images a second, and seconds and memory of opening."""
    images = int(os.environ.get("IMAGES", "200" if quick else "1000"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "broden"
        write(root, images)
        stored = _store(root, Path(folder), 2 if quick else 5)
        rows = 50_000 if quick else 1_000_000
        write_index(root, rows)
        opened = _open(root, rows)
    return {
        "load before": os.getloadavg()[0],
        f"labels of {GRID}x{GRID}, {len(MAPS)} maps and {len(SCALARS)} scalars": [stored],
        "opening index.csv": [opened],
    }


def _store(root: Path, folder: Path, repeats: int) -> dict[str, object]:
    limit_threads(1)  # each of the threads compresses its own shards
    dataset = BrodenDataset(root)
    geometry = CropGeometry.of(SIDE, SIDE, size=(SIDE, SIDE), resize=SIDE)
    plan = ShardPlan(len(dataset), SHARD, min(32, SHARD))
    arrays = RunArrays(LocalPlace(folder / "run"), plan)
    arrays.create(LABELS, (len(dataset.plane_names), GRID, GRID), "uint16")
    arrays.create(IMAGE_LABELS, (dataset.image_label_slots,), "uint16")

    def store(shard: int) -> None:
        samples = plan.samples_of(shard)
        planes = np.empty((len(samples), len(dataset.plane_names), GRID, GRID), np.uint16)
        image_labels = np.empty((len(samples), dataset.image_label_slots), np.uint16)
        for row, index in enumerate(samples):
            labels = dataset.read_labels(index)
            planes[row] = crop_labels(labels.planes, geometry, (GRID, GRID))
            image_labels[row] = labels.image_labels
        arrays.write_shard(LABELS, shard, planes)
        arrays.write_shard(IMAGE_LABELS, shard, image_labels)

    def all_shards() -> None:
        with ThreadPoolExecutor(THREADS) as pool:
            list(pool.map(store, range(plan.count)))

    all_shards()
    timed = best_wall(all_shards, repeats=repeats)
    size = sum(path.stat().st_size for path in (folder / "run").rglob("*") if path.is_file())
    return {
        "images": len(dataset),
        "threads": THREADS,
        "images/s": len(dataset) / timed.seconds,
        "CPU ms an image": timed.cpu / len(dataset) * 1e3,
        "KB stored an image": size / len(dataset) / 1e3,
        "used by others": timed.others,
    }


def _open(root: Path, rows: int) -> dict[str, object]:
    """In a process of its own; the best of three, as other programs may be busy."""
    command = [sys.executable, "-c", OPEN, str(root)]
    found = [json.loads(subprocess.run(command, check=True, capture_output=True).stdout) for _ in range(3)]
    best = min(found, key=lambda each: each["s"])
    return {
        "images": rows,
        "MB on disk": (root / "index.csv").stat().st_size / 1e6,
        "seconds": best["s"],
        "CPU seconds": best["cpu"],
        "peak MB above the imports": best["grown"],
        "peak MB": best["peak"],
        "us an entry": best["us"],
    }


def write(root: Path, images: int) -> None:
    """A Broden folder: patches of objects, materials and parts, and speckled colours, which compress badly."""
    (root / "images" / "a").mkdir(parents=True)
    rng = np.random.default_rng(0)
    photo = Image.fromarray(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8))
    lines = [HEADER]
    for number in range(images):
        stem = f"a/{number:08}"
        photo.save(root / "images" / f"{stem}.jpg", quality=30)
        for category, numbers in MAPS.items():
            seeds = 200 if category == "color" else 12
            Image.fromarray(_patches(rng, seeds, numbers)).save(root / "images" / f"{stem}_{category}.png")
        lines.append(_line(stem, number))
    (root / "index.csv").write_text("\r\n".join(lines) + "\r\n", encoding="utf-8")
    labels = [
        f"{number},name {number},{category}(10),10,1.0,"
        for category, (first, last) in (MAPS | SCALARS).items()
        for number in range(first, last + 1)
    ]
    table = "\r\n".join(["number,name,category,frequency,coverage,syns", *labels])
    (root / "label.csv").write_text(table + "\r\n", encoding="utf-8")


def write_index(root: Path, rows: int) -> None:
    """Another index.csv, of `rows` images that are not there."""
    with (root / "index.csv").open("w", encoding="utf-8", newline="") as file:
        file.write(HEADER + "\r\n")
        for start in range(0, rows, 10_000):
            numbers = range(start, min(rows, start + 10_000))
            file.write("".join(f"{_line(f'ade20k/ADE_{number:08}', number)}\r\n" for number in numbers))


def _line(stem: str, number: int) -> str:
    """A row; two images in three have two textures, the names are in an order that sorts badly."""
    split = "val" if zlib.crc32(stem.encode()) % 10 > 6 else "train"
    maps = ",".join(f"{stem}_{category}.png" for category in MAPS)
    textures = ";".join(str(1101 + (number + i) % 97) for i in range(1 + (number % 3 > 0)))
    return f"{stem}.jpg,{split},{SIDE},{SIDE},{GRID},{GRID},{maps},{901 + number % 200},{textures}"


def _patches(rng: np.random.Generator, seeds: int, numbers: tuple[int, int]) -> NDArray[np.uint8]:
    """A map in red and green: each pixel has the number of the nearest of some points; one in ten points has none."""
    points = rng.random((seeds, 2)) * GRID
    chosen = rng.integers(numbers[0], numbers[1] + 1, seeds) * (rng.random(seeds) > 0.1)
    rows, columns = np.mgrid[:GRID, :GRID]
    away = (rows.ravel()[:, None] - points[:, 0]) ** 2 + (columns.ravel()[:, None] - points[:, 1]) ** 2
    found = chosen[away.argmin(axis=1)].reshape(GRID, GRID)
    return np.dstack([found % 256, found // 256, np.zeros_like(found)]).astype(np.uint8)
