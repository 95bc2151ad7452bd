"""Which layers of a run have the map that is wanted: vouched for layer by layer, under a key of what it depends on.

A map that is made anew, alone, leaves those of the other layers as they are; a stage that was killed passes over the
layers that are done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from microtome.dissect.audit.job import run_key
from microtome.storage.places import Place
from microtome.storage.run import Run
from microtome.storage.schema import LayerEntry, MapInfo
from microtome.storage.vouching import tables_key, vouch_for_files, vouched_files

STAGE = "map"

Files = dict[str, tuple[int, int]]


def wanted_layers(run: Run) -> list[LayerEntry]:
    """The layers that shall have a map: all where the audit was asked for maps, else those that were given one."""
    if run.info["config"].get("map", False):
        return list(run.info["layers"])
    return [layer for layer in run.info["layers"] if layer["name"] in run.info.get("map", {})]


def map_key(run: Run, layer: LayerEntry, settings: Mapping[str, Any], onto: LayerEntry | None) -> str:
    """A hash of what the map of `layer` depends on: the run, its settings, and the map of `onto` as it now is."""
    parts = [run_key(run), layer["name"], dict(settings), None if onto is None else _recorded_key(run.place, onto)]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def is_mapped(run: Run, layer: LayerEntry, key: str) -> bool:
    """Whether the map of `layer` was made under `key`, and all its files have their sizes."""
    if layer["name"] not in run.info.get("map", {}) or _recorded_key(run.place, layer) != key:
        return False
    files = vouched_files(run.place, _name(layer))
    return files is not None and all(run.place.size(file) == size for file, (size, _) in files.items())


def note_map(run: Run, layer: LayerEntry, info: MapInfo) -> None:
    """Say in run.json how the map of `layer` is made, whose tables are about to be written."""
    run.place.delete([tables_key(_name(layer))])
    run.info.setdefault("map", {})[layer["name"]] = info
    run.save()


def vouch_for_map(run: Run, layer: LayerEntry, files: list[str], key: str) -> None:
    """Record that `files` are the map of `layer`, made under `key`."""
    vouch_for_files(run.place, _name(layer), files, key)


def map_files(run: Run) -> dict[str, Files | None]:
    """By the key of the record: size and CRC-32 of each layer's map; None where the record is missing or garbled."""
    return {
        tables_key(_name(layer)): vouched_files(run.place, _name(layer))
        for layer in run.info["layers"]
        if layer["name"] in run.info.get("map", {})
    }


def forget_maps(run: Run) -> None:
    """Forget that any layer has a map; what lies there is written over or deleted when they are made anew."""
    run.place.delete(tables_key(_name(layer)) for layer in run.info["layers"])


def leave_out_maps(run: Run) -> bool:
    """Take a stage map that is not done out of the run; whether there was one."""
    stage = run.info["stages"].get(STAGE)
    if stage is None or stage["state"] == "done":
        return False
    forget_maps(run)
    del run.info["stages"][STAGE]
    run.info.pop("map", None)
    run.save()
    return True


def _name(layer: LayerEntry) -> str:
    return f"{STAGE}/{layer['folder']}"


def _recorded_key(place: Place, layer: LayerEntry) -> str:
    """The key under which the map of `layer` was made, "" where it has none."""
    try:
        return str(json.loads(place.read(tables_key(_name(layer))))["key"])
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return ""
