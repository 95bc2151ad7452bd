"""Is a run what its commits say? Every file that a record vouches for is read and compared by size and CRC-32.

What is looked for: files of shards, states, records, nodes of the merges, tables and the arrays' metadata that are
missing, cut short or altered; shards without a record in a stage that is called done; temporary files of killed
writers. What is found names the stage to be done again and, where there is one, the shard: `repair` does no more.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from microtome.dissect.audit.explained import STAGE as EXPLAIN
from microtome.dissect.audit.explained import explained_files
from microtome.dissect.audit.job import run_key
from microtome.dissect.audit.mapped import STAGE as MAP
from microtome.dissect.audit.mapped import map_files
from microtome.dissect.audit.measured import COMMANDS, measured_files
from microtome.dissect.audit.progress import progress
from microtome.dissect.audit.stages.merge import level_name, level_sizes
from microtome.storage.errors import RunDamagedError
from microtome.storage.files import LEFTOVER_SUFFIX
from microtome.storage.lock import refuse_if_held
from microtome.storage.order import FOLDER, SUFFIX, read_order
from microtome.storage.places import Place
from microtome.storage.readouts import read_readout, readout_key
from microtome.storage.run import Run
from microtome.storage.schema import SHARDED
from microtome.storage.vouching import TABLED, tables_key

REPORT_PAGE = "report/index.html"
READERS = 8
INDEX, GUESS = "index", "guess"

_REWRITTEN = {"samples.parquet": "thresholds"}  # written by an earlier stage as well, and then completed by this one


@dataclass(frozen=True, order=True)
class Node:
    """One commit record: of a shard (`folder` is the stage), of a node of its merge (`STAGE.mergeN`), or of what index
    and guess find out once for the whole run."""

    folder: str
    number: int

    @property
    def stage(self) -> str:
        """The stage that it belongs to."""
        return "capture" if self.folder == GUESS else self.folder.partition(".merge")[0]

    @property
    def is_shard(self) -> bool:
        """Whether it is a shard's."""
        return self.folder in SHARDED

    @property
    def record_key(self) -> str:
        """Where the record lies."""
        return f"commits/{self.folder}/{self.number:06d}.json"

    @property
    def state_key(self) -> str:
        """Where the state lies."""
        return f"commits/{self.folder}/{self.number:06d}.safetensors.zst"


@dataclass(frozen=True)
class Damage:
    """One damaged file: why, the stages that have to be done again for it, and the record that vouches for it.

    No stages: nothing makes it again.
    """

    key: str
    why: str
    stages: tuple[str, ...]
    node: Node | None = None

    @property
    def is_dropped(self) -> bool:
        """Whether a repair drops what is damaged, because no stage of the audit makes it."""
        return len(self.stages) == 1 and self.stages[0] in COMMANDS

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        shard = self.node.number if self.node is not None and self.node.is_shard else None
        return {"file": self.key, "why": self.why, "stage": self.stages[0] if self.stages else None, "shard": shard}


@dataclass(frozen=True)
class Verdict:
    """What was found: damaged files, and temporary files of killed writers (harmless); how much was read."""

    url: str
    damages: tuple[Damage, ...]
    leftovers: tuple[str, ...]
    files: int
    bytes: int
    unfinished: tuple[str, ...] = ()
    repaired: tuple[Damage, ...] = field(default=())

    @property
    def fine(self) -> bool:
        """Whether nothing is damaged."""
        return not self.damages

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {
            "run": self.url,
            "fine": self.fine,
            "damages": [damage.to_dict() for damage in self.damages],
            "repaired": [damage.to_dict() for damage in self.repaired],
            "leftovers": list(self.leftovers),
            "unfinished_stages": list(self.unfinished),
            "files": self.files,
            "bytes": self.bytes,
        }


def verify_run(where: str | Path | Place) -> Verdict:
    """Check every file of the run in `where`; changes nothing.

    Raises RunLockedError while somebody is at work on it, RunDamagedError where run.json itself cannot be trusted.
    """
    run = open_trusted(where)
    refuse_if_held(run.place)
    return check(run)


