"""Which pictures that explain units and classes a run shall have, and which it has: vouched for layer by layer.

A layer's pictures lie in blocks of units (storage/pictures.py), each under a key of all that it depends on: a stage
that was killed passes over the blocks that are there, and a run that is asked for more units keeps those that it has.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from microtome.dissect.audit.job import run_key
from microtome.storage.pictures import block_keys
from microtome.storage.run import Run
from microtome.storage.schema import STAGES, ExplanationsInfo, LayerEntry, StageInfo
from microtome.storage.vouching import tables_key, vouch_for_files, vouched_files

STAGE = "explain"
REPORT = "report"

Files = dict[str, tuple[int, int]]


def wanted_explanations(settings: Mapping[str, Any]) -> ExplanationsInfo:
    """What run.json says of pictures that are still to be made."""
    return ExplanationsInfo(settings=dict(settings), layers={}, classes=None, why="")


def want_explanations(run: Run, settings: Mapping[str, Any]) -> None:
    """Have the stage done in a run that was made without it, or with other settings; its pages are built anew."""
    known = run.info.get("explanations")
    if known is not None and known["settings"] == dict(settings) and STAGE in run.info["stages"]:
        return
    run.info["explanations"] = wanted_explanations(settings)
    pending = {STAGE: StageInfo(state="pending", seconds=0.0)}
    if REPORT in run.info["stages"]:
        pending[REPORT] = StageInfo(state="pending", seconds=run.info["stages"][REPORT]["seconds"])
    stages = {**run.info["stages"], **pending}
    run.info["stages"] = {name: stages[name] for name in STAGES if name in stages}
    run.save()


def leave_out_explanations(run: Run) -> bool:
    """Take the stage out of the run, with all that it has made, where it is not done; returns whether it was not."""
    stage = run.info["stages"].get(STAGE)
    if stage is None or stage["state"] == "done":
        return False
    del run.info["stages"][STAGE]
    run.info.pop("explanations", None)
    run.save()
    folders = [None, *(layer["folder"] for layer in run.info["layers"])]
    records = [tables_key(_record(layer)) for layer in (None, *run.info["layers"])]
    run.place.delete([*records, *(file for folder in folders for file in block_keys(run.place, folder))])
    return True


def block_name(run: Run, layer: LayerEntry | None, settings: Mapping[str, Any], numbers: Sequence[int]) -> str:
    """A hash of what the pictures of these units of `layer` (None: of these classes) depend on."""
    parts: list[Any] = [run_key(run), dict(settings), list(numbers)]
    if layer is not None:
        tables = [f"layers/{layer['folder']}/{name}.parquet" for name in ("patches", "units")]
        parts += [layer["name"], [list(run.place.checksum(table)) for table in tables]]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def vouch_for_explanations(run: Run, layer: LayerEntry | None, files: Sequence[str]) -> None:
    """Record that `files` are the pictures of `layer` (None: of classes); others that lie there are deleted."""
    folder = None if layer is None else layer["folder"]
    run.place.delete(sorted(set(block_keys(run.place, folder)) - set(files)))
    vouch_for_files(run.place, _record(layer), files)


def explained_files(run: Run) -> dict[str, Files | None]:
    """By the key of the record: size and CRC-32 of the pictures; None where the record is missing or garbled."""
    info = run.info.get("explanations")
    if info is None:
        return {}
    layers: list[LayerEntry | None] = [layer for layer in run.info["layers"] if layer["name"] in info["layers"]]
    if info["classes"] is not None:
        layers.append(None)
    return {tables_key(_record(layer)): vouched_files(run.place, _record(layer)) for layer in layers}


def _record(layer: LayerEntry | None) -> str:
    return STAGE if layer is None else f"{STAGE}/{layer['folder']}"
