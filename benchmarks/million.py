"""An audit of a million images: a tiny network over scenes of 32 pixels by worker processes, its memory over time.

Whatever fits into half an hour is done, and the rest of the capture is extrapolated from its rate, and said so.
`IMAGES=400000 make bench BENCH=million` takes fewer.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn

from microtome.dissect.audit.cores import available_cores
from microtome.storage.places import open_place
from microtome.storage.run import Run
from microtome.storage.runlog import read_log

SIZE = 32
TIME_LIMIT = "28min"
STOPPED = 130


def tiny() -> nn.Module:
    """Two convolutions with 16 and 32 units, random weights."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.ReLU())
    network.preprocess = {"size": SIZE, "mean": [0.5] * 3, "std": [0.25] * 3}  # type: ignore[assignment]
    return network.eval()


def run(quick: bool) -> dict[str, Any]:
    """Seconds of every stage, and resident memory through the night."""
    count = 20_000 if quick else int(os.environ.get("IMAGES", "1000000"))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        command = [sys.executable, "-m", "microtome.dissect.cli", "audit", "benchmarks.million:tiny"]
        command += [f"scenes:{count}?size={SIZE}", "--layers", "1,3", "--out", str(out)]
        command += ["--cluster", "processes", "--workers", str(available_cores()), "--time-limit", TIME_LIMIT]
        code = subprocess.run(command, check=False).returncode
        if code not in (0, STOPPED):
            raise RuntimeError(f"the audit ended with exit code {code}")
        log = list(read_log(open_place(out)))
        stages = Run.open(out).info["stages"]
        shards = Run.open(out).plan.count
        disk = sum(file.stat().st_size for file in out.rglob("*") if file.is_file())
    return {
        "command": " ".join(["microtome", *command[3:]]),
        "samples": count,
        "finished": code == 0,
        "disk MB": disk / 1e6,
        "stages": [_stage(name, info["seconds"], log, shards, count) for name, info in stages.items()],
        "memory": memory_over_time(log),
    }


def _stage(name: str, seconds: float, log: list[dict[str, Any]], shards: int, count: int) -> dict[str, Any]:
    """One row; a stage over shards that did not get through is extrapolated from the share that it did."""
    done = sum(event["kind"] == "shard" and event["stage"] == name for event in log)
    share = min(1.0, done / shards) if done else 1.0
    return {
        "stage": name,
        "seconds": seconds,
        "done": share if seconds else 0.0,
        "seconds for all": seconds / share,
        "images/s": count * share / seconds if seconds else 0.0,
    }


def memory_over_time(log: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Resident MB of all processes in ten equal spans of time: mean and highest of the samples in each."""
    points = [
        (datetime.fromisoformat(event["time"]).timestamp(), (event["rss"] + event["workers"]) / 1e6)
        for event in log
        if event["kind"] == "memory"
    ]
    first, last = points[0][0], points[-1][0]
    spans: list[list[float]] = [[] for _ in range(10)]
    for moment, megabytes in points:
        spans[min(9, int(10 * (moment - first) / max(1e-9, last - first)))].append(megabytes)
    return [
        {"time": f"{10 * i} to {10 * i + 10} %", "mean MB": sum(span) / len(span), "highest MB": max(span)}
        for i, span in enumerate(spans)
        if span
    ]
