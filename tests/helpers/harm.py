"""Harm to the files of a run, and what a run, an audit or its words tell from outside."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from pathlib import Path

import psutil
from helpers.commands import Command
from helpers.compare import results

from microtome.storage.places import open_place

STAGE_FILES = {
    "capture": r"arrays\.zarr/|commits/(capture|index)",
    "thresholds": r"commits/thresholds|layers/.+/(thresholds|histogram)|samples|concepts",
    "tally": r"commits/tally|layers/.+/(units|iou)",
    "map": r"commits/map|layers/.+/(map|components|clusters|disagreements|pca)",
    "report": r"commits/patches|layers/.+/patches|report/",
}
"""Which files of a run each stage writes; the first pattern that fits counts."""


def everything(run: Path | str) -> dict[str, bytes]:
    """Tables, arrays and the states of commits: all whose bytes say what an audit found."""
    place = open_place(run)
    states = place.read_many(key for key, _ in place.list("commits/") if key.endswith(".zst"))
    return {**results(run), **states}


def telling(said: str) -> str:
    """The line of a refusal."""
    lines = [line for line in said.splitlines() if line.startswith("microtome: ") or "--repair makes" in line]
    return lines[-1].removeprefix("microtome: ") if lines else ""


def progress_of(run: Path) -> str:
    """Where an audit is: the stage that is not done yet, and how many shards of it are."""
    try:
        stages = json.loads((run / "run.json").read_bytes())["stages"]
    except (FileNotFoundError, ValueError):
        return "before run.json"
    for stage, info in stages.items():
        if info["state"] != "done":
            shards = len(list(run.glob(f"commits/{stage}/0*.json")))
            return f"{stage}, {shards} shards committed" if shards else stage
    return "at the end"


def workers_of(audit: Command) -> list[psutil.Process]:
    """The Dask workers that an audit has started (not what watches over them)."""
    try:
        children = psutil.Process(audit.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    found = []
    for child in children:
        try:
            if "spawn_main" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:
            continue
    return found


def stage_bytes(run: Path) -> dict[str, int]:
    """Bytes on disk that each stage takes, in blocks."""
    found = dict.fromkeys(STAGE_FILES, 0)
    for key, size in open_place(run).list():
        stage = next((stage for stage, pattern in STAGE_FILES.items() if re.match(pattern, key)), None)
        if stage is not None:
            found[stage] += -(-size // 1024) * 1024
    return found


def _flip(path: Path, dice: random.Random) -> None:
    content = bytearray(path.read_bytes())
    content[dice.randrange(len(content))] ^= 1 << dice.randrange(8)
    path.write_bytes(content)


def _cut(path: Path, dice: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: dice.randrange(len(content))])


HARMS: dict[str, Callable[[Path, random.Random], None]] = {
    "byte flipped": _flip,
    "file cut short": _cut,
    "file deleted": lambda path, _: path.unlink(),
}
