"""A page of maps whose truth is known, made of its files alone: groups that one layer mixes and the next one parts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from helpers.runs import HOSTILE, HOSTILE_KEY
from numpy.typing import NDArray

from microtome.reports.maps.encode import (
    Box,
    data_file,
    encode_all,
    encode_bits,
    encode_classes,
    encode_clusters,
    encode_json,
    encode_order,
    encode_top,
    encode_view,
    page_order,
)
from microtome.reports.maps.sprites import COLUMNS, PER_SHEET, TILE, sheet_bytes
from microtome.reports.pages import environment, static_files
from microtome.reports.payload import data_script

LAYERS = ("block1", "block2:a/b")
FOLDERS = ("block1", "block2%3Aa%2Fb")
CLASSES = ("beach", HOSTILE, "harbour", "forest", "street", "kitchen")
GROUPS = len(CLASSES)
UNITS = 8
KEYS_PER_FILE = 8192
COLOURS = np.array([[214, 188, 120], [60, 60, 60], [70, 120, 180], [40, 110, 60], [150, 150, 150], [190, 90, 60]])
UNIT_NAMES = ("sand", HOSTILE, "boat", "tree", "", "", "", "")


@dataclass(frozen=True)
class Planted:
    """The page, and what is true of its points: group (n,), positions in the last layer (n, 2), who has boats (n,)."""

    page: Path
    group: NDArray[np.int64]
    positions: NDArray[np.float32]
    boats: NDArray[np.bool_]
    suspects: list[int]

    @property
    def address(self) -> str:
        """The address of the page."""
        return self.page.as_uri()

    def lit(self, unit: int) -> NDArray[np.intp]:
        """The points that fire unit `unit` at more than half of its maximum."""
        return np.flatnonzero(self.group == unit % GROUPS)


def write_map_page(folder: Path, n: int, *, seed: int = 0, mode: str = "all", units: int = UNITS) -> Planted:
    """Write page, data and static files of `n` points below `folder`."""
    rng = np.random.default_rng(seed)
    angle = 2 * np.pi * np.arange(GROUPS) / GROUPS
    centres = 20 * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    group = rng.integers(0, GROUPS, n)
    noise = np.clip(rng.normal(0, 1, (2, n, 2)), -3, 3)
    last = (centres[group] + 1.5 * noise[0]).astype(np.float32)
    first = (0.15 * centres[group] + 5 * noise[1]).astype(np.float32)
    order = page_order(last)
    group, first, last = group[order], first[order], last[order]
    boats = rng.random(n) < np.where(group == 2, 0.9, 0.05)
    write = _Writer(folder)
    suspects = rng.choice(n, 20, replace=False).tolist()
    named = [{"id": g, "name": f"{CLASSES[g]} (cluster)", "samples": int((group == g).sum())} for g in range(GROUPS)]
    layers = []
    for name, where, positions in zip(LAYERS, FOLDERS, (first, last), strict=True):
        views = {"tsne": positions, "pca": (positions @ np.array([[0.2, 0], [0, 1]])).astype(np.float32)}
        layers.append(_layer(write, name, where, views, group, named, mode, units))
    layers[1]["disagreements"] = [
        {"i": i, "class": CLASSES[group[i]], "neighbors_class": HOSTILE, "agreement": 0.1} for i in suspects
    ]
    manifest = {
        "schema": 1,
        "samples": n,
        "total": n + 5,
        "layers": layers,
        "classes": list(CLASSES),
        "class_file": write.data("map/class", encode_classes(group)),
        "concepts": [
            {"id": 3, "name": "boat", "category": "object", "images": int(boats.sum()),
             "file": write.data("map/concepts/3", encode_bits(boats))},
            {"id": 4, "name": "tree", "category": "object", "images": n // 3,
             "file": write.data("map/concepts/4", encode_bits(rng.random(n) < 0.3))},
            {"id": 9, "name": HOSTILE, "category": "part", "images": n // 2,
             "file": write.data("map/concepts/9", encode_bits(group == 1))},
        ],
        "keys": write.keys(group),
        "order_file": write.data("map/order", encode_order(order)),
        "sprites": write.sprites(group),
    }  # fmt: skip
    (folder / "map" / "manifest.js").write_text(data_script("MICROTOME_MAP", {"manifest": manifest}), encoding="ascii")
    return Planted(_page(folder), group, last, boats, suspects)


class _Writer:
    """Files below the folder of a report."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def data(self, name: str, content: bytes) -> str:
        """Write a data file; returns its address (the folder's percent signs are escaped in it)."""
        path = self.folder / f"{name.replace('%25', '%')}.js"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(data_file(name, content), encoding="ascii")
        return f"{name}.js"

    def keys(self, group: NDArray[np.int64]) -> dict[str, Any]:
        """Keys, classes and splits; point 0 has a hostile key."""
        for chunk, start in enumerate(range(0, len(group), KEYS_PER_FILE)):
            part = group[start : start + KEYS_PER_FILE].tolist()
            rows = [[f"images/{start + at:07d}.jpg", CLASSES[of], "train"] for at, of in enumerate(part)]
            if not chunk:
                rows[0][0] = HOSTILE_KEY
            self.data(f"map/keys/{chunk}", encode_json(rows))
        return {"per": KEYS_PER_FILE, "file": "map/keys/{chunk}.js"}

    def sprites(self, group: NDArray[np.int64]) -> dict[str, Any]:
        """Tiles in the colour of their group; of many points the first sheets are true, the others copies."""
        folder = self.folder / "map" / "sprites"
        folder.mkdir(parents=True)
        shade = np.linspace(1, 0.6, TILE)[None, :, None, None]
        made = b""
        for sheet, start in enumerate(range(0, len(group), PER_SHEET)):
            if sheet < 8:
                colours = COLOURS[group[start : start + PER_SHEET]]
                tiles = np.broadcast_to(colours[:, None, None], (len(colours), TILE, TILE, 3)) * shade
                made = sheet_bytes(tiles.astype(np.uint8))
            (folder / f"{sheet}.webp").write_bytes(made)
        return {"tile": TILE, "columns": COLUMNS, "per": PER_SHEET, "file": "map/sprites/{sheet}.webp"}


