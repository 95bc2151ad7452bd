"""How times are taken, and how they are shown."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, object]


def best_cpu(function: Callable[[], object], *, repeats: int = 7) -> float:
    """Least CPU time of this thread, in seconds, over some repeats after one warm-up.

    CPU time, so that other programs on the machine count as little as possible; the work must be on one thread.
    """
    function()
    times = []
    for _ in range(repeats):
        start = time.thread_time()
        function()
        times.append(time.thread_time() - start)
    return min(times)


@dataclass(frozen=True)
class Timed:
    """How long something took, in seconds, and which share of all cores other programs used meanwhile."""

    seconds: float
    cpu: float
    others: float


def best_wall(function: Callable[[], object], *, repeats: int, tries: int = 12, others: float = 0.05) -> Timed:
    """The fastest of `repeats` runs during which other programs used less than `others` of the cores.

    Where so many do not come about in `tries`, the run that was disturbed least; what is returned says by how much.
    """
    runs: list[Timed] = []
    while len(runs) < tries and sum(run.others < others for run in runs) < repeats:
        busy, cpu, start = busy_seconds(), time.process_time(), time.perf_counter()
        function()
        seconds, own = time.perf_counter() - start, time.process_time() - cpu
        foreign = max(0.0, busy_seconds() - busy - own) / (seconds * (os.cpu_count() or 1))
        runs.append(Timed(seconds, own, foreign))
    quiet = [run for run in runs if run.others < others]
    return min(quiet, key=lambda run: run.seconds) if quiet else min(runs, key=lambda run: run.others)


def busy_seconds() -> float:
    """Seconds that all cores together have worked since the machine was started; 0 where Linux does not say."""
    try:
        with open("/proc/stat", encoding="utf-8") as lines:
            user, nice, system, _idle, _wait, irq, soft = map(int, next(lines).split()[1:8])
    except OSError:
        return 0.0
    return (user + nice + system + irq + soft) / os.sysconf("SC_CLK_TCK")


def machine() -> dict[str, str]:
    """What it was measured on."""
    model = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            model = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), model)
    except OSError:
        pass
    return {"processor": model, "python": platform.python_version(), "system": platform.system()}


def print_table(title: str, rows: Sequence[Row]) -> None:
    """Rows with the same keys, as aligned columns."""
    print(f"\n{title}")
    if not rows:
        return
    names = list(rows[0])
    cells = [names, *[[_shown(row[name]) for name in names] for row in rows]]
    widths = [max(len(line[i]) for line in cells) for i in range(len(names))]
    for line in cells:
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _shown(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
