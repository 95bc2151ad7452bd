"""From a slider to the new picture: what the server needs for one, over HTTP as the page of a generator asks.

Twenty pictures, each with 20 units a little further than before, so that none is known already; the median, with
the questions and answers themselves. The first picture, for which torch is loaded and the generator opened, stands
apart. The browser's share (decoding a PNG and drawing it) is not in it. CPU times are those of all threads; wall times
mean little while other programs use the cores.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from starlette.testclient import TestClient

from microtome.dissect import AuditConfig, run_audit
from microtome.dissect.live.on_demand import GeneratorOnDemand, OnDemand
from microtome.reports.server.app import create_app
from microtome.storage.run import Run

GENERATOR, SEGMENTER, LAYER = "builtin:scenes-gan", "builtin:scenes-segmenter", "block5"
UNITS, MOVES = 20, 20


def run(quick: bool) -> dict[str, Any]:
    """Milliseconds for a picture, and for the areas that follow it."""
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder) / "run"
        run_audit(
            AuditConfig(
                model=GENERATOR, dataset="generated:32", segmenter=SEGMENTER, layers=(LAYER,), out=where, map=False
            )
        )
        opened = Run.open(where)
        app = create_app(
            opened.place, OnDemand(opened), host="127.0.0.1", port=8600, generator=GeneratorOnDemand(opened)
        )
        with TestClient(app, base_url="http://127.0.0.1:8600") as client:
            ask = partial(_asked, client)
            first = [_milliseconds(partial(ask, "generate", 0.0))]
            moves = [_milliseconds(partial(ask, "generate", (at + 1) / MOVES)) for at in range(MOVES)]
            seen = [_milliseconds(partial(ask, "areas", (at + 1) / MOVES)) for at in range(3 if quick else MOVES)]
    return {
        "load before": os.getloadavg()[0],
        f"{GENERATOR}, {UNITS} units of {LAYER}": [
            _row("first picture", first),
            _row("from a slider to the next picture", moves),
            _row("areas of it", seen),
        ],
    }


def _row(question: str, times: list[tuple[float, float]]) -> dict[str, object]:
    wall, cpu = np.array(times).T
    return {
        "question": question,
        "median ms": round(float(np.median(wall))),
        "slowest ms": round(float(wall.max())),
        "median CPU ms": round(float(np.median(cpu))),
    }


def _asked(client: TestClient, what: str, strength: float) -> None:
    edit = {"layer": LAYER, "units": list(range(UNITS)), "values": [0.0] * UNITS, "strength": strength}
    answer = client.post(f"/api/{what}", json={"seed": 0, "edits": [edit]})
    answer.raise_for_status()


def _milliseconds(work: Callable[[], None]) -> tuple[float, float]:
    """Wall and CPU time."""
    begun, used = time.perf_counter(), time.process_time()
    work()
    return 1000 * (time.perf_counter() - begun), 1000 * (time.process_time() - used)
