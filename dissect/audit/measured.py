"""What was measured in a finished run beside its stages: importance and causes, vouched for, and dropped where they no
longer hold.

No stage of the audit makes it: whoever drops it says which command does.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from microtome.dissect.audit.progress import say
from microtome.storage.places import Place
from microtome.storage.run import Run
from microtome.storage.schema import LayerEntry, RunInfo
from microtome.storage.vouching import tables_key, vouch_for_files, vouched_files

IMPORTANCE, CAUSAL = "importance", "causal"
COMMANDS = {IMPORTANCE: "microtome importance", CAUSAL: "microtome rank"}
"""What can be measured (a table of a layer, and a part of run.json), and what measures it."""

_WORDS = {IMPORTANCE: "the importance", CAUSAL: "what the units cause"}

Files = dict[str, tuple[int, int]]


def vouch_for_importance(run: Run, layer: LayerEntry) -> None:
    """Record size and CRC-32 of a layer's importance.parquet."""
    vouch_for(run, layer, IMPORTANCE)


def vouch_for(run: Run, layer: LayerEntry, what: str) -> None:
    """Record size and CRC-32 of what was measured of a layer: IMPORTANCE or CAUSAL."""
    vouch_for_files(run.place, _stage(layer, what), [_table_key(layer, what)])


def measured_files(run: Run, what: str) -> dict[str, Files | None]:
    """By the key of the record: size and CRC-32 of what was measured; None where the record is missing or garbled."""
    found: dict[str, Files | None] = {}
    for layer in _measured(run.info, what):
        found[tables_key(_stage(layer, what))] = vouched_files(run.place, _stage(layer, what))
    return found


def drop_measured(run: Run, why: str, damaged: Iterable[str] | None = None) -> None:
    """Take what was measured out of run.json and of the run, and say so: all of it, or where a file is among `damaged`.

    Does not save run.json where there is nothing to drop. The sums of shards stay: those still valid are used again.
    """
    keys = None if damaged is None else set(damaged)
    for what, command in COMMANDS.items():
        for layer in _measured(run.info, what):
            files = [_table_key(layer, what), tables_key(_stage(layer, what))]
            if keys is not None and keys.isdisjoint(files):
                continue
            _part(run.info, what).pop(layer["name"])
            run.save()
            run.place.delete(files)
            say(
                f"{_WORDS[what]} of layer {layer['name']} {why} and is dropped; measure it again with: "
                f"{command} {_where(run.place)} --layer {layer['name']}"
            )


def without_measured(info: RunInfo) -> None:
    """Take all of it out of run.json alone."""
    info.pop("importance", None)
    info.pop("causal", None)


def _part(info: RunInfo, what: str) -> dict[str, object]:
    return cast("dict[str, object]", cast("dict[str, object]", info).get(what, {}))


def _measured(info: RunInfo, what: str) -> list[LayerEntry]:
    return [layer for layer in info["layers"] if layer["name"] in _part(info, what)]


def _stage(layer: LayerEntry, what: str) -> str:
    return f"{what}/{layer['folder']}"


def _table_key(layer: LayerEntry, what: str) -> str:
    return f"layers/{layer['folder']}/{what}.parquet"


def _where(place: Place) -> str:
    return str(place.path or place.url)