def _layer(
    write: _Writer,
    name: str,
    folder: str,
    views: dict[str, NDArray[np.float32]],
    group: NDArray[np.int64],
    named: list[dict[str, Any]],
    mode: str,
    units: int,
) -> dict[str, Any]:
    """The manifest's entry of a layer whose files are written. Unit u fires strongly for group u % GROUPS alone."""
    rng = np.random.default_rng(1)
    where = f"map/{folder.replace('%', '%25')}"
    boxes = {view: Box.around(positions) for view, positions in views.items()}
    top = len(group) // 4
    for unit in range(units):
        weak = rng.random(len(group)) * 0.15
        peaks = np.where(group == unit % GROUPS, 0.75 + weak, weak).astype(np.float32)
        highest = np.sort(np.argsort(-peaks, kind="stable")[:top])
        made = encode_all(peaks, 1.0) if mode == "all" else encode_top(highest, peaks[highest], 1.0)
        write.data(f"{where}/units/{unit}", made)
    middle = [views["tsne"][group == g].mean(axis=0).tolist() for g in range(GROUPS)]
    warning = f"This map should not be believed <{HOSTILE}>." if name == LAYERS[0] else ""
    return {
        "name": name,
        "folder": folder,
        "page": f"layers/{folder.replace('%', '%25')}.html",
        "views": list(views),
        "boxes": {view: box.values() for view, box in boxes.items()},
        "files": {view: write.data(f"{where}/{view}", encode_view(xy, boxes[view])) for view, xy in views.items()},
        "quality": {
            "sample": 10000, "k": 10, "trustworthiness": 0.98, "recall": 0.41, "purity": 0.93, "purity_features": 0.95,
            "warnings": [warning] if warning else [],
        },
        "info": {},
        "clusters": [{**one, "x": x, "y": y} for one, (x, y) in zip(named, middle, strict=True)],
        "cluster_file": write.data(f"{where}/clusters", encode_clusters(group.astype(np.int32))),
        "units": {
            "count": units, "mode": mode, "top": top if mode == "top" else None, "file": f"{where}/units/{{unit}}.js",
            "names": list(UNIT_NAMES[:units]), "maxima": [1.0] * units,
        },
        "disagreements": [],
    }  # fmt: skip


def _page(folder: Path) -> Path:
    """Write map.html and the static files."""
    (folder / "static").mkdir()
    for file in static_files():
        (folder / "static" / file.name).write_bytes(file.read_bytes())
    info = {"model": {"spec": "builtin:scenes-cnn"}, "data": {"spec": "scenes:2000"}, "microtome": "0"}
    layers = [SimpleNamespace(name=name, files=SimpleNamespace(page="#")) for name in LAYERS]
    made = environment().get_template("map.html").render(
        root="", page="map.html", info=info, layers=layers, more_pages=[("Map", "map.html")], untrained=False
    )  # fmt: skip
    page = folder / "map.html"
    page.write_text(made, encoding="utf-8")
    return page
