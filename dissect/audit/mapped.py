"""Which layers of a run have the map that is wanted: vouched for layer by layer, under a key of what it depends on.

A map that is made anew, alone, leaves those of the other layers as they are; a stage that was killed passes over the
layers that are done.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from microtome.dissect.audit.job import run_key
from microtome.storage.layer_arrays import Checkpoint
from microtome.storage.places import Place
from microtome.storage.run import Run
from microtome.storage.schema import LayerEntry, MapInfo
from microtome.storage.vouching import tables_key, vouch_for_files, vouched_files

STAGE = "map"

Files = dict[str, tuple[int, int]]


def wanted_layers(run: Run) -> list[LayerEntry]:
    """The layers that shall have a map: all where the audit was asked for maps, else those that were given one.

    Those whose map was left out when the rest of the audit was done have none, until they are given one.
    """
    wanted = set(run.info.get("map", {}))
    if run.info["config"].get("map", False):
        wanted |= set(run.layer_names) - set(run.info.get("maps_left_out", []))
    return [layer for layer in run.info["layers"] if layer["name"] in wanted]


def map_key(run: Run, layer: LayerEntry, settings: Mapping[str, Any], onto: LayerEntry | None) -> str:
    """A hash of what the map of `layer` depends on: the run and its settings, then the map of `onto` as it now is."""
    start = None if onto is None else _recorded_key(run.place, onto)
    return f"{_own_key(run, layer, settings)}{_hash([start])}"


def is_mapped(run: Run, layer: LayerEntry, key: str) -> bool:
    """Whether the map of `layer` was made under `key`, and all its files have their sizes."""
    if layer["name"] not in run.info.get("map", {}) or _recorded_key(run.place, layer) != key:
        return False
    return _is_whole(run, layer)


def is_finished(run: Run, layer: LayerEntry) -> bool:
    """Whether `layer` has a map of the run as it is, whatever it began from."""
    made = run.info.get("map", {}).get(layer["name"])
    if made is None or not _recorded_key(run.place, layer).startswith(_own_key(run, layer, made["settings"])):
        return False
    return _is_whole(run, layer)


def layer_before(run: Run, layer: LayerEntry) -> LayerEntry | None:
    """The last layer before `layer` that has a map: what its own begins from."""
    before = None
    for other in run.info["layers"]:
        if other["name"] == layer["name"]:
            return before
        if other["name"] in run.info.get("map", {}):
            before = other
    return before


def begun_elsewhere(run: Run) -> list[str]:
    """The layers whose map began from something else than it would now, and those whose map follows theirs."""
    made = run.info.get("map", {})
    layers = [layer for layer in run.info["layers"] if layer["name"] in made]
    for number, layer in enumerate(layers):
        key = map_key(run, layer, made[layer["name"]]["settings"], layer_before(run, layer))
        if _recorded_key(run.place, layer) != key:
            return [other["name"] for other in layers[number:]]
    return []


def _is_whole(run: Run, layer: LayerEntry) -> bool:
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


def leave_out_maps(run: Run) -> list[str]:
    """Leave out of the run the maps that are still to be made; returns of which layers they would have been.

    Those that are finished stay, and the stage is done with them; where there are none it is taken out of the run.
    """
    stage = run.info["stages"].get(STAGE)
    if stage is None or stage["state"] == "done":
        return []
    finished = {layer["name"] for layer in run.info["layers"] if is_finished(run, layer)}
    unfinished = [layer for layer in run.info["layers"] if layer["name"] not in finished]
    names = [layer["name"] for layer in unfinished if layer in wanted_layers(run)]
    _delete_maps(run, unfinished)
    run.info["maps_left_out"] = [layer["name"] for layer in unfinished]
    if finished:
        run.set_stage(STAGE, "done", 0.0)
    else:
        del run.info["stages"][STAGE]
        run.save()
    return names


def _delete_maps(run: Run, layers: Iterable[LayerEntry]) -> None:
    """Delete all that there is of the maps of `layers`, finished or not; run.json is not saved."""
    from microtome.dissect.embedding.maps import map_keys

    for layer in layers:
        run.place.delete([tables_key(_name(layer)), *map_keys(layer)])
        Checkpoint(run.place, layer["folder"], "").delete()
        run.info.get("map", {}).pop(layer["name"], None)
    if not run.info.get("map", True):
        del run.info["map"]


def _name(layer: LayerEntry) -> str:
    return f"{STAGE}/{layer['folder']}"


def _own_key(run: Run, layer: LayerEntry, settings: Mapping[str, Any]) -> str:
    """What of a map's key tells the run, the layer and the settings."""
    return _hash([run_key(run), layer["name"], dict(settings)])


def _hash(parts: list[Any]) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def _recorded_key(place: Place, layer: LayerEntry) -> str:
    """The key under which the map of `layer` was made, "" where it has none."""
    try:
        return str(json.loads(place.read(tables_key(_name(layer))))["key"])
    except (FileNotFoundError, ValueError, LookupError, TypeError):
        return ""
