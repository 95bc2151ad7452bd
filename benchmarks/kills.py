"""Recovery: an audit killed with SIGKILL at random moments, resumed each time, against an undisturbed one.

Every table and every array of the two runs is compared byte by byte.
"""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MODEL = "builtin:scenes-cnn"
LAYERS = "block?"


def run(quick: bool, seed: int | None = None) -> dict[str, Any]:
    """Kill `kills` times (the moments are drawn from `seed`, a fresh one by default), and compare."""
    kills, samples = (3, 300) if quick else (20, 2_000)
    seed = random.SystemRandom().randrange(2**32) if seed is None else seed
    dice = random.Random(seed)
    with tempfile.TemporaryDirectory() as folder:
        calm, rough = Path(folder) / "calm", Path(folder) / "rough"
        started = time.monotonic()
        _start(samples, calm).wait()
        whole = time.monotonic() - started
        rows = [_kill_once(samples, rough, dice.uniform(0.0, 2 * whole / kills)) for _ in range(kills)]
        if _start(samples, rough).wait() != 0:
            raise RuntimeError("the last resumption failed")
        differing = _differences(calm, rough)
        compared = len(_results(calm))
    if differing:
        raise RuntimeError(f"{len(differing)} results differ, such as {differing[:5]}")
    return {"seed": seed, "files compared": compared, "files that differ": 0, "kills": rows}


def _start(samples: int, out: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "microtome.dissect.cli", "audit", MODEL, f"scenes:{samples}", "--layers", LAYERS]
    return subprocess.Popen([*command, "--out", str(out)], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _kill_once(samples: int, out: Path, seconds: float) -> dict[str, object]:
    """Kill the audit `seconds` after it was seen to have written something new (start-up would take every hit)."""
    before = _newest(out)
    process = _start(samples, out)
    while process.poll() is None and _newest(out) == before:
        time.sleep(0.05)
    try:
        process.wait(timeout=seconds)
        return {"after seconds": seconds, "state": "finished by itself", "committed": _committed(out)}
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    return {"after seconds": seconds, "state": "killed", "committed": _committed(out)}


def _newest(out: Path) -> int:
    """When anything in the run was last written, in nanoseconds."""
    watched = [out / "run.json", *out.glob("commits/*"), *out.glob("layers/*")]
    return max((path.stat().st_mtime_ns for path in watched if path.exists()), default=0)


def _committed(out: Path) -> str:
    stages = sorted(out.glob("commits/*"))
    return ", ".join(f"{stage.name} {len(list(stage.glob('*.json')))}" for stage in stages) or "nothing"


def _results(run: Path) -> dict[str, bytes]:
    files = [*run.glob("*.parquet"), *run.glob("layers/**/*.parquet"), *run.glob("arrays.zarr/**/*")]
    return {path.relative_to(run).as_posix(): path.read_bytes() for path in files if path.is_file()}


def _differences(one: Path, other: Path) -> list[str]:
    left, right = _results(one), _results(other)
    return sorted(name for name in left.keys() | right.keys() if left.get(name) != right.get(name))
