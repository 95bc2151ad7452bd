"""What was measured in a finished run beside its stages: importance, vouched for, and dropped where it no longer holds.

No stage of the audit makes it: whoever drops it says which command does.
"""

from __future__ import annotations

from collections.abc import Iterable

from microtome.dissect.audit.progress import say
from microtome.storage.places import Place
from microtome.storage.run import Run
from microtome.storage.schema import LayerEntry
from microtome.storage.vouching import tables_key, vouch_for_files, vouched_files

IMPORTANCE = "importance"

Files = dict[str, tuple[int, int]]


def vouch_for_importance(run: Run, layer: LayerEntry) -> None:
    """Record size and CRC-32 of a layer's importance.parquet."""
    vouch_for_files(run.place, _stage(layer), [_table_key(layer)])


def importance_files(run: Run) -> dict[str, Files | None]:
    """By the key of the record: size and CRC-32 of what was measured; None where the record is missing or garbled."""
    found: dict[str, Files | None] = {}
    for layer in _measured(run):
        found[tables_key(_stage(layer))] = vouched_files(run.place, _stage(layer))
    return found


def drop_importance(run: Run, why: str, damaged: Iterable[str] | None = None) -> None:
    """Take importance out of run.json and of the run, and say so: all of it, or where a file is among `damaged`.

    Does not save run.json where there is nothing to drop. The sums of shards stay: those still valid are used again.
    """
    keys = None if damaged is None else set(damaged)
    for layer in _measured(run):
        files = [_table_key(layer), tables_key(_stage(layer))]
        if keys is not None and keys.isdisjoint(files):
            continue
        del run.info["importance"][layer["name"]]
        run.save()
        run.place.delete(files)
        say(
            f"the importance of layer {layer['name']} {why} and is dropped; measure it again with: "
            f"microtome importance {_where(run.place)} --layer {layer['name']}"
        )


def _measured(run: Run) -> list[LayerEntry]:
    return [layer for layer in run.info["layers"] if layer["name"] in run.info.get("importance", {})]


def _stage(layer: LayerEntry) -> str:
    return f"{IMPORTANCE}/{layer['folder']}"


def _table_key(layer: LayerEntry) -> str:
    return f"layers/{layer['folder']}/{IMPORTANCE}.parquet"


def _where(place: Place) -> str:
    return str(place.path or place.url)