def open_trusted(where: str | Path | Place) -> Run:
    """Open a run. Where run.json is beyond reading, the error says what is left to do."""
    try:
        return Run.open(where)
    except RunDamagedError as error:
        raise RunDamagedError(f"{error}. {_NO_REPAIR}") from error


_NO_REPAIR = (
    "run.json is what everything else is judged by, so it cannot be repaired from the rest: bring it back from a "
    "copy, or audit again into another --out"
)


def check(run: Run) -> Verdict:
    """Check every file of an open run."""
    sizes = dict(run.place.list())
    key = run_key(run)
    nodes = list(_nodes(run))
    records = dict(_read_records(run.place, nodes, sizes))
    parsed = {node: _parse(node, content) for node, content in records.items()}
    keys = {record.key for record in parsed.values() if record is not None}
    former = run.info["data"].get("growth", {})  # keys that a growing run had, with the shards that stay
    if keys and keys.isdisjoint({key, *former}):
        raise RunDamagedError(
            f"{run.place.url}: run.json does not belong to what was committed under it: it was altered. {_NO_REPAIR}"
        )
    damages: list[Damage] = [*_order(run), *_readouts(run)]
    wanted: list[tuple[str, tuple[int, int], Damage]] = []
    for node in nodes:
        record = parsed.get(node)
        stages = _stages_for(node.stage)
        if node not in records:
            if _is_done(run, node.stage):
                damages.append(Damage(node.record_key, "is missing", stages, node))
        elif record is None:
            damages.append(Damage(node.record_key, "is not readable as a record", stages, node))
        elif record.key == key or (node.folder == "capture" and node.number < former.get(record.key, 0)):
            files = {**record.files, node.state_key: record.state}
            wanted += [(file, there, Damage(file, "", stages, node)) for file, there in files.items()]
        elif record.key not in former:
            damages.append(Damage(node.record_key, "is no record of this run", stages, node))
    for stage, tables in _tables(run).items():
        if tables is None:
            damages.append(Damage(tables_key(stage), "is missing or not readable", _stages_for(stage)))
            continue
        for file, there in tables.items():
            last = _REWRITTEN.get(file, stage)
            if stage == last:  # else the later stage vouches for it, or is about to write it
                wanted.append((file, there, Damage(file, "", _stages_for(stage if file not in _REWRITTEN else INDEX))))
    vouched = [(what, measured_files(run, what)) for what in COMMANDS]
    vouched += [(MAP, map_files(run))] if _is_done(run, MAP) else []
    vouched += [(EXPLAIN, explained_files(run))] if _is_done(run, EXPLAIN) else []
    for stage, found in vouched:
        for record_key, tables in found.items():
            if tables is None:
                damages.append(Damage(record_key, "is missing or not readable", (stage,)))
            wanted += [(file, there, Damage(file, "", (stage,))) for file, there in (tables or {}).items()]
    if _is_done(run, "report") and REPORT_PAGE not in sizes:
        damages.append(Damage(REPORT_PAGE, "is missing", ("report",)))
    damages += _compare(run.place, wanted, sizes)
    return Verdict(
        url=run.place.url,
        damages=tuple(sorted(damages, key=lambda damage: damage.key)),
        leftovers=tuple(_leftovers(run.place)),
        files=len(wanted) + len(records),
        bytes=sum(there[0] for _, there, _ in wanted),
        unfinished=tuple(stage for stage in run.info["stages"] if not _is_done(run, stage)),
    )


@dataclass(frozen=True)
class Record:
    """A commit record that is one: the key of its run, size and CRC-32 of the state and of each file."""

    key: str
    state: tuple[int, int]
    files: Mapping[str, tuple[int, int]]


def read_record(place: Place, node: Node) -> Record | None:
    """The record of a node; None where there is none, or it is not one."""
    try:
        return _parse(node, place.read(node.record_key))
    except FileNotFoundError:
        return None


