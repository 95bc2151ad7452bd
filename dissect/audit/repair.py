"""Mend a damaged run: forget the records of what is damaged, and resume the audit, which makes just that again.

A shard of capture or thresholds that comes out with the same bytes leaves all that was computed from it as it is. If it
does not (another processor or library), the later stages are done again from what lies there now. What the shards
should come out as is noted in the run until the repair is through: one that was broken off is taken up by the next.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from microtome.dissect.audit.mapped import STAGE as MAP
from microtome.dissect.audit.mapped import forget_maps
from microtome.dissect.audit.measured import drop_measured
from microtome.dissect.audit.progress import say
from microtome.dissect.audit.stages.merge import level_name, level_sizes
from microtome.dissect.audit.verify import Damage, Node, Record, Verdict, check, open_trusted, read_record
from microtome.storage.arrays import PRESENCE, SEGMENTS
from microtome.storage.errors import RunDamagedError, UsageError
from microtome.storage.files import json_bytes
from microtome.storage.lock import RunLock
from microtome.storage.places import Place, open_place
from microtome.storage.run import Run
from microtome.storage.schema import SHARDED, STAGES
from microtome.storage.vouching import TABLED, tables_key

NOTE_KEY = "repair.json"

_ARRAYS_OF = {"segment": f"arrays.zarr/{SEGMENTS}/", "tally": f"arrays.zarr/{PRESENCE}/"}
"""Where the arrays of stages lie, but for the capture, which writes all others."""
_ARRAY_FILE = re.compile(r"arrays\.zarr/.+/c/(?P<shard>\d+)(?:/0)*")


def repair_run(where: str | Path | Place, *, workers: int | None = None, cluster: str = "threads") -> Verdict:
    """Verify the run in `where` and do again what is damaged; returns what a second look finds.

    Needs the model and the data of the audit. Raises RunLockedError while somebody is at work on the run, and
    RunDamagedError where run.json itself cannot be trusted.
    """
    place = open_place(where)
    open_trusted(place)
    with RunLock(place, "verify --repair"):
        run = open_trusted(place)
        run.clean()
        first, begun = check(run), _read_note(place)
        _refuse_lost(first)
        if first.fine and begun is None:
            return first
        before = {node: _expected(run, node) for node in _shards(first.damages)} | (begun or {})
        place.write(NOTE_KEY, _note(before))
        _forget(run, first.damages)
    try:
        _resume(place, workers, cluster)
    except UsageError:  # a later stage, to be mended too, cannot make sense of a shard that came out differently
        if not _differing(place, before):
            raise
    differing = _differing(place, before)
    if differing:
        stage = min((node.stage for node in differing), key=STAGES.index)
        later = STAGES[STAGES.index(stage) + 1 :]
        say(f"{stage}: a shard came out differently than before; doing {', '.join(later)} again")
        with RunLock(place, "verify --repair"):
            _begin_again(Run.open(place), later)
        _resume(place, workers, cluster)
    place.delete([NOTE_KEY])
    return replace(check(Run.open(place)), repaired=first.damages)


def _refuse_lost(verdict: Verdict) -> None:
    for damage in verdict.damages:
        if not damage.stages:
            raise RunDamagedError(
                f"{verdict.url}/{damage.key} {damage.why}, and nothing makes it again: bring it back from a copy, or "
                "audit again into another --out"
            )


def _resume(place: Place, workers: int | None, cluster: str) -> None:
    from microtome.dissect.audit.pipeline import resume_audit

    resume_audit(place.url if place.path is None else place.path, workers=workers, cluster=cluster)


def _shards(damages: Iterable[Damage]) -> set[Node]:
    """The shards that will be done again (not nodes of merges: they follow from the shards)."""
    return {damage.node for damage in damages if damage.node is not None and damage.node.is_shard}


def _expected(run: Run, node: Node) -> Record | None:
    """What the shard should come out as: what its record says or, where that is lost, what lies there."""
    record = read_record(run.place, node)
    if record is not None:
        return record
    keys = [node.state_key]
    if node.stage in ("capture", *_ARRAYS_OF):
        found = ((key, _ARRAY_FILE.fullmatch(key)) for key, _ in run.place.list("arrays.zarr/"))
        here = [key for key, match in found if match and int(match["shard"]) == node.number]
        keys += [key for key in here if _array_stage(key) == node.stage]
    there = {key: run.place.checksum(key) for key in keys if run.place.size(key) is not None}
    state = there.pop(node.state_key, None)
    return None if state is None else Record("", state, there)


def _array_stage(key: str) -> str:
    """The stage that writes the array file at `key`."""
    return next((stage for stage, folder in _ARRAYS_OF.items() if key.startswith(folder)), "capture")


def _note(before: Mapping[Node, Record | None]) -> bytes:
    return json_bytes([{"node": asdict(node), "record": record and asdict(record)} for node, record in before.items()])


def _read_note(place: Place) -> dict[Node, Record | None] | None:
    """What the shards of a repair that was broken off should come out as; None where there was none."""
    try:
        found = json.loads(place.read(NOTE_KEY))
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return {Node(**item["node"]): _record(item["record"]) for item in found}


def _record(values: Mapping[str, Any] | None) -> Record | None:
    if values is None:
        return None
    size, crc = values["state"]
    files = {str(name): (int(size), int(crc)) for name, (size, crc) in values["files"].items()}
    return Record(values["key"], (int(size), int(crc)), files)


def _differing(place: Place, before: Mapping[Node, Record | None]) -> list[Node]:
    """The shards that came out otherwise than they were, or than anybody knows."""
    now = {node: read_record(place, node) for node in before}
    return [node for node, record in now.items() if record is not None and not _same(record, before[node])]


def _same(record: Record, expected: Record | None) -> bool:
    return expected is not None and (record.state, dict(record.files)) == (expected.state, dict(expected.files))


def _forget(run: Run, damages: Iterable[Damage]) -> None:
    """Delete what is damaged and what vouches for it (records first), and call its stages pending."""
    found = list(damages)
    drop_measured(run, "was damaged", [damage.key for damage in found])
    nodes = sorted({damage.node for damage in found if damage.node is not None})
    stages = {stage for damage in found for stage in damage.stages}
    for stage in STAGES:
        if stage in stages:
            run.set_stage(stage, "pending", 0.0)
    run.place.delete(node.record_key for node in nodes)
    run.place.delete(tables_key(stage) for stage in stages if stage in TABLED)
    run.place.delete([*(node.state_key for node in nodes), *(damage.key for damage in found)])
    if any(damage.key == tables_key("index") for damage in found):  # then nothing tells which metadata can be trusted
        keys = [key for key, _ in run.place.list("arrays.zarr/") if key.endswith("zarr.json")]
        run.place.delete(keys)


def _begin_again(run: Run, stages: Iterable[str]) -> None:
    """Forget everything that `stages` have done."""
    for stage in (stage for stage in stages if stage in run.info["stages"]):
        run.set_stage(stage, "pending", 0.0)
        if stage in SHARDED:
            for level in range(len(level_sizes(run.plan.count))):
                run.commits(level_name(stage, level), "").clear()
        if stage == MAP:
            forget_maps(run)
