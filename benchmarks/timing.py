"""How times are taken, and how they are shown."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Mapping, Sequence

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