def _parse(node: Node, content: bytes) -> Record | None:
    try:
        values = json.loads(content)
        if values["shard"] != node.number:
            return None
        files = {str(name): _pair(pair) for name, pair in values["files"].items()}
        return Record(str(values["key"]), _pair(values["state"]), files)
    except (ValueError, LookupError, TypeError, AttributeError):
        return None


def _pair(values: Any) -> tuple[int, int]:
    size, crc = values
    return int(size), int(crc)


def _nodes(run: Run) -> Iterator[Node]:
    """Every record that a finished run has."""
    yield Node(INDEX, 0)
    if not run.keeps_activations:
        yield Node(GUESS, 0)
    for stage in (name for name in SHARDED if name in run.info["stages"]):
        for level, count in enumerate(level_sizes(run.plan.count)):
            yield from (Node(level_name(stage, level), number) for number in range(count))


def _read_records(place: Place, nodes: Iterable[Node], sizes: Mapping[str, int]) -> list[tuple[Node, bytes]]:
    there = [node for node in nodes if node.record_key in sizes]
    with ThreadPoolExecutor(READERS, thread_name_prefix="verify") as readers:
        return list(zip(there, readers.map(lambda node: place.read(node.record_key), there), strict=True))


def _is_done(run: Run, stage: str) -> bool:
    info = run.info["stages"].get(stage)
    return info is not None and info["state"] == "done"


def _tables(run: Run) -> dict[str, dict[str, tuple[int, int]] | None]:
    """What each finished stage vouches for beside its shards; None where that record is missing or garbled."""
    found: dict[str, dict[str, tuple[int, int]] | None] = {}
    for stage in TABLED:
        if _is_done(run, stage):
            try:
                files = json.loads(run.place.read(tables_key(stage)))["files"]
                found[stage] = {str(name): _pair(pair) for name, pair in files.items()}
            except (FileNotFoundError, ValueError, LookupError, TypeError, AttributeError):
                found[stage] = None
    return found


def _order(run: Run) -> Iterator[Damage]:
    """Whether the order of a grown run's samples is what run.json says."""
    digest = run.info["data"].get("order")
    if digest is not None:
        try:
            read_order(run.place, digest)
        except RunDamagedError:
            yield Damage(f"{FOLDER}{digest}{SUFFIX}", "is missing or altered", ())


def _readouts(run: Run) -> Iterator[Damage]:
    """Whether the directions of read-outs are what run.json says."""
    for layer in run.info["layers"]:
        info = layer.get("readout")
        if info is not None and info["kind"] != "encoder":
            try:
                read_readout(run.place, layer["folder"], info["fingerprint"])
            except RunDamagedError:
                yield Damage(readout_key(layer["folder"]), "is missing or altered", ())


def _stages_for(stage: str) -> tuple[str, ...]:
    """The stages that make again what is `stage`'s: the table that index begins, another completes."""
    return (stage, *_REWRITTEN.values()) if stage == INDEX else (stage,)


def _compare(
    place: Place, wanted: list[tuple[str, tuple[int, int], Damage]], sizes: Mapping[str, int]
) -> Iterator[Damage]:
    """The damages among files that should have this size and CRC-32."""

    def judge(item: tuple[str, tuple[int, int], Damage]) -> Damage | None:
        file, (size, crc), damage = item
        why = None
        if file not in sizes:
            why = "is missing"
        elif sizes[file] != size:
            why = f"has {sizes[file]:,} bytes instead of {size:,}"
        elif place.checksum(file) != (size, crc):
            why = "is altered (another CRC-32)"
        shown.advance()
        return None if why is None else Damage(damage.key, why, damage.stages, damage.node)

    with (
        progress("verify", len(wanted), "files") as shown,
        ThreadPoolExecutor(max(READERS, os.cpu_count() or 1), thread_name_prefix="verify") as readers,
    ):
        yield from (damage for damage in readers.map(judge, wanted) if damage is not None)


def _leftovers(place: Place) -> list[str]:
    """Temporary files of killed writers; a bucket has none."""
    if place.path is None:
        return []
    found = place.path.rglob(f"*{LEFTOVER_SUFFIX}")
    return sorted(path.relative_to(place.path).as_posix() for path in found)
